"""A FAISS index over a gallery's embeddings: compared one by one up to some size, a graph (HNSW) above."""

from collections.abc import Callable, Iterable
from typing import Any

import faiss as untyped
import numpy as np

faiss: Any = untyped  # its annotations do not know what its Python side adds

FLAT_UP_TO = 200_000  # images; above, HNSW
LINKS, BUILD_BREADTH, SEARCH_BREADTH, WIDEST_SEARCH = 32, 200, 128, 8192  # of HNSW


class FaissIndex:
    """An index that answers with the images' own numbers.

    Attributes:
        last: the highest number of an image when it was built; later images are not in it.
        is_hnsw: whether it is approximate.
    """

    def __init__(self, index: Any, distance: str, last: int):
        self._index, self._distance, self.last = index, distance, last
        self.is_hnsw = isinstance(faiss.downcast_index(index.index), faiss.IndexHNSW)

    @property
    def kind(self) -> str:
        return "HNSW" if self.is_hnsw else "flat"

    @classmethod
    def build(
        cls, parts: Iterable[tuple[np.ndarray, np.ndarray]], count: int, width: int, distance: str, last: int
    ) -> "FaissIndex":
        """An index of `count` images, whose numbers (int64 [n]) and embeddings (float32 [n, width]) come in parts."""
        if count <= FLAT_UP_TO:
            inner = faiss.IndexFlat(width, _metric(distance))
        else:
            inner = faiss.IndexHNSWFlat(width, LINKS, _metric(distance))
            inner.hnsw.efConstruction = BUILD_BREADTH
        index = faiss.IndexIDMap2(inner)
        for ids, embeddings in parts:
            index.add_with_ids(embeddings, ids)
        return cls(index, distance, last)

    @classmethod
    def read(cls, read: Callable[[int], bytes], width: int, distance: str, last: int) -> "FaissIndex":
        """Read an index by a function that returns up to so many bytes.

        Raises:
            ValueError: it is not one of embeddings of this width and distance, up to the image of this number.
            RuntimeError: FAISS cannot read it.
        """
        index = faiss.read_index(faiss.PyCallbackIOReader(read))
        if not isinstance(index, faiss.IndexIDMap2) or (index.d, index.metric_type) != (width, _metric(distance)):
            raise ValueError("it is an index of other embeddings")
        ids = faiss.vector_to_array(index.id_map)
        if not len(ids) or ids.min() < 0 or ids.max() != last:
            raise ValueError("it is an index of other images")
        return cls(index, distance, last)

    def write(self, write: Callable[[bytes], None]) -> None:
        """Hand the index to a function, part by part; what that raises is raised here."""
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(write))

    def __len__(self):
        return self._index.ntotal

    def holds(self, ids: np.ndarray) -> bool:
        """Whether it holds all of these images that are not later ones."""
        held = np.zeros(self.last + 1, bool)
        held[faiss.vector_to_array(self._index.id_map)] = True
        return bool(held[ids[ids <= self.last]].all())

    def embeddings(self, ids: np.ndarray) -> np.ndarray:
        """float32 [N, D] of these images."""
        return self._index.reconstruct_batch(ids)

    def search(self, queries: np.ndarray, ids: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """Distances and numbers, [Q, min(top, N)], of the nearest of the images `ids`; inf where HNSW finds no more."""
        allowed = None  # all, which is faster than naming them
        if len(ids) < len(self):
            mask = np.zeros(self.last + 1, bool)
            mask[ids] = True
            bits = np.packbits(mask, bitorder="little")  # has to live as long as the selector
            allowed = faiss.IDSelectorBitmap(bits)
        if self.is_hnsw:
            # The walk also passes images that are left out, so it has to be wider as they are more, and then some.
            factor = 1 if allowed is None else 2 * len(self) // len(ids)
            breadth = min(max(SEARCH_BREADTH, 2 * top) * factor, WIDEST_SEARCH)
            parameters = faiss.SearchParametersHNSW(sel=allowed, efSearch=breadth)
        else:
            parameters = faiss.SearchParameters(sel=allowed) if allowed is not None else None
        values, numbers = self._index.search(queries, min(top, len(ids)), params=parameters)
        return np.where(numbers < 0, np.inf, _distances(values, self._distance)), numbers


def nearest(queries: np.ndarray, embeddings: np.ndarray, top: int, distance: str) -> tuple[np.ndarray, np.ndarray]:
    """Distances and rows, [Q, min(top, N)], of the nearest embeddings, each compared with each."""
    values, rows = faiss.knn(queries, embeddings, min(top, len(embeddings)), metric=_metric(distance))
    return _distances(values, distance), rows


def _metric(distance):
    return faiss.METRIC_INNER_PRODUCT if distance == "cosine" else faiss.METRIC_L2


def _distances(values, distance):
    """Of FAISS's values: inner products, or squared Euclidean distances."""
    return 1.0 - values if distance == "cosine" else np.sqrt(np.maximum(values, 0.0))
