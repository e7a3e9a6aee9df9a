"""A data set's protocols, and which trials and images show identities that a run knows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tf_reid.config import ConfigError
from tf_reid.data.records import Records
from tf_reid.metrics import protocols


def protocol_of(records: Records, name: str | None) -> dict[str, Any]:
    """One of the data set's protocols, its default where no name is given.

    Raises:
        ConfigError: it has no protocol of this name.
    """
    name = name or records.default_protocol
    if name not in records.protocols:
        known = ", ".join(records.protocols)
        raise ConfigError(
            f"evaluate.protocol: {records.scored_name} has no protocol {name!r}; its protocols are {known}."
        )
    return records.protocols[name]


def trials_of(records: Records, protocol: dict[str, Any]) -> list[protocols.Trial]:
    """The trials of a protocol; of joined data sets the first one's images alone take part."""
    identity = np.where(records.is_scored, records.identity, -1)
    return protocols.trials(identity, records.camera, records.split, protocol, file=records.file)


def of_one_camera(records: Records, identity: np.ndarray) -> protocols.Trial:
    """The trial of a protocol by which images of the query's own camera count: an identity's first image is a query.

    Its other images are in the gallery. So no query is compared with itself.

    Args:
        identity: int64 [N] of the records, -1 for images that take no part.
    """
    split = np.where(identity > 0, "gallery", "train")
    known, first = np.unique(identity, return_index=True)
    split[first[known > 0]] = "query"
    (trial,) = protocols.trials(identity, records.camera, split, {"kind": "market", "same_camera": True})
    return replace(trial, name="trial 0")


def without(trained_on: np.ndarray, trials: list[protocols.Trial]) -> list[protocols.Trial]:
    """The trials that need none of these images (bool [N])."""
    used = [np.concatenate([trial.query_images, trial.gallery]) for trial in trials]
    return [trial for trial, images in zip(trials, used, strict=True) if not trained_on[images].any()]


def shown_in(records: Records, training: Records) -> np.ndarray:
    """Which records show an identity of these training records, bool [N]; of joined data sets those of the first."""
    numbers = training.numbers_in(records.population)
    return records.is_scored & np.isin(records.identity, numbers[numbers > 0])


def shows(records: Records, identities: Mapping[str, Sequence[int]]) -> np.ndarray:
    """Which records show one of these identities, which are named by population, bool [N]."""
    return records.is_scored & np.isin(records.identity, identities.get(records.population, []))
