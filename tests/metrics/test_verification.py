"""Thresholds, rates and the curve against counts by hand and against sorting all pairs."""

import numpy as np
import pytest

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


@pytest.mark.parametrize("seed", range(10))
def test_it_agrees_with_sorting_all_pairs(seed):
    random = np.random.default_rng(seed)
    same, different = random.normal(0.4, 0.1, 300), random.normal(0.7, 0.1, 5000)
    held_same, held_different = random.normal(0.4, 0.1, 200), random.normal(0.7, 0.1, 3000)
    found = verify(of(same, different, 7), of(held_same, held_different, 3), [0.001, 0.01])
    for rate, one in zip((0.001, 0.01), found["thresholds"], strict=False):
        allowed = np.sort(different.astype(np.float32))[: int(5000 * rate) + 1]
        assert allowed[-2] <= one["threshold"] < allowed[-1] + 1e-5
        assert one["true_match_rate"] == pytest.approx(100 * np.mean(held_same <= one["threshold"]), abs=0.51)
        assert one["false_match_rate"] == pytest.approx(100 * np.mean(held_different <= one["threshold"]), abs=0.04)
    both = np.sort(np.concatenate([held_same, held_different]))
    errors = [(np.mean(held_different <= t), np.mean(held_same > t)) for t in both]
    false, missed = min(errors, key=lambda pair: abs(pair[0] - pair[1]))
    assert found["eer"] == pytest.approx(50 * (false + missed), abs=0.3)
    curve = found["curve"]
    for rate, true in list(zip(curve["false_match_rate"], curve["true_match_rate"], strict=True))[10::20]:
        threshold = np.sort(held_different)[min(int(3000 * rate / 100), 2999)]
        assert true == pytest.approx(100 * np.mean(held_same < threshold), abs=0.51)


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
