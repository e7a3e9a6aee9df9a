"""Thresholds, rates and the curve against counts by hand and against scikit-learn's ROC curve of all pairs."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from tf_reid.metrics import verification
from tf_reid.metrics.verification import pairs, verify
from tf_reid.pictures import curves


def of(same, different, parts=1):
    """Pairs whose distances are there already, in blocks."""
    same, different = (np.array_split(np.asarray(values, np.float32), parts) for values in (same, different))
    return lambda: iter(zip(same, different, strict=True))


def test_separable_pairs_have_no_error():
    found = verify(of([0.1, 0.2], np.linspace(0.6, 0.9, 100)), of([0.15, 0.3], np.linspace(0.5, 0.9, 50)), [0.01])
    assert found["eer"] == 0
    assert found["curve"]["true_match_rate"] == [100] * 82
    at_rate, at_equal = found["thresholds"]
    assert (at_rate["set_at"], at_equal["set_at"]) == (1, "equal")
    assert at_equal["threshold"] == pytest.approx(0.4, abs=1e-3)  # in the middle of the gap
    assert (at_equal["true_match_rate"], at_equal["false_match_rate"]) == (100, 0)
    # One of 100 may be a false match: the threshold lies just before the second.
    assert 0.6 < at_rate["threshold"] < 0.6 + 0.3 / 99
    assert at_rate["false_match_rate"] == 100 * 13 / 50


def test_rates_are_counted_on_the_held_out_pairs():
    different = np.arange(100) / 100
    found = verify(of([0.05, 0.5], different), of([0.01, 0.02, 0.03, 0.9], different + 0.005), [0.1])
    at_rate = found["thresholds"][0]
    assert 0.09 <= at_rate["threshold"] < 0.1  # the ten at 0.00 to 0.09
    assert at_rate["true_match_rate"] == 75
    assert at_rate["false_match_rate"] in (9, 10)  # 0.095 may be on either side
    assert (found["same_pairs"], found["different_pairs"]) == (4, 100)
    assert (found["calibration_same_pairs"], found["calibration_different_pairs"]) == (2, 100)


def some_distances(random, centre):
    """A few or many, float32: spread evenly or not, with and without ties and outliers, or all the same."""
    count = random.choice([1, 2, 5, 30, 400, 3000])
    scale = random.choice([1e-3, 1.0, 1e5])
    found = scale * (centre + random.choice([0.1, 1.0]) * random.standard_normal(count))
    kind = random.integers(5)
    if kind == 0:  # far outliers on either side
        found[random.integers(count, size=1 + count // 50)] = 1e6 * random.standard_normal()
    elif kind == 1:  # many ties, zeros of both signs among them
        found = np.round(2 * found / scale) * scale
    elif kind == 2:  # over many magnitudes, down to the least that float32 has, and overflown
        found = np.exp(random.uniform(-103, 88, count))
        found[random.integers(count)] = np.inf
    elif kind == 3:
        found[:] = found[0]
    return found.astype(np.float32)


def roc(same, different):
    """scikit-learn's false and true match rates and distances, the first before any pair's."""
    labels = np.concatenate([np.ones(len(same)), np.zeros(len(different))])
    apart = np.concatenate([same, different]).astype(np.float64)
    apart[np.isinf(apart)] = 1e39  # which scikit-learn does not take; beyond float32's range
    false, true, scores = roc_curve(labels, -apart, drop_intermediate=False)
    return false, true, np.append(-scores, np.inf)


@pytest.mark.parametrize("seed", range(250))
def test_it_agrees_with_scikit_learn(seed):
    random = np.random.default_rng(seed)
    calibration, held_out = [
        (some_distances(random, 0.5), some_distances(random, random.choice([0.5, 2.0]))) for _ in range(2)
    ]
    rates = [rate for rate in (0.001, 0.01, 0.2, 0.7) if rate * len(calibration[1]) >= 1]
    found = verify(of(*calibration, 3), of(*held_out, 2), rates)

    false, true, apart = roc(*held_out)
    equal = np.argmin(np.round(np.abs(false - (1 - true)), 12))
    assert found["eer"] == pytest.approx(50 * (false + 1 - true)[equal], abs=1e-9)
    expected = [100 * true[false <= rate].max() for rate in verification.CURVE]
    np.testing.assert_allclose(found["curve"]["true_match_rate"], expected, rtol=0, atol=1e-9)

    false, true, apart = roc(*calibration)
    last = [np.flatnonzero(false <= rate).max() for rate in rates]
    for at, one in zip([*last, np.argmin(np.round(np.abs(false - (1 - true)), 12))], found["thresholds"], strict=True):
        assert apart[at] <= one["threshold"] < apart[at + 1]
        threshold = np.float32(one["threshold"])
        assert threshold == one["threshold"]
        assert one["true_match_rate"] == pytest.approx(100 * np.mean(held_out[0] <= threshold), abs=1e-9)
        assert one["false_match_rate"] == pytest.approx(100 * np.mean(held_out[1] <= threshold), abs=1e-9)


def test_one_outlier_hardly_changes_the_rates():
    random = np.random.default_rng(0)
    same, different = random.normal(1.0, 0.3, 2000), random.normal(1.35, 0.3, 30_000)
    without = verify(of(same, different), of(same, different))
    different[0] = 1e6
    found = verify(of(same, different), of(same, different))
    assert found["eer"] == pytest.approx(without["eer"], abs=0.01)
    assert found["thresholds"][1]["true_match_rate"] == pytest.approx(
        without["thresholds"][1]["true_match_rate"], abs=0.1
    )


@pytest.mark.parametrize("broken", [np.nan, -np.inf])
def test_a_distance_that_has_no_order_is_refused(broken):
    few = of([0.1], np.linspace(0.5, 1, 50))
    with pytest.raises(ValueError, match="A distance is NaN or minus infinity"):
        verify(of([0.1, broken], [0.5]), few, [])
    with pytest.raises(ValueError, match="A distance is NaN or minus infinity"):
        verify(few, of([0.1], [0.5, broken]), [])


def test_memory_does_not_grow_with_the_number_of_pairs():
    block = np.random.default_rng(0).normal(1, 0.2, 2**18).astype(np.float32)

    def peak(blocks):
        def some():
            yield from ((block[:1000] - np.float32(0.3), block + np.float32(number / 100)) for number in range(blocks))

        tracemalloc.start()
        try:
            assert verify(some, some)["different_pairs"] == blocks * len(block)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few = peak(2)
    assert peak(20) < 1.05 * few < 200 * 2**20


def test_a_rate_that_the_pairs_cannot_resolve_is_refused():
    few = of([0.1], np.linspace(0.5, 1, 50))
    assert verify(few, few, [0.02])["thresholds"][0]["threshold"] == pytest.approx(0.51, abs=1e-3)
    with pytest.raises(
        ValueError, match=r"rate of 0\.01 needs at least 100 pairs of different identities .* there are 50: .*0\.02"
    ):
        verify(few, few, [0.01])
    with pytest.raises(ValueError, match=r"between 0 and 1; 1\.5 does not"):
        verify(few, few, [1.5])


def test_pairs_of_one_kind_alone_cannot_be_verified():
    both, same, different = of([0.1], [0.2]), of([0.1], []), of([], [0.2])
    with pytest.raises(ValueError, match="no held-out pair of different identities"):
        verify(both, same, [])
    with pytest.raises(ValueError, match="no calibration pair of one identity"):
        verify(different, both, [])


def test_pairs_that_are_all_the_same_are_a_coin():
    same = of([0.5] * 3, [0.5] * 4)
    assert verify(same, same, [])["eer"] == 50


@pytest.mark.parametrize("entries", [1, 7, 100])
def test_pairs_are_of_different_cameras_without_junk_and_distractors(entries, monkeypatch):
    monkeypatch.setattr(verification, "BLOCK_ENTRIES", entries)
    distances = np.arange(12, dtype=np.float32).reshape(2, 6)
    query, gallery = (np.array([1, 2]), np.array([1, 2])), (np.array([1, 1, 2, 0, -1, 2]), np.array([1, 2, 1, 2, 2, 2]))
    found = pairs(lambda block: distances[block], *query, *gallery)
    for _ in range(2):  # as often as one asks
        same, different = (np.concatenate(kind).tolist() for kind in zip(*found(), strict=True))
        assert (same, different) == ([1, 8], [5, 6])
    found = pairs(lambda block: distances[block], *query, *gallery, ignored_cameras=((1, 2),))
    same, different = (np.concatenate(kind).tolist() for kind in zip(*found(), strict=True))
    assert (same, different) == ([8], [6])


@pytest.mark.parametrize("counted", [1, 7])
def test_pairs_are_counted_a_part_at_a_time(counted, monkeypatch):
    some = of(np.linspace(0, 1, 20), np.linspace(0.5, 1.5, 100), 3)
    expected = verify(some, some, [0.1])
    monkeypatch.setattr(verification, "COUNTED", counted)
    assert verify(some, some, [0.1]) == expected


def test_the_mean_over_trials_is_taken_number_by_number():
    few = of([0.1, 0.6], np.linspace(0.5, 1, 50))
    one, other = verify(few, few, [0.1]), verify(few, of([0.1], [0.4, 0.5, 0.6]), [0.1])
    mean = verification.average([one, other])
    assert mean.keys() == one.keys()
    assert mean["eer"] == (one["eer"] + other["eer"]) / 2
    assert mean["different_pairs"] == 26.5 and mean["calibration_different_pairs"] == 50
    assert mean["thresholds"][1]["set_at"] == "equal"
    assert len(mean["curve"]["true_match_rate"]) == len(verification.CURVE)
    assert verification.average([one]) == one


def test_the_curve_is_drawn_from_the_lower_left_to_the_upper_right():
    few = of(np.linspace(0, 1, 50), np.linspace(0.5, 1.5, 1000))
    drawn = curves.roc({"raw": verify(few, few, [0.1])["curve"]})
    assert drawn.shape == (480, 640, 3) and drawn.dtype == np.uint8
    margin = curves.MARGIN + 5
    rows, columns = np.nonzero((drawn[:, : -2 * margin] == curves.COLOURS[0]).all(axis=2))
    assert rows[columns == columns.min()].mean() > 200 > rows[columns == columns.max()].mean()
