"""Verification: one distance as the threshold for "the same identity", set on some identities and tried on others.

Pairs are a query and a gallery image of different cameras. A pair is called a match where its distance is at most the
threshold. All figures are exact. Pairs come in blocks, twice, and are only counted, so memory does not grow with their
number. NumPy alone.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tf_reid.metrics.similarity import Similarity

BLOCK_ENTRIES = 2**25  # distances held at once: 128 MiB, half a GiB with all that is made of them
COUNTED = 2**20  # of them that are counted at once
CURVE = np.concatenate([[0.0], np.logspace(-4, 0, 81)])  # false-match rates at which a curve is written down
RATES = (1e-3, 1e-2)
LOW_BITS = 13  # of a distance's 32 bits: those that are counted only in the bins that are looked into
WIDTH = 2**LOW_BITS  # distances in a bin
BINS = 2 ** (32 - LOW_BITS)
SAME, DIFFERENT, ALL = range(3)  # pairs of one identity, of two, and both

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
        A callable that yields, anew at each call, the distances of pairs of one identity and of two, float32 [n].
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
        rates: false-match rates to set a threshold at, above 0 and below 1: the largest at which no more are false. One
            more threshold is set where as many matches are missed as are false.

    Returns:
        dict of `thresholds`, a list of dicts of set_at (a rate in per cent, or "equal"), threshold, true_match_rate and
        false_match_rate (per cent, of the held-out pairs); eer (per cent), curve (dict of false_match_rate and
        true_match_rate, lists in per cent), same_pairs and different_pairs (ints), all of the held-out pairs; and
        calibration_same_pairs and calibration_different_pairs.

        The curve has, for each of its false-match rates, the most true matches at which no more are false. The equal
        error rate is the mean of the rates of false and of missed matches at the threshold where these differ least.

    Raises:
        ValueError: there are too few pairs of different identities to resolve a rate, or no pair of one identity; a
            distance is NaN or minus infinity.
    """
    thresholds, calibration_pairs = _thresholds(_Counted(calibration, "calibration"), rates)
    tested = _Counted(held_out, "held-out")
    allowed = [_allowed(rate, tested.pairs[DIFFERENT]) for rate in CURVE]
    first_wrong = [matches + 1 for matches in allowed if matches < tested.pairs[DIFFERENT]]
    tested.look_into(
        [tested.bin_of(DIFFERENT, number) for number in first_wrong],
        [_place(threshold) // WIDTH for threshold in thresholds.values()],
        tested.bins_of_equal(),
    )
    before_wrong = [tested.before(tested.nth(DIFFERENT, number)) for number in first_wrong]
    on_curve = before_wrong + [tested.pairs] * (len(allowed) - len(first_wrong))
    matched = [tested.before(_place(threshold) + 1) for threshold in thresholds.values()]
    same, different, _ = tested.equal()
    return {
        "thresholds": [
            {
                "set_at": set_at,
                "threshold": float(threshold),
                "true_match_rate": 100 * matches[SAME] / tested.pairs[SAME],
                "false_match_rate": 100 * matches[DIFFERENT] / tested.pairs[DIFFERENT],
            }
            for (set_at, threshold), matches in zip(thresholds.items(), matched, strict=True)
        ],
        "eer": 50 * (different / tested.pairs[DIFFERENT] + 1 - same / tested.pairs[SAME]),
        "curve": {
            "false_match_rate": (100 * CURVE).tolist(),
            "true_match_rate": [100 * matches[SAME] / tested.pairs[SAME] for matches in on_curve],
        },
        "same_pairs": tested.pairs[SAME],
        "different_pairs": tested.pairs[DIFFERENT],
        "calibration_same_pairs": calibration_pairs[SAME],
        "calibration_different_pairs": calibration_pairs[DIFFERENT],
    }


def average(results: Sequence[Any]) -> Any:
    """The mean over trials of what `verify` returns, number by number; its structure is the same in all of them."""
    first = results[0]
    if isinstance(first, dict):
        return {key: average([result[key] for result in results]) for key in first}
    if isinstance(first, list):
        return [average(list(values)) for values in zip(*results, strict=True)]
    return first if all(result == first for result in results) else float(np.mean(results))


def _thresholds(calibrated: "_Counted", rates: Sequence[float]) -> tuple[dict[float | str, np.float32], list[int]]:
    """What a threshold is set at (a rate in per cent, or "equal") -> the threshold; and how many pairs set them."""
    impostors = calibrated.pairs[DIFFERENT]
    allowed = [_allowed(rate, impostors) for rate in rates]
    for rate, matches in zip(rates, allowed, strict=True):
        if not 0 < rate < 1:
            raise ValueError(f"A false-match rate must lie between 0 and 1; {rate} does not.")
        if not matches:
            raise ValueError(
                f"A false-match rate of {rate:g} needs at least {int(np.ceil(1 / rate))} pairs of different identities "
                f"to set a threshold by, and there are {impostors}: choose a rate of at least {1 / impostors:.2g}."
            )
    first_wrong = [matches + 1 for matches in allowed]
    calibrated.look_into([calibrated.bin_of(DIFFERENT, number) for number in first_wrong], calibrated.bins_of_equal())
    thresholds: dict[float | str, np.float32] = {}
    for rate, number in zip(rates, first_wrong, strict=True):
        thresholds[100 * rate] = _just_below(_distance(calibrated.nth(DIFFERENT, number)))
    thresholds["equal"] = _between(calibrated, calibrated.equal()[ALL])
    return thresholds, calibrated.pairs


def _allowed(rate: float, pairs: int) -> int:
    """How many of so many pairs may match at a rate."""
    matches = round(rate * pairs)
    return matches - (matches / pairs > rate)


def _between(counted: "_Counted", matches: int) -> np.float32:
    """In the middle between the pair of this number and the next farther one; the nearest pair has the number 1."""
    if matches == 0:
        return _just_below(_distance(counted.nth(ALL, 1)))
    low = _distance(counted.nth(ALL, matches))
    if matches == counted.pairs[ALL]:
        return low
    high = _distance(counted.nth(ALL, matches + 1))
    return min(np.float32((float(low) + float(high)) / 2), _just_below(high))


def _just_below(distance: np.float32) -> np.float32:
    return np.nextafter(distance, np.float32(-np.inf))


def _place(distances: Any) -> Any:
    """float32 -> uint32 of the same shape, in the same order; the two zeros have one place."""
    bits = (np.asarray(distances, np.float32) + np.float32(0)).view(np.int32)  # -0.0 becomes 0.0
    return (bits ^ (bits >> 31 | np.int32(-(2**31)))).view(np.uint32)


def _distance(place: int) -> np.float32:
    """The distance that has a place."""
    bits = place ^ (2**31 if place >= 2**31 else 2**32 - 1)
    return np.uint32(bits).view(np.float32)


class _Counted:
    """Pairs, counted by their distance: exactly, and in little memory.

    The bits of a float32, read as an integer, order as the numbers do, once those of the negative ones are turned
    round. This integer is the distance's place. First all pairs are counted by the upper bits of their places, in bins.
    That shows in which few bins the places lie that are looked for; their pairs are then counted by the whole place.

    Attributes:
        pairs: how many there are of each kind: SAME, DIFFERENT and ALL.
        up_to: int64 [3, BINS], how many of each kind lie in a bin or before it.
        inside: a bin that was looked into -> int64 [3, WIDTH], how many of each kind have one of its places or one
            before it.
    """

    def __init__(self, blocks: Pairs, name: str) -> None:
        self.blocks = blocks
        self.up_to = np.zeros((3, BINS), np.int64)
        for kind, places in self._places():
            self.up_to[kind] += np.bincount(places >> LOW_BITS, minlength=BINS)
        self.up_to[ALL] = self.up_to[SAME] + self.up_to[DIFFERENT]
        np.cumsum(self.up_to, axis=1, out=self.up_to)
        self.pairs: list[int] = self.up_to[:, -1].tolist()
        self.inside: dict[int, np.ndarray] = {}
        if not (self.pairs[SAME] and self.pairs[DIFFERENT]):
            which = "different identities" if self.pairs[SAME] else "one identity"
            raise ValueError(
                f"There is no {name} pair of {which} from different cameras, so there is nothing to verify."
            )

    def _places(self) -> Iterator[tuple[int, np.ndarray]]:
        """The kind and the places, uint32 [n], of some pairs after the other."""
        for kinds in self.blocks():
            for kind, distances in enumerate(kinds):
                for start in range(0, len(distances), COUNTED):
                    part = distances[start : start + COUNTED]
                    if not (part > -np.inf).all():
                        raise ValueError("A distance is NaN or minus infinity: the encoder that made it is broken.")
                    yield kind, _place(part)

    def look_into(self, *bins: Sequence[int]) -> None:
        """Count the pairs in these bins by their whole places."""
        chosen = np.unique(np.concatenate([np.asarray(some, np.int64) for some in bins]))
        row_of = np.full(BINS, -1, np.int32)
        row_of[chosen] = np.arange(len(chosen))
        counts = np.zeros((3, len(chosen) * WIDTH), np.int64)
        for kind, places in self._places():
            rows = row_of[places >> LOW_BITS]
            looked_for = rows >= 0
            entries = rows[looked_for] * np.int64(WIDTH) + places[looked_for] % WIDTH
            counts[kind] += np.bincount(entries, minlength=counts.shape[1])
        counts[ALL] = counts[SAME] + counts[DIFFERENT]
        up_to = counts.reshape(3, len(chosen), WIDTH)
        np.cumsum(up_to, axis=2, out=up_to)
        up_to += self.up_to[:, chosen - 1, None]
        self.inside = dict(zip(chosen.tolist(), up_to.swapaxes(0, 1), strict=True))

    def bin_of(self, kind: int, number: int) -> int:
        """The bin of a kind's pair of this number; the nearest has the number 1."""
        return int(np.searchsorted(self.up_to[kind], number))

    def nth(self, kind: int, number: int) -> int:
        """The place of a kind's pair of this number. It must lie in a bin that was looked into."""
        index = self.bin_of(kind, number)
        return index * WIDTH + int(np.searchsorted(self.inside[index][kind], number))

    def before(self, place: int) -> list[int]:
        """How many pairs of each kind lie before a place of a bin that was looked into."""
        index, low = divmod(int(place), WIDTH)
        return (self.inside[index][:, low - 1] if low else self.up_to[:, index - 1]).tolist()

    def bins_of_equal(self) -> list[int]:
        """The bin in which the false matches come to outnumber the missed ones, and the nearest that are not empty."""
        index = self._first_not_fewer(self.up_to)
        before, after = self.up_to[ALL, index - 1], self.up_to[ALL, index] + 1
        around = [number for number in (before, after) if 0 < number <= self.pairs[ALL]]
        return [index, *(self.bin_of(ALL, number) for number in around)]

    def equal(self) -> list[int]:
        """How many pairs of each kind match at the threshold where the rates of false and of missed matches differ
        least; at the smaller, if two are as good."""
        index = self._first_not_fewer(self.up_to)
        place = index * WIDTH + self._first_not_fewer(self.inside[index])
        same_pairs, different_pairs, _ = self.pairs

        def difference(matches: list[int]) -> int:
            same, different, _ = matches
            return abs(different * same_pairs - (same_pairs - same) * different_pairs)

        return min(self.before(place), self.before(place + 1), key=difference)

    def _first_not_fewer(self, up_to: np.ndarray) -> int:
        """Where, in int64 [3, n], the rate of false matches is first no smaller than that of missed ones."""
        false, true = up_to[DIFFERENT] / self.pairs[DIFFERENT], up_to[SAME] / self.pairs[SAME]
        return int(np.argmax(false >= 1 - true))
