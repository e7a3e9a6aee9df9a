"""VIPeR: 632 identities, each seen once by two outdoor cameras."""

from __future__ import annotations

from typing import ClassVar

from tfds_builders.base import PedestrianBuilder, Record
from tfds_builders.protocols import assign_splits, random_trials, trials_protocol
from tfds_builders.sources import Archive

CAMERAS = {"cam_a": 1, "cam_b": 2}


class Builder(PedestrianBuilder):
    """VIPeR; a file is named person_angle.bmp, and the person's number is the same in both folders."""

    ARCHIVE = Archive(
        folder="VIPeR",
        files=("VIPeR.v1.0.zip", "VIPeR.zip"),
        holds=tuple(CAMERAS),
        origin="https://vision.soe.ucsc.edu/node/178",
        terms="free for research; cite the paper",
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions
    COUNTS: ClassVar = {"cam_a": 632, "cam_b": 632}
    TEST_IDENTITIES = 316
    VALIDATION_IDENTITIES = 100

    def read(self, folder):
        records = []
        for part, camera in CAMERAS.items():
            for path, match in self.images(folder / part, r"(\d+)_\d+\.\w+", "001_45.bmp"):
                # The files count identities from 000, and person 0 is a distractor everywhere else.
                records.append(Record(int(match[1]) + 1, camera, f"{part}/{path.name}", path))
        seen = {part: [r.identity for r in records if r.camera == camera] for part, camera in CAMERAS.items()}
        self.check_counts({part: len(identities) for part, identities in seen.items()})
        if alone := set(seen["cam_a"]) ^ set(seen["cam_b"]):
            self.report(f"person {min(alone) - 1:03d} is in only one of cam_a and cam_b; the copy is incomplete")
        protocols = self.protocols(sorted(set(seen["cam_a"])))
        return assign_splits(records, protocols["random_316"]), protocols

    def protocols(self, identities: list[int]) -> dict:
        trials = random_trials(identities, self.TEST_IDENTITIES)
        validation = [
            random_trials(set(identities) - set(test), self.VALIDATION_IDENTITIES, trials=1, seed=trial)[0]
            for trial, test in enumerate(trials)
        ]
        return {
            "random_316": trials_protocol(
                "Ten random halves of the identities, camera a against camera b, single-shot.", trials, shots=1
            ),
            "random_316_both": trials_protocol(
                "The same ten halves, either camera against the other, averaged.", trials, shots=1, both_directions=True
            ),
            "view_adaptation": trials_protocol(
                "The same ten halves, with 100 of the identities left to train on held out for validation.",
                trials,
                shots=1,
            )
            | {"validation_identities": validation},
        }
