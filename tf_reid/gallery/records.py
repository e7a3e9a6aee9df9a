"""What a gallery holds and answers with, and the checks that every kind of gallery makes. Loads no FAISS."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_reid.config import ConfigError

FORMAT = 2  # of what a gallery keeps; raised when a gallery made before can no longer be read
RUN_PREFIX = "run:"  # paths that begin so are images of the data set that a run is scored on


class Record(NamedTuple):
    """An image and what is known of it; `time` is in seconds since 1970, UTC."""

    path: str
    identity: str | None = None
    camera: str | None = None
    time: float | None = None


class Filters(NamedTuple):
    """Which images are searched: of these cameras (none named: all), not of those, not before, not after."""

    cameras: tuple[str, ...] = ()
    not_cameras: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None


class Match(NamedTuple):
    """An image of the gallery near to a query; `accepted`: within the rejection threshold (None: there is none)."""

    id: int | str
    record: Record
    distance: float
    accepted: bool | None


def check_format(about: Mapping[str, Any], place: object) -> None:
    """Raise a ConfigError where a gallery was made by a version of this library that kept other things."""
    made_by = about.get("format", 1)
    if isinstance(made_by, int) and made_by > FORMAT:
        raise ConfigError(
            f"{place} has gallery format {made_by}, and this version reads format {FORMAT}: it was made by a newer "
            "version of tf_reid. Install that version, or build another gallery."
        )
    if made_by != FORMAT:
        raise ConfigError(
            f"{place} has gallery format {made_by}, and this version reads format {FORMAT}: "
            "remove it and build it anew with python -m tf_reid.search build."
        )


def check_same_model(about: Mapping[str, Any], encoder: Mapping[str, Any], place: object) -> None:
    """Raise a ConfigError where a gallery's embeddings are not those of an encoder.

    Args:
        about: what the gallery keeps. encoder: "digest" and "source" of the encoder. place: names the gallery.
    """
    if about["digest"] != encoder["digest"]:
        raise ConfigError(
            f"{place} was built by model {about['digest']} ({about['source']}), and this is {encoder['digest']} "
            f"({encoder['source']}): their embeddings cannot be compared. Build another gallery, or use the first "
            "model."
        )


def plain_records(records: Sequence[Record]) -> list[Record]:
    """The records as every gallery keeps them: texts, and a time that is a finite number or None.

    Raises:
        ValueError: an image has no path.
    """
    check_paths([record.path for record in records])
    return [_plain(*record) for record in records]


def check_paths(paths: Sequence[str]) -> None:
    """Make sure that no path is empty: as a folder, it would stand for all images with an absolute path.

    Raises:
        ValueError: one is.
    """
    if not all(paths):
        raise ValueError("Every image needs a path.")


def _plain(path, identity, camera, time):
    is_known = time is not None and math.isfinite(time)
    texts = (None if text is None else str(text) for text in (identity, camera))
    return Record(str(path), *texts, float(time) if is_known else None)


def checked_embeddings(embeddings, width: int, count: int | None = None) -> np.ndarray:
    """The embeddings as a contiguous float32 array [N, width].

    Raises:
        ValueError: their shape is another, or some numbers are not finite.
    """
    array = np.ascontiguousarray(embeddings, np.float32)
    if array.ndim != 2 or array.shape[1] != width or (count is not None and len(array) != count):
        raise ValueError(f"Embeddings must be [{'N' if count is None else count}, {width}], not {list(array.shape)}.")
    if not np.isfinite(array).all():
        raise ValueError("Embeddings must be finite numbers.")
    return array
