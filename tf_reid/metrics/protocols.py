"""From records to trials: which image is a query, which is in the gallery, which may be trained on.

A data set stores its protocol as a dictionary of plain values (it survives JSON), of one of two kinds:

    {"kind": "market"}          the records' own split says it: "train", "query", "gallery"
      optional "multi_query": true     a query's feature is the mean over the images of its identity and camera in the
                                       splits "query" and "multi_query"
      optional "same_camera": true     gallery images of a query's own identity and camera count as well

    {"kind": "trials",          several rounds, each with its own test identities
     "test_identities": [[...], [...]],     one list of identities a round
     "query_cameras": [1], "gallery_cameras": [2],
     "distractors": [0],                    identities that are in every gallery (default: none)
     "shots": 1,                            gallery images kept per identity (default: null, all)
     "shots_per_camera": true,              `shots` of each identity and camera (default: false, of each identity)
     "gallery_files": [[...], [...]],       one list of file names a round: the gallery is exactly these records
                                            (official draws), and gallery_cameras, if given, only say where they are
                                            from; without distractors, shots, repeats and both_directions
     "repeats": 10,                         each round's gallery is drawn so many times (default: 1)
     "two_random_cameras": true,            for every test identity two of its cameras are drawn: one random image of
                                            the first is the query, `shots` of the second are in the gallery;
                                            identities of one camera take no part. Without query_cameras and
                                            gallery_cameras
     "both_directions": true,               once more with the cameras exchanged (default: false)
     "validation_identities": [[...], [...]]}  one list a round, never trained on: settings and thresholds are chosen on
                                               them (default: none)

Either kind may have

     "kept_out": [...],                     other identities that no round trains on (default: none)
     "ignored_cameras": [[3, 2]],           for a query of camera 3, gallery images of camera 2 are left out
     "cmc": "identity"                      CMC by the rank among identities, see `ranking` (default: "image")

`shots` never thins out distractors. Records of the split "multi_query" take no part in kind "trials".
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Trial:
    """One round of evaluation, as indices into the records.

    Attributes:
        name: for a report, such as "trial 3", "trial 3, draw 2" or "trial 3, reversed".
        query, gallery: int64 indices.
        same_camera_ignored: leave out gallery images of the query's own identity and camera.
        number: the round this belongs to, as `train_mask` counts them; its draws and both its directions share it.
        ignored_cameras: pairs of cameras, see above.
        cmc: "image" or "identity".
        averaged: for each query the indices of the images whose mean feature stands for it; None: its own alone.
    """

    name: str
    query: np.ndarray
    gallery: np.ndarray
    same_camera_ignored: bool
    number: int = 0
    ignored_cameras: tuple[tuple[int, int], ...] = ()
    cmc: str = "image"
    averaged: list[np.ndarray] | None = None

    @property
    def query_images(self) -> np.ndarray:
        """Every image that a query's feature is made of, int64 indices."""
        return self.query if self.averaged is None else np.unique(np.concatenate([self.query, *self.averaged]))

    def part(self, queries: np.ndarray, gallery: np.ndarray) -> "Trial":
        """The same trial with some of its queries and of its gallery images (bool masks)."""
        averaged = None if self.averaged is None else [self.averaged[i] for i in np.flatnonzero(queries)]
        return replace(self, query=self.query[queries], gallery=self.gallery[gallery], averaged=averaged)


def trials(
    identity: np.ndarray,
    camera: np.ndarray,
    split: np.ndarray,
    protocol: dict[str, Any],
    seed: int = 0,
    file: np.ndarray | None = None,
) -> list[Trial]:
    """The rounds in which a data set is scored.

    Args:
        identity, camera: int [N].
        split: [N] of "train", "query", "gallery" or "multi_query"; kind "trials" reads only the last.
        protocol: see the top of this file.
        seed: decides every draw, independently for each round, direction and repeat.
        file: [N] names, for protocols with `gallery_files`.

    Raises:
        ValueError: an unknown kind, a missing key, keys that exclude each other, or a round without query or gallery
            images.
    """
    identity, camera, split = np.asarray(identity), np.asarray(camera), np.asarray(split)
    _check(protocol)
    identity = _without_multi_query(identity, split, protocol)
    if protocol["kind"] == "market":
        return [_market(identity, camera, split, protocol)]
    rounds = range(len(protocol["test_identities"]))
    directions = range(2 if protocol.get("both_directions") else 1)
    repeats = range(protocol.get("repeats") or 1)
    return [
        _round(identity, camera, file, protocol, number, direction, repeat, seed)
        for number in rounds
        for direction in directions
        for repeat in repeats
    ]


def _round(identity, camera, file, protocol, number, direction, repeat, seed) -> Trial:
    """One draw of one round, in one direction, of kind "trials"."""
    name = f"trial {number}" + f", draw {repeat}" * bool(repeat) + ", reversed" * direction
    identities = protocol["test_identities"][number]
    # default_rng([a, b, c, 0]) equals default_rng([a, b, c]): draw 0 is that of a protocol without repeated draws.
    random = np.random.default_rng([seed, number, direction, repeat])
    if protocol.get("two_random_cameras"):
        query, gallery = _of_two_cameras_each(name, identity, camera, identities, protocol, random)
        same_camera_ignored = False
    else:
        sides = [protocol["query_cameras"], protocol.get("gallery_cameras")]
        query_cameras, gallery_cameras = reversed(sides) if direction else sides
        query = _images(name, "query", identity, camera, identities, query_cameras)
        if protocol.get("gallery_files"):
            gallery = _named(name, file, protocol["gallery_files"][number])
        else:
            gallery = _of_cameras(name, identity, camera, identities, gallery_cameras, protocol, random)
        # With a camera on both sides a query would otherwise match itself.
        same_camera_ignored = bool(set(camera[query]) & set(camera[gallery]))
    return Trial(name, query, gallery, same_camera_ignored, number, **_rules(protocol))


def _rules(protocol):
    """What a trial takes from the protocol as it is."""
    pairs = protocol.get("ignored_cameras") or ()
    return {"ignored_cameras": tuple(tuple(pair) for pair in pairs), "cmc": protocol.get("cmc", "image")}


def train_mask(identity: np.ndarray, split: np.ndarray, protocol: dict[str, Any], trial: int = 0) -> np.ndarray:
    """Which images may be trained on, so that the round `trial` is a fair test.

    Args:
        identity: int [N]. split: [N] of "train", "query", "gallery" or "multi_query".
        trial: the round's number (`Trial.number`); kind "market" has only round 0.

    Returns:
        bool [N]. Kind "market": the split "train". Kind "trials": all identities but the round's test and
        validation ones, the distractors, and 0 and -1, which name no one person. Either kind leaves out the
        identities that the protocol keeps out.

    Raises:
        ValueError: an unknown kind, a missing key, or a round that does not exist.
    """
    identity, split = np.asarray(identity), np.asarray(split)
    _check(protocol)
    rounds = 1 if protocol["kind"] == "market" else len(protocol["test_identities"])
    if not 0 <= trial < rounds:
        raise ValueError(f"There is no trial {trial}: this protocol has {rounds}, counted from 0.")
    allowed = ~np.isin(identity, protocol.get("kept_out") or [])
    if protocol["kind"] == "market":
        return allowed & (split == "train")
    tested = [*protocol["test_identities"][trial], *(protocol.get("distractors") or [])]
    if protocol.get("validation_identities"):
        tested += protocol["validation_identities"][trial]
    return allowed & (_without_multi_query(identity, split, protocol) > 0) & ~np.isin(identity, tested)


def of_validation(protocol: dict[str, Any], identities: np.ndarray, cameras: np.ndarray) -> dict[str, Any]:
    """The protocol that scores identities which are held out of training, in one round.

    For kind "market" every image of theirs is a query against all their images of other cameras. Kind "trials" keeps
    its cameras, shots, repeats and directions; where files make up the gallery, it is all images of its cameras.

    Args:
        protocol: of the test identities.
        identities, cameras: int, of the validation images.
    """
    rules = {key: protocol[key] for key in ("ignored_cameras", "cmc") if key in protocol}
    test_identities, cameras = [identities.tolist()], cameras.tolist()
    if protocol["kind"] == "market":
        both = {"query_cameras": cameras, "gallery_cameras": cameras}
        return {"kind": "trials", "test_identities": test_identities} | both | rules
    without = {"validation_identities": None, "distractors": None, "gallery_files": None}
    validation = protocol | without | {"test_identities": test_identities}
    if protocol.get("gallery_files") and not protocol.get("gallery_cameras"):
        validation["gallery_cameras"] = [one for one in cameras if one not in protocol["query_cameras"]]
    return validation


def _check(protocol):
    kind = protocol.get("kind")
    if kind not in ("market", "trials"):
        raise ValueError(f"Unknown protocol kind {kind!r}: it must be 'market' or 'trials'.")
    if protocol.get("cmc", "image") not in ("image", "identity"):
        raise ValueError(f"A protocol's 'cmc' is 'image' or 'identity', not {protocol['cmc']!r}.")
    if kind == "market":
        return
    drawn, named = protocol.get("two_random_cameras"), protocol.get("gallery_files")
    needed = {"test_identities": True, "query_cameras": not drawn, "gallery_cameras": not drawn and not named}
    for key in needed:
        if needed[key] and not protocol.get(key):
            raise ValueError(f"A protocol of kind 'trials' needs a list that is not empty under '{key}'.")
    excluded = {
        "two_random_cameras": ("query_cameras", "gallery_cameras", "gallery_files", "both_directions"),
        "gallery_files": ("shots", "distractors", "both_directions"),
    }
    for key, others in excluded.items():
        for other in others:
            if protocol.get(key) and protocol.get(other):
                raise ValueError(f"A protocol cannot have both '{key}' and '{other}'.")
    if named and (protocol.get("repeats") or 1) > 1:
        raise ValueError("A protocol with 'gallery_files' draws nothing that 'repeats' could draw again.")
    for key in ("validation_identities", "gallery_files"):
        if protocol.get(key) and len(protocol[key]) != len(protocol["test_identities"]):
            raise ValueError(
                f"'{key}' has {len(protocol[key])} lists and 'test_identities' {len(protocol['test_identities'])}: "
                "the protocol needs one of each a trial."
            )


def _without_multi_query(identity, split, protocol):
    """The identities; for kind "trials", images of the split "multi_query" become junk (-1)."""
    return identity if protocol["kind"] == "market" else np.where(split == "multi_query", -1, identity)


def _market(identity, camera, split, protocol):
    multi_query = bool(protocol.get("multi_query"))
    parts = {}
    for part in ("query", "gallery") + ("multi_query",) * multi_query:
        parts[part] = np.flatnonzero(split == part)
        if not len(parts[part]):
            present = ", ".join(np.unique(split).tolist()) or "none"
            raise ValueError(
                f"No record has the split '{part}'; the splits there are: {present}. A test identity needs an image in "
                "query and another one in gallery; images of training only need another data set to be scored on."
            )
    averaged = None
    if multi_query:
        images = defaultdict(list)  # of an identity in a camera
        for i in np.concatenate([parts["query"], parts["multi_query"]]).tolist():
            images[identity[i], camera[i]].append(i)
        averaged = [np.array(images[identity[i], camera[i]]) for i in parts["query"]]
    same_camera_ignored = not protocol.get("same_camera")
    return Trial("market", parts["query"], parts["gallery"], same_camera_ignored, averaged=averaged, **_rules(protocol))


def _images(name, part, identity, camera, identities, cameras):
    """The images of these identities in these cameras."""
    found = np.flatnonzero(np.isin(identity, identities) & np.isin(camera, cameras))
    if not len(found):
        raise ValueError(
            f"The {part} of {name} is empty: none of its {len(identities)} identities has an image in cameras "
            f"{list(cameras)}; the cameras there are {np.unique(camera).tolist()}."
        )
    return found


def _of_cameras(name, identity, camera, identities, cameras, protocol, random):
    distractors = protocol.get("distractors") or []
    gallery = _images(name, "gallery", identity, camera, [*identities, *distractors], cameras)
    if not protocol.get("shots"):
        return gallery
    of = [identity[gallery]] + [camera[gallery]] * bool(protocol.get("shots_per_camera"))
    group = np.unique(np.stack(of), axis=1, return_inverse=True)[1].ravel()
    spared = np.isin(identity[gallery], distractors)
    kept = [gallery[spared]]
    for number in np.unique(group[~spared]):
        kept.append(_draw(gallery[group == number], protocol["shots"], random))
    return np.sort(np.concatenate(kept))


def _of_two_cameras_each(name, identity, camera, identities, protocol, random):
    query, gallery = [], [np.flatnonzero(np.isin(identity, protocol.get("distractors") or []))]
    for one in np.unique(identities):
        own = np.flatnonzero(identity == one)
        if len(seen := np.unique(camera[own])) < 2:
            continue
        first, second = random.choice(seen, 2, replace=False)
        query.append(random.choice(own[camera[own] == first]))
        gallery.append(_draw(own[camera[own] == second], protocol.get("shots"), random))
    if not query:
        raise ValueError(
            f"The query of {name} is empty: none of its {len(identities)} identities was seen by two cameras."
        )
    return np.sort(query), np.sort(np.concatenate(gallery))


def _named(name, file, wanted):
    if file is None:
        raise ValueError("A protocol with 'gallery_files' needs the records' file names.")
    found = np.flatnonzero(np.isin(file, wanted))
    if missing := set(wanted) - set(np.asarray(file)[found].tolist()):
        raise ValueError(
            f"The gallery of {name} names {len(missing)} files that no record has, such as {min(missing)}."
        )
    return found


def _draw(indices, shots, random):
    """`shots` of the indices, drawn at random; all where there are fewer, or no number is given."""
    return random.choice(indices, min(shots, len(indices)), replace=False) if shots else indices
