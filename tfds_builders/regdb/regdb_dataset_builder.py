"""RegDB: 412 identities, ten images each of a visible-light and of a thermal camera side by side."""

from __future__ import annotations

import re
from typing import ClassVar

from tfds_builders.base import PedestrianBuilder, Record
from tfds_builders.protocols import assign_splits, trials_protocol
from tfds_builders.sources import Archive

CAMERAS = {"Visible": 1, "Thermal": 2}
MODALITIES = {"Visible": "rgb", "Thermal": "infrared"}


class Builder(PedestrianBuilder):
    """RegDB; the folder of an image is its person, and ten pairs of lists in idx/ say who is tested in a trial."""

    ARCHIVE = Archive(
        folder="RegDB",
        files=("RegDB.zip",),
        holds=(*CAMERAS, "idx"),
        origin="http://dm.dongguk.edu/link.html",
        terms="on request, for research only; cite the paper",
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions
    COUNTS: ClassVar = {"Visible": 4120, "Thermal": 4120}
    TRIALS = 10
    TEST_IDENTITIES = 206

    def read(self, folder):
        records = []
        for part, camera in CAMERAS.items():
            for identity, paths in self.images_of_identities(folder / part, "1 or 412"):
                for path in paths:
                    file = f"{part}/{identity}/{path.name}"
                    records.append(Record(int(identity), camera, file, path, modality=MODALITIES[part]))
        self.check_counts({part: sum(r.camera == camera for r in records) for part, camera in CAMERAS.items()})
        trials = [self.test_identities(folder / "idx", trial) for trial in range(1, self.TRIALS + 1)]
        what = "images of the test identities against all their {} ones, over the ten official trials."
        visible = trials_protocol(f"All visible {what.format('thermal')}", trials)
        thermal = visible | {
            "description": f"All thermal {what.format('visible')}",
            "query_cameras": [CAMERAS["Thermal"]],
            "gallery_cameras": [CAMERAS["Visible"]],
        }
        return assign_splits(records, visible), {"visible_to_thermal": visible, "thermal_to_visible": thermal}

    def test_identities(self, folder, trial: int) -> list[int]:
        """Returns who is tested in a trial, by the paths in its two lists; the labels there begin anew in each."""
        listed = {}
        for part in CAMERAS:
            table = folder / f"test_{part.lower()}_{trial}.txt"
            if (text := self.text(table)) is None:
                return []
            found = re.findall(rf"^{part}/(\d+)/\S+ \d+\s*$", text, re.MULTILINE)
            listed[part] = sorted({int(identity) for identity in found})
            if len(listed[part]) != self.TEST_IDENTITIES:
                self.report(f"{table} names {len(listed[part])} identities, not {self.TEST_IDENTITIES}")
        if listed["Visible"] != listed["Thermal"]:
            self.report(f"the two lists of trial {trial} in {folder} name different identities")
        return listed["Visible"]
