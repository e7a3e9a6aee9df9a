"""How a data set is scored, as plain values for its metadata: query, gallery, trials, distractors."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable
from typing import Any

from tfds_builders import DatasetError

MARKET = {
    "kind": "market",
    "description": "Every query against the gallery without images of the same identity and camera.",
}

SAME_CAMERA = {
    "kind": "market",
    "description": "Every query against the whole gallery, images of the query's own identity and camera included.",
    "same_camera": True,
}


def random_trials(identities: Iterable[int], test: int, *, trials: int = 10, seed: int = 0) -> list[list[int]]:
    """Returns `trials` seeded draws of `test` identities, each in order of drawing; DatasetError: there are fewer."""
    generator = random.Random(seed)
    identities = sorted(identities)
    if len(identities) < test:
        raise DatasetError(f"{test} identities are to be drawn, but there are only {len(identities)}")
    return [generator.sample(identities, test) for _ in range(trials)]


def trials_protocol(
    description: str,
    test_identities: list[list[int]],
    *,
    distractors: Iterable[int] = (),
    shots: int | None = None,
    both_directions: bool = False,
) -> dict[str, Any]:
    """Describes a two-camera protocol scored on several draws of test identities and averaged.

    Args:
      description: one sentence.
      test_identities: the ids of each trial's test identities.
      distractors: ids whose gallery-camera images are in every trial's gallery, all of them.
      shots: random images of each test person in the gallery; None means all.
      both_directions: score camera 2 against camera 1 as well and average.
    """
    return {
        "kind": "trials",
        "description": description,
        "query_cameras": [1],
        "gallery_cameras": [2],
        "test_identities": test_identities,
        "distractors": sorted(distractors),
        "shots": shots,
        "both_directions": both_directions,
    }


def random_cameras_protocol(
    description: str,
    test_identities: Iterable[int],
    *,
    validation: Iterable[int] = (),
    kept_out: Iterable[int] = (),
    repeats: int = 10,
) -> dict[str, Any]:
    """Describes a single-shot protocol for many cameras: two are drawn for each test person and repeat.

    Args:
      description: one sentence.
      test_identities: their ids; one image of each is query, one of another camera is gallery.
      validation: ids of those who are held out of training for validation.
      kept_out: ids of others who are not trained on, for they are part of no training set.
      repeats: draws to average over.
    """
    protocol = {
        "kind": "trials",
        "description": description,
        "test_identities": [sorted(test_identities)],
        "two_random_cameras": True,
        "shots": 1,
        "repeats": repeats,
    }
    if validation := sorted(validation):
        protocol["validation_identities"] = [validation]
    if kept_out := sorted(kept_out):
        protocol["kept_out"] = kept_out
    return protocol


def assign_splits(records: list, protocol: dict[str, Any]) -> list:
    """Returns the records with train, query and gallery as trial 0 of a two-camera protocol has them.

    Identities of trial 0 are query in a query camera and gallery in a gallery camera, distractors are gallery,
    everyone else is train.
    """
    test, distractors = set(protocol["test_identities"][0]), set(protocol["distractors"])

    def split(record) -> str:
        if record.identity in distractors:
            return "gallery"
        if record.identity not in test:
            return "train"
        return "query" if record.camera in protocol["query_cameras"] else "gallery"

    return [dataclasses.replace(record, split=split(record)) for record in records]
