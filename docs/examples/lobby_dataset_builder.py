"""Lobby: two cameras at the doors of one hall; a made-up data set, as an example of a builder."""

from tfds_builders.base import PedestrianBuilder, Record
from tfds_builders.protocols import MARKET, assign_splits, random_trials, trials_protocol
from tfds_builders.sources import Archive

CAMERAS = {"left": 1, "right": 2}  # folder -> camera


class Builder(PedestrianBuilder):
    """Lobby; a file is named IDENTITY_SHOT.jpg, and an identity's number is the same in both folders."""

    ARCHIVE = Archive(
        folder="lobby",
        files=("lobby.zip",),
        holds=tuple(CAMERAS),
        origin="the people who recorded it",
        terms="research only",
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions

    def read(self, folder):
        records = []
        for part, camera in CAMERAS.items():
            for path, match in self.images(folder / part, r"(\d+)_\d+\.jpg", "0001_0.jpg"):
                records.append(Record(int(match[1]), camera, f"{part}/{path.name}", path))
        identities = sorted({record.identity for record in records})
        tested = random_trials(identities, len(identities) // 2)
        halves = trials_protocol("Ten random halves of the identities, left against right.", tested, shots=1)
        return assign_splits(records, halves), {"halves": halves, "market": MARKET}
