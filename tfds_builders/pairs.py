"""Fixed, seeded sets of triplets, and of pairs made from them, in which the camera gives nothing away."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict

from tfds_builders import DatasetError

PER_CAMERA = 32  # images of a person and camera that take part: more of a long track would say the same


def draw_triplets(records: list, limit: int, *, seed: int = 0, name: str = "") -> list[tuple]:
    """Draws at most `limit` (anchor, positive, negative) triplets, no (anchor, positive) twice.

    Identities take turns, so each has the same share. The positive is of another camera wherever the person has
    one. The negative is of the positive's camera, and of a person who can be a positive as well: neither the
    camera nor the identity alone tells the two apart. Distractors (identity 0) take no part.

    Raises:
      DatasetError: no such triplet exists; `name` says of what.
    """
    generator = random.Random(seed)
    by_identity = defaultdict(list)
    for record in sorted(records, key=lambda record: record.file):
        if record.identity > 0:
            by_identity[record.identity].append(record)
    by_identity = {identity: _thinned(images, generator) for identity, images in by_identity.items()}
    matches = {identity: _matches(images) for identity, images in by_identity.items()}
    matches = {identity: found for identity, found in matches.items() if found}
    if not matches:
        raise DatasetError(f"{name}: no pair of one identity can be drawn, since no identity has two images")

    by_camera = defaultdict(lambda: defaultdict(list))
    for identity in matches:
        for record in by_identity[identity]:
            by_camera[record.camera][identity].append(record)
    others = {camera: sorted(identities) for camera, identities in by_camera.items()}

    turns = []
    for identity in sorted(matches):
        found = [pair for pair in matches[identity] if len(others[pair[1].camera]) > 1]
        turns.append(generator.sample(found, min(len(found), limit)))
    generator.shuffle(turns)
    triplets = []
    for anchor, positive in itertools.islice(_take_turns(turns), limit):
        candidates = others[positive.camera]
        other = generator.choice([identity for identity in candidates if identity != anchor.identity])
        triplets.append((anchor, positive, generator.choice(by_camera[positive.camera][other])))
    if not triplets:
        raise DatasetError(
            f"{name}: no pair of two identities can be drawn, since no camera sees two identities that have two images"
        )
    return triplets


def draw_pairs(records: list, limit: int, *, seed: int = 0, name: str = "") -> list[tuple]:
    """Draws at most `limit` pairs (a, b, same), half of them same: each triplet gives one of either sort."""
    triplets = draw_triplets(records, limit // 2, seed=seed, name=name)
    return [pair for anchor, positive, negative in triplets for pair in ((anchor, positive, 1), (anchor, negative, 0))]


def _thinned(images: list, generator: random.Random) -> list:
    """At most `PER_CAMERA` of a camera's images, drawn at random: their pairs are all held in memory."""
    by_camera = defaultdict(list)
    for record in images:
        by_camera[record.camera].append(record)
    return [
        record
        for own in by_camera.values()
        for record in (own if len(own) <= PER_CAMERA else generator.sample(own, PER_CAMERA))
    ]


def _matches(images: list) -> list[tuple]:
    """All ordered pairs of one person's images, across cameras where there are two cameras or more."""
    pairs = list(itertools.permutations(images, 2))
    return [pair for pair in pairs if pair[0].camera != pair[1].camera] or pairs


def _take_turns(lists: list[list]):
    for turn in itertools.zip_longest(*lists):
        yield from (item for item in turn if item is not None)
