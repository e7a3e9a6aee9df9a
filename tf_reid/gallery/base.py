"""What every gallery offers: a folder (`faiss_gallery`) and a collection on a server (`qdrant_gallery`) alike."""

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
from typing_extensions import Self

from tf_reid.gallery.records import Filters, Match, Record

ABOUT_MODEL = ("digest", "distance", "width", "source")


class Gallery(abc.ABC):
    """Images' embeddings and whom, where and when they show; a context manager that closes it.

    Attributes:
        about: "digest", "distance" ("cosine" or "euclidean"), "width" and "source" of the encoder that embedded the
          images, "format" (see `records.FORMAT`) and, once measured, "rejection" (see `rejection.calibrate`).
    """

    about: dict[str, Any]

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many images it holds."""

    @abc.abstractmethod
    def contained(self, paths: Sequence[str]) -> set[str]:
        """Those of these paths that are in the gallery."""

    @abc.abstractmethod
    def add(self, records: Sequence[Record], embeddings) -> int:
        """Add images; those whose path is in the gallery already stay as they are. Returns how many are new.

        Args:
            embeddings: float32 [N, D], finite.

        Raises:
            ValueError: the embeddings have another shape, or numbers that are not finite.
        """

    @abc.abstractmethod
    def remove(self, paths: Sequence[str] = (), identity: str | None = None, until: float | None = None) -> int:
        """Remove images by their paths or folders, all of an identity, and all up to a time. Returns how many."""

    @abc.abstractmethod
    def update_index(self, always: bool = False) -> None:
        """Bring the index up to date where it lags far behind the images, or `always`."""

    @abc.abstractmethod
    def search(
        self, embeddings, top: int = 10, filters: Filters | None = None, exact: bool = False
    ) -> list[list[Match]]:
        """The nearest images of each query, nearest first, at most `top`.

        Args:
            embeddings: float32 [Q, D] of the same model.
            exact: compare with every image, also where an approximate index would do.
        """

    @abc.abstractmethod
    def identified(self, most: int) -> tuple[list[str], np.ndarray]:
        """Identities, and embeddings float32 [N, D], of up to `most` images whose identity is known."""

    @abc.abstractmethod
    def write_rejection(self, rejection: dict[str, Any]) -> None:
        """Keep a rejection threshold, as `rejection.calibrate` measures it."""

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

    @property
    def rejection(self) -> dict[str, Any] | None:
        """The rejection threshold and how it was measured, or None."""
        return self.about.get("rejection")

    def accepted(self, distance: float) -> bool | None:
        """Whether a distance is within the rejection threshold; None where there is none."""
        return None if self.rejection is None else bool(distance <= self.rejection["threshold"])
