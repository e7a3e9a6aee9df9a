"""How well a ranking finds the person: CMC, mAP and mINP. NumPy in, NumPy out.

Everything follows from the ranks of the right gallery images alone. A rank is counted (how many images are more alike
than this one?), so each similarity is read once a right image and nothing is sorted. Identity -1 (any negative number)
is junk and ignored. Identity 0 is a distractor: it stays in the gallery, is never a query and is never right.
"""

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from tf_reid.metrics.similarity import Similarity

CMC_RANKS = 50
BLOCK_ENTRIES = 2**27  # similarities held at once: 512 MiB
BLOCK_QUERIES = 256  # of fewer, the matrix product is slower
LEAST_QUERIES = 128  # of fewer, it is so much slower that fewer products at once are faster
RATES = ("rank1", "rank5", "rank10", "rank20", "mAP", "mAP_trapezoid", "mINP")
COUNTS = ("queries", "dropped", "gallery")
NO_IDENTITY = "the query is junk or a distractor"
NOT_IN_GALLERY = "the gallery has no image of the identity"
ONLY_IGNORED = "the gallery has the identity only from cameras that are ignored for the query"


def score(
    similarity: Similarity,
    query_identity: np.ndarray,
    query_camera: np.ndarray,
    gallery_identity: np.ndarray,
    gallery_camera: np.ndarray,
    same_camera_ignored: bool,
    ignored_cameras: Sequence[tuple[int, int]] = (),
    cmc: str = "image",
) -> dict[str, Any]:
    """Rank the gallery for every query and measure the rankings.

    Args:
        similarity: see `tf_reid.metrics.similarity`: slice of the queries -> float32 [B, G], which is written to.
        query_identity, query_camera: int [Q]. gallery_identity, gallery_camera: int [G].
        same_camera_ignored: leave out gallery images of the query's own identity and camera (Market's rule).
        ignored_cameras: pairs (a, b): queries of camera a leave out all gallery images of camera b.
        cmc: "image", or "identity": CMC by the rank of the first right image where every other identity counts once
            (SYSU-MM01's rule). Each distractor counts, since two of them may show one person or two. mAP is always by
            images.

    Returns:
        dict of rank1, rank5, rank10, rank20, mAP (step), mAP_trapezoid, mINP (floats, per cent); cmc (float
        [50], per cent at ranks 1 to 50); queries (int, those with a match: all is averaged over them);
        dropped (int, those without) and dropped_because (reason -> int); gallery (int, images that are not junk).

    Raises:
        ValueError: shapes that do not fit, similarities that are not finite, or no query with a match (and why).
    """
    if cmc not in ("image", "identity"):
        raise ValueError(f"cmc is {cmc!r}, but it must be 'image' or 'identity'.")
    matches, hidden, dropped = matched(
        query_identity, query_camera, gallery_identity, gallery_camera, same_camera_ignored, ignored_cameras
    )
    gallery_identity = np.asarray(gallery_identity)
    ranks, first = _ranks(similarity, matches, hidden, gallery_identity, cmc)

    # Queries without a match are left out of every mean.
    counted = np.array([query for query, own in enumerate(ranks) if len(own)])
    rows = np.repeat(counted, [len(ranks[query]) for query in counted])
    quality = ranking_quality(rows, np.concatenate([ranks[query] for query in counted]))
    first_of_counted = np.array([first[query] for query in counted])
    rates = 100.0 * np.mean(first_of_counted[:, None] <= np.arange(1, CMC_RANKS + 1), axis=0)
    return {
        **{f"rank{k}": float(rates[k - 1]) for k in (1, 5, 10, 20)},
        "mAP": 100.0 * float(np.mean(quality["ap_step"])),
        "mAP_trapezoid": 100.0 * float(np.mean(quality["ap_trapezoid"])),
        "mINP": 100.0 * float(np.mean(quality["inp"])),
        "queries": len(counted),
        "dropped": len(query_identity) - len(counted),
        "dropped_because": dropped,
        "gallery": int(np.sum(gallery_identity >= 0)),
        "cmc": rates,
    }


def _ranks(
    similarity: Similarity,
    matches: list[np.ndarray],
    hidden: list[tuple[np.ndarray, np.ndarray]],
    gallery_identity: np.ndarray,
    cmc: str,
) -> tuple[list[np.ndarray], list[int]]:
    """The ranks of every query's right images (int64 [M], ascending), and the rank that CMC counts.

    A thread computes the similarities of a block of queries and counts their ranks. Counting holds Python's lock for
    most of its time, a matrix product does not: so one thread counts while the others multiply. A product by several
    threads at once would leave their cores idle while one counts. Where a gallery is so large that only a few blocks
    fit into memory, a product has several threads nevertheless, so that no core is idle all the time.
    """
    queries, images = len(matches), len(gallery_identity)
    ranks, first = [np.empty(0, np.int64)] * queries, [0] * queries

    def rank(block):
        """Fill in the ranks of a slice of the queries."""
        rows = similarity(block)
        if rows.shape != (block.stop - block.start, images):
            raise ValueError(
                f"There are {queries} queries and {images} gallery images by their identities, "
                f"but similarities of {' x '.join(map(str, rows.shape))} for queries {block.start} to {block.stop - 1}."
            )
        compared = np.empty(images, bool)
        for query, row in enumerate(rows, block.start):
            right = matches[query]
            if not len(right):
                continue
            for positions in hidden[query]:
                row[positions] = -np.inf
            if not (row.max() < np.inf and row[right].min() > -np.inf):
                raise ValueError(f"The similarities of query {query} to the gallery hold NaN or infinite values.")
            own = ranks[query] = np.sort(ranks_of(row, right, compared))
            first[query] = own[0] if cmc == "image" else _rank_of_identity(row, right, gallery_identity)

    workers, threads, blocks = _plan(queries, images, os.cpu_count() or 1)
    with _linear_algebra().limit(limits=threads), ThreadPoolExecutor(workers) as pool:
        list(pool.map(rank, blocks))
    return ranks, first


def _plan(queries: int, images: int, cores: int) -> tuple[int, int, list[slice]]:
    """How many blocks are worked on at once, how many threads a product of one has, and the blocks of queries.

    All blocks that are worked on at once have `BLOCK_ENTRIES` similarities at most, and each at least `LEAST_QUERIES`
    queries as far as these allow it.
    """
    workers = max(1, min(cores, BLOCK_ENTRIES // (LEAST_QUERIES * images)))
    most = max(1, min(BLOCK_QUERIES, BLOCK_ENTRIES // (workers * images)))
    ends = np.linspace(0, queries, -(-queries // most) + 1).astype(int).tolist()  # blocks of about one size
    return workers, cores // workers, list(map(slice, ends[:-1], ends[1:]))


@functools.cache
def _linear_algebra():
    """What sets the number of threads of NumPy's matrix products."""
    return ThreadpoolController().select(user_api="blas")


def ranks_of(row: np.ndarray, positions: np.ndarray, compared: np.ndarray | None = None) -> np.ndarray:
    """Where these gallery images stand in one query's ranking, by counting the images before them.

    Equal similarities keep the order of the gallery, so a result does not change from run to run.

    Args:
        row: float [G], higher is more alike; images that do not take part are −infinity.
        positions: int [M], of images that do. compared: bool [G] to work in, where there are many rows.

    Returns:
        int64 [M], 1 is best.
    """
    compared = np.empty(len(row), bool) if compared is None else compared
    ranks = np.empty(len(positions), np.int64)
    for number, position in enumerate(positions.tolist()):
        value = row[position]
        before = np.greater_equal(row[:position], value, out=compared[:position])
        after = np.greater(row[position + 1 :], value, out=compared[position + 1 :])
        ranks[number] = 1 + np.count_nonzero(before) + np.count_nonzero(after)
    return ranks


def ranking_quality(rows: np.ndarray, ranks: np.ndarray) -> dict[str, np.ndarray]:
    """What one query after the other scores, from the ranks of its right images.

    With h hits among the first r images at the h-th right image's rank r, and M right images:
    *AP step* is the mean of h/r; *AP trapezoid*, Market-1501's original, the mean of
    ((h−1)/(r−1) + h/r) / 2, where the first term is 1 at rank 1; *INP* is M over the last right image's rank.

    Args:
        rows, ranks: int64 [M], the query and the rank of each right image, by query, then by rank.

    Returns:
        dict of ap_step, ap_trapezoid, inp: float64 [queries], 0 to 1.
    """
    _, start, count = np.unique(rows, return_index=True, return_counts=True)
    hits = np.arange(len(rows)) - np.repeat(start, count) + 1
    precision = hits / ranks
    precision_before = np.where(ranks == 1, 1.0, (hits - 1) / np.maximum(ranks - 1, 1))
    return {
        "ap_step": np.add.reduceat(precision, start) / count,
        "ap_trapezoid": np.add.reduceat((precision_before + precision) / 2, start) / count,
        "inp": count / ranks[start + count - 1],
    }


def average(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean over trials of what `score` returns.

    Returns:
        The same keys; counts stay ints where the trials agree. Also `trials` (int) and `spread`, a dict of
        each rate's standard deviation over the trials (ddof 0, so 0.0 for one trial).

    Raises:
        ValueError: no results.
    """
    if not results:
        raise ValueError("There is no result to average: the protocol gave no trial.")
    mean: dict[str, Any] = {key: float(np.mean([result[key] for result in results])) for key in RATES}
    for key in COUNTS:
        mean[key] = _mean_count([result[key] for result in results])
    reasons = dict.fromkeys(reason for result in results for reason in result["dropped_because"])
    mean["dropped_because"] = {
        reason: _mean_count([result["dropped_because"].get(reason, 0) for result in results]) for reason in reasons
    }
    mean["cmc"] = np.mean([result["cmc"] for result in results], axis=0)
    mean["spread"] = {key: float(np.std([result[key] for result in results])) for key in RATES}
    mean["trials"] = len(results)
    return mean


def _mean_count(counts):
    return counts[0] if len(set(counts)) == 1 else float(np.mean(counts))


def _labels(name, identity, camera):
    identity, camera = np.asarray(identity), np.asarray(camera)
    if len(identity) != len(camera):
        raise ValueError(
            f"There are {len(identity)} identities and {len(camera)} cameras of the {name}: give one of each."
        )
    if not len(identity):
        raise ValueError(f"No query has a match: the {name} has no image.")
    return identity, camera


def matched(
    query_identity, query_camera, gallery_identity, gallery_camera, same_camera_ignored, ignored_cameras
) -> tuple[list[np.ndarray], list[tuple[np.ndarray, np.ndarray]], dict[str, int]]:
    """The right and the ignored gallery images of every query; arguments and errors are those of `score`.

    Returns:
        a query: its right images (int [M]) and its ignored ones (two int arrays); reason -> how many queries have no
        right image because of it.
    """
    query_identity, query_camera = _labels("query", query_identity, query_camera)
    gallery_identity, gallery_camera = _labels("gallery", gallery_identity, gallery_camera)
    # A camera of the queries -> images ignored for it, and cameras in which the query's own identity is ignored.
    ignored_images, ignored_for_own = {}, {}
    for camera in np.unique(query_camera).tolist():
        ignored = [b for a, b in ignored_cameras if a == camera]
        ignored_images[camera] = np.flatnonzero((gallery_identity < 0) | np.isin(gallery_camera, ignored))
        ignored_for_own[camera] = np.array(ignored + [camera] * bool(same_camera_ignored), gallery_camera.dtype)
    by_identity = np.argsort(gallery_identity, kind="stable")
    start, stop = (np.searchsorted(gallery_identity[by_identity], query_identity, side) for side in ("left", "right"))

    matches, hidden, reasons = [], [], []
    for query, (identity, camera) in enumerate(zip(query_identity.tolist(), query_camera.tolist(), strict=True)):
        own = by_identity[start[query] : stop[query]] if identity > 0 else by_identity[:0]
        counts = np.all(gallery_camera[own][:, None] != ignored_for_own[camera], axis=1)
        matches.append(own[counts])
        hidden.append((ignored_images[camera], own[~counts]))
        if not counts.any():
            reasons.append(NO_IDENTITY if identity <= 0 else ONLY_IGNORED if len(own) else NOT_IN_GALLERY)
    dropped = {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
    if len(reasons) == len(query_identity):
        raise ValueError(f"No query has a match: {_why_no_match(query_identity, gallery_identity, dropped)}.")
    return matches, hidden, dropped


def _rank_of_identity(row, right, gallery_identity):
    """The rank of a query's first right image where each other identity counts once, and every distractor."""
    best = right[np.argmax(row[right])]  # of equals the first
    ahead = row > row[best]
    ahead[:best] |= row[:best] == row[best]
    identity = gallery_identity[ahead]
    return 1 + len(np.unique(identity[identity > 0])) + np.count_nonzero(identity == 0)


def _why_no_match(query_identity, gallery_identity, dropped):
    for name, identity in (("query", query_identity), ("gallery", gallery_identity)):
        if np.all(identity <= 0):
            return f"every {name} image is junk or a distractor (identity -1 or 0)"
    if ONLY_IGNORED not in dropped:
        return "the queries and the gallery have no identity in common"
    return (
        "every gallery image of a query's identity was taken by the query's own camera or by one that is ignored for "
        "it; check the camera numbers"
    )
