"""CUHK03: 1,467 identities, each seen by two views of one of five pairs of cameras; all in one MATLAB file."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any, ClassVar

import h5py
import numpy as np

from tfds_builders import DatasetError, matlab
from tfds_builders.base import PedestrianBuilder, Record, configs
from tfds_builders.protocols import MARKET, assign_splits, random_trials, trials_protocol
from tfds_builders.sources import Archive

VIEW_1 = range(5)  # positions of a person's ten images that are of view 1; the others are of view 2
NEW_SPLITS = {"train_idx": "train", "query_idx": "query", "gallery_idx": "gallery"}


class Builder(PedestrianBuilder):
    """CUHK03; the images are matrices in cuhk-03.mat, a file of MATLAB 7.3, which is HDF5.

    `file` is what the new protocol's list calls an image: pair_person_view_image.png, counted from 1. `identity`
    runs on from pair to pair, `camera` is the view.
    """

    VARIANTS = ("detected", "labeled")
    BUILDER_CONFIGS = configs(VARIANTS)
    ARCHIVE = Archive(
        folder="cuhk03_release",
        files=("cuhk03_release.zip",),
        holds=("cuhk-03.mat",),
        origin="https://www.ee.cuhk.edu.hk/~xgwang/CUHK_identification.html",
        terms="on request, for research only; cite the paper",
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions
    COUNTS: ClassVar = {"detected": 14097, "labeled": 14096}
    IDENTITIES: ClassVar = (843, 440, 77, 58, 49)  # of each pair of cameras
    TEST_SETS = 20
    TEST_IDENTITIES = 100
    VALIDATION_IDENTITIES = 100
    NEW_IDENTITIES: ClassVar = {"train": 767, "test": 700}

    def read(self, folder):
        path = folder / "cuhk-03.mat"
        if not isinstance(path, pathlib.Path):
            raise DatasetError(f"{self.name}: {path} cannot be read within the zip archive: unpack it")
        variant = self.builder_config.variant
        try:
            with h5py.File(path) as file:
                found, identities = self.records(path, file)
                test_sets = self.test_sets(file)
        except (OSError, KeyError, ValueError, IndexError, TypeError):
            raise DatasetError(f"{self.name}: {path} is damaged or not the official file; fetch it again") from None
        self.check_counts({variant: len(found)})
        if identities != self.IDENTITIES:
            self.report(f"the pairs of cameras in {path} see {identities} identities, not {self.IDENTITIES}")
        if len(test_sets) != self.TEST_SETS or any(len(set(test)) != self.TEST_IDENTITIES for test in test_sets):
            raise DatasetError(
                f"{self.name}: {path} does not hold {self.TEST_SETS} test sets of {self.TEST_IDENTITIES} identities"
            )

        protocols = self.protocols(test_sets)
        records = assign_splits(found, protocols["classic"])
        name = f"cuhk03_new_protocol_config_{variant}.mat"
        new = next((place / name for place in (folder, folder.parent) if (place / name).exists()), None)
        if new:
            description = "The new protocol, 767 identities to train on and 700 to test on, with the Market metric."
            return self.new_splits(new, found), {"new": MARKET | {"description": description}} | protocols
        return records, protocols

    def records(self, path: pathlib.Path, file: h5py.File) -> tuple[list[Record], tuple[int, ...]]:
        """Returns the images, not read yet, and the number of identities of each pair."""
        variant, records, identities = self.builder_config.variant, [], []
        for pair, reference in enumerate(file[variant][0]):
            cell = file[reference][()].T  # MATLAB's N × 10; HDF5 has its transpose
            for row, images in enumerate(cell):
                for column, image in enumerate(images):
                    if file[image].ndim != 3:  # a person with less than ten images: an empty matrix
                        continue
                    camera = 1 if column in VIEW_1 else 2
                    records.append(
                        Record(
                            identity=sum(identities) + row + 1,
                            camera=camera,
                            file=f"{pair + 1}_{row + 1:03d}_{camera}_{column + 1:02d}.png",
                            image=functools.partial(read_image, path, variant, pair, row, column),
                        )
                    )
            identities.append(len(cell))
        return records, tuple(identities)

    def test_sets(self, file: h5py.File) -> list[list[int]]:
        """Returns the identities of each classic test set: in the file, rows of pair and person, counted from 1."""
        first = np.cumsum([0, *self.IDENTITIES])
        test_sets = []
        for reference in file["testsets"][0]:
            pairs, numbers = file[reference][()].astype(int)  # MATLAB's 100 × 2; HDF5 has its transpose
            test_sets.append(sorted((first[pairs - 1] + numbers).tolist()))
        return test_sets

    def protocols(self, test_sets: list[list[int]]) -> dict[str, dict[str, Any]]:
        what = "The twenty test sets of 100 identities, view 1 against one image a person of view 2, ten draws of each"
        classic = trials_protocol(f"{what}.", test_sets, shots=1) | {"repeats": 10}
        first_of_the_rest = sum(self.IDENTITIES[:3]) + 1
        three_pairs = set(range(1, first_of_the_rest))
        validation = [
            random_trials(three_pairs - set(test), self.VALIDATION_IDENTITIES, trials=1, seed=trial)[0]
            for trial, test in enumerate(test_sets)
        ]
        adaptation = classic | {
            "description": f"{what}, with 100 others of the first three pairs of cameras held out for validation.",
            "validation_identities": validation,
            "kept_out": list(range(first_of_the_rest, sum(self.IDENTITIES) + 1)),
        }
        return {"classic": classic, "view_adaptation": adaptation}

    def new_splits(self, path: pathlib.Path, records: list[Record]) -> list[Record]:
        """Returns the records that the new protocol's lists name, with their splits."""
        try:
            variables = matlab.load(path)
            names = [str(np.ravel(name)[0]) for name in np.ravel(variables["filelist"])]
            splits = {
                names[index - 1]: split  # MATLAB counts from 1
                for variable, split in NEW_SPLITS.items()
                for index in np.ravel(variables[variable]).astype(int)
            }
        except (ValueError, KeyError, IndexError, TypeError):
            raise DatasetError(
                f"{self.name}: {path} holds no readable lists of the new protocol; replace it, or remove it"
            ) from None
        if missing := splits.keys() - {record.file for record in records}:
            self.report(f"{path} names {len(missing)} images that cuhk-03.mat does not have, such as {min(missing)}")
        records = [
            dataclasses.replace(record, split=splits[record.file]) for record in records if record.file in splits
        ]
        for part, count in self.NEW_IDENTITIES.items():
            identities = {record.identity for record in records if (record.split == "train") == (part == "train")}
            if len(identities) != count:
                self.report(
                    f"{path} names {len(identities)} identities to {part} on, not {count}: replace it, or remove it"
                )
        return records


def read_image(path: pathlib.Path, variant: str, pair: int, row: int, column: int) -> np.ndarray:
    """Reads one image of the file, which is opened for it alone: as uint8 RGB [height, width, 3].

    Raises:
      DatasetError: its matrix is damaged.
    """
    try:
        with h5py.File(path) as file:
            pixels = file[file[file[variant][0, pair]][column, row]][()]
    except OSError:
        raise DatasetError(
            f"cuhk03: image {column + 1} of person {row + 1} of pair {pair + 1} in {path} is damaged: "
            "replace the file with a sound copy"
        ) from None
    return pixels.T  # MATLAB's height × width × 3; HDF5 has its transpose
