"""The headers of full-size configurations say how to train on several GPUs, by the rules of docs/gpus.md."""

import math
import subprocess

import pytest
import yaml

from tf_reid import config as configuration
from tf_reid.config import SHIPPED, ConfigError
from tf_reid.methods import METHODS
from tf_reid.runs import strategy

SMALL = {"identity", "simpgan", "cmgan", "crossgan", "dgnet", "view_adaptation"}
FULL = sorted(set(configuration.shipped_names()) - SMALL)
FEW_IMAGES = {"crossgan_viper", "view_adaptation_viper"}  # batches that are larger than twice do not fit VIPeR's halves
COUNTED_IN_STEPS = {"warm_up": lambda value, n: round(value / n), "ramp": lambda value, n: value * n}  # of DG-Net


def larger(name, n):
    """n times the batch: setting -> its value, for every setting that changes."""
    config, settings = load(name), {}
    for stage, about in config.stages.items():
        if not about.steps:
            continue
        settings |= {f"stages.{stage}.batch_size": about.batch_size * n, f"stages.{stage}.steps": round(about.steps / n)}
        if about.early_stop:
            settings[f"stages.{stage}.early_stop.check_every"] = round(about.early_stop.check_every / n)
        for player, optimizer in about.optimizers.items():
            factor = n if optimizer.name == "sgd" else math.sqrt(n)
            settings[f"stages.{stage}.optimizers.{player}.learning_rate"] = optimizer.learning_rate * factor
    for key, scaled in COUNTED_IN_STEPS.items():
        if key in config.method:
            settings[f"method.{key}"] = scaled(config.method[key], n)
    return settings


def load(name, overrides=()):
    return configuration.load(name, list(overrides), METHODS)


def text(value):
    """As YAML reads it: 64, 2.0e-3, 1.41e-4."""
    if isinstance(value, int):
        return str(value)
    number, exponent = f"{value:.2e}".split("e")
    return f"{float(number)}e{int(exponent)}"


def in_words_of_bash(settings):
    """`--set` arguments, with braces for settings of one stage and for players of one rate."""
    of_section = {}
    for key, value in settings.items():
        section, _, rest = key.rpartition(".optimizers.")
        if section:  # players of one rate stand together
            player = rest.removesuffix(".learning_rate")
            of_section.setdefault(section, {}).setdefault(text(value), []).append(player)
        else:
            section, rest = (".".join(key.split(".")[:2]), ".".join(key.split(".")[2:]))
            of_section.setdefault(section, {})[rest] = text(value)
    words = []
    for section, own in of_section.items():
        if section.startswith("method."):
            words.append(f"{section}={own['']}")
            continue
        parts = []
        for key, value in own.items():
            if isinstance(value, str):
                parts.append(f"{key}={value}")
            else:
                players = value[0] if len(value) == 1 else f"{{{','.join(value)}}}"
                parts.append(f"optimizers.{players}.learning_rate={key}")
        words.append(f"{section}.{{{','.join(parts)}}}")
    return " ".join(words)


def header(name):
    """The lines of a header that are about GPUs."""
    alike = [n for n in (1, 2, 4, 8) if shared(name, n)]
    numbers = ", ".join(map(str, alike))
    lines = [
        f"# GPUs that share its batches as they are: {numbers}. Two machines: the same, with run.strategy=multi_worker.",
        "# Larger batches by the rules of docs/gpus.md, not tuned:",
    ]
    for n in sizes(name):
        machines = ", or two machines of 4" if n == 8 else ""
        lines.append(f"#   {n} GPUs{machines}: --set {in_words_of_bash(larger(name, n))}")
    return lines


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
        line = f"printf '%s\\n' {in_words_of_bash(larger(name, n))}"
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
