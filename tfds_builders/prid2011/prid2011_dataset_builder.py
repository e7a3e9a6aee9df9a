"""PRID 2011, single shot: 385 identities in camera a, 749 in camera b, the first 200 of them the same."""

from __future__ import annotations

from typing import ClassVar

from tfds_builders.base import PedestrianBuilder, Record
from tfds_builders.protocols import assign_splits, random_trials, trials_protocol
from tfds_builders.sources import Archive

CAMERAS = {"cam_a": 1, "cam_b": 2}


class Builder(PedestrianBuilder):
    """PRID 2011, single shot; a file is named person_0001.png."""

    ARCHIVE = Archive(
        folder="prid_2011",
        files=("prid_2011.zip",),
        holds=tuple(f"single_shot/{part}" for part in CAMERAS),
        origin="https://www.tugraz.at/index.php?id=17766",
        terms="free for research; cite the paper",
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions
    COUNTS: ClassVar = {"cam_a": 385, "cam_b": 749}
    SHARED = 200  # identities up to this number are the same in both cameras
    TEST_IDENTITIES = 100

    def read(self, folder):
        records, found = [], {}
        for part, camera in CAMERAS.items():
            images = self.images(folder / "single_shot" / part, r"person_(\d+)\.\w+", "person_0001.png")
            found[part] = len(images)
            for path, match in images:
                identity = int(match[1])
                # Beyond the shared identities a number means somebody else in each camera: camera b's are the
                # gallery's distractors, camera a's have no part in the protocol.
                if identity <= self.SHARED or part == "cam_b":
                    records.append(Record(identity, camera, f"{part}/{path.name}", path))
        self.check_counts(found)
        seen = {record.identity for record in records}
        protocol = trials_protocol(
            "Ten random halves of the 200 shared identities, camera a against camera b with all its others.",
            random_trials(range(1, self.SHARED + 1), self.TEST_IDENTITIES),
            distractors=[identity for identity in seen if identity > self.SHARED],
            shots=1,
        )
        return assign_splits(records, protocol), {"split_100": protocol}
