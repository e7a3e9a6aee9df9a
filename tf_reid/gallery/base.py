"""What every gallery offers: a folder (`faiss_gallery`), a collection of Qdrant and a table of PostgreSQL alike."""

import abc
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from typing_extensions import Self

from tf_reid.config import ConfigError
from tf_reid.gallery.records import Filters, Match, Record, check_format, check_same_model

ABOUT_MODEL = ("digest", "distance", "width", "source")
WIDEST = 2**20  # numbers in an embedding
FEW = 20_000  # images left by filters that are compared one by one rather than by HNSW


class Gallery(abc.ABC):
    """Images' embeddings and whom, where and when they show; a context manager that closes it.

    Attributes:
        place: names the gallery in messages, without a password.
        about: "digest", "distance" ("cosine" or "euclidean"), "width" and "source" of the encoder that embedded the
          images, "format" (see `records.FORMAT`) and, once measured, "rejection" (see `rejection.calibrate`). While the
          gallery is being copied from another, "unfinished" names that one (see `copying.copy`).
    """

    place: str
    about: dict[str, Any]

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many images it holds."""

    @abc.abstractmethod
    def contained(self, paths: Sequence[str]) -> set[str]:
        """Those of these paths that are in the gallery."""

    @abc.abstractmethod
    def paths(self) -> Iterator[list[str]]:
        """All images' paths in an order that stays, some at a time."""

    @abc.abstractmethod
    def read(self, paths: Sequence[str]) -> tuple[list[Record], np.ndarray]:
        """Those of these images that are in the gallery, in this order, and their embeddings, float32 [N, D]."""

    @abc.abstractmethod
    def add(self, records: Sequence[Record], embeddings) -> int:
        """Add images; those whose path is in the gallery already stay as they are. Returns how many are new.

        Args:
            embeddings: float32 [N, D], finite.

        Raises:
            ValueError: the embeddings have another shape, or numbers that are not finite; an image has no path.
        """

    @abc.abstractmethod
    def remove(self, paths: Sequence[str] = (), identity: str | None = None, until: float | None = None) -> int:
        """Remove images by their paths or folders, all of an identity, and all up to a time. Returns how many.

        They are in no search from then on; `erase` removes their data from the gallery's files.

        Raises:
            ValueError: a path is empty.
        """

    @abc.abstractmethod
    def erase(self) -> None:
        """Leave nothing in the gallery's files of the images removed so far.

        Raises:
            ConfigError: something of them stays for now, such as where another process still reads it.
        """

    @abc.abstractmethod
    def update_index(self, always: bool = False) -> None:
        """Bring the index up to date where it lags far behind the images or holds removed ones, or `always`."""

    @abc.abstractmethod
    def mend_index(self) -> str | None:
        """Make an index anew that was damaged or lost. Returns a sentence that says so, or None where it is sound."""

    @abc.abstractmethod
    def search(
        self, embeddings, top: int = 10, filters: Filters | None = None, exact: bool = False
    ) -> list[list[Match]]:
        """The nearest images of each query, nearest first, at most `top`.

        Args:
            embeddings: float32 [Q, D] of the same model.
            top: 1 or more; more than there are images means all.
            exact: compare with every image, also where an approximate index would do.

        Raises:
            ValueError: the embeddings or `top` cannot be.
        """

    @abc.abstractmethod
    def identified(self, most: int) -> tuple[list[str], np.ndarray]:
        """Identities, and embeddings float32 [N, D], of up to `most` images whose identity is known."""

    @abc.abstractmethod
    def write_about(self, values: dict[str, Any]) -> None:
        """Keep values in `about`: "rejection", "unfinished"; None removes one. Who has it open sees them, too."""

    @abc.abstractmethod
    def summary(self) -> dict[str, Any]:
        """What one has to know for a search: "images", "cameras" (their names), "rejection"."""

    @abc.abstractmethod
    def stats(self) -> dict[str, Any]:
        """Plain values: how much it holds, which encoder made it, how its index stands."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the files or the connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error) -> None:
        self.close()

    def paths_and_embeddings(self) -> tuple[list[str], np.ndarray]:
        """Of all images; the embeddings are float32 [N, D]."""
        parts = [self.read(paths) for paths in self.paths()]
        if not parts:
            return [], np.empty((0, self.about["width"]), np.float32)
        paths = [record.path for records, _ in parts for record in records]
        return paths, np.concatenate([embeddings for _, embeddings in parts])

    @property
    def rejection(self) -> dict[str, Any] | None:
        """The rejection threshold and how it was measured, or None."""
        return self.about.get("rejection")

    def accepted(self, distance: float) -> bool | None:
        """Whether a distance is within the rejection threshold; None where there is none."""
        return None if self.rejection is None else bool(distance <= self.rejection["threshold"])


def check_about(about: Mapping[str, Any], place: object, wanted: Mapping[str, Any] | None = None) -> None:
    """Raise a ConfigError where what a gallery keeps about itself cannot be, is of another version, or is unfinished.

    Args:
        place: names the gallery.
        wanted: what its opener would have it made with: it must be of the same model. It may be an unfinished copy
          where the opener copies.
    """
    check_format(about, str(place))
    rejection = about.get("rejection")
    width = about.get("width")
    is_sound = (
        isinstance(about.get("digest"), str)
        and about.get("distance") in ("cosine", "euclidean")
        and isinstance(width, int)
        and 1 <= width <= WIDEST
        and isinstance(about.get("source"), str)
        and all(isinstance(about.get(counter, 0), int) for counter in ("revision", "removals", "erased", "images"))
        and (rejection is None or _is_rejection(rejection))
    )
    if not is_sound:
        raise ConfigError(
            f"{place} is damaged: what it keeps of its encoder cannot be. Restore it from a copy, or build it anew "
            "with python -m tf_reid.search build."
        )
    if wanted is not None:
        check_same_model(about, wanted, place)
    if about.get("unfinished") and not (wanted or {}).get("unfinished"):
        raise ConfigError(
            f"{place} is an unfinished copy of {about['unfinished']}: finish it with python -m tf_reid.search copy "
            f"{about['unfinished']} {place}, or remove it."
        )


def _is_rejection(values):
    """Whether these are values as `rejection.calibrate` measures them."""
    keys = ("threshold", "false_accept_rate", "images", "queries")
    if not isinstance(values, Mapping):
        return False
    return all(isinstance(values.get(key), int | float) and math.isfinite(values[key]) for key in keys)


def checked_top(top: int, images: int) -> int:
    """How many matches of a gallery of so many images are asked for, at least 1.

    Raises:
        ValueError: `top` is not a whole number from 1 on.
    """
    if isinstance(top, bool) or not isinstance(top, int | np.integer) or top < 1:
        raise ValueError(f"top must be a whole number from 1 on, not {top!r}.")
    return max(1, min(int(top), images))
