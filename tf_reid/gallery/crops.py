"""Which images a search command means, and what their names say of them: files, folders, a table, or a run's images."""

import csv
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from tf_reid.config import ConfigError
from tf_reid.files import images_in
from tf_reid.gallery import times
from tf_reid.gallery.records import RUN_PREFIX, Record

FIELDS = {"person", "camera", "time"}  # groups of a pattern, and columns of a table


class Crop(NamedTuple):
    """An image: what is known of it, and how to read its bytes."""

    record: Record
    read: Callable[[], bytes]


def crops_in(names: Iterable[str], pattern: str | None, run: Path | None) -> list[Crop]:
    """All images of these names: first those of the run, then files and those of folders, each in the order given.

    Args:
        names: files, folders, and `run:gallery` (a split of the run's data set) or `run:FILE`.
        pattern: a regular expression searched in files' paths; its groups person, camera and time are taken.
        run: whose images are meant by `run:`.

    Raises:
        ConfigError: the pattern is not a regular expression, or does not fit a path; the run has no such images.
        FileNotFoundError: there is no such path.
    """
    names = list(names)
    crops = []
    for name in names:
        if name.startswith(RUN_PREFIX):
            crops += _crops_of_run(name.removeprefix(RUN_PREFIX), run)
    paths = [Path(name) for name in names if not name.startswith(RUN_PREFIX)]
    if paths:
        expression = _compiled(pattern) if pattern else None
        crops += [Crop(_record_by_name(path, expression), path.read_bytes) for path in images_in(paths)]
    return crops


def crops_of_table(table: Path) -> list[Crop]:
    """The images of a CSV file: the column path and, if known, person, camera and time; paths are relative to it.

    Raises:
        ConfigError: the file has no such column, a time that cannot be read, or names a file that is missing.
    """
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or "path" not in rows[0]:
        raise ConfigError(f"{table} has no rows with a column path.")
    crops = []
    for row in rows:
        path = table.parent / row["path"]
        if not path.is_file():
            raise ConfigError(f"{table} names {row['path']}, and there is no {path}.")
        crops.append(Crop(_record(path, row, table), path.read_bytes))
    return crops


def reader(run: Path | None) -> Callable[[str], bytes | None]:
    """A function from a record's path to its image's bytes, None where the image is no longer there."""

    def read(path: str) -> bytes | None:
        if path.startswith(RUN_PREFIX):
            crops = _crops_by_file(run) if run else {}
            name = path.removeprefix(RUN_PREFIX)
            return crops[name].read() if name in crops else None
        try:
            return Path(path).read_bytes()
        except OSError:
            return None

    return read


def _compiled(pattern):
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--pattern {pattern} is not a regular expression: {error}.") from None
    if not expression.groupindex or set(expression.groupindex) - FIELDS:
        raise ConfigError(
            f"--pattern {pattern} must name its groups, some or all of (?P<person>...), (?P<camera>...), (?P<time>...)."
        )
    return expression


def _record_by_name(path, expression):
    if expression is None:
        return Record(str(path.resolve()))
    match = expression.search(str(path))
    if match is None:
        raise ConfigError(f"--pattern {expression.pattern} does not fit {path}.")
    return _record(path, match.groupdict(), f"--pattern {expression.pattern}")


def _record(path: Path, values: Mapping[str, str | None], source) -> Record:
    """The record of a file by a pattern's groups or a table's row, which `source` names in an error."""
    person, camera, time = (values.get(field) or None for field in ("person", "camera", "time"))
    try:
        seconds = times.parse(time) if time is not None else None
    except ValueError as error:
        raise ConfigError(f"{source}, {path}: {error}.") from None
    return Record(str(path.resolve()), person, camera, seconds)


# ------------------------------------------------------------------ images of a run


def _crops_of_run(name, run):
    """The image of this file name, or all of this split."""
    from tf_reid.runs import run_folder

    if run is None or not run_folder.is_run(run):
        raise ConfigError(f"{RUN_PREFIX}{name} needs a run: name it with --run, or search a gallery built with --run.")
    by_file = _crops_by_file(run)
    if name in by_file:
        return [by_file[name]]
    splits = _crops_by_split(run)
    if name not in splits:
        raise ConfigError(
            f"{RUN_PREFIX}{name}: the data set that {run} is scored on has no such file or split; "
            f"its splits are {', '.join(sorted(splits))}."
        )
    return splits[name]


@functools.lru_cache(maxsize=1)
def _crops_by_split(run):
    from tf_reid.runs import run_folder, splits

    config = run_folder.load_run(run)
    records = splits.load_data(config)[splits.scored_domain(config)]
    crops: dict[str, list[Crop]] = {}
    for split, file, identity, camera, content in zip(
        records.split, records.file, records.identity, records.camera, records.images, strict=True
    ):
        record = Record(f"{RUN_PREFIX}{file}", str(identity) if identity > 0 else None, str(camera))
        crops.setdefault(str(split), []).append(Crop(record, functools.partial(bytes, content)))
    return crops


@functools.lru_cache(maxsize=1)
def _crops_by_file(run):
    crops = {}
    for crops_of_split in _crops_by_split(run).values():
        for crop in crops_of_split:
            crops[crop.record.path.removeprefix(RUN_PREFIX)] = crop
    return crops
