"""Market-1501: 1,501 identities seen by six cameras before a supermarket, with a gallery of detected boxes."""

from __future__ import annotations

from typing import ClassVar

from tfds_builders.base import MULTI_QUERY, Record, configs
from tfds_builders.market_layout import FOLDERS, JUNK_FREE, MarketLayout
from tfds_builders.protocols import MARKET
from tfds_builders.sources import Archive

NO_CAMERA = 7  # of the 500,000 distractors, whose cameras are not published: one that took no query


class Builder(MarketLayout):
    """Market-1501; a file is named person_c<camera>s<sequence>_<frame>_<box>.jpg."""

    VARIANTS = (None, "multi_query", "distractors_500k")
    BUILDER_CONFIGS = configs(VARIANTS)
    ARCHIVE = Archive(
        folder="Market-1501-v15.09.15",
        files=("Market-1501-v15.09.15.zip",),
        holds=tuple(FOLDERS),
        origin="https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html",
        terms="free for research; cite the paper",
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions
    EXAMPLE = "0002_c1s1_000451_03.jpg"
    COUNTS: ClassVar = {
        "bounding_box_train": 12936,
        "query": 3368,
        "bounding_box_test": 19732,
        JUNK_FREE: 15913,
        "images": 500000,
    }

    def read(self, folder):
        records, protocols = super().read(folder)
        variant = self.builder_config.variant
        if variant == "multi_query":
            protocols["multi_query"] = MARKET | {
                "multi_query": True,
                "description": "As market, a query's feature the mean over all images of its person and camera.",
            }
            records += self.hand_drawn(folder / "gt_bbox", [r for r in records if r.split == "query"])
        elif variant == "distractors_500k":
            records += self.distractors(folder / "images")
        return records, protocols

    def hand_drawn(self, folder, queries: list[Record]) -> list[Record]:
        """Returns the other hand-drawn boxes of the queries' identities in the queries' cameras."""
        seen = {(query.identity, query.camera) for query in queries}
        copies = {query.image.name for query in queries}  # every query is a hand-drawn box as well
        records = []
        for path, match in self.images(folder, self.PATTERN, self.EXAMPLE):
            identity, camera = int(match[1]), int(match[2])
            if (identity, camera) in seen and path.name not in copies:
                records.append(Record(identity, camera, f"gt_bbox/{path.name}", path, MULTI_QUERY))
        return records

    def distractors(self, folder) -> list[Record]:
        """Returns the 500,000 boxes that show none of the identities, whatever their names."""
        paths = [path for path, _ in self.images(folder)]
        self.check_counts({"images": len(paths)})
        return [Record(0, NO_CAMERA, f"images/{path.name}", path, "gallery") for path in paths]
