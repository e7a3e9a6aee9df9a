"""QMUL GRID: 250 identities, each seen by two of eight underground cameras, and 775 images of other people."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tfds_builders import DatasetError, matlab
from tfds_builders.base import PedestrianBuilder, Record
from tfds_builders.protocols import assign_splits, random_trials, trials_protocol
from tfds_builders.sources import Archive

VIEWS = {"probe": 1, "gallery": 2}


class Builder(PedestrianBuilder):
    """GRID; camera is 1 for the probe folder and 2 for the gallery; the real one is in the file's name."""

    ARCHIVE = Archive(
        folder="underground_reid",
        files=("underground_reid.zip",),
        holds=tuple(VIEWS),
        origin="https://personal.ie.cuhk.edu.hk/~ccloy/downloads_qmul_underground_reid.html",
        terms="free for research; cite the papers",
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions
    COUNTS: ClassVar = {"probe": 250, "gallery": 1025}
    TEST_IDENTITIES = 125

    def read(self, folder):
        records = []
        for part, view in VIEWS.items():
            for path, match in self.images(folder / part, r"(\d+)_\d+_.*", "0001_1_25004_107_32_106_221.jpeg"):
                records.append(Record(int(match[1]), view, f"{part}/{path.name}", path))
        self.check_counts({part: sum(r.camera == view for r in records) for part, view in VIEWS.items()})
        probes = {r.identity for r in records if r.camera == VIEWS["probe"]}
        alone = probes ^ {r.identity for r in records if r.camera == VIEWS["gallery"] and r.identity > 0}
        if alone:
            self.report(f"person {min(alone):04d} is in only one of probe and gallery; the copy is incomplete")
        partitions = folder / "features_and_partitions.mat"
        if partitions.exists():
            trials, whose = self.official_folds(partitions, probes), "the ten official folds"
        else:
            trials = random_trials(probes, self.TEST_IDENTITIES)
            whose = "ten seeded folds, as features_and_partitions.mat was not beside the images"
        protocols = {
            "folds": trials_protocol(
                f"Half of the identities against their gallery images and all distractors, over {whose}.",
                trials,
                distractors=[0],
            ),
            "whole": trials_protocol(
                "All probes against the whole gallery, once: no person is left to train on.",
                [sorted(probes)],
                distractors=[0],
            ),
        }
        return assign_splits(records, protocols["folds"]), protocols

    def official_folds(self, path, identities: set[int]) -> list[list[int]]:
        """Returns each fold's test identities; field three of a `trainIdxAll` cell lists the others."""
        try:
            cells = matlab.load(path)["trainIdxAll"].ravel()
            folds = [np.ravel(cell[0, 0][2]).astype(int).tolist() for cell in cells]
        except (ValueError, KeyError, IndexError, TypeError):
            raise DatasetError(
                f"{self.name}: {path} holds no readable trainIdxAll; replace it, or remove it for seeded folds"
            ) from None
        expected = len(identities) - self.TEST_IDENTITIES
        if not folds or any(len(set(fold) & identities) != expected or len(fold) != expected for fold in folds):
            raise DatasetError(f"{self.name}: a fold in {path} does not name {expected} identities of the probe folder")
        return [sorted(identities - set(fold)) for fold in folds]
