"""A run's folder: its settings, its images, its results; and how a run's model is built again from it.

```
RUN/config.yaml         every setting                  RUN/networks/     weights that finished stages trained
RUN/environment.json    code revision, versions        RUN/pictures/     PNG grids by stage and step
RUN/data.json           the training images            RUN/evaluation/   rank lists, features, ROC curves
RUN/checkpoints/        the last two                   RUN/metrics.json  metrics by representation
RUN/tensorboard/        curves, pictures, settings     RUN/validation.json   stage -> the step whose weights are kept
RUN/training.lock       held by a training             RUN/initial_weights.yaml   what they were trained on
RUN/known_identities.json   of whom its weights know
```
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tf_reid import config as configuration
from tf_reid.config import ConfigError, is_run
from tf_reid.data.records import Records
from tf_reid.files import UNFINISHED, remove_unfinished, write_text
from tf_reid.methods import METHODS
from tf_reid.methods.base import ReIDModel
from tf_reid.runs import checkpoints, initial_weights, lock, strategy
from tf_reid.runs.fingerprints import fingerprint, same_images
from tf_reid.runs.initial_weights import FROM_RUNS
from tf_reid.runs.progress import Progress
from tf_reid.runs.reproducibility import environment
from tf_reid.settings import Config, Data

# Settings that change what is shown, where things lie or how steps are carried out, and no result but by rounding. The
# protocol decides what is trained on, and scores on validation identities may choose what is kept.
CARRIED_OUT = "(checkpoint|log|pictures|evaluate)_every|evaluate_queries|strategy|jit_compile|steps_per_call"
NOT_COMPARED = re.compile(rf"run\.({CARRIED_OUT})|data\.\w+_dir|evaluate\.(?!protocol).*")
SCORED_BY = re.compile(r"evaluate\.(distance|rerank|flip)")  # compared where scores choose during the training
PLACE = re.compile(r"data\.(source|target)(\.(root|csv))?")  # may differ where it selects the same images
# What a training writes before config.yaml, and older versions beside a file: a start that was killed.
STARTED = re.compile(
    rf"(environment|data|known_identities)\.json|initial_weights\.yaml|tensorboard|{re.escape(lock.NAME)}|{re.escape(UNFINISHED)}.+"
)
OLD_BESIDE = re.compile(r"\.(config\.yaml|\w+\.json|.+\.png)\.\d+")


def check_run(folder: Path, config: Config) -> None:
    """Make sure that the folder is empty, or that it holds a run with the same settings.

    The data sets may be named otherwise, as after their folder was moved, where the run knows the content of its
    images: `open_run` compares it.

    Raises:
        ConfigError: the folder holds a run with other settings (the message names them), or other files, or is a file.
    """
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", str(folder)):
        raise ConfigError(f"The name of the run's folder, {str(folder)!r}, has a character that cannot be printed.")
    if folder.is_file():
        raise ConfigError(f"--run {folder} is a file; name a folder.")
    if (folder / "config.yaml").exists():
        before = _settings_of(folder)
        changed = _changed(before, config)
        if changed and not (_has_moved(before, config) and _knows_content(folder)):
            raise _other_settings(folder, changed, "--run")
        return
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if "checkpoints" in names:
        raise ConfigError(
            f"{folder} holds checkpoints, but the config.yaml of their run is missing; restore it, or choose another "
            "--run."
        )
    if not all(STARTED.fullmatch(name) or OLD_BESIDE.fullmatch(name) for name in names):
        raise ConfigError(f"{folder} holds other files and no config.yaml of a run; choose another --run.")


def check_scored_alike(folder: Path, config: Config, option: str) -> None:
    """As `check_run`, of a run whose scores are compared with others': its data and evaluation are named as now, too.

    Args:
        option: the one that names the folder of all these runs, for the error.

    Raises:
        ConfigError: as `check_run`, or the run is of other data or scored otherwise.
    """
    check_run(folder, config)
    if not (folder / "config.yaml").exists():
        return
    differences = _differences(_settings_of(folder).model_dump(), config.model_dump())
    if other := [each for each in differences if re.fullmatch(r"data\.(?!\w+_dir$).*|evaluate\..*", each[0])]:
        raise _other_settings(folder, other, option)


def _other_settings(folder: Path, changed: list[tuple[str, Any, Any]], option: str) -> ConfigError:
    shown = "; ".join(f"{key} was {a!r} and is now {b!r}" for key, a, b in changed)
    return ConfigError(f"{folder} holds a run with other settings ({shown}); choose another {option}, or remove it.")


def _changed(before: Config, config: Config) -> list[tuple[str, Any, Any]]:
    """(key, the run's value, the value now) of every setting that changes results."""
    chooses = before.run.validate_every or config.run.validate_every
    return [
        (key, was, now)
        for key, was, now in _differences(before.model_dump(), config.model_dump())
        if not NOT_COMPARED.fullmatch(key) or (chooses and SCORED_BY.fullmatch(key))
    ]


def _settings_of(folder: Path) -> Config:
    """A run's settings, with the defaults of those that are younger than the run."""
    return configuration.load(str(folder / "config.yaml"), [], METHODS)


def _has_moved(before: Config, config: Config) -> bool:
    """Whether nothing differs from the run's settings but the names and places of its data sets."""
    changed = _changed(before, config)
    return bool(changed) and all(PLACE.fullmatch(key) for key, _, _ in changed) and same_roles(before.data, config.data)


def same_roles(before: Data, now: Data) -> bool:
    """Whether there are as many sources and targets as before, and two that were one data set still are one.

    If the target is a source, the identities that were trained on are left out of the evaluation.
    """
    return _roles(before) == _roles(now)


def _roles(data: Data) -> dict[str, list[int]]:
    """Where each source and target comes first among them all."""
    domains = ("source", "target")
    every = [spec for domain in domains for spec in data.sets_of(domain)]
    return {domain: [every.index(spec) for spec in data.sets_of(domain)] for domain in domains}


def _knows_content(folder: Path) -> bool:
    trained_on = _trained_on(folder)
    return bool(trained_on) and all("content" in of_domain for of_domain in trained_on.values())


def open_run(folder: Path, config: Config, seen: dict[str, Records]) -> None:
    """Create the run's folder, or make sure that it holds a run with the same settings and training images.

    What a killed training left half-written is removed; where the images have moved, config.yaml gets their new place.

    Args:
        seen: the training images of `source` and `target`.

    Raises:
        ConfigError: as `check_run` and `check_data`.
    """
    check_run(folder, config)
    if (folder / "config.yaml").exists():
        check_data(folder, seen)
        _remove_leftovers(folder)
        if _has_moved(_settings_of(folder), config):
            before = _settings_of(folder)
            print(f"The images have another place than when {folder} was started, and are the same: it goes on.")
            data = before.data.model_copy(update={"source": config.data.source, "target": config.data.target})
            write_text(folder / "config.yaml", configuration.dump(before.model_copy(update={"data": data})))
        return
    _remove_leftovers(folder)
    write_text(folder / "environment.json", json.dumps(environment(), indent=2) + "\n")
    fingerprints = {domain: fingerprint(records) for domain, records in seen.items()}
    write_text(folder / "data.json", json.dumps(fingerprints, indent=2) + "\n")
    if "source" in seen:
        known = initial_weights.known_after(config, seen["source"])
        write_text(folder / initial_weights.KNOWN, json.dumps(known) + "\n")
    (folder / initial_weights.KEPT).unlink(missing_ok=True)  # of a start that was killed
    if histories := initial_weights.of_method(config.method):
        write_text(folder / initial_weights.KEPT, yaml.safe_dump(histories, sort_keys=False, width=110))
    write_text(folder / "config.yaml", configuration.dump(config))


def _remove_leftovers(folder: Path) -> None:
    for part in (folder, *(folder / name for name in ("pictures", "pages", "evaluation"))):
        remove_unfinished(part)
        for path in part.glob(".*"):
            if OLD_BESIDE.fullmatch(path.name):
                path.unlink()
    checkpoints.clean(folder / "checkpoints")
    remove_unfinished(folder / "networks", checkpoints.BESIDE, one_writer=True)


def check_data(folder: Path, seen: dict[str, Records]) -> None:
    """Make sure that a run's settings still select the images that it was trained on, wherever they lie now.

    Raises:
        ConfigError: a data set has changed, so the run could be scored on images that it was trained on.
    """
    for domain, before in _trained_on(folder).items():
        now = fingerprint(seen[domain])
        if not same_images(before, now):
            raise ConfigError(
                f"{folder} was trained on {before['images']} images of {before['identities']} identities of "
                f"{before['name']}, but data.{domain} now selects {now['images']} images of {now['identities']} "
                f"identities of {now['name']}, or other ones: the data set has changed. Restore it, or train a new run "
                f"with another --run. If its folder was moved, name the new one with --set data.{domain}=..."
            )


def _trained_on(folder: str | Path) -> dict[str, dict[str, Any]]:
    """A run's data.json: source or target -> the fingerprint of its training images; empty where there is none.

    Raises:
        ConfigError: it is damaged.
    """
    path = Path(folder) / "data.json"
    if not path.exists():
        return {}
    try:
        trained_on = json.loads(path.read_text())
        if not all(of_domain.keys() >= {"name", "images", "identities", "sha256"} for of_domain in trained_on.values()):
            raise ValueError("a value is missing")
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged ({error}); restore it from a copy, or train a new run.") from None
    return trained_on


def load_run(folder: Path, overrides: Sequence[str] = ()) -> Config:
    """A run's settings, without the weight files that its networks started from: its checkpoint has the weights.

    Raises:
        ConfigError: there is no run in this folder.
    """
    path = folder / "config.yaml"
    if not path.exists():
        beneath = sorted(str(inside) for inside in folder.glob("*") if is_run(inside))
        if beneath:
            other = f"there are runs in {', '.join(beneath)}"
        elif folder.exists() and (folder.is_file() or any(folder.iterdir())):
            other = "name the folder of a run"
        else:
            other = f"train one with --run {folder}"
        raise ConfigError(f"There is no run in {folder} (no config.yaml); {other}.")
    method = configuration.read(str(path)).get("method")
    keys = map(str, method) if isinstance(method, dict) else ()  # what else there is, `load` refuses
    started_from = [f"method.{key}=null" for key in keys if key in FROM_RUNS or key.endswith("weights")]
    return configuration.load(str(path), [*started_from, *overrides], METHODS)


def check_classifier(config: Config, source: Records) -> None:
    """Make sure that a classifier loaded from another run was trained on this run's labelled images, at their size.

    Raises:
        ConfigError: that run was trained on other images.
    """
    for key in FROM_RUNS:
        run = config.method.get(key)
        if run and _trained_on(initial_weights.run_of(Path(run))):
            _check_same_images(key, initial_weights.run_of(Path(run)), config, source)


def _check_same_images(key: str, run: Path, config: Config, source: Records) -> None:
    theirs, ours = _trained_on(run)["source"], fingerprint(source)
    if not same_images(theirs, ours):
        raise ConfigError(
            f"method.{key}: {run} was trained on {theirs['images']} images of {theirs['identities']} identities of "
            f"{theirs['name']}, but this run trains on {ours['images']} images of {ours['identities']} identities of "
            f"{ours['name']}, or other ones; name a run of the same source, split and trial."
        )
    size = load_run(run).data.image_size
    if size != config.data.image_size:
        raise ConfigError(
            f"method.{key}: {run} was trained at data.image_size={size}, but this run has {config.data.image_size}."
        )


def build_model(config: Config, identities: int) -> ReIDModel:
    """The configured method with all its networks and optimizers; call it inside the strategy's scope.

    Args:
        identities: how many identities the classifier tells apart.
    """
    arguments = {key: value for key, value in config.method.items() if key != "name"}
    model = METHODS[config.method["name"]](config.data.image_size, identities, config.run.seed, **arguments)
    run = config.run
    compiled = strategy.compiles(config)
    model.compile(config.stages, jit_compile=compiled, precision=run.precision, steps_per_call=run.steps_per_call)
    return model


def restored(folder: Path, config: Config) -> tuple[ReIDModel, Progress]:
    """A run's model with the weights of its last checkpoint, and its progress.

    Raises:
        ConfigError: there is no checkpoint yet, or none can be read.
    """
    if trained_on := _trained_on(folder):
        model = build_model(config, trained_on["source"]["identities"])
        progress = Progress(folder, model)
        if progress.restore(partially=True):
            return model, progress
    elif checkpoints.numbers(folder / "checkpoints"):
        raise ConfigError(f"{folder / 'data.json'} is missing; restore it from a copy, or train a new run.")
    raise ConfigError(f"{folder} has no checkpoint yet; train it with --run {folder}.")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for key in dict.fromkeys([*old, *new]):
        was, now = old.get(key), new.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _differences(was, now, f"{prefix}{key}.")
        elif was != now:
            yield f"{prefix}{key}", was, now
