"""Which images a folder of the user's own holds, and what their paths or a table say about them."""

from __future__ import annotations

import csv
import dataclasses
import pathlib
import re
import warnings

from tfds_builders import DatasetError
from tfds_builders.sources import IMAGE_SUFFIXES

LABELS = ("person", "camera", "split", "modality")


@dataclasses.dataclass(frozen=True)
class Row:
    """One image as the user describes it; split and modality are None where nothing is said of them."""

    file: str  # relative to the root
    where: str  # for messages
    identity: str
    camera: str
    split: str | None
    modality: str | None


def from_pattern(root: pathlib.Path, pattern: str) -> list[Row]:
    """Searches each image's path for a pattern with groups person, camera and perhaps split, modality."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise DatasetError(f"folder: the pattern {pattern!r} is no regular expression: {error}") from None
    missing = [group for group in ("person", "camera") if group not in expression.groupindex]
    if missing:
        raise DatasetError(
            f"folder: the pattern {pattern!r} has no group {' and no group '.join(missing)}: "
            f"write (?P<{missing[0]}>...) around the part of the path that says it"
        )
    paths = (path.relative_to(root) for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    files = sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
    if not files:
        raise DatasetError(f"folder: there is no image ({', '.join(IMAGE_SUFFIXES)}) in {root}")
    found = {file: expression.search(file) for file in files}
    others = [file for file, match in found.items() if not match]
    if len(others) == len(files):
        raise DatasetError(f"folder: the pattern {pattern!r} matches no image in {root}; one is {others[0]}")
    if others:
        warnings.warn(
            f"folder: {len(others)} of {len(files)} images do not match the pattern and are left out, "
            f"such as {others[0]}",
            stacklevel=2,
        )
    return [
        Row(file, f"the image {root / file}", *(match.groupdict().get(label) for label in LABELS))
        for file, match in found.items()
        if match
    ]


def from_csv(root: pathlib.Path, table: pathlib.Path) -> list[Row]:
    """Reads a table: path (relative to `root`), person, camera and perhaps split, modality."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            lines = [(reader.line_num, line) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"folder: the table {table} cannot be read: {error}") from None
    missing = [column for column in ("path", "person", "camera") if column not in columns]
    if missing:
        raise DatasetError(
            f"folder: the table {table} has no column {' and no column '.join(missing)}: "
            "its first row must be path,person,camera and perhaps split,modality"
        )
    if not lines:
        raise DatasetError(f"folder: the table {table} has no rows")
    rows, seen = [], {}
    for number, line in lines:
        where = f"row {number} of {table}"
        file = (line["path"] or "").strip()
        if not file or not (root / file).is_file():
            raise DatasetError(f"folder: {where} names the file {str(root / file)!r}, which does not exist")
        if file in seen:
            raise DatasetError(f"folder: {where} names {file} again, after row {seen[file]}")
        seen[file] = number
        rows.append(Row(file, where, *((line.get(label) or "").strip() or None for label in LABELS)))
    return rows
