"""The headers of full-size configurations say how to train on several GPUs, by the rules of docs/gpus.md.

PYTHONPATH=. python tests/test_scale_out.py writes these lines anew, after settings have changed.
"""

import math
import subprocess

import pytest
import yaml

from tf_reid import config as configuration
from tf_reid.config import SHIPPED, ConfigError
from tf_reid.methods import METHODS
from tf_reid.runs import strategy

FEW_IMAGES = {
    "crossgan_viper",
    "strong_viper",
    "view_adaptation_viper",
}  # batches that are larger than twice do not fit VIPeR's halves
LARGER = "Larger batches, by the rules of docs/gpus.md and not tuned:"
TWO_MACHINES = "#   two machines: the line for all their GPUs together, and run.strategy=multi_worker"
COUNTED_IN_STEPS = {"warm_up": lambda value, n: round(value / n), "ramp": lambda value, n: value * n}  # of DG-Net


def load(name, overrides=()):
    return configuration.load(name, list(overrides), METHODS)


def of_real_images(name):
    return "synthetic" not in str(load(name).data.source)


FULL = [name for name in configuration.shipped_names() if of_real_images(name)]


def larger(name, n):
    """n times the batch: setting -> its value, for every setting that changes."""
    config, settings = load(name), {}
    for stage, about in config.stages.items():
        if not about.steps:
            continue
        settings |= {
            f"stages.{stage}.batch_size": about.batch_size * n,
            f"stages.{stage}.steps": round(about.steps / n),
        }
        if about.early_stop:
            settings[f"stages.{stage}.early_stop.check_every"] = round(about.early_stop.check_every / n)
        for player, optimizer in about.optimizers.items():
            factor = n if optimizer.name == "sgd" else math.sqrt(n)
            settings[f"stages.{stage}.optimizers.{player}.learning_rate"] = optimizer.learning_rate * factor
    for key, scaled in COUNTED_IN_STEPS.items():
        if key in config.method:
            settings[f"method.{key}"] = scaled(config.method[key], n)
    return settings


def text(value):
    """As YAML reads it: 64, 2.0e-3, 1.41e-4, 1.0."""
    number, exponent = f"{value:.2e}".split("e")
    if isinstance(value, int) or value >= 1.0:
        return str(value)
    return f"{float(number)}e{int(exponent)}"


def arguments(settings):
    """Of `--set`, in Bash: braces hold a stage's settings and the players that have one rate."""
    of_stage, of_method = {}, []
    for key, value in settings.items():
        section, name, *rest = key.split(".")
        if section == "method":
            of_method.append(f"{key}={text(value)}")
        else:
            of_stage.setdefault(name, []).append((rest, text(value)))
    return " ".join([*(f"stages.{name}.{{{stage_arguments(own)}}}" for name, own in of_stage.items()), *of_method])


def stage_arguments(own):
    players, parts = {}, []
    for key, value in own:
        if key[0] == "optimizers":
            players.setdefault(value, []).append(key[1])
        else:
            parts.append(f"{'.'.join(key)}={value}")
    for rate, those in players.items():
        which = those[0] if len(those) == 1 else f"{{{','.join(those)}}}"
        parts.append(f"optimizers.{which}.learning_rate={rate}")
    return ",".join(parts)


def header(name):
    """The lines of a header that are about GPUs."""
    first, *more = [str(n) for n in (1, 2, 4, 8) if shared(name, n)]
    as_it_is = f"{', '.join([first, *more[:-1]])} or {more[-1]} GPUs" if more else f"{first} GPU"
    return [
        f"# On {as_it_is} as it is. {LARGER}",
        *(f"#   {n} GPUs: --set {arguments(larger(name, n))}" for n in sizes(name)),
        TWO_MACHINES,
    ]


def sizes(name):
    return (2,) if name in FEW_IMAGES else (2, 4, 8)


def shared(name, n, overrides=()):
    try:
        strategy.check_batches(load(name, overrides), n)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("name", FULL)
def test_a_header_says_how_to_train_on_several_gpus(name):
    lines = (SHIPPED / f"{name}.yaml").read_text().splitlines()
    assert "\n".join(header(name)) in "\n".join(lines), "\n".join(header(name))


@pytest.mark.parametrize("name", FULL)
def test_what_a_header_sets_is_shared_evenly_and_nothing_else_changes(name):
    before = flat(yaml.safe_load(configuration.dump(load(name))))
    for n in sizes(name):
        line = f"printf '%s\\n' {arguments(larger(name, n))}"
        overrides = subprocess.run(["bash", "-c", line], check=True, capture_output=True, text=True).stdout.split()
        assert shared(name, n, overrides)
        now, expected = flat(yaml.safe_load(configuration.dump(load(name, overrides)))), larger(name, n)
        assert {key for key in now if now[key] != before[key]} == set(expected)
        assert {key: now[key] for key in expected} == pytest.approx(expected, rel=0.005)


def flat(values, prefix=""):
    """Dotted key -> value."""
    found = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def test_the_rules_are_those_of_the_page():
    """Four times the batch: SGD's rate times four, Adam's times two, a quarter of the steps."""
    settings = larger("dgnet_market1501", 4)
    base = load("dgnet_market1501")
    assert settings["stages.joint.batch_size"] == 4 * base.stages["joint"].batch_size
    assert settings["stages.joint.steps"] == base.stages["joint"].steps // 4
    rates = {player: optimizer.learning_rate for player, optimizer in base.stages["joint"].optimizers.items()}
    assert settings["stages.joint.optimizers.heads.learning_rate"] == 4 * rates["heads"]
    assert settings["stages.joint.optimizers.generator.learning_rate"] == 2 * rates["generator"]
    assert settings["method.warm_up"] == base.method["warm_up"] // 4
    assert settings["method.ramp"] == 4 * base.method["ramp"]


def write(name):
    """Put the lines at the end of the header, in place of those that are there."""
    path = SHIPPED / f"{name}.yaml"
    lines = path.read_text().splitlines()
    old = [line for line in lines if LARGER in line or line == TWO_MACHINES or " GPUs: --set " in line]
    lines = [line for line in lines if line not in old]
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    path.write_text("\n".join([*lines[:end], *header(name), *lines[end:]]) + "\n")


if __name__ == "__main__":
    for name in FULL:
        write(name)
