"""Rendered pedestrians: three small places with cameras of their own, made on the spot."""

from __future__ import annotations

import functools

from tfds_builders.base import PedestrianBuilder, Record, configs
from tfds_builders.protocols import MARKET, trials_protocol
from tfds_builders.synthetic_pedestrians.rendering import DOMAINS, render


class Builder(PedestrianBuilder):
    """Synthetic pedestrians: every person is seen by every camera of the place, `SHOTS` times by each."""

    VARIANTS = ("street", "station", "night", "street_night")
    BUILDER_CONFIGS = configs(VARIANTS)
    TERMS = "none: rendered by this package"
    TRAIN_IDENTITIES = 150
    TEST_IDENTITIES = 100
    SHOTS = 2  # of a test person the first is query, the others gallery
    MORE_IDENTITIES = 250  # to train on across modalities, which 150 are too few for; seen once by each camera

    @property
    def places(self) -> list[str]:
        return self.builder_config.variant.split("_")

    @property
    def population(self):
        return f"{self.name}/{DOMAINS[self.places[0]].population}"

    def read(self, folder):
        variant = self.builder_config.variant
        records = [record for place in self.places for record in self.seen_in(place)]
        if variant == "street":
            return records, {"market": MARKET, "two_cameras": self.two_cameras()}
        return records, self.across_modalities() if variant == "street_night" else {"market": MARKET}

    def seen_in(self, place) -> list[Record]:
        domain = DOMAINS[place]
        records = []
        tested = self.test_identities()[0]
        more = self.MORE_IDENTITIES if self.builder_config.variant == "street_night" else 0
        for identity in range(1, tested[-1] + more + 1):
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

    def test_identities(self) -> list[list[int]]:
        return [list(range(self.TRAIN_IDENTITIES + 1, self.TRAIN_IDENTITIES + self.TEST_IDENTITIES + 1))]

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
