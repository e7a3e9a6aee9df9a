"""One threshold for "the same person": set on some persons at a rate of false matches, tried on others.

Pairs are a query and a gallery image of different cameras. A pair is called a match where its distance is at most the
threshold. Pairs come in blocks and are only counted, so memory does not grow with their number. NumPy alone.
"""

from collections.abc import Callable, Iterator

import numpy as np

BLOCK_ENTRIES = 2**25  # distances held at once: 128 MiB, half a GiB with all that is made of them
COUNTED = 2**22  # of them that are counted at once, in double precision
BINS = 2**18  # to which the range of the distances is resolved
CURVE = np.concatenate([[0.0], np.logspace(-4, 0, 81)])  # false-match rates at which a curve is written down
RATES = (1e-3, 1e-2)

Pairs = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]


def pairs(distances, query_identity, query_camera, gallery_identity, gallery_camera, ignored_cameras=()) -> Pairs:
    """All pairs of different cameras that can be told: without junk, distractors and ignored pairs of cameras.

    Args:
        distances: slice of the queries -> float32 [B, G]. The others: int [Q] and int [G].
        ignored_cameras: see `tf_reid.metrics.protocols`.

    Returns:
        A callable that yields, anew at each call, the distances of one person's pairs and of two persons', float [n].
    """
    size = max(1, BLOCK_ENTRIES // max(1, len(gallery_identity)))

    def blocks():
        for start in range(0, len(query_identity), size):
            block = slice(start, min(start + size, len(query_identity)))
            found = distances(block)
            identity, camera = query_identity[block, None], query_camera[block, None]
            told = (identity > 0) & (gallery_identity > 0) & (camera != gallery_camera)
            for a, b in ignored_cameras:
                told &= ~((camera == a) & (gallery_camera == b))
            same = identity == gallery_identity
            yield found[told & same], found[told & ~same]

    return blocks


def verify(calibration: Pairs, held_out: Pairs, rates=RATES) -> dict:
    """Set thresholds on some persons' pairs, and try them on the pairs of others.

    Args:
        rates: false-match rates to set a threshold at, above 0 and below 1; one more is set where as many matches are
            missed as are false.

    Returns:
        dict of `thresholds`, a list of dicts of set_at (a rate in per cent, or "equal"), threshold, true_match_rate and
        false_match_rate (per cent, of the held-out pairs); eer (per cent), curve (dict of false_match_rate and
        true_match_rate, lists in per cent), same_pairs and different_pairs (ints), all of the held-out pairs; and
        calibration_same_pairs and calibration_different_pairs.

    Raises:
        ValueError: a rate that the pairs of two persons are too few to resolve, or no pairs of one person.
    """
    edges, *calibrated = _counts(calibration, "calibration")
    impostors = int(calibrated[1][-1])
    for rate in rates:
        if not 0 < rate < 1:
            raise ValueError(f"A false-match rate must lie between 0 and 1; {rate} does not.")
        if impostors * rate < 1:
            raise ValueError(
                f"A false-match rate of {rate:g} needs at least {int(np.ceil(1 / rate))} pairs of two persons to set a "
                f"threshold by, and there are {impostors}: choose a rate of at least {1 / impostors:.2g}."
            )
    true, false = (counts / counts[-1] for counts in calibrated)
    # The first edge lies below every distance, so there always is a threshold of no false match.
    chosen = {100 * rate: edges[np.searchsorted(false, rate, side="right") - 1] for rate in rates}
    chosen["equal"] = edges[_equal(true, false)]

    _, *counted = _counts(held_out, "held-out")
    held_true, held_false = (counts / counts[-1] for counts in counted)
    at = _equal(held_true, held_false)
    hits = _at_most(held_out, list(chosen.values()))
    return {
        "thresholds": [
            {
                "set_at": name,
                "threshold": float(threshold),
                "true_match_rate": 100.0 * float(same / counted[0][-1]),
                "false_match_rate": 100.0 * float(different / counted[1][-1]),
            }
            for (name, threshold), (same, different) in zip(chosen.items(), hits, strict=True)
        ],
        "eer": 50.0 * float(held_false[at] + 1 - held_true[at]),
        "curve": {
            "false_match_rate": (100 * CURVE).tolist(),
            "true_match_rate": (100 * held_true[np.searchsorted(held_false, CURVE, side="right") - 1]).tolist(),
        },
        "same_pairs": int(counted[0][-1]),
        "different_pairs": int(counted[1][-1]),
        "calibration_same_pairs": int(calibrated[0][-1]),
        "calibration_different_pairs": impostors,
    }


def average(results) -> dict:
    """The mean over trials of what `verify` returns, number by number; its structure is the same in all of them."""
    first = results[0]
    if isinstance(first, dict):
        return {key: average([result[key] for result in results]) for key in first}
    if isinstance(first, list):
        return [average(list(values)) for values in zip(*results, strict=True)]
    return first if all(result == first for result in results) else float(np.mean(results))


def _counts(blocks: Pairs, name):
    """-> edges, float64 [BINS + 1] from below the least distance to the largest, and for pairs of one person and of two
    how many are at most each edge, int64 [BINS + 1]."""
    low, high = np.inf, -np.inf
    for kinds in blocks():
        for found in kinds:
            if len(found):
                low, high = min(low, float(found.min())), max(high, float(found.max()))
    counts = np.zeros((2, BINS + 1), np.int64)
    step = (high - low) / (BINS - 1) or 1.0
    for kinds in blocks():
        for kind, found in enumerate(kinds):
            for start in range(0, len(found), COUNTED):
                place = np.ceil((found[start : start + COUNTED].astype(np.float64) - low) / step).astype(np.int64) + 1
                counts[kind] += np.bincount(np.minimum(place, BINS), minlength=BINS + 1)
    totals = counts.sum(axis=1)
    if not totals.all():
        which = "one person" if not totals[0] else "two persons"
        raise ValueError(f"There is no {name} pair of {which} from different cameras, so there is nothing to verify.")
    return low + step * np.arange(-1, BINS), *np.cumsum(counts, axis=1)


def _equal(true, false):
    """Where as many matches are missed as are false; in the middle, if that is so over a range."""
    difference = np.abs(false - (1 - true))
    least = np.flatnonzero(difference == difference.min())
    return least[len(least) // 2]


def _at_most(blocks: Pairs, thresholds):
    """-> int [thresholds, 2], pairs of one person and of two whose distance is at most each threshold."""
    hits = np.zeros((len(thresholds), 2), np.int64)
    for kinds in blocks():
        hits += [[np.count_nonzero(found <= threshold) for found in kinds] for threshold in thresholds]
    return hits
