"""Verification: one distance as the threshold for "the same identity", set on some identities and tried on others.

Pairs are a query and a gallery image of different cameras. A pair is called a match where its distance is at most the
threshold. Pairs come in blocks and are only counted, so memory does not grow with their number. NumPy alone.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_reid.metrics.similarity import Similarity

BLOCK_ENTRIES = 2**25  # distances held at once: 128 MiB, half a GiB with all that is made of them
COUNTED = 2**22  # of them that are counted at once, in double precision
BINS = 2**18  # to which the range of the distances is resolved
CURVE = np.concatenate([[0.0], np.logspace(-4, 0, 81)])  # false-match rates at which a curve is written down
RATES = (1e-3, 1e-2)

Pairs = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]


def pairs(
    distances: Similarity,
    query_identity: np.ndarray,
    query_camera: np.ndarray,
    gallery_identity: np.ndarray,
    gallery_camera: np.ndarray,
    ignored_cameras: Sequence[tuple[int, int]] = (),
) -> Pairs:
    """All pairs from different cameras, without junk, distractors and ignored pairs of cameras.

    Args:
        distances: slice of the queries -> float32 [B, G]. The others: int [Q] and int [G].
        ignored_cameras: see `tf_reid.metrics.protocols`.

    Returns:
        A callable that yields, anew at each call, the distances of pairs of one identity and of two, float [n].
    """
    size = max(1, BLOCK_ENTRIES // max(1, len(gallery_identity)))

    def blocks():
        for start in range(0, len(query_identity), size):
            block = slice(start, min(start + size, len(query_identity)))
            apart = distances(block)
            identity, camera = query_identity[block, None], query_camera[block, None]
            counts = (identity > 0) & (gallery_identity > 0) & (camera != gallery_camera)
            for a, b in ignored_cameras:
                counts &= ~((camera == a) & (gallery_camera == b))
            same = identity == gallery_identity
            yield apart[counts & same], apart[counts & ~same]

    return blocks


def verify(calibration: Pairs, held_out: Pairs, rates: Sequence[float] = RATES) -> dict[str, Any]:
    """Set thresholds on the pairs of some identities, and try them on the pairs of others.

    Args:
        rates: false-match rates to set a threshold at, above 0 and below 1. One more threshold is set where as many
            matches are missed as are false.

    Returns:
        dict of `thresholds`, a list of dicts of set_at (a rate in per cent, or "equal"), threshold, true_match_rate and
        false_match_rate (per cent, of the held-out pairs); eer (per cent), curve (dict of false_match_rate and
        true_match_rate, lists in per cent), same_pairs and different_pairs (ints), all of the held-out pairs; and
        calibration_same_pairs and calibration_different_pairs.

    Raises:
        ValueError: there are too few pairs of different identities to resolve a rate, or no pair of one identity.
    """
    calibrated = _cumulative(calibration, "calibration")
    tested = _cumulative(held_out, "held-out")
    thresholds = _thresholds(calibrated, rates)
    matches = _at_most(held_out, list(thresholds.values()))
    equal = _equal(tested)
    on_curve = np.searchsorted(tested.false, CURVE, side="right") - 1
    return {
        "thresholds": [
            {
                "set_at": set_at,
                "threshold": float(threshold),
                "true_match_rate": 100.0 * float(same / tested.same_pairs),
                "false_match_rate": 100.0 * float(different / tested.different_pairs),
            }
            for (set_at, threshold), (same, different) in zip(thresholds.items(), matches, strict=True)
        ],
        "eer": 50.0 * float(tested.false[equal] + 1 - tested.true[equal]),
        "curve": {
            "false_match_rate": (100 * CURVE).tolist(),
            "true_match_rate": (100 * tested.true[on_curve]).tolist(),
        },
        "same_pairs": tested.same_pairs,
        "different_pairs": tested.different_pairs,
        "calibration_same_pairs": calibrated.same_pairs,
        "calibration_different_pairs": calibrated.different_pairs,
    }


class _Cumulative(NamedTuple):
    """Distances, float64 [BINS + 1], and which part of the same and of the different pairs is at most so far apart."""

    distances: np.ndarray
    true: np.ndarray
    false: np.ndarray
    same_pairs: int
    different_pairs: int


def _thresholds(calibrated: _Cumulative, rates: Sequence[float]) -> dict[float | str, float]:
    """What a threshold is set at (a rate in per cent, or "equal") -> the threshold."""
    impostors = calibrated.different_pairs
    for rate in rates:
        if not 0 < rate < 1:
            raise ValueError(f"A false-match rate must lie between 0 and 1; {rate} does not.")
        if impostors * rate < 1:
            raise ValueError(
                f"A false-match rate of {rate:g} needs at least {int(np.ceil(1 / rate))} pairs of different identities "
                f"to set a threshold by, and there are {impostors}: choose a rate of at least {1 / impostors:.2g}."
            )
    # The first distance lies below every pair's, so there always is a threshold without a false match.
    thresholds: dict[float | str, float] = {}
    for rate in rates:
        thresholds[100 * rate] = calibrated.distances[np.searchsorted(calibrated.false, rate, side="right") - 1]
    thresholds["equal"] = calibrated.distances[_equal(calibrated)]
    return thresholds


def average(results: Sequence[Any]) -> Any:
    """The mean over trials of what `verify` returns, number by number; its structure is the same in all of them."""
    first = results[0]
    if isinstance(first, dict):
        return {key: average([result[key] for result in results]) for key in first}
    if isinstance(first, list):
        return [average(list(values)) for values in zip(*results, strict=True)]
    return first if all(result == first for result in results) else float(np.mean(results))


def _cumulative(blocks: Pairs, name: str) -> _Cumulative:
    low, high = np.inf, -np.inf
    for kinds in blocks():
        for distances in kinds:
            if len(distances):
                low, high = min(low, float(distances.min())), max(high, float(distances.max()))
    # Bin 0 lies below the least distance; the last bin holds the largest.
    counts = np.zeros((2, BINS + 1), np.int64)
    step = (high - low) / (BINS - 1) or 1.0
    for kinds in blocks():
        for kind, distances in enumerate(kinds):
            for start in range(0, len(distances), COUNTED):
                part = distances[start : start + COUNTED].astype(np.float64)
                place = np.ceil((part - low) / step).astype(np.int64) + 1
                counts[kind] += np.bincount(np.minimum(place, BINS), minlength=BINS + 1)
    same, different = counts.sum(axis=1).tolist()
    if not (same and different):
        which = "different identities" if same else "one identity"
        raise ValueError(f"There is no {name} pair of {which} from different cameras, so there is nothing to verify.")
    true, false = np.cumsum(counts, axis=1) / np.array([[same], [different]])
    return _Cumulative(low + step * np.arange(-1, BINS), true, false, same, different)


def _equal(pairs: _Cumulative) -> int:
    """Where as many matches are missed as are false; in the middle, if that is so over a range."""
    difference = np.abs(pairs.false - (1 - pairs.true))
    least = np.flatnonzero(difference == difference.min())
    return int(least[len(least) // 2])


def _at_most(blocks: Pairs, thresholds: Sequence[float]) -> np.ndarray:
    """-> int64 [thresholds, 2], how many pairs of one identity and of two are at most so far apart."""
    counts = np.zeros((len(thresholds), 2), np.int64)
    for same, different in blocks():
        for number, threshold in enumerate(thresholds):
            counts[number] += np.count_nonzero(same <= threshold), np.count_nonzero(different <= threshold)
    return counts
