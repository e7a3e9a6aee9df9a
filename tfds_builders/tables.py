"""Tables as people save them: CSV from editors and spreadsheets, read into rows of clean text.

Read are UTF-8 and UTF-16 with their marks, any line ends, the separators `,`, `;` and tab, quoted cells that hold
separators or line breaks, blank lines, and spaces around cells. The first row names the columns, in any case.
"""

from __future__ import annotations

import codecs
import csv
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tfds_builders import DatasetError
from tfds_builders.listing import shown

SEPARATORS = (",", ";", "\t")
MARKS = (  # the longer ones first: that of UTF-32 begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class TableRow(NamedTuple):
    """A row: its number, as spreadsheets and editors count it from 1 on, and its cells by column, "" where blank."""

    number: int
    cells: dict[str, str]


def read(table: pathlib.Path, required: Mapping[str, str], columns: Sequence[str]) -> list[TableRow]:
    """Reads a table's rows.

    Args:
      table: the file.
      required: columns without which it is no such table; with each, what else a message says where it lacks.
      columns: all columns that are known; others are not read.

    Raises:
      DatasetError: the file cannot be read as text, lacks a required column, names one twice or has no rows, or rows
        have more or fewer cells than the first; the message names the file and the row.
    """
    text = _text(table)
    headers = {separator: _header(text, separator, table) for separator in SEPARATORS}
    separator = max(SEPARATORS, key=lambda separator: len(set(headers[separator]) & set(columns)))
    names = headers[separator]
    if missing := [column for column in required if column not in names]:
        optional = [column for column in columns if column not in required]
        raise DatasetError(
            f"the table {shown(table)} has no column {' and no column '.join(missing)}: "
            f"its first row must be {','.join(required)} and perhaps {','.join(optional)}{required[missing[-1]]}"
        )
    if twice := [name for name in columns if names.count(name) > 1]:
        raise DatasetError(f"the table {shown(table)} names the column {twice[0]} twice: remove one of them")
    rows, wrong = [], []
    for number, cells in list(_filled_rows(text, separator, table))[1:]:
        while len(cells) > len(names) and not cells[-1]:
            cells.pop()
        if len(cells) != len(names):
            wrong.append(f"row {number} has {_count(len(cells), 'cell')}, and the first row {len(names)}")
        else:
            rows.append(TableRow(number, dict(zip(names, cells, strict=True))))
    if wrong:
        more = f" ({len(wrong) - 1} more rows are like that)" if len(wrong) > 1 else ""
        raise DatasetError(
            f"the table {shown(table)}: {wrong[0]}: give it a cell for each column, and put quotes around a cell that "
            f"holds the separator {separator!r}{more}"
        )
    if not rows:
        raise DatasetError(f"the table {shown(table)} has no rows")
    return rows


def _text(table: pathlib.Path) -> str:
    if table.exists() and not table.is_file():
        raise DatasetError(f"the table {shown(table)} is no file")
    try:
        content = table.read_bytes()
    except OSError as error:
        raise DatasetError(f"the table {shown(table)} cannot be read: {error.strerror}") from None
    encoding = next((encoding for mark, encoding in MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        row = content[: error.start].decode("latin-1").count("\n") + 1
        raise DatasetError(
            f"the table {shown(table)} is no {encoding.removesuffix('-sig').upper()} text (row {row}): "
            "save it as UTF-8, which spreadsheets call CSV UTF-8"
        ) from None
    if "\0" in text:
        raise DatasetError(f"the table {shown(table)} holds characters of value 0: save it as UTF-8 text")
    return text


def _header(text: str, separator: str, table: pathlib.Path) -> list[str]:
    """The names in the first row, in lower case; none where its quotes do not fit this separator."""
    try:
        _, cells = next(_filled_rows(text, separator, table), (1, []))
    except DatasetError:
        return []
    return [cell.casefold() for cell in cells]


def _filled_rows(text: str, separator: str, table: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    """Yields number and cells of the rows that are not blank."""
    number = 0
    try:
        lines = io.StringIO(text, newline="")  # csv itself knows all line ends, and those within quotes
        for number, cells in enumerate(csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True), 1):
            cells = [cell.strip() for cell in cells]
            if any(cells):
                yield number, cells
    except csv.Error as error:
        raise DatasetError(f"the table {shown(table)} cannot be read after row {number}: {shown(str(error))}") from None


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
