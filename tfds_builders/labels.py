"""What names of files, or a table, say of images: one reader for training and search. Needs the standard library only.

A label is any text. Spaces around it do not count, nor the leading zeros of a number or a fraction of nothing: `001`,
`1` and `1.0`, as a column of floating-point numbers is saved, are one label.
"""

from __future__ import annotations

import dataclasses
import decimal
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from tfds_builders import DatasetError, tables
from tfds_builders.listing import Named, Report, as_text, shown
from tfds_builders.sources import a_few

LABELS = ("person", "camera", "split", "modality", "time")  # groups of a pattern, and columns of a table beside path
NUMBER = re.compile(r"([+-]?)(\d+)(?:\.0*)?")
LARGEST = 2**63 - 1
Label = str | int | float  # as YAML reads one


@dataclasses.dataclass(frozen=True)
class Row:
    """One image as its name or a table describes it; None for a label that is not given.

    Attributes:
      file: its path below the folder, with `/` between folders; of an image elsewhere the whole path.
      path: where it lies.
      where: names it in messages.
    """

    file: str
    path: pathlib.Path
    where: str
    identity: str | None = None
    camera: str | None = None
    split: str | None = None
    modality: str | None = None
    time: str | None = None

    @property
    def labels(self) -> tuple[str | None, ...]:
        return self.identity, self.camera, self.split, self.modality, self.time


@dataclasses.dataclass(frozen=True)
class Meaning:
    """Which labels are of no identity.

    Attributes:
      distractor: images of these are in the gallery and match no query.
      junk: images of these are left out.
    """

    distractor: frozenset[str] = frozenset({"0"})
    junk: frozenset[str] = frozenset({"-1"})


STANDARD = Meaning()  # as in Market-1501


def meaning(distractor: Label | Iterable[Label] | None = "0", junk: Label | Iterable[Label] | None = "-1") -> Meaning:
    """Returns the meaning that settings name: a label, several with commas between them, or none.

    Raises:
      DatasetError: a label is both.
    """
    found = Meaning(_labels_of(distractor), _labels_of(junk))
    if both := found.distractor & found.junk:
        raise DatasetError(f"the identity {min(both)} cannot be both distractor and junk: set one of them to none")
    return found


def _labels_of(setting) -> frozenset[str]:
    if setting is None or (isinstance(setting, str) and setting.strip().lower() == "none"):
        return frozenset()
    if isinstance(setting, Label):
        setting = str(setting).split(",")
    return frozenset(label for label in (normal(str(one)) for one in setting) if label)


def normal(label: str | None) -> str | None:
    """Returns the one way in which a label is written: without spaces around it, and a number without leading zeros.

    Letters that look the same are the same; None where nothing is left.
    """
    text = unicodedata.normalize("NFC", as_text(" ".join((label or "").split())))
    if not (number := NUMBER.fullmatch(text)):
        return text or None
    # Not by int(): a number may have more digits than Python converts.
    digits = "".join(str(unicodedata.decimal(digit)) for digit in number[2]).lstrip("0") or "0"
    return ("-" if number[1] == "-" and digits != "0" else "") + digits


def is_number(label: str) -> bool:
    return NUMBER.fullmatch(label) is not None


def in_order(labels: Iterable[str]) -> list[str]:
    """Labels in normal form, in numerical order if all are numbers, else in alphabetical order."""
    labels = list(labels)
    return sorted(labels, key=decimal.Decimal if all(map(is_number, labels)) else None)


# --------------------------------------------------------------------- by pattern


def compiled(pattern: str) -> re.Pattern:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise DatasetError(f"the pattern '{pattern}' is no regular expression: {error}") from None


def by_pattern(expression: re.Pattern, images: Sequence[Named], place: str | os.PathLike, report: Report) -> list[Row]:
    """Searches each image's name for a pattern; images that it does not match are left out.

    A minus sign before an identity's number counts, also where the pattern does not take it, as `\\d+` in `-1_c2`.

    Args:
      images: their names are paths below the folder that was named.
      place: where they lie, for messages.
      report: takes, in a sentence, what is left out.

    Raises:
      DatasetError: it matches none.
    """
    rows, others, signed = [], [], []
    for name, path in images:
        if not (match := expression.search(name)):
            others.append(name)
            continue
        groups = match.groupdict()
        if is_number(groups.get("person") or "") and _has_sign(name, match.start("person")):
            groups["person"] = f"-{match['person']}"
            signed.append(name)
        rows.append(_row(name, path, f"the image {shown(path)}", groups))
    if images and not rows:
        raise DatasetError(
            f"the pattern '{expression.pattern}' matches no image in {shown(place)}; one is {shown(others[0])}"
        )
    if others:
        report(
            f"{len(others)} of {len(images)} images do not match the pattern and are left out, such as "
            f"{shown(others[0])}"
        )
    if signed:
        report(
            f"{len(signed)} of {len(images)} images have a minus sign before their identity, such as "
            f"{shown(signed[0])}, which counts; write (?P<person>-?\\d+) in the pattern"
        )
    return rows


def _has_sign(name: str, start: int) -> bool:
    """Whether a minus sign stands before this place, not a hyphen between two words."""
    return name[start - 1 : start] == "-" and not name[start - 2 : start - 1].isalnum()


# --------------------------------------------------------------------- by table


def by_table(table: pathlib.Path, root: pathlib.Path, required: Mapping[str, str]) -> list[Row]:
    """Reads a table with the columns path, person, camera, split, modality and time.

    Args:
      root: where relative paths start.
      required: columns that it must have; see `tables.read`.

    Raises:
      DatasetError: as `tables.read`; a row names no file, or one that another row describes otherwise.
    """
    rows: dict[str, Row] = {}  # by the file itself, which two paths may lead to
    wrong = []
    for number, cells in tables.read(table, required, ("path", *LABELS)):
        where = f"row {number} of {shown(table)}"
        path, problem = _path_in(root, cells["path"])
        if problem:
            wrong.append(f"{where} {problem}")
            continue
        row = _row(_file_of(path, root), path, where, cells)
        first = rows.setdefault(os.path.realpath(path), row)
        if first.labels != row.labels:
            wrong.append(
                f"{where} names {shown(cells['path'])} again, after {first.where}, with other labels: "
                f"{_written(first)} there, {_written(row)} here"
            )
    if wrong:
        raise DatasetError(wrong[0] + (f" ({len(wrong) - 1} more rows are wrong)" if len(wrong) > 1 else ""))
    return list(rows.values())


def _path_in(root: pathlib.Path, written: str) -> tuple[pathlib.Path, str | None]:
    """The file that a table means, and what is wrong with it."""
    if not written:
        return root, "has no path"
    path = root / written
    if "\\" in written and not os.path.exists(path):  # written on Windows
        path = root / written.replace("\\", "/")
    if not os.path.exists(path):
        return path, f"names the file {shown(root / written)}, which does not exist"
    if not os.path.isfile(path):
        return path, f"names {shown(root / written)}, which is no file"
    return path, None


def _file_of(path: pathlib.Path, root: pathlib.Path) -> str:
    path, root = (pathlib.Path(os.path.abspath(one)) for one in (path, root))  # without `..`
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _written(row: Row) -> str:
    given = (f"{label} {value}" for label, value in zip(LABELS, row.labels, strict=True) if value)
    return shown(" ".join(given)) or "none"


def _row(file: str, path: pathlib.Path, where: str, given: Mapping[str, str | None]) -> Row:
    identity, camera = normal(given.get("person")), normal(given.get("camera"))
    others = ((given.get(label) or "").strip() or None for label in ("split", "modality", "time"))
    return Row(file, path, where, identity, camera, *others)


# --------------------------------------------------------------------- what labels mean


def without_junk(rows: Sequence[Row], marks: Meaning, report: Report) -> list[Row]:
    """Leaves out junk; reports how many images are junk and how many are distractors."""
    kept = [row for row in rows if row.identity not in marks.junk]
    distractors = sum(row.identity in marks.distractor for row in kept)
    if junk := len(rows) - len(kept):
        report(_of_no_identity(junk, marks.junk, "junk, which is left out", "junk"))
    if distractors:
        what = "a distractor, which matches no query" if distractors == 1 else "distractors, which match no query"
        report(_of_no_identity(distractors, marks.distractor, what, "distractor"))
    return kept


def _of_no_identity(count: int, labels: frozenset[str], what: str, setting: str) -> str:
    images = "1 image is" if count == 1 else f"{count} images are"
    names = a_few(in_order(labels))
    return f"{images} of identity {names}: {what}; if it is one of your identities, set {setting} to none"
