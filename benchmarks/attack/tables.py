"""Tables of images (CSV) that are malformed in many ways, and sound ones as spreadsheets write them."""

from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.attack.cases import ANSWER, EITHER, REFUSE, Case, choose, damaged

SOUND = 0.25  # the fraction of sound tables
COLUMNS = ("path", "person", "camera")
ODD_NAMES = ("with, comma.png", "with 'quote.png", "mit Käse.png", "名前.png", "with space.png", "it;em.png")
Rows = list[list[str]]


def case(rng: np.random.Generator, files: Sequence[str]) -> Case:
    """One table, as bytes: a sound one, or in three of four cases a malformed one.

    Args:
        files: names of images beside the table, 8 or more.
    """
    if rng.random() < SOUND:
        kind = choose(rng, list(FORMS))
        return Case(kind, FORMS[kind](rows_of(rng, files)), ANSWER)
    if rng.random() < 0.5:
        kind = choose(rng, list(FORMS))
        done, content = damaged(rng, FORMS[kind](rows_of(rng, files)))
        return Case(f"{kind}, {done}", content)
    kind = choose(rng, list(WRONG))
    wrong, demand = WRONG[kind]
    return Case(kind, wrong(rng, rows_of(rng, files)), demand)


def rows_of(rng: np.random.Generator, files: Sequence[str]) -> Rows:
    """A header and a row a file: identities and cameras so that every identity is seen by two cameras."""
    start = int(rng.integers(1, 1000))
    labels = [[file, str(start + number // 4), str(1 + number % 2)] for number, file in enumerate(files)]
    return [list(COLUMNS), *labels]


def written(rows: Rows, delimiter: str = ",", end: str = "\n", quote: bool = False) -> str:
    """Rows as text; a field that holds the delimiter is quoted."""

    def field(value):
        return '"' + value.replace('"', '""') + '"' if quote or delimiter in value or '"' in value else value

    return "".join(delimiter.join(map(field, row)) + end for row in rows)


# ------------------------------------------------------------------ sound forms


def _encoded(encoding, **options):
    return lambda rows: written(rows, **options).encode(encoding)


def _columns_as(change):
    return lambda rows: written(
        [rows[0], *([file, change(person), camera] for file, person, camera in rows[1:])]
    ).encode()


FORMS: dict[str, Callable[[Rows], bytes]] = {
    "plain": _encoded("utf-8"),
    "BOM": _encoded("utf-8-sig"),
    "CRLF": _encoded("utf-8", end="\r\n"),
    "CR": _encoded("utf-8", end="\r"),
    "semicolons": _encoded("utf-8", delimiter=";"),
    "semicolons, BOM, CRLF": _encoded("utf-8-sig", delimiter=";", end="\r\n"),
    "UTF-16": _encoded("utf-16", end="\r\n"),
    "all quoted": _encoded("utf-8", quote=True),
    "blank lines": _encoded("utf-8", end="\n\n"),
    "blank lines at the end": lambda rows: written(rows).encode() + b"\n\r\n\n",
    "no line end at the end": lambda rows: written(rows).encode().rstrip(b"\n"),
    "spaces": lambda rows: written([[f" {value} " for value in row] for row in rows]).encode(),
    "columns in another order": lambda rows: written([row[::-1] for row in rows]).encode(),
    "more columns": lambda rows: written([[*row, "note"] for row in rows]).encode(),
    "numbers with .0": _columns_as(lambda person: f"{person}.0"),
    "leading zeros": _columns_as(lambda person: person.zfill(6)),
    "names of people in other scripts": _columns_as(lambda person: f"人{person} Zoë"),
}


# ------------------------------------------------------------------ wrong tables


def _text(change):
    """Of a function that changes rows."""
    return lambda rng, rows: written(change(rng, rows)).encode(errors="surrogateescape")


def _with_path(path):
    def change(rng, rows):
        rows[choose(rng, range(1, len(rows)))][0] = choose(rng, path)
        return rows

    return _text(change)


def _with_label(column, values):
    def change(rng, rows):
        rows[choose(rng, range(1, len(rows)))][column] = choose(rng, values)
        return rows

    return _text(change)


def _again(rng, rows):
    """A file twice, of two people."""
    file, person, camera = rows[1]
    return [*rows, [file, person + "7", camera]]


def _long_field(rng, rows):
    rows[-1][1] = "9" * 200_000
    return rows


def _many_columns(rng, rows):
    return [[*rows[0], *(f"c{number}" for number in range(5000))], *rows[1:]]


PATHS = ("../../../../etc/passwd", "/etc/passwd", "/dev/zero", "/dev/stdin", ".", "..", "a" * 300 + ".png", "x/" * 3000)
PATHS += ("no_such.png", "\x00.png", "\x1b[31m.png", "run:gallery", "~root/a.png", "C:\\images\\a.png", "//host/a.png")
NUMBERS = ("9" * 400, str(2**63), str(2**64), "1e400", "-5", "1.5", "0x10", "٣", "²", "Ⅷ", "nan", "inf", "--1", "=1+1")
TEXTS = ("\x00", "\x1b[2J", "‮", "a" * 5000, "'; drop table images;--", "<script>alert(1)</script>", "{}", "%s%n")

WRONG: dict[str, tuple[Callable[[np.random.Generator, Rows], bytes], str]] = {
    "empty": (lambda rng, rows: b"", REFUSE),
    "header alone": (lambda rng, rows: written(rows[:1]).encode(), REFUSE),
    "no header": (lambda rng, rows: written(rows[1:]).encode(), REFUSE),
    "no column path": (_text(lambda rng, rows: [row[1:] for row in rows]), REFUSE),
    "noise": (lambda rng, rows: rng.bytes(int(rng.integers(1, 5000))), REFUSE),
    "zeros": (lambda rng, rows: bytes(5000), REFUSE),
    "an image": (lambda rng, rows: b"\x89PNG\r\n\x1a\n" + rng.bytes(2000), REFUSE),
    "a workbook": (lambda rng, rows: b"PK\x03\x04\x14\x00" + rng.bytes(2000), REFUSE),
    "JSON": (lambda rng, rows: b'[{"path": "a.png", "person": 1}]', REFUSE),
    "a quote that is not closed": (lambda rng, rows: written(rows).encode() + b'"', EITHER),
    "NUL within": (lambda rng, rows: written(rows).encode().replace(b",", b",\x00", 3), EITHER),
    "Latin-1": (lambda rng, rows: written([*rows, ["mit Käse.png", "1", "1"]]).encode("latin-1", "replace"), EITHER),
    "UTF-16 without BOM": (lambda rng, rows: written(rows).encode("utf-16-le"), EITHER),
    "UTF-32": (lambda rng, rows: written(rows).encode("utf-32"), EITHER),
    "a file twice, of two people": (_text(_again), REFUSE),
    "a short row": (_text(lambda rng, rows: [*rows, rows[1][:1]]), EITHER),
    "a row without path": (_text(lambda rng, rows: [*rows, ["", "1", "1"]]), REFUSE),
    "a long row": (_text(lambda rng, rows: [*rows, [*rows[1], "a", "b", "c"]]), EITHER),
    "a field of 200 KB": (_text(_long_field), EITHER),
    "5,000 columns": (_text(_many_columns), EITHER),
    "columns twice": (_text(lambda rng, rows: [row + row for row in rows]), EITHER),
    "a path to elsewhere": (_with_path(PATHS), EITHER),
    "an odd person": (_with_label(1, NUMBERS + TEXTS), EITHER),
    "an odd camera": (_with_label(2, NUMBERS + TEXTS), EITHER),
    "no camera": (_with_label(2, ("",)), EITHER),
    "no person": (_with_label(1, ("",)), EITHER),
}
