"""Rendered pedestrians: three small places with cameras of their own, made on the spot."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tfds_builders.base import PedestrianBuilder, Record, configs
from tfds_builders.protocols import MARKET, trials_protocol
from tfds_builders.synthetic_pedestrians.rendering import DOMAINS, render
from tfds_builders.synthetic_pedestrians.rendering_process import images_of

BLOCK = 250  # images that one process renders: a few seconds, beside which its start is short


class Builder(PedestrianBuilder):
    """Synthetic pedestrians: every person is seen by every camera of the place, `SHOTS` times by each."""

    VARIANTS = ("street", "station", "night", "street_night", "street_1000")
    BUILDER_CONFIGS = configs(VARIANTS)
    TERMS = "none: rendered by this package"
    TRAIN_IDENTITIES = 150
    TEST_IDENTITIES = 100
    SHOTS = 2  # of a test person the first is query, the others gallery
    MORE_IDENTITIES = 250  # to train on across modalities, which 150 are too few for; seen once by each camera
    MANY_TRAIN_IDENTITIES = 900  # of `street_1000`, which has as many test identities as the others
    MANY_FROM = 1001  # the first of them: other people than those of `street`, `night` and `street_night`

    @property
    def variant(self) -> str:
        return self.builder_config.variant

    @property
    def places(self) -> list[str]:
        return [place for place in self.variant.split("_") if place in DOMAINS]

    @property
    def population(self):
        return f"{self.name}/{DOMAINS[self.places[0]].population}"

    def read(self, folder):
        records = [record for place in self.places for record in self.seen_in(place)]
        if self.variant in ("street", "street_1000"):
            return records, {"market": MARKET, "two_cameras": self.two_cameras()}
        return records, self.across_modalities() if self.variant == "street_night" else {"market": MARKET}

    def seen_in(self, place) -> list[Record]:
        domain = DOMAINS[place]
        records = []
        tested = self.test_identities()[0]
        more = self.MORE_IDENTITIES if self.variant == "street_night" else 0
        for identity in range(self.first_identity(), tested[-1] + more + 1):
            for camera in domain.cameras:
                for shot in range(self.SHOTS if identity <= tested[-1] else 1):
                    test_split = "query" if shot == 0 else "gallery"
                    records.append(
                        Record(
                            identity,
                            camera,
                            f"{place}/{identity:04d}_c{camera}_{shot}.jpg",
                            functools.partial(render, place, identity, camera, shot),
                            split=test_split if identity in tested else "train",
                            modality=domain.modality,
                        )
                    )
        return records

    def _encode(self, records: list[Record]) -> Iterator[tuple[Record, bytes]]:
        """As of every data set, but many images are rendered by one process a core: it is slow, and mostly Python."""
        records = list(dict.fromkeys(records))
        if len(records) <= BLOCK:
            yield from super()._encode(records)
            return
        blocks = [records[start : start + BLOCK] for start in range(0, len(records), BLOCK)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for block, images in zip(blocks, pool.map(images_of, blocks), strict=True):
                yield from zip(block, images, strict=True)

    def first_identity(self) -> int:
        return self.MANY_FROM if self.variant == "street_1000" else 1

    def test_identities(self) -> list[list[int]]:
        trained = self.MANY_TRAIN_IDENTITIES if self.variant == "street_1000" else self.TRAIN_IDENTITIES
        first = self.first_identity() + trained
        return [list(range(first, first + self.TEST_IDENTITIES))]

    def two_cameras(self) -> dict:
        what = "Camera 1 against camera 2, one random gallery image a person, ten times."
        return trials_protocol(what, self.test_identities(), shots=1) | {"repeats": 10}

    def across_modalities(self) -> dict[str, dict]:
        """As SYSU-MM01 is scored: infrared queries, colour gallery, CMC over identities."""
        common = {
            "query_cameras": list(DOMAINS["night"].cameras),
            "gallery_cameras": list(DOMAINS["street"].cameras),
            "cmc": "identity",
        }
        single = trials_protocol(
            "Infrared against colour, one random image a person and camera, ten times.", self.test_identities(), shots=1
        )
        multi = trials_protocol("Infrared against colour, all images of the gallery.", self.test_identities())
        return {
            "all_single": single | common | {"shots_per_camera": True, "repeats": 10},
            "all_multi": multi | common,
        }
