"""How alike query and gallery features are, a block of queries at a time: the whole matrix is never held.

A similarity is a callable: slice of the queries -> float32 [B, G], higher is more alike, a new array each time. It only
has to order the gallery of each query. So the cosine is not divided by the query's length, and the Euclidean distance
is squared and lacks the query's square. This is less work, and no rounding makes ties.
"""

from collections.abc import Callable

import numpy as np

Similarity = Callable[[slice], np.ndarray]
METRICS = ("cosine", "euclidean")
LEARNED_ENTRIES = 2**24  # pairs × dimensions that a learned similarity is given at once


def rows(features: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """`features[indices]`, as a view (no copy) where the indices follow one another."""
    indices = np.asarray(indices)
    if len(indices) and np.all(np.diff(indices) == 1):
        return features[int(indices[0]) : int(indices[-1]) + 1]
    return features[indices]


def ordering(query: np.ndarray, gallery: np.ndarray, metric: str) -> Similarity:
    """The similarity that ranks by the cosine or the Euclidean distance.

    Args:
        query: [Q, D]. gallery: [G, D]. Neither is copied if float32; both may be memory-mapped.
        metric: "cosine" or "euclidean". A row of zeros has the cosine 0 with everything.

    Raises:
        ValueError: an unknown metric, features that are not finite or do not fit together.
    """
    query, gallery, _, squares = checked(query, gallery, metric)
    lengths = np.maximum(np.sqrt(squares), 1e-12)

    def cosine(block):
        product = query[block] @ gallery.T
        product /= lengths
        return product

    def euclidean(block):
        product = (2 * query[block]) @ gallery.T
        product -= squares
        return product

    return cosine if metric == "cosine" else euclidean


def distances(query: np.ndarray, gallery: np.ndarray, metric: str) -> Similarity:
    """As `ordering`, but in the units people know: 1 − cosine (0 to 2), or the Euclidean distance (not squared)."""
    query, gallery, query_squares, squares = checked(query, gallery, metric)

    def apart(block):
        blocks = distances_of(query[block] @ gallery.T, query_squares[block, None], squares, metric)
        return blocks if metric == "cosine" else np.sqrt(blocks, out=blocks)

    return apart


def distances_of(products: np.ndarray, squares: np.ndarray, other_squares: np.ndarray, metric: str) -> np.ndarray:
    """Products of features -> 1 − cosine, or the squared Euclidean distance; in their place.

    Args:
        products: float32 [B, C] or [C]. squares, other_squares: the features' squared lengths, of such shapes that they
            go with the products' rows and columns.
    """
    if metric == "cosine":
        products /= np.maximum(np.sqrt(other_squares), 1e-12)
        products /= np.maximum(np.sqrt(squares), 1e-12)
        return np.subtract(1, products, out=products)
    products *= -2
    products += other_squares
    products += squares
    return np.maximum(products, 0, out=products)  # rounding can leave a small negative square


def learned(function: Callable, query: np.ndarray, gallery: np.ndarray) -> Similarity:
    """A similarity that a method has learned.

    Args:
        function: (query features [B, D], gallery features [C, D]) -> [B, C], higher is more alike. It is given so few
            pairs at a time that it may hold a [B, C, D] of its own.
    """
    width = max(1, int((LEARNED_ENTRIES // gallery.shape[1]) ** 0.5))

    def similarity(block):
        chosen = query[block]
        alike = np.empty((len(chosen), len(gallery)), np.float32)
        for top in range(0, len(chosen), width):
            for left in range(0, len(gallery), width):
                part = slice(top, top + width), slice(left, left + width)
                alike[part] = function(chosen[part[0]], gallery[part[1]])
        return alike

    return similarity


def _squared_lengths(name, features) -> np.ndarray:
    """float32 [N]; says so where a feature is not finite."""
    squares = np.einsum("nd,nd->n", features, features)
    if not np.all(np.isfinite(squares)):
        raise ValueError(f"The {name} features hold NaN or infinite values: the encoder that made them is broken.")
    return squares


def checked(
    query: np.ndarray, gallery: np.ndarray, metric: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """-> both as float32, and their squared lengths.

    Raises:
        ValueError: an unknown metric, features that are not finite or do not fit together.
    """
    if metric not in METRICS:
        raise ValueError(f"Unknown metric '{metric}': it must be one of {', '.join(METRICS)}.")
    query, gallery = np.asarray(query, np.float32), np.asarray(gallery, np.float32)
    for name, features in (("query", query), ("gallery", gallery)):
        if features.ndim != 2:
            raise ValueError(f"The {name} features must be [N, D], not {list(features.shape)}.")
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"The query features have {query.shape[1]} dimensions and the gallery features {gallery.shape[1]}: "
            "both must come from encoders of the same output size."
        )
    return query, gallery, _squared_lengths("query", query), _squared_lengths("gallery", gallery)
