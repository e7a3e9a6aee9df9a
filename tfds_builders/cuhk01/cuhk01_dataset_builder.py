"""CUHK01: 971 identities on a campus, two images from each of two cameras."""

from __future__ import annotations

from typing import ClassVar

from tfds_builders.base import PedestrianBuilder, Record
from tfds_builders.protocols import assign_splits, random_trials, trials_protocol
from tfds_builders.sources import Archive


class Builder(PedestrianBuilder):
    """CUHK01; a file is named by its person (four digits) and image (001 to 004, two of either camera)."""

    ARCHIVE = Archive(
        folder="CUHK01",
        files=("CUHK01.zip",),
        holds=("campus",),
        origin="https://www.ee.cuhk.edu.hk/~xgwang/CUHK_identification.html",
        terms="on request, for research only; cite the paper",
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions
    COUNTS: ClassVar = {"campus": 971 * 4}
    TEST_IDENTITIES: ClassVar = {"split_486": 486, "split_100": 100}  # the first is the default protocol

    def read(self, folder):
        records = []
        for path, match in self.images(folder / "campus", r"(\d{4})00([1-4])\.\w+", "0001001.png"):
            camera = (int(match[2]) - 1) // 2 + 1  # images 1 and 2 are of one camera, 3 and 4 of the other
            records.append(Record(int(match[1]), camera, f"campus/{path.name}", path))
        self.check_counts({"campus": len(records)})

        identities = {record.identity for record in records}
        protocols = {}
        for name, test in self.TEST_IDENTITIES.items():
            trials = random_trials(identities, test)
            what = f"Ten random draws of {test} test identities, camera 1 against camera 2"
            protocols[name] = trials_protocol(f"{what}, one gallery image a person.", trials, shots=1)
            protocols[f"{name}_multi"] = trials_protocol(f"{what}, all gallery images.", trials)
        return assign_splits(records, next(iter(protocols.values()))), protocols
