"""A folder of your own images, labelled by a regular expression on their paths or by a table."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import random
import re
import warnings
from collections import defaultdict

from tfds_builders import DatasetError, did_you_mean, labels
from tfds_builders.base import MODALITIES, SPLITS, PedestrianBuilder, PedestrianConfig, Record
from tfds_builders.labels import LARGEST, Meaning, Row
from tfds_builders.listing import IMAGE_SUFFIXES, Named, as_text, images_below, shown
from tfds_builders.protocols import MARKET, SAME_CAMERA
from tfds_builders.sources import a_few

# What an image's name or row must give -> what to do where it does not.
NEEDED = {"person": "", "camera": "; if one camera took all images, set camera to 1"}


@dataclasses.dataclass(eq=False)
class FolderConfig(PedestrianConfig):
    """Which images; the name holds a fingerprint, so that two folders, or one that changed, never mix."""

    rows: list[Row] = dataclasses.field(default_factory=list, repr=False)
    marks: Meaning = dataclasses.field(default_factory=Meaning, repr=False)


class Builder(PedestrianBuilder):
    """Your own images, scored with the Market metric."""

    BUILDER_CONFIGS = []  # noqa: RUF012 - TFDS's own attribute; every folder has a config of its own
    TERMS = "your own images"

    @classmethod
    def config_for(
        cls, kind, variant, root=None, pattern=None, csv=None, camera=None, distractor="0", junk="-1", **options
    ):
        if options or variant:
            unknown = ", ".join(options) or variant
            hint = did_you_mean(unknown, ("root", "pattern", "csv", "camera", "distractor", "junk"))
            raise DatasetError(f"folder: it has no option {unknown}{hint}: give root and pattern, or csv")
        if (pattern is None) == (csv is None) or (root is None and csv is None):
            raise DatasetError("folder: give root and pattern, or csv, to say which images are whose")
        table = pathlib.Path(csv).expanduser() if csv else None
        root = pathlib.Path(root).expanduser().resolve() if root else table.resolve().parent
        if not root.is_dir():
            raise DatasetError(f"folder: there is no folder {root}")
        camera = None if camera is None else labels.normal(str(camera))  # YAML gives 0 as a number
        try:
            marks = labels.meaning(distractor, junk)
            rows = from_csv(root, table, camera) if table else from_pattern(root, pattern, camera)
        except DatasetError as error:
            raise DatasetError(f"folder: {error}") from None
        rows = labels.without_junk(rows, marks, warn)
        fingerprint = hashlib.sha256(repr((str(root), pattern, sorted(marks.distractor))).encode())
        for row in rows:
            try:
                status = row.path.stat()
            except OSError:
                raise DatasetError(f"folder: {row.where} is no longer there, though it was listed just now") from None
            fingerprint.update(repr((row, status.st_size, status.st_mtime_ns)).encode())
        name = f"{re.sub(r'[^A-Za-z0-9]+', '_', root.name)}-{kind}-{fingerprint.hexdigest()[:12]}"
        return FolderConfig(name, kind=kind, rows=rows, marks=marks)

    @property
    def population(self):
        return f"{self.name}/{self.builder_config.name}"  # every folder numbers its own

    def read(self, folder):
        rows, distractors = self.builder_config.rows, self.builder_config.marks.distractor
        wrong = {row: problem for row in rows if (problem := problem_with(row, distractors))}
        for problem in list(wrong.values())[:5]:
            self.report(problem)
        if len(wrong) > 5:
            self.report(f"{len(wrong) - 5} more images have such a label")
        rows = [row for row in rows if row not in wrong]
        if len({row.split is None for row in rows}) > 1:
            blank = next(row for row in rows if row.split is None)
            self.report(f"{blank.where} has no split, though others have: name it for all or none")
        identities = number({row.identity for row in rows if row.identity not in distractors})
        cameras = number_cameras({row.camera for row in rows})
        records = [
            Record(
                identity=0 if row.identity in distractors else identities[row.identity],
                camera=cameras[row.camera],
                file=as_text(row.file),
                image=row.path,
                split=row.split or "",
                modality=row.modality or "rgb",
            )
            for row in rows
        ]
        if rows and rows[0].split is None:
            records = split_in_halves(records)
            warn_of_empty_parts(records)
        self.check_splits(records, {number: label for label, number in identities.items()})
        self.info.metadata.update(identities=identities, cameras=cameras)
        return records, {"market": MARKET, "same_camera": SAME_CAMERA}

    def check_splits(self, records: list[Record], labels: dict[int, str]) -> None:
        """Reports identities that would be in training and in the test."""
        train, test = ({r.identity for r in records if (r.split == "train") == side} for side in (True, False))
        if both := sorted(train & test):
            subject = "1 identity is" if len(both) == 1 else f"{len(both)} identities are"
            self.report(
                f"{subject} in train and also in query or gallery, so no score would be fair: "
                f"{shown(a_few([labels[identity] for identity in both]))}; put all images of an identity on one side"
            )


def from_pattern(root: pathlib.Path, pattern: str, camera: str | None) -> list[Row]:
    """Searches each image's path for a pattern with groups person, camera and perhaps split, modality."""
    expression = labels.compiled(pattern)
    missing = [group for group in needed(camera) if group not in expression.groupindex]
    if missing:
        raise DatasetError(
            f"the pattern '{pattern}' has no group {' and no group '.join(missing)}: write (?P<{missing[0]}>...) "
            f"around the part of the path that says it{NEEDED[missing[-1]]}"
        )
    images = [Named(name, root / name) for name in images_below(root, warn)]
    if not images:
        raise DatasetError(f"there is no image ({', '.join(IMAGE_SUFFIXES)}) in {root}")
    return with_camera(camera, labels.by_pattern(expression, images, root, warn))


def from_csv(root: pathlib.Path, table: pathlib.Path, camera: str | None) -> list[Row]:
    """Reads a table: path (relative to `root`), person, camera and perhaps split, modality."""
    return with_camera(camera, labels.by_table(table, root, {"path": "", **needed(camera)}))


def needed(camera: str | None) -> dict[str, str]:
    """Returns the labels that each image must have; `camera`, where it is given, is that of images without one."""
    return {label: NEEDED[label] for label in NEEDED if label != "camera" or camera is None}


def with_camera(camera: str | None, rows: list[Row]) -> list[Row]:
    """Names the camera of those rows that name none."""
    if camera is None:
        return rows
    return [row if row.camera else dataclasses.replace(row, camera=camera) for row in rows]


def warn(sentence: str) -> None:
    warnings.warn(f"folder: {sentence}", stacklevel=2)


def problem_with(row: Row, distractors: frozenset[str]) -> str | None:
    """Returns what is wrong with a row, if a label is missing or is none of those known."""
    for label, value in (("person", row.identity), ("camera", row.camera)):
        if not value:
            return f"{row.where} has no {label}"
    for label, value, known in (("split", row.split, SPLITS), ("modality", row.modality, MODALITIES)):
        if value is not None and value not in known:
            return f"{row.where} has the {label} {value!r}: use {', '.join(known)}"
    if row.identity in distractors and row.split not in (None, "gallery"):
        return (
            f"{row.where} puts a distractor (identity {row.identity}) in {row.split}, not in gallery; if it is one of "
            "your identities, set distractor to none"
        )
    return None


def number(labels_: set[str]) -> dict[str, int]:
    """Numbers labels from 1, in numerical order if all are numbers, else in alphabetical order."""
    return {label: position for position, label in enumerate(labels.in_order(labels_), start=1)}


def number_cameras(cameras: set[str]) -> dict[str, int]:
    """Cameras keep their numbers; where one has none, or one too large to be stored, all are numbered from 1."""
    own = {camera for camera in cameras if camera.isdecimal() and len(camera) < 20 and int(camera) <= LARGEST}
    if own == cameras:
        return {camera: int(camera) for camera in cameras}
    numbered = number(cameras)
    if any(map(labels.is_number, cameras)):
        pairs = a_few([f"{camera} is {position}" for camera, position in numbered.items()])
        warn(f"the camera {min(cameras - own)} has no number from 0 to 2^63 - 1, so all are numbered anew: {pairs}")
    return numbered


def warn_of_empty_parts(records: list[Record]) -> None:
    """Warns where the halves leave nothing to train on or to match, and of what to do."""
    identities = {record.identity for record in records} - {0}
    if len(identities) == 1:
        warn("there is only one identity: half of it is none, so no image is left to train on; add other identities")
    if not any(record.identity for record in records if record.split == "gallery"):
        warn("no test identity has a second image, so no query has a match in the gallery; add images of each identity")


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
