"""Which images a search command means, and what their names say of them: files, folders, a table, or a run's images."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tf_reid.config import ConfigError, is_run
from tf_reid.encoders import remote_files
from tf_reid.files import to_stderr
from tf_reid.gallery import tables, times
from tf_reid.gallery.records import RUN_PREFIX, Record
from tfds_builders import DatasetError, labels
from tfds_builders.images import read_image
from tfds_builders.labels import Meaning, Row
from tfds_builders.listing import Named, Report, as_text, named_images, shown, walk

FIELDS = {"person", "camera", "time"}  # groups of a pattern, of which it must have one
OTHER_FIELDS = {"split", "modality"}  # which a pattern for training may have as well


class Crop(NamedTuple):
    """An image: what is known of it, and how to read its bytes."""

    record: Record
    read: Callable[[], bytes]


def crops_in(
    names: Iterable[str],
    pattern: str | None,
    run: Path | None,
    marks: Meaning = labels.STANDARD,
    report: Report = to_stderr,
) -> list[Crop]:
    """All images of these names: first those of the run, then files and those of folders, then URLs, as they are given.

    Args:
        names: files, folders, URLs of either, and `run:gallery` (a split of the run's data set) or `run:FILE`.
        pattern: a regular expression, searched in an image's path below the folder that is named, and of a file that is
            named alone in its name; its groups person, camera and time are taken. Images that it does not match are
            left out.
        run: whose images are meant by `run:`.
        marks: which identities are distractors, whose identity is not known, and which are junk, which is left out.
        report: takes, a sentence each, what is left out and why.

    Raises:
        ConfigError: a name is empty; the pattern is not a regular expression, or matches no image; an image has two
            different descriptions; the run has no such images.
        FileNotFoundError: there is no such path.
    """
    names = list(names)
    _check_not_empty(names)
    crops = []
    for name in names:
        if name.startswith(RUN_PREFIX):
            crops += _crops_of_run(name.removeprefix(RUN_PREFIX), run)
    expression = _compiled(pattern) if pattern else None
    paths = [Path(name) for name in names if not name.startswith(RUN_PREFIX) and not remote_files.is_url(name)]
    if paths:
        images = named_images(paths, report)
        try:
            rows = _described(images, expression, ", ".join(map(str, paths)), marks, report)
        except DatasetError as error:
            raise ConfigError(f"{error}.") from None
        crops += _crops_of_rows(rows, marks, report)
    for url in filter(remote_files.is_url, names):
        crops += _crops_at(url, expression, marks, report)
    return once(crops)


def crops_of_table(
    table: str | Path, marks: Meaning = labels.STANDARD, report: Report = to_stderr, is_parquet: bool = False
) -> list[Crop]:
    """The images of a table: the column path and, if known, person, camera and time; paths are relative to it.

    Args:
        table: a CSV file, or a Parquet file or a folder of these; a path or a URL. Its paths may be URLs, too.

    Raises:
        ConfigError: the file has no such column or cannot be read as a table, names a file that is missing, one file
            twice with different labels, or a time that cannot be read. Of Parquet, and where URLs are named, no file
            is looked for: those that are missing are images that cannot be read.
    """
    name = str(table)
    try:
        if is_parquet or remote_files.is_url(name) or tables.names_urls(name):
            rows = tables.rows(name, is_parquet)
        else:
            rows = labels.by_table(Path(name), Path(name).parent, {"path": ""})
    except DatasetError as error:
        raise ConfigError(f"{error}.") from None
    return _crops_of_rows(labels.without_junk(rows, marks, report), marks, report)


def once(crops: Iterable[Crop]) -> list[Crop]:
    """Each image once, by the name that describes it where another only names it.

    Raises:
        ConfigError: an image has two different descriptions.
    """
    by_path: dict[str, Crop] = {}
    for crop in crops:
        first = by_path.setdefault(crop.record.path, crop).record
        if first == Record(first.path):  # nothing is known of it
            by_path[first.path] = crop
        elif crop.record not in (first, Record(first.path)):
            raise ConfigError(
                f"{shown(first.path)} is named twice, as {_words(first)} and as {_words(crop.record)}: name it once."
            )
    return list(by_path.values())


def _words(record: Record) -> str:
    known = (f"{field} {value}" for field, value in record._asdict().items() if field != "path" and value is not None)
    return shown(", ".join(known))


def contents(crops: Iterable[Crop]) -> list[bytes | str | Path]:
    """What an encoder takes of each: its bytes, its URL, or the path of a file that cannot be read: it says why."""
    return [_content(crop) for crop in crops]


def sent_to_workers(crop: Crop) -> bytes | str:
    """What a process that embeds is sent: where it finds the image, or the bytes of a run's."""
    return crop.read() if crop.record.path.startswith(RUN_PREFIX) else crop.record.path


def _content(crop):
    if remote_files.is_url(crop.record.path):
        return crop.record.path  # the encoder reads many at the same time
    try:
        return crop.read()
    except (OSError, ValueError):  # such as a file that vanished since it was listed, or is too large
        return Path(crop.record.path)


def reader(run: Path | None) -> Callable[[str], bytes | None]:
    """A function from a record's path to its image's bytes, None where the image is no longer there."""

    def read(path: str) -> bytes | None:
        if path.startswith(RUN_PREFIX):
            crops = _crops_by_file(run) if run else {}
            name = path.removeprefix(RUN_PREFIX)
            return crops[name].read() if name in crops else None
        try:
            return remote_files.read_image(path) if remote_files.is_url(path) else read_image(path)
        except (OSError, ValueError):
            return None

    return read


def kept_paths(names: Iterable[str]) -> list[str]:
    """The paths by which a gallery keeps the images of these names; a folder's own path stands for all images in it.

    Behind a folder follow the images that links in it lead to, which are kept by the paths where they lie.

    Raises:
        ConfigError: a name is empty.
    """
    names = list(names)
    _check_not_empty(names)
    paths: dict[str, None] = {}  # each once, in order
    for name in names:
        if name.startswith(RUN_PREFIX) or remote_files.is_url(name):
            paths[name.rstrip("/")] = None
            continue
        named = Path(name).resolve()
        paths[str(named)] = None
        if named.is_dir():
            for image in walk(named).images:
                path = str((named / image).resolve())
                if not path.startswith(f"{named}/") and as_text(path) == path:  # no gallery keeps other paths
                    paths[path] = None
    return list(paths)


def _check_not_empty(names):
    """Refuse a name that, as a path, would be the folder in which the command runs."""
    if "" in names:
        raise ConfigError("An empty name stands for no image: name files or folders.")


def _compiled(pattern):
    try:
        expression = labels.compiled(pattern)
    except DatasetError as error:
        raise ConfigError(f"--pattern: {error}.") from None
    groups = set(expression.groupindex)
    if not groups & FIELDS or groups - FIELDS - OTHER_FIELDS:
        raise ConfigError(
            f"--pattern {pattern} must name its groups, some or all of (?P<person>...), (?P<camera>...), (?P<time>...)."
        )
    return expression


def _described(images: Sequence[Named], expression, place, marks, report) -> list[Row]:
    if expression is None:
        return [Row(image.name, image.path, f"the image {shown(image.path)}") for image in images]
    return labels.without_junk(labels.by_pattern(expression, images, place, report), marks, report)


def _crops_of_rows(rows: Iterable[Row], marks: Meaning, report: Report) -> list[Crop]:
    crops: list[Crop] = []
    nameless: list[Crop] = []
    for row in rows:
        crop = _crop(row, marks)
        # A gallery keeps paths as UTF-8, and gives them back to read the images.
        is_text = as_text(crop.record.path) == crop.record.path
        (crops if is_text else nameless).append(crop)
    if nameless:
        report(
            f"{len(nameless)} of {len(crops) + len(nameless)} images have a path that is not UTF-8 and are left out, "
            f"such as {shown(nameless[0].record.path)}; rename them"
        )
    return crops


def _crops_at(url, expression, marks, report):
    """The image, or those below the folder, at a URL."""
    urls = dict(remote_files.images_at(url))
    try:
        rows = _described([Named(name, Path(place)) for name, place in urls.items()], expression, url, marks, report)
    except DatasetError as error:
        raise ConfigError(f"{error}.") from None
    return _crops_of_rows([dataclasses.replace(row, file=urls[row.file]) for row in rows], marks, report)


def _crop(row: Row, marks: Meaning) -> Crop:
    try:
        seconds = times.parse(row.time) if row.time is not None else None
    except ValueError as error:
        raise ConfigError(f"{row.where}: {error}.") from None
    identity = None if row.identity in marks.distractor else row.identity
    if remote_files.is_url(row.file):
        return Crop(
            Record(row.file, identity, row.camera, seconds), functools.partial(remote_files.read_image, row.file)
        )
    return Crop(Record(str(row.path.resolve()), identity, row.camera, seconds), functools.partial(read_image, row.path))


# ------------------------------------------------------------------ images of a run


def _crops_of_run(name, run):
    """The image of this file name, or all of this split."""
    if run is None or not is_run(run):
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
    for index, (split, file, identity, camera) in enumerate(
        zip(records.split, records.file, records.identity, records.camera, strict=True)
    ):
        identity_label = records.identity_labels.get(int(identity), str(identity)) if identity > 0 else None
        camera_label = records.camera_labels.get(int(camera), str(camera))
        record = Record(f"{RUN_PREFIX}{file}", identity_label, camera_label)
        crops.setdefault(str(split), []).append(Crop(record, functools.partial(records.images.__getitem__, index)))
    return crops


@functools.lru_cache(maxsize=1)
def _crops_by_file(run):
    crops = {}
    for crops_of_split in _crops_by_split(run).values():
        for crop in crops_of_split:
            crops[crop.record.path.removeprefix(RUN_PREFIX)] = crop
    return crops
