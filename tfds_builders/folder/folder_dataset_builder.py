"""A folder of your own images, labelled by a regular expression on their paths or by a table."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import random
import re
from collections import defaultdict

from tfds_builders import DatasetError
from tfds_builders.base import MODALITIES, SPLITS, PedestrianBuilder, PedestrianConfig, Record
from tfds_builders.folder.listing import Row, from_csv, from_pattern
from tfds_builders.protocols import MARKET
from tfds_builders.sources import a_few


@dataclasses.dataclass(eq=False)
class FolderConfig(PedestrianConfig):
    """Which images; the name holds a fingerprint, so that two folders, or one that changed, never mix."""

    root: pathlib.Path | None = None
    rows: list[Row] = dataclasses.field(default_factory=list, repr=False)


class Builder(PedestrianBuilder):
    """Your own images, scored with the Market metric."""

    BUILDER_CONFIGS = []  # noqa: RUF012 - TFDS's own attribute; every folder has a config of its own
    TERMS = "your own images"

    @classmethod
    def config_for(cls, kind, variant, root=None, pattern=None, csv=None, **options):
        if options or variant:
            unknown = ", ".join(options) or variant
            raise DatasetError(f"folder: it has no option {unknown}: give root and pattern, or csv")
        if (pattern is None) == (csv is None) or (root is None and csv is None):
            raise DatasetError("folder: give root and pattern, or csv, to say which images are whose")
        table = pathlib.Path(csv).expanduser() if csv else None
        root = pathlib.Path(root).expanduser().resolve() if root else table.resolve().parent
        if not root.is_dir():
            raise DatasetError(f"folder: there is no folder {root}")
        rows = from_csv(root, table) if table else from_pattern(root, pattern)
        fingerprint = hashlib.sha256(repr((str(root), pattern)).encode())
        for row in rows:
            status = (root / row.file).stat()
            fingerprint.update(repr((row, status.st_size, status.st_mtime_ns)).encode())
        name = f"{re.sub(r'[^A-Za-z0-9]+', '_', root.name)}-{kind}-{fingerprint.hexdigest()[:12]}"
        return FolderConfig(name, kind=kind, root=root, rows=rows)

    @property
    def population(self):
        return f"{self.name}/{self.builder_config.name}"  # every folder numbers its own

    def read(self, folder):
        root, rows = self.builder_config.root, self.builder_config.rows
        wrong = {row: problem for row in rows if (problem := problem_with(row))}
        for problem in list(wrong.values())[:5]:
            self.report(problem)
        if len(wrong) > 5:
            self.report(f"{len(wrong) - 5} more images have such a label")
        rows = [row for row in rows if row not in wrong and row.identity != "-1"]
        if len({row.split is None for row in rows}) > 1:
            blank = next(row for row in rows if row.split is None)
            self.report(f"{blank.where} has no split, though others have: name it for all or none")
        identities = number({row.identity for row in rows if not is_distractor(row)})
        cameras = {row.camera for row in rows}
        if all(camera.isdecimal() for camera in cameras):
            cameras = {camera: int(camera) for camera in cameras}
        else:
            cameras = number(cameras)
        records = [
            Record(
                identity=0 if is_distractor(row) else identities[row.identity],
                camera=cameras[row.camera],
                file=row.file,
                image=root / row.file,
                split=row.split or "",
                modality=row.modality or "rgb",
            )
            for row in rows
        ]
        if rows and rows[0].split is None:
            records = split_in_halves(records)
        self.check_splits(records, {number: label for label, number in identities.items()})
        self.info.metadata.update(identities=identities, cameras=cameras)
        return records, {"market": MARKET}

    def check_splits(self, records: list[Record], labels: dict[int, str]) -> None:
        """Reports identities that would be in training and in the test."""
        train, test = ({r.identity for r in records if (r.split == "train") == side} for side in (True, False))
        if both := sorted(train & test):
            subject = "1 identity is" if len(both) == 1 else f"{len(both)} identities are"
            self.report(
                f"{subject} in train and also in query or gallery, so no score would be fair: "
                f"{a_few([labels[identity] for identity in both])}; put all images of an identity on one side"
            )


def problem_with(row: Row) -> str | None:
    """Returns what is wrong with a row, if a label is missing or is none of those known."""
    for label, value in (("person", row.identity), ("camera", row.camera)):
        if not value:
            return f"{row.where} has no {label}"
    for label, value, known in (("split", row.split, SPLITS), ("modality", row.modality, MODALITIES)):
        if value is not None and value not in known:
            return f"{row.where} has the {label} {value!r}: use {', '.join(known)}"
    if is_distractor(row) and row.split not in (None, "gallery"):
        return f"{row.where} puts a distractor (identity 0) in {row.split}, not in gallery"
    return None


def is_distractor(row: Row) -> bool:
    return re.fullmatch("0+", row.identity) is not None


def number(labels: set[str]) -> dict[str, int]:
    """Numbers labels from 1, in numerical order if all are numbers, else in alphabetical order."""
    numeric = all(label.isdecimal() for label in labels)
    ordered = sorted(labels, key=(lambda label: (int(label), label)) if numeric else None)
    return {label: position for position, label in enumerate(ordered, start=1)}


def split_in_halves(records: list[Record], seed: int = 0) -> list[Record]:
    """Puts half of the identities in train; of the others, one image of each camera is a query and the rest is gallery.

    A test identity's only image in a camera is put into the gallery, so that it can be matched. Where an identity
    would then have no query, its image in the first camera is the query.
    """
    images = defaultdict(lambda: defaultdict(list))
    for record in records:
        images[record.identity][record.camera].append(record)
    identities = sorted(identity for identity in images if identity > 0)
    train = set(random.Random(seed).sample(identities, len(identities) // 2))
    queries = set()
    for identity in set(identities) - train:
        cameras = images[identity]
        repeated = [camera for camera in sorted(cameras) if len(cameras[camera]) > 1]
        queries |= {cameras[camera][0].file for camera in repeated or [min(cameras)]}

    def split(record: Record) -> str:
        if record.identity in train:
            return "train"
        return "query" if record.file in queries else "gallery"

    return [dataclasses.replace(record, split=split(record)) for record in records]
