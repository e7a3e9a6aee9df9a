"""Which images are meant, and what their names say of them: files, folders, a table, or the images of a run."""

import csv
import datetime
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tf_reid.config import ConfigError
from tf_reid.files import images_in
from tf_reid.gallery.faiss_gallery import Record
from tf_reid.runs import run_folder, splits

EARLIEST, LATEST = 1e8, 7.26e9  # seconds since 1970
KNOWN = {"person", "camera", "time"}  # of an image
OF_A_RUN = "run:"  # before the name of a split, or of a file, of the data set that a run is scored on


class Crop(NamedTuple):
    """An image: what is known of it, and how to read its bytes."""

    record: Record
    read: Callable[[], bytes]


def crops_in(asked: Iterable[str], pattern: str | None, run: Path | None) -> list[Crop]:
    """All images asked for.

    Args:
        asked: files, folders, and `run:gallery` or `run:FILE`.
        pattern: a regular expression searched in files' paths; its groups person, camera and time are taken.
        run: whose images are meant by `run:`.

    Raises:
        ConfigError: the pattern is none, or does not fit a path; the run has no such images.
        FileNotFoundError: a path is not there.
    """
    names = list(asked)
    of_run = [name.removeprefix(OF_A_RUN) for name in names if name.startswith(OF_A_RUN)]
    paths = [Path(name) for name in names if not name.startswith(OF_A_RUN)]
    found = [crop for name in of_run for crop in _of_run(name, run)]
    if not paths:
        return found
    try:
        expression = re.compile(pattern) if pattern else None
    except re.error as error:
        raise ConfigError(f"--pattern {pattern} is no regular expression: {error}.") from None
    if expression and (not expression.groupindex or set(expression.groupindex) - KNOWN):
        raise ConfigError(
            f"--pattern {pattern} must name its groups: (?P<person>...), (?P<camera>...), (?P<time>...), each or some."
        )
    return found + [Crop(_described(path, expression), path.read_bytes) for path in images_in(paths)]


def crops_of_table(table: Path) -> list[Crop]:
    """Of a CSV file with the column path and, if known, person, camera and time; paths are relative to it.

    Raises:
        ConfigError: the file has no such column, a time that is none, or names a file that is not there.
    """
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or "path" not in rows[0]:
        raise ConfigError(f"{table} has no rows with a column path.")
    for row in rows:
        if not (table.parent / row["path"]).is_file():
            raise ConfigError(f"{table} names {row['path']}, and there is no {table.parent / row['path']}.")
    return [
        Crop(_known(table.parent / row["path"], row, table), (table.parent / row["path"]).read_bytes) for row in rows
    ]


def reader(run: Path | None) -> Callable[[str], bytes | None]:
    """A function from a record's path to its image's bytes, None where it is no longer there."""

    def read(path):
        if path.startswith(OF_A_RUN):
            crops = _by_file(run) if run else {}
            name = path.removeprefix(OF_A_RUN)
            return crops[name].read() if name in crops else None
        try:
            return Path(path).read_bytes()
        except OSError:
            return None

    return read


def seconds(text: str) -> float:
    """A time as people write it, 2026-11-22T14:05 (UTC unless it says otherwise), or as seconds since 1970.

    Raises:
        ValueError: it is neither, or before 1973 or after 2200, as milliseconds would be.
    """
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not EARLIEST <= found <= LATEST:  # 20261122 is a date, not a second of 1970
        try:
            time = datetime.datetime.fromisoformat(text)
            found = (time if time.tzinfo else time.replace(tzinfo=datetime.timezone.utc)).timestamp()
        except (ValueError, OverflowError):
            found = math.nan
    if not EARLIEST <= found <= LATEST:
        raise ValueError(f"the time {text!r} is none from 1973 to 2200; write 2026-11-22T14:05 or seconds since 1970")
    return found


def _described(path, expression):
    if expression is None:
        return Record(str(path.resolve()))
    match = expression.search(str(path))
    if match is None:
        raise ConfigError(f"--pattern {expression.pattern} does not fit {path}.")
    return _known(path, match.groupdict(), f"--pattern {expression.pattern}")


def _known(path, values, where):
    found = {key: values.get(key) or None for key in KNOWN}
    if found["time"] is not None:
        try:
            found["time"] = seconds(found["time"])
        except ValueError as error:
            raise ConfigError(f"{where}, {path}: {error}.") from None
    return Record(str(path.resolve()), found["person"], found["camera"], found["time"])


def _of_run(name, run) -> Iterator[Crop]:
    if run is None or not run_folder.is_run(run):
        raise ConfigError(f"{OF_A_RUN}{name}: images of a run need a gallery built with --run, or --run itself.")
    crops = _by_file(run)
    if name in crops:
        return [crops[name]]
    found = [crop for split, crop in _records_of(run) if split == name]
    if not found:
        there = ", ".join(sorted({split for split, _ in _records_of(run)}))
        raise ConfigError(f"{OF_A_RUN}{name}: {run} is scored on images with no such file, nor split; splits: {there}.")
    return found


@functools.lru_cache(maxsize=1)
def _records_of(run):
    config = run_folder.load_run(run)
    records = splits.load_data(config)[splits.scored_domain(config)]
    rows = zip(records.split, records.file, records.identity, records.camera, records.images, strict=True)
    return [
        (
            str(split),
            Crop(Record(f"{OF_A_RUN}{file}", str(identity) if identity > 0 else None, str(camera)), lambda i=image: i),
        )
        for split, file, identity, camera, image in rows
    ]


@functools.lru_cache(maxsize=1)
def _by_file(run):
    return {crop.record.path.removeprefix(OF_A_RUN): crop for _, crop in _records_of(run)}
