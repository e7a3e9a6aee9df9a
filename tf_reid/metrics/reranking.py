"""Re-ranking with k-reciprocal neighbours (Zhong et al., 2017, "Re-ranking Person Re-identification with k-reciprocal
Encoding"): two images are alike if the same images are among each other's nearest neighbours.

All images, queries and gallery alike, are neighbours of one another. Only the lists of the nearest, and what follows
from them as sparse matrices, are held; distances are made in blocks and, where they are needed again, made again.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import sparse

from tf_reid.metrics.similarity import Similarity, checked, distances_of

BLOCK_ENTRIES = 2**25  # distances held at once: 128 MiB
ROWS = 4096  # of the sparse matrices that are worked on at once


def k_reciprocal(
    query: np.ndarray,
    gallery: np.ndarray,
    metric: str = "cosine",
    k1: int = 20,
    k2: int = 6,
    original_weight: float = 0.3,
) -> Similarity:
    """The similarity that ranks by the re-ranked distance.

    As in the authors' code: distances are squared (1 − cosine, which is half the squared distance of unit vectors,
    serves as well) and divided by the largest distance of their row.

    Args:
        query: float32 [Q, D]. gallery: float32 [G, D]. metric: "cosine" or "euclidean".
        k1: neighbours that may be reciprocal; half as many widen the set.
        k2: neighbours whose encodings are averaged, the image itself among them; at most k1 + 1. Where there are fewer
            images, all of them are neighbours.
        original_weight: λ, the weight of the original distance in the new one (0 to 1).

    Returns:
        see `tf_reid.metrics.similarity`: minus the distance, −1 (nothing in common) to 0.

    Raises:
        ValueError: an unknown metric, features that are not finite, or a k2 that is too large.
    """
    if k2 > k1 + 1:
        raise ValueError(
            f"Re-ranking with k1={k1} knows {k1 + 1} neighbours of an image, itself among them, and so cannot average "
            f"over k2={k2}; choose a k2 of at most {k1 + 1}, or a larger k1."
        )
    images = _Images(query, gallery, metric)
    neighbours, furthest = _nearest(images, min(k1, len(images) - 1) + 1)
    encoding = _encoded(images, neighbours, furthest, min(round(k1 / 2) + 1, neighbours.shape[1]))
    k2 = min(k2, neighbours.shape[1])  # of fewer images than k2
    if k2 > 1:
        encoding = (_matrix(neighbours[:, :k2]) @ encoding).tocsr() / np.float32(k2)
    by_column = encoding[len(query) :].tocsc()  # which gallery images have an image in their encoding

    def similarity(block):
        found = images.distances(np.arange(len(query))[block], only_gallery=True)
        found *= original_weight / furthest[: len(query)][block, None]
        for number, row in zip(range(len(query))[block], found, strict=True):
            shared = _shared(encoding, number, by_column)
            row += (1 - original_weight) * (1 - shared / (2 - shared))  # each encoding sums to 1
        return np.negative(found, out=found)

    return similarity


class _Images:
    """Queries, then gallery, as one list of features without copying them."""

    def __init__(self, query, gallery, metric):
        query, gallery, *squares = checked(query, gallery, metric)
        self.parts, self.metric, self.squares = (query, gallery), metric, np.concatenate(squares)

    def __len__(self):
        return len(self.squares)

    def features(self, indices):
        query, gallery = self.parts
        is_query = indices < len(query)
        found = np.empty((len(indices), query.shape[1]), np.float32)
        found[is_query], found[~is_query] = query[indices[is_query]], gallery[indices[~is_query] - len(query)]
        return found

    def distances(self, indices, only_gallery=False):
        """float32 [B, Q + G], or [B, G]."""
        query, gallery = self.parts
        chosen, first = self.features(indices), len(query) if only_gallery else 0
        found = np.empty((len(indices), len(self) - first), np.float32)
        if not only_gallery:
            np.matmul(chosen, query.T, out=found[:, : len(query)])
        np.matmul(chosen, gallery.T, out=found[:, len(query) - first :])
        return distances_of(found, self.squares[indices, None], self.squares[first:], self.metric)

    def distances_of_one(self, index, others):
        """float32 [M], of one image to some others."""
        products = self.features(others) @ self.features(np.array([index]))[0]
        return distances_of(products, self.squares[index], self.squares[others], self.metric)


def _nearest(images, count):
    """-> int32 [N, count], the nearest images of each (itself among them), nearest first; float32 [N], the furthest's
    distance."""
    neighbours, furthest = np.empty((len(images), count), np.int32), np.empty(len(images), np.float32)

    part = slice(None, None, max(1, len(images) // (256 * count)))

    def look(number, row):
        # The nearest of a part bound the nearest of all, and leave few to sort: a selection from all takes 6 x as long.
        bound = np.partition(row[part], count - 1)[count - 1]
        near = np.flatnonzero(row <= bound)
        neighbours[number] = near[np.argsort(row[near], kind="stable")[:count]]
        furthest[number] = max(row.max(), 1e-12)  # all images the same

    size = max(1, BLOCK_ENTRIES // len(images))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(images), size):
            block = np.arange(start, min(start + size, len(images)))
            list(pool.map(look, block, images.distances(block)))
    return neighbours, furthest


def _matrix(neighbours):
    """[N, N] with a 1 for each neighbour."""
    count, each = neighbours.shape
    ones, ends = np.ones(neighbours.size, np.float32), np.arange(0, neighbours.size + 1, each)
    return sparse.csr_array((ones, neighbours.ravel(), ends), shape=(count, count))


def _reciprocal(neighbours):
    """[N, N] with a 1 where two images are neighbours of each other."""
    one_way = _matrix(neighbours)
    return one_way.multiply(one_way.T).tocsr()


def _encoded(images, neighbours, furthest, half):
    """Each image as its reciprocal neighbours, weighted by nearness; sparse float32 [N, N], rows of sum 1.

    The set of an image is widened by the (smaller) sets of its members that lie in it by more than two thirds.
    """
    wide, narrow = _reciprocal(neighbours), _reciprocal(neighbours[:, :half])
    size = np.diff(narrow.indptr)
    parts = []
    for start in range(0, len(images), ROWS):
        own = wide[start : start + ROWS]
        common = (own @ narrow.T).multiply(own).tocsr()
        common.data = (3 * common.data > 2 * size[common.indices]).astype(np.float32)
        common.eliminate_zeros()
        parts.append((own + common @ narrow).tocsr())
    encoding = sparse.vstack(parts, format="csr")

    def weigh(number):
        of = slice(encoding.indptr[number], encoding.indptr[number + 1])
        distances = images.distances_of_one(number, encoding.indices[of])
        nearness = np.exp(-distances / furthest[number])
        encoding.data[of] = nearness / nearness.sum()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(weigh, range(len(images)), chunksize=ROWS))
    return encoding


def _shared(encoding, number, by_column):
    """What a query's encoding and each gallery image's have in common: the sum of their minima, [G]."""
    of = slice(encoding.indptr[number], encoding.indptr[number + 1])
    columns, values = encoding.indices[of], encoding.data[of]
    first, count = by_column.indptr[columns], by_column.indptr[columns + 1] - by_column.indptr[columns]
    entries = np.arange(count.sum()) + np.repeat(first - (np.cumsum(count) - count), count)
    least = np.minimum(np.repeat(values, count), by_column.data[entries])
    return np.bincount(by_column.indices[entries], least, minlength=by_column.shape[0])
