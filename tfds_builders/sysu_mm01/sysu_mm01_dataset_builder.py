"""SYSU-MM01: 491 identities seen by four visible-light and two infrared cameras, indoors and outdoors."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, ClassVar

import numpy as np

from tfds_builders import DatasetError, matlab
from tfds_builders.base import MODALITIES, PedestrianBuilder, Record, configs
from tfds_builders.sources import Archive, a_few

CAMERAS = range(1, 7)
INFRARED = (3, 6)
GALLERIES = {"all": (1, 2, 4, 5), "indoor": (1, 2)}
SHOTS = {"single": 1, "multi": 10}
SAME_PLACE = [[3, 2]]  # a query of camera 3 is not sought in camera 2, which looks at the same place
TRIALS = 10
QUERIES = "cam3 and cam6 of the test identities, the queries"


class Builder(PedestrianBuilder):
    """SYSU-MM01; an image lies in cam<camera>/<person>, and three lists in exp/ say what a person is for."""

    VARIANTS = ("train", "trainval")
    BUILDER_CONFIGS = configs(VARIANTS)
    ARCHIVE = Archive(
        folder="SYSU-MM01",
        files=("SYSU-MM01.zip",),
        holds=(*(f"cam{camera}" for camera in CAMERAS), "exp"),
        origin="https://github.com/wuancong/SYSU-MM01",
        terms="on request, for research only; cite the paper",
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions
    COUNTS: ClassVar = {QUERIES: 3803}
    IDENTITIES: ClassVar = {"train": 296, "val": 99, "test": 96}

    def read(self, folder):
        identities = {part: self.listed(folder / f"exp/{part}_id.txt", part) for part in self.IDENTITIES}
        train = {*identities["train"], *(identities["val"] if self.builder_config.variant == "trainval" else ())}
        test = set(identities["test"])
        wanted = train | test
        records, files = [], defaultdict(list)  # files: of a camera and person, in order, as the permutations count
        for camera in CAMERAS:
            for subfolder, paths in self.images_of_identities(folder / f"cam{camera}", "0001"):
                identity = int(subfolder)
                if identity not in wanted:
                    continue
                for path in paths:
                    file = f"cam{camera}/{subfolder}/{path.name}"
                    files[camera, identity].append(file)
                    test_split = "query" if camera in INFRARED else "gallery"
                    records.append(
                        Record(
                            identity,
                            camera,
                            file,
                            path,
                            split=test_split if identity in test else "train",
                            modality="infrared" if camera in INFRARED else "rgb",
                        )
                    )
        self.check_counts({QUERIES: sum(record.split == "query" for record in records)})
        self.check_training(train, [record for record in records if record.split == "train"])
        protocols = self.protocols(folder / "exp/rand_perm_cam.mat", sorted(test), files)
        if self.builder_config.variant == "trainval":
            protocols["all_single_validation"] = self.held_out(protocols["all_single"], identities["val"])
        return records, protocols

    def held_out(self, protocol: dict[str, Any], validation: list[int]) -> dict[str, Any]:
        """Returns the protocol in which the identities of the validation list are not trained on."""
        return protocol | {
            "description": f"{protocol['description']} The identities of the validation list are held out of training.",
            "validation_identities": [sorted(validation)] * len(protocol["test_identities"]),
        }

    def listed(self, table, part: str) -> list[int]:
        """Returns the identities of one part: numbers on one line, with commas between them."""
        if (text := self.text(table)) is None:
            return []
        try:
            identities = [int(identity) for identity in text.replace(",", " ").split()]
        except ValueError:
            self.report(f"{table} is not one line of identities' numbers with commas between them")
            return []
        if len(set(identities)) != self.IDENTITIES[part]:
            self.report(f"{table} names {len(set(identities))} identities, not {self.IDENTITIES[part]}")
        return identities

    def check_training(self, identities: set[int], records: list[Record]) -> None:
        """Reports training identities without an image, and a light without one; their number is not published."""
        if absent := sorted(identities - {record.identity for record in records}):
            names = a_few([f"{identity:04d}" for identity in absent])
            self.report(f"{len(absent)} of the training identities have no image: {names}; the copy is incomplete")
        for modality in MODALITIES:
            if not any(record.modality == modality for record in records):
                self.report(f"the training identities have no {modality} image: the copy is incomplete")

    def protocols(self, permutations, test: list[int], files: dict[tuple[int, int], list[str]]) -> dict[str, Any]:
        drawn = self.official_order(permutations, test, files) if permutations.exists() else None
        protocols = {}
        for search, cameras in GALLERIES.items():
            for name, shots in SHOTS.items():
                protocol = {
                    "kind": "trials",
                    "query_cameras": list(INFRARED),
                    "gallery_cameras": list(cameras),
                    "ignored_cameras": SAME_PLACE,
                    "cmc": "identity",
                }
                what = f"{search.title()} search, {shots} gallery image{'s' * (shots > 1)} of each person and camera, "
                if drawn:
                    protocol |= {
                        "description": f"{what}as the ten official permutations have them.",
                        "test_identities": [test] * TRIALS,
                        "gallery_files": [
                            [
                                file
                                for camera in cameras
                                for identity in test
                                for file in trial.get((camera, identity), [])[:shots]
                            ]
                            for trial in drawn
                        ],
                    }
                else:
                    protocol |= {
                        "description": f"{what}in ten seeded draws, as exp/rand_perm_cam.mat was not there.",
                        "test_identities": [test],
                        "shots": shots,
                        "shots_per_camera": True,
                        "repeats": TRIALS,
                    }
                protocols[f"{search}_{name}"] = protocol
        return protocols

    def official_order(self, path, test: list[int], files) -> list[dict[tuple[int, int], list[str]]]:
        """Returns each trial's order of the files of every visible-light camera and test person.

        `rand_perm_cam[camera - 1][0][person - 1][0][trial]` counts from 1 into a camera's files of a person, sorted.
        """
        try:
            cells = matlab.load(path)["rand_perm_cam"]
            orders = {
                (camera, identity): numbers(cells[camera - 1][0][identity - 1][0])
                for camera in GALLERIES["all"]
                for identity in test
            }
        except (ValueError, KeyError, IndexError, TypeError):
            raise DatasetError(
                f"{self.name}: {path} cannot be read or has no ten permutations for every test person; replace it, or "
                "remove it for seeded draws"
            ) from None
        misfits = [
            where
            for where, trials in orders.items()
            if any(sorted(order) != list(range(1, len(files[where]) + 1)) for order in trials)
        ]
        if misfits:
            camera, identity = misfits[0]
            others = f", and is wrong of {len(misfits) - 1} more identities and cameras" if misfits[1:] else ""
            self.report(
                f"{path} does not fit the images: it counts {len(orders[camera, identity][0])} of person "
                f"{identity:04d} in cam{camera} where there are {len(files[camera, identity])}{others}; complete the "
                "copy, or remove the file for seeded draws"
            )
        return [
            {
                where: [files[where][number - 1] for number in trials[trial]]
                for where, trials in orders.items()
                if where not in misfits
            }
            for trial in range(TRIALS)
        ]


def numbers(cell: np.ndarray) -> list[list[int]]:
    """Returns each trial's order of a person's images in a camera; an empty cell: there are none."""
    if not np.size(cell):
        return [[]] * TRIALS
    return [np.ravel(cell[trial]).astype(int).tolist() for trial in range(TRIALS)]
