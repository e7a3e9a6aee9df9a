"""Market-1501: 1,501 persons seen by six cameras before a supermarket, with a gallery of detected boxes."""

from __future__ import annotations

import re
from typing import ClassVar

from tfds_builders import DatasetError
from tfds_builders.base import PedestrianBuilder, Record
from tfds_builders.protocols import MARKET
from tfds_builders.sources import Archive, images_in

FOLDERS = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
JUNK = -1  # boxes that show too little of a person to count for or against anybody


class Builder(PedestrianBuilder):
    """Market-1501; a file is named person_c<camera>s<sequence>_<frame>_<box>.jpg."""

    ARCHIVE = Archive(
        folder="Market-1501-v15.09.15",
        files=("Market-1501-v15.09.15.zip",),
        holds=tuple(FOLDERS),
        origin="https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html",
        terms="free for research; cite the paper",
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions
    COUNTS: ClassVar = {
        "bounding_box_train": 12936,
        "query": 3368,
        "bounding_box_test": 19732,
        "bounding_box_test without junk": 15913,
    }

    def read(self, folder):
        records, found = [], {}
        for part, split in FOLDERS.items():
            paths = images_in(folder / part)
            found[part] = len(paths)
            for path in paths:
                match = re.match(r"(-?\d+)_c(\d)", path.name)
                if not match:
                    raise DatasetError(f"{self.name}: the image {path} is not named like 0002_c1s1_000451_03.jpg")
                person, camera = int(match[1]), int(match[2])
                if person != JUNK:
                    records.append(Record(person, camera, f"{part}/{path.name}", path, split))
        found["bounding_box_test without junk"] = sum(record.split == "gallery" for record in records)
        self.check_counts(found)
        return records, {"market": MARKET}
