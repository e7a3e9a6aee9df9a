"""How a data set is scored, as plain values for its metadata: query, gallery, trials, distractors."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable
from typing import Any

MARKET = {
    "kind": "market",
    "description": "Every query against the gallery without images of the same person and camera.",
}


def random_trials(persons: Iterable[int], test: int, *, trials: int = 10, seed: int = 0) -> list[list[int]]:
    """Returns `trials` seeded draws of `test` persons, each in order of drawing."""
    generator = random.Random(seed)
    persons = sorted(persons)
    return [generator.sample(persons, test) for _ in range(trials)]


def trials_protocol(
    description: str,
    test_persons: list[list[int]],
    *,
    distractors: Iterable[int] = (),
    shots: int | None = None,
    both_directions: bool = False,
) -> dict[str, Any]:
    """Describes a two-camera protocol scored on several draws of test persons and averaged.

    Args:
      description: one sentence.
      test_persons: the ids of each trial's test persons.
      distractors: ids whose gallery-camera images are in every trial's gallery, all of them.
      shots: random images of each test person in the gallery; None means all.
      both_directions: score camera 2 against camera 1 as well and average.
    """
    return {
        "kind": "trials",
        "description": description,
        "query_cameras": [1],
        "gallery_cameras": [2],
        "test_persons": test_persons,
        "distractors": sorted(distractors),
        "shots": shots,
        "both_directions": both_directions,
    }


def assign_splits(records: list, protocol: dict[str, Any]) -> list:
    """Returns the records with train, query and gallery as trial 0 of a two-camera protocol has them.

    Persons of trial 0 are query in a query camera and gallery in a gallery camera, distractors are gallery,
    everyone else is train.
    """
    test, distractors = set(protocol["test_persons"][0]), set(protocol["distractors"])

    def split(record) -> str:
        if record.person in distractors:
            return "gallery"
        if record.person not in test:
            return "train"
        return "query" if record.camera in protocol["query_cameras"] else "gallery"

    return [dataclasses.replace(record, split=split(record)) for record in records]
