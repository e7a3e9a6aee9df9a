"""Rendered pedestrians: three small places with cameras of their own, made on the spot."""

from __future__ import annotations

import functools

from tfds_builders.base import PedestrianBuilder, Record, configs
from tfds_builders.protocols import MARKET
from tfds_builders.synthetic_pedestrians.rendering import DOMAINS, render


class Builder(PedestrianBuilder):
    """Synthetic pedestrians: every person is seen by every camera of the place, `SHOTS` times by each."""

    VARIANTS = ("street", "station", "night")
    BUILDER_CONFIGS = configs(VARIANTS)
    TERMS = "none: rendered by this package"
    TRAIN_PERSONS = 150
    TEST_PERSONS = 100
    SHOTS = 2  # of a test person the first is query, the others gallery

    def read(self, folder):
        place = self.builder_config.variant
        domain = DOMAINS[place]
        records = []
        for person in range(1, self.TRAIN_PERSONS + self.TEST_PERSONS + 1):
            for camera in domain.cameras:
                for shot in range(self.SHOTS):
                    test_split = "query" if shot == 0 else "gallery"
                    records.append(
                        Record(
                            person,
                            camera,
                            f"{place}/{person:04d}_c{camera}_{shot}.jpg",
                            functools.partial(render, place, person, camera, shot),
                            split="train" if person <= self.TRAIN_PERSONS else test_split,
                            modality=domain.modality,
                        )
                    )
        return records, {"market": MARKET}
