"""The layout and the protocols of Market-1501, which DukeMTMC-reID shares."""

from __future__ import annotations

from typing import ClassVar

from tfds_builders.base import PedestrianBuilder, Record
from tfds_builders.protocols import MARKET, random_cameras_protocol, random_trials

FOLDERS = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
JUNK = -1  # boxes that show too little of a person to count as right or wrong
JUNK_FREE = "bounding_box_test without junk"  # a part for `COUNTS`


class MarketLayout(PedestrianBuilder, skip_registration=True):
    """Base of the data sets whose three folders are the splits; a file's name begins with person_c<camera>."""

    PATTERN = r"(-?\d+)_c(\d).*"
    EXAMPLE: ClassVar[str]  # a file's name
    VALIDATION_IDENTITIES = 100

    def read(self, folder):
        records, found = [], {}
        for part, split in FOLDERS.items():
            images = self.images(folder / part, self.PATTERN, self.EXAMPLE)
            found[part] = len(images)
            for path, match in images:
                if int(match[1]) != JUNK:
                    records.append(Record(int(match[1]), int(match[2]), f"{part}/{path.name}", path, split))
        if JUNK_FREE in self.COUNTS:
            found[JUNK_FREE] = sum(record.split == "gallery" for record in records)
        self.check_counts(found)
        return records, {"market": MARKET} | self.single_shot(records)

    def single_shot(self, records: list[Record]) -> dict:
        """Returns the protocols in which each test person has one query and one gallery image."""
        identities = {split: {r.identity for r in records if r.split == split} for split in FOLDERS.values()}
        # Identities that are only in the gallery are never trained on, and no such protocol tests them.
        others = sorted(identities["gallery"] - identities["query"] - identities["train"] - {0})
        validation = random_trials(identities["train"], self.VALIDATION_IDENTITIES, trials=1)[0]
        what = "One image of each test person against one of another camera, both cameras drawn, ten times"
        return {
            "single_shot": random_cameras_protocol(f"{what}.", identities["query"], kept_out=others),
            "view_adaptation": random_cameras_protocol(
                f"{what}, with {self.VALIDATION_IDENTITIES} of the training identities held out for validation.",
                identities["query"],
                validation=validation,
                kept_out=others,
            ),
        }
