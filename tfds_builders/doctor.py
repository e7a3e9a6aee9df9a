"""What is wrong with a data set's files, and whether its protocols can be scored: all at once, in plain sentences."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import random
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tfds_builders import DatasetError, builder
from tfds_builders.base import MULTI_QUERY, SPLITS, PedestrianBuilder, Record
from tfds_builders.listing import shown
from tfds_builders.sources import a_few, locate

SAMPLE = 200  # images that are decoded: enough to notice a copy that went wrong, at once


@dataclasses.dataclass
class Diagnosis:
    """What was found, a sentence each.

    Attributes:
      problems: what keeps the data set from being built or scored; none where it is sound.
      notes: what else there is to know: how many images each split and protocol has.
    """

    problems: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def examine(
    spec: str | dict,
    *,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
    every_image: bool = False,
) -> Diagnosis:
    """Looks at a data set's files without building it.

    Args:
      spec, data_dir: as `tfds_builders.builder` takes them.
      manual_dir: as `tfds_builders.prepare` takes it.
      every_image: decode all images, not only a seeded sample of `SAMPLE`.

    Raises:
      DatasetError: the name, variant or an option is not known, or a folder's labels cannot be read.
    """
    diagnosis = Diagnosis()
    with _warnings_as_notes(diagnosis):
        patient = builder(spec, data_dir=data_dir)
    patient.problems = diagnosis.problems
    folder = None
    if patient.archive:
        manual_dir = pathlib.Path(manual_dir or pathlib.Path(patient.data_dir_root) / "downloads/manual")
        folder = locate(patient.archive, manual_dir, patient.report)
        if folder is None:
            return diagnosis
    try:
        with _warnings_as_notes(diagnosis):
            records, protocols = patient.read(folder)
    except DatasetError as error:
        diagnosis.problems.append(str(error).removeprefix(f"{patient.name}: "))
        return diagnosis
    if not records:
        diagnosis.problems.append("there is no image to build it from")
        return diagnosis
    splits = Counter(record.split for record in records)
    diagnosis.notes.append(
        ", ".join(f"{split}: {splits[split]} images" for split in (*SPLITS, MULTI_QUERY) if splits[split])
    )
    distractors = sum(record.identity == 0 for record in records)
    if distractors and not any(re.search(": (a distractor|distractors), which", note) for note in diagnosis.notes):
        what = "1 image is" if distractors == 1 else f"{distractors} images are"
        diagnosis.notes.append(f"{what} of identity 0 and match no query (distractors)")
    matched = {name: look_at_protocol(name, protocol, records, diagnosis) for name, protocol in protocols.items()}
    if not matched[next(iter(protocols))] and (others := [name for name in matched if matched[name]]):
        diagnosis.notes.append(
            f"{len(others)} of {len(matched)} protocols can be scored: set evaluate.protocol to {' or '.join(others)}"
        )
    look_at_images(patient, records, every_image, diagnosis)
    return diagnosis


@contextlib.contextmanager
def _warnings_as_notes(diagnosis: Diagnosis) -> Iterator[None]:
    """Inside, what a folder's builder warns of becomes a note."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    sentences = [str(warning.message) for warning in caught]
    diagnosis.notes += [text.removeprefix("folder: ") for text in sentences if text.startswith("folder: ")]


def look_at_protocol(name: str, protocol: dict[str, Any], records: list[Record], diagnosis: Diagnosis) -> int:
    """Notes how many queries of the first trial have a valid match, and returns it; that none has is a problem."""
    query, gallery = first_trial(records, protocol)
    cameras = defaultdict(set)  # of the gallery images of each person
    for record in gallery:
        cameras[record.identity].add(record.camera)
    ignored, own_counts = protocol.get("ignored_cameras", []), protocol.get("same_camera", False)
    matched = sum(
        any(
            (own_counts or camera != one.camera) and [one.camera, camera] not in ignored
            for camera in cameras[one.identity]
        )
        for one in query
    )
    diagnosis.notes.append(
        f"protocol {name}: its first trial has {len(query)} queries, {matched} of them with a match, "
        f"and {len(gallery)} gallery images"
    )
    if not matched:
        reason = why_nothing_matches(query, gallery, records, protocol)
        if not any(problem.endswith(reason) for problem in diagnosis.problems):  # one protocol has said it for all
            diagnosis.problems.append(f"protocol {name}: no query has a valid match: {reason}")
    return matched


def first_trial(records: list[Record], protocol: dict[str, Any]) -> tuple[list[Record], list[Record]]:
    """Returns the queries and the gallery of a protocol's first trial, where it draws images the first ones."""
    if protocol["kind"] == "market":
        return [r for r in records if r.split == "query"], [r for r in records if r.split == "gallery"]
    records = [record for record in records if record.split != MULTI_QUERY]
    test, shots = set(protocol["test_identities"][0]), protocol.get("shots")
    if protocol.get("two_random_cameras"):
        views = defaultdict(lambda: defaultdict(list))
        for record in records:
            if record.identity in test:
                views[record.identity][record.camera].append(record)
        pairs = [list(cameras.values())[:2] for cameras in views.values() if len(cameras) > 1]
        return [first[0] for first, _ in pairs], [record for _, second in pairs for record in second[:shots]]
    query = [r for r in records if r.identity in test and r.camera in protocol["query_cameras"]]
    if "gallery_files" in protocol:
        files = set(protocol["gallery_files"][0])
        return query, [record for record in records if record.file in files]
    distractors = set(protocol.get("distractors", ()))
    gallery, taken = [], Counter()
    for record in records:
        if record.camera in protocol["gallery_cameras"] and record.identity in test | distractors:
            whose = (record.identity, record.camera if protocol.get("shots_per_camera") else None)
            taken[whose] += 1
            if record.identity in distractors or not shots or taken[whose] <= shots:
                gallery.append(record)
    return query, gallery


def why_nothing_matches(
    query: list[Record], gallery: list[Record], records: list[Record], protocol: dict[str, Any]
) -> str:
    """Returns the reasons why no query finds its person in the gallery."""
    if protocol["kind"] == "market":
        there = f"the splits there are {listed({record.split for record in records})}"
        lacks = {part: f"no image has the split {part}; {there}" for part in ("query", "gallery")}
    elif protocol.get("two_random_cameras"):
        lacks = dict.fromkeys(("query", "gallery"), "no test identity is seen by two cameras")
    else:
        there = f"the cameras there are {listed({record.camera for record in records})}"
        lacks = {
            part: f"no test identity has an image of camera {listed(protocol[f'{part}_cameras'])}; {there}"
            for part in ("query", "gallery")
        }
    reasons = [lacks[part] for part, images in (("query", query), ("gallery", gallery)) if not images]
    if reasons:
        return ", and ".join(dict.fromkeys(reasons))
    cameras = {record.camera for record in query + gallery}
    identities = {record.identity for record in query}, {record.identity for record in gallery}
    if len(cameras) == 1 and not protocol.get("same_camera"):
        reasons.append(
            f"all query and gallery images are of camera {cameras.pop()}, and an image of the query's own identity and "
            "camera does not count"
        )
    if not identities[0] & identities[1]:
        reasons.append(
            "no identity is in both query and gallery: the queries show identities "
            f"{listed(identities[0])}, the gallery {listed(identities[1])}"
        )
    if not reasons:
        reasons.append(
            "all gallery images of a query's identity are of its own camera, or of one that the protocol ignores"
        )
    return ", and ".join(reasons)


def look_at_images(patient: PedestrianBuilder, records: list[Record], every_image: bool, diagnosis: Diagnosis) -> None:
    """Decodes all images or a seeded sample; those that cannot be decoded are a problem."""
    chosen = records if every_image else random.Random(0).sample(records, min(SAMPLE, len(records)))

    def complaint(record: Record) -> str | None:
        try:
            patient.encoded(record)
        except DatasetError as error:
            return str(error).removeprefix(f"{patient.name}: ")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        complaints = dict(zip(chosen, pool.map(complaint, chosen), strict=True))
    bad = sorted(shown(record.file) for record, text in complaints.items() if text)
    looked_at = f"{len(chosen)} of {len(records)} images were decoded"
    if bad:
        first = next(text for text in complaints.values() if text)
        diagnosis.problems.append(f"{looked_at}, and {len(bad)} could not be: {a_few(bad)}; for one, {first}")
    else:
        diagnosis.notes.append(f"{looked_at}, and all of those are sound")


def listed(values) -> str:
    return a_few([str(value) for value in sorted(values)])
