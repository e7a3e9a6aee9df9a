"""From records to trials: which image is a query, which is in the gallery, which may be trained on.

A data set stores its protocol as a dictionary of plain values (it survives JSON), of one of two kinds:

    {"kind": "market"}          the records' own split says it: "train", "query", "gallery"

    {"kind": "trials",          several rounds, each with its own test persons
     "test_persons": [[...], [...]],        one list of ids a round
     "query_cameras": [1], "gallery_cameras": [2],
     "distractors": [0],                    ids that are in every gallery (default: none)
     "shots": 1,                            gallery images kept per person (default: null, all)
     "both_directions": true,               once more with the cameras' parts exchanged (default: false)
     "validation_persons": [[...], [...]]}  one list a round, never trained on (default: none)

`shots` never thins out distractors.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Trial:
    """One round of evaluation, as indices into the records.

    Attributes:
        name: for a report, such as "trial 3" or "trial 3, reversed".
        query, gallery: int64 indices.
        same_camera_ignored: leave out gallery images of the query's own person and camera.
        number: the round this belongs to, as `train_mask` counts them; both directions of a round share it.
    """

    name: str
    query: np.ndarray
    gallery: np.ndarray
    same_camera_ignored: bool
    number: int = 0


def trials(person, camera, split, protocol, seed=0):
    """The rounds in which a data set is scored.

    Args:
        person, camera: int [N]. split: [N] of "train", "query" or "gallery"; kind "trials" ignores it.
        protocol: see the top of this file.
        seed: decides which gallery images `shots` keeps, independently for each round and direction.

    Returns:
        list of Trial.

    Raises:
        ValueError: an unknown kind, a missing key, or a round without query or gallery images.
    """
    person, camera, split = np.asarray(person), np.asarray(camera), np.asarray(split)
    _check(protocol)
    if protocol["kind"] == "market":
        query, gallery = np.flatnonzero(split == "query"), np.flatnonzero(split == "gallery")
        for part, indices in (("query", query), ("gallery", gallery)):
            if not len(indices):
                present = ", ".join(np.unique(split).tolist()) or "none"
                raise ValueError(f"No record has the split '{part}'; the splits there are: {present}.")
        return [Trial("market", query, gallery, same_camera_ignored=True)]

    directions = [(protocol["query_cameras"], protocol["gallery_cameras"])]
    if protocol.get("both_directions", False):
        directions.append((protocol["gallery_cameras"], protocol["query_cameras"]))
    # With a camera on both sides a query would otherwise find itself.
    same_camera_ignored = bool(set(protocol["query_cameras"]) & set(protocol["gallery_cameras"]))
    distractor = np.isin(person, protocol.get("distractors") or [])
    found = []
    for number, persons in enumerate(protocol["test_persons"]):
        tested = np.isin(person, persons)
        for direction, (query_cameras, gallery_cameras) in enumerate(directions):
            name = f"trial {number}" + (", reversed" if direction else "")
            query = np.flatnonzero(tested & np.isin(camera, query_cameras))
            gallery = np.flatnonzero((tested | distractor) & np.isin(camera, gallery_cameras))
            for part, indices, cameras in (
                ("query", query, query_cameras),
                ("gallery", gallery, gallery_cameras),
            ):
                if not len(indices):
                    raise ValueError(
                        f"The {part} of {name} is empty: none of its {len(persons)} persons has an image in "
                        f"cameras {list(cameras)}; the cameras there are {np.unique(camera).tolist()}."
                    )
            if protocol.get("shots"):
                random = np.random.default_rng([seed, number, direction])
                gallery = _draw(gallery, person[gallery], distractor[gallery], protocol["shots"], random)
            found.append(Trial(name, query, gallery, same_camera_ignored, number))
    return found


def train_mask(person, split, protocol, trial=0):
    """Which images may be trained on, so that the round `trial` is a fair test.

    Args:
        person: int [N]. split: [N] of "train", "query" or "gallery".
        trial: the round's number (`Trial.number`); kind "market" has only round 0.

    Returns:
        bool [N]. Kind "market": the split "train". Kind "trials": all persons but the round's test and
        validation persons, the distractors, and the ids 0 and −1, which name no one person.

    Raises:
        ValueError: an unknown kind, a missing key, or a round that does not exist.
    """
    person, split = np.asarray(person), np.asarray(split)
    _check(protocol)
    rounds = 1 if protocol["kind"] == "market" else len(protocol["test_persons"])
    if not 0 <= trial < rounds:
        raise ValueError(f"There is no trial {trial}: this protocol has {rounds}, counted from 0.")
    if protocol["kind"] == "market":
        return split == "train"
    kept_out = [*protocol["test_persons"][trial], *(protocol.get("distractors") or [])]
    if protocol.get("validation_persons"):
        kept_out += protocol["validation_persons"][trial]
    return (person > 0) & ~np.isin(person, kept_out)


def _check(protocol):
    kind = protocol.get("kind")
    if kind not in ("market", "trials"):
        raise ValueError(f"Unknown protocol kind {kind!r}: it must be 'market' or 'trials'.")
    if kind == "market":
        return
    for key in ("test_persons", "query_cameras", "gallery_cameras"):
        if not protocol.get(key):
            raise ValueError(f"A protocol of kind 'trials' needs a list that is not empty under '{key}'.")
    validation = protocol.get("validation_persons")
    if validation and len(validation) != len(protocol["test_persons"]):
        raise ValueError(
            f"'validation_persons' has {len(validation)} lists and 'test_persons' "
            f"{len(protocol['test_persons'])}: the protocol needs one of each a trial."
        )


def _draw(indices, persons, distractor, shots, random):
    """`shots` of each person's indices, drawn at random (all where there are fewer), in record order.

    Distractors all stay.
    """
    kept = [indices[distractor]]
    for person in np.unique(persons[~distractor]):
        own = indices[persons == person]
        kept.append(random.choice(own, min(shots, len(own)), replace=False))
    return np.sort(np.concatenate(kept))
