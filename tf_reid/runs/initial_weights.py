"""The weights that a run starts from: on which data and people they were trained, as the card beside their file says.

`python -m tf_reid.pretrain` writes cards. A run keeps what they said when its training started, since files are moved.
Of a file in a run's folder `networks`, the run itself names the identities.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import yaml
from typing_extensions import NotRequired

from tf_reid import config as configuration
from tf_reid.config import ConfigError
from tf_reid.data.records import Records
from tf_reid.settings import Config

ENDING = ".weights.h5"  # of files that Keras reads weights from
KEPT = "initial_weights.yaml"  # in a run's folder: setting -> `History`
KNOWN = "known_identities.json"  # in a run's folder: `Identities` that its weights know
FROM_RUNS = ("classifier", "teacher", "swaps_from")  # settings of methods that name a run whose networks are loaded
IMAGENET = {"name": "imagenet", "terms": "photographs of other owners; for non-commercial research"}
Identities = dict[str, list[int]]  # population -> the numbers of its identities, ascending


class History(TypedDict):
    """What weights were trained on.

    Attributes:
        sets: name and terms of each data set. do_not_pass_on: the names of those whose terms bind.
        known: the identities that they were trained on, or chosen by.
        chosen_by: in place of `known`, where they are a run's that was trained on the same images: the identities by
            which that run may have been chosen.
    """

    sets: list[dict[str, str]]
    do_not_pass_on: list[str]
    known: Identities
    chosen_by: NotRequired[Identities]


def card_file(weights: Path) -> Path:
    """NAME.card.yaml of NAME.weights.h5."""
    return weights.with_name(weights.name.removesuffix(ENDING) + ".card.yaml")


def _card_of(weights: Path) -> Path:
    """The card beside a file, or, of a link without one, beside the file that it leads to."""
    return beside if (beside := card_file(weights)).is_file() else card_file(weights.resolve())


def run_of(place: Path) -> Path:
    """The folder of the run that a setting names: by its folder, or by a file in `networks` or a link to one."""
    return place.resolve().parent.parent if place.is_file() else place


def history(weights: str | None) -> History:
    """What weights were trained on: "imagenet", None for random ones, or a file, by its card or its run.

    Raises:
        ConfigError: the card is damaged, or is that of another file.
    """
    if weights is None:
        return History(sets=[], do_not_pass_on=[], known={})
    if weights == "imagenet":
        return History(sets=[dict(IMAGENET)], do_not_pass_on=[IMAGENET["name"]], known={})
    card = _card_of(Path(weights))
    if not card.is_file():
        without_card = {"name": weights, "terms": "not known: no card stands beside it"}
        return History(sets=[without_card], do_not_pass_on=[weights], known=_known_by(run_of(Path(weights))))
    try:
        written = yaml.safe_load(card.read_text())
        data, known = written["data"], written.get("known_identities", {})  # older cards name no identities
        sha256 = written.get("weights", {}).get("sha256")
        read = History(
            sets=[*data["sets"], *data["initial_weights"]], do_not_pass_on=data["do_not_pass_on"], known=known
        )
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{card} is no card that tf_reid.pretrain wrote; restore it from a copy.") from None
    if sha256 not in (None, hashlib.sha256(Path(weights).read_bytes()).hexdigest()):
        raise ConfigError(
            f"{card} is the card of another file than {weights}, which may know other identities: run tf_reid.pretrain "
            "again, or restore the file that the card is of."
        )
    return read


def _known_by(run: Path) -> Identities:
    """The identities that a run knows, as it noted at its start; an older run has no such note.

    Raises:
        ConfigError: the note is damaged.
    """
    path = run / KNOWN
    if not path.exists():
        return {}
    try:
        return together([json.loads(path.read_text())])
    except (ValueError, AttributeError, TypeError):
        raise ConfigError(f"{path} is damaged; restore it from a copy, or train a new run.") from None


def of_method(method: Mapping[str, Any]) -> dict[str, History]:
    """Setting -> history, of all weights that a method's settings name, and of those that a run there started from.

    Of a run whose networks are loaded, the setting itself says by whom the run may have been chosen. It was trained on
    the same images, see `run_folder.check_classifier`.
    """
    histories = {}
    for key, value in method.items():
        if isinstance(value, str) and key.endswith("weights"):
            histories[key] = history(value)
        elif isinstance(value, str) and key in (*FROM_RUNS, "encoder"):  # which may also be a name
            run = run_of(Path(value))
            histories |= {f"{key}.{inner}": one for inner, one in of_run(run).items()}
            if key in FROM_RUNS and (known := _known_by(run)):
                histories[key] = History(sets=[], do_not_pass_on=[], known={}, chosen_by=known)
    return histories


def of_run(folder: Path) -> dict[str, History]:
    """As `of_method`, of a run that was trained: as it was kept, or by what an older run's settings name.

    Raises:
        ConfigError: what was kept, or a card, is damaged.
    """
    if not (folder / "config.yaml").exists():
        return {}
    if (folder / KEPT).exists():
        return _kept(folder / KEPT)
    return of_method(configuration.read(str(folder / "config.yaml"))["method"])


def _kept(path: Path) -> dict[str, History]:
    try:
        kept = yaml.safe_load(path.read_text())
        return {
            setting: History(
                sets=one["sets"],
                do_not_pass_on=one["do_not_pass_on"],
                known=one["known"],
                chosen_by=one.get("chosen_by", {}),
            )
            for setting, one in kept.items()
        }
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{path} is damaged; restore it from a copy, or train a new run.") from None


def identities(parts: Iterable[Records]) -> Identities:
    """The identities that these records show."""
    known: Identities = {}
    for records in parts:
        for population in records.populations:
            numbers = records.numbers_in(population)
            known = together([known, {population: np.unique(numbers[numbers > 0]).tolist()}])
    return known


def together(parts: Iterable[Mapping[str, Sequence[int]]]) -> Identities:
    """All that one of them has."""
    sets: dict[str, set[int]] = {}
    for part in parts:
        for population, numbers in part.items():
            sets.setdefault(population, set()).update(numbers)
    return {population: sorted(numbers) for population, numbers in sets.items()}


def chooses(config: Config) -> bool:
    """Whether validation identities choose the weights, rates or steps of a run."""
    return config.run.keep == "best" or any(stage.watched for stage in config.stages.values())


def known_after(config: Config, source: Records) -> Identities:
    """The identities that a run knows at its end: those of these training records, and those of its initial weights.

    Validation identities are among them where weights, rates or steps are chosen by them.
    """
    held_out = source.held_out if chooses(config) else {}
    return together([identities([source]), source.known_before, source.chosen_before, held_out])


def known_before(seen: dict[str, Records], histories: Mapping[str, History]) -> dict[str, Records]:
    """Training records whose source also names the identities that the initial weights and their runs know."""
    known = together(one["known"] for one in histories.values())
    chosen_by = together(one.get("chosen_by", {}) for one in histories.values())
    return seen | {"source": replace(seen["source"], known_before=known, chosen_before=chosen_by)}
