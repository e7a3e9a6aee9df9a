"""3DPeS: snapshots of 193 identities on a campus, in sequences of eight outdoor cameras."""

from __future__ import annotations

import dataclasses

from tfds_builders.base import PedestrianBuilder, Record
from tfds_builders.protocols import random_trials
from tfds_builders.sources import Archive

NAME = r"(\d+)_(?:B_)?(\d+)_FRAME_\d+_RGB\.\w+"


class Builder(PedestrianBuilder):
    """3DPeS, the snapshots; a file is named person_sequence_FRAME_number_RGB.bmp, and a sequence counts as a camera."""

    ARCHIVE = Archive(
        folder="3DPeS",
        files=("3DPeS.zip", "3DPeS_ReId_Snap.zip"),
        holds=("3DPeS",),
        origin="http://imagelab.ing.unimore.it/3DPeS",
        terms="free for research; cite the paper",
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions
    IMAGES = (1012, 1011)  # two numbers go around: that of the copy in the collection PETA, that of the papers
    TEST_IDENTITIES = 96
    DRAWS = 10

    def read(self, folder):
        snapshots = folder / "3DPeS"
        if (snapshots / "RGB").is_dir():  # masks lie beside them
            snapshots = snapshots / "RGB"
        records = []
        for path, match in self.images(snapshots, NAME, "100_3_FRAME_26_RGB.bmp"):
            records.append(Record(int(match[1]), int(match[2]), path.name, path))
        if len(records) not in self.IMAGES:
            self.report(
                f"expected {' or '.join(map(str, self.IMAGES))} images in {snapshots}, found {len(records)}: "
                "the copy is incomplete or not the official one"
            )
        sequences = {}
        for record in records:
            sequences.setdefault(record.identity, set()).add(record.camera)
        seen_twice = [identity for identity in sequences if len(sequences[identity]) > 1]
        protocol = {
            "kind": "trials",
            "description": (
                f"Ten random draws of {self.TEST_IDENTITIES} test identities, one image of each against one image of "
                "each from another sequence, drawn ten times."
            ),
            "test_identities": random_trials(seen_twice, self.TEST_IDENTITIES),
            "two_random_cameras": True,
            "shots": 1,
            "repeats": self.DRAWS,
        }
        return _with_splits(records, set(protocol["test_identities"][0])), {"random_96": protocol}


def _with_splits(records: list[Record], tested: set[int]) -> list[Record]:
    """The records with the splits of trial 0: a test identity's first sequence is query, its others are gallery."""
    first = {}
    for record in records:
        first[record.identity] = min(record.camera, first.get(record.identity, record.camera))

    def split(record: Record) -> str:
        if record.identity not in tested:
            return "train"
        return "query" if record.camera == first[record.identity] else "gallery"

    return [dataclasses.replace(record, split=split(record)) for record in records]
