"""MSMT17: 4,101 identities seen by fifteen cameras on a campus, indoors and outdoors, over a month."""

from __future__ import annotations

import re
from typing import ClassVar

from tfds_builders.base import PedestrianBuilder, Record, configs
from tfds_builders.protocols import MARKET
from tfds_builders.sources import Archive, a_few

SPLITS = {"train": "train", "val": "train", "query": "query", "gallery": "gallery"}  # of each list of images
FOLDERS = {
    "v1": {"train": "train", "val": "train", "query": "test", "gallery": "test"},
    "v2": {"train": "mask_train_v2", "val": "mask_train_v2", "query": "mask_test_v2", "gallery": "mask_test_v2"},
}


def archive(version: str) -> Archive:
    return Archive(
        folder=f"MSMT17_{version.upper()}",
        files=(f"MSMT17_{version.upper()}.zip",),
        holds=(*dict.fromkeys(FOLDERS[version].values()), *(f"list_{name}.txt" for name in SPLITS)),
        origin="https://www.pkuvmc.com/dataset.html",
        terms="on request, for research only; cite the paper",
    )


class Builder(PedestrianBuilder):
    """MSMT17; four lists say which images there are: a line is person/person_image_camera_<more>.jpg and the person.

    The third field of a file's name is the camera, of two digits.
    """

    VARIANTS = ("v1", "v1_trainval", "v2", "v2_trainval")
    BUILDER_CONFIGS = configs(VARIANTS)
    ARCHIVE = archive("v1")
    MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions
    COUNTS: ClassVar = {
        "list_train.txt": 30248,
        "list_val.txt": 2373,
        "list_query.txt": 11659,
        "list_gallery.txt": 82161,
    }
    TRAIN_IDENTITIES = 1041

    @property
    def archive(self):
        return archive(self.version_name)

    @property
    def version_name(self) -> str:
        return self.builder_config.variant.removesuffix("_trainval")

    def read(self, folder):
        validation_too = self.builder_config.variant.endswith("_trainval")
        records = []
        for name, part in FOLDERS[self.version_name].items():
            if name != "val" or validation_too:
                records += self.listed(folder / f"list_{name}.txt", folder / part, SPLITS[name])
        last = max((record.identity for record in records if record.split == "train"), default=0)
        if last > self.TRAIN_IDENTITIES:
            self.report(f"the training lists in {folder} name person {last - 1}, beyond {self.TRAIN_IDENTITIES - 1}")
        return records, {"market": MARKET}

    def listed(self, table, folder, split: str) -> list[Record]:
        """Returns the images that one list names."""
        if (text := self.text(table)) is None:
            return []
        lines = [line for line in text.splitlines() if line.strip()]
        found = [re.fullmatch(r"(\S+/\d+_\d+_(\d+)_\S+) (\d+)", line.strip()) for line in lines]
        if strange := [line for line, match in zip(lines, found, strict=True) if not match]:
            example = "0000/0000_000_01_0303morning_0008_0.jpg 0"
            self.report(f"in {table} {len(strange)} of the lines do not read like {example}: {a_few(strange)}")
        found = [match for match in found if match]
        self.check_counts({table.name: len(found)})
        if missing := [match[1] for match in found if not (folder / match[1]).exists()]:
            self.report(f"{folder} lacks {len(missing)} of the images that {table.name} names: {a_few(missing)}")
        # Both train and test count their identities from 0, which stands for a distractor everywhere else.
        first = 1 if split == "train" else 1 + self.TRAIN_IDENTITIES
        return [
            Record(first + int(match[3]), int(match[2]), f"{folder.name}/{match[1]}", folder / match[1], split)
            for match in found
        ]
