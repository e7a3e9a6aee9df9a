"""Similarities in blocks against the formulas, one pair after the other."""

import numpy as np
import pytest

from tf_reid.metrics import similarity
from tf_reid.metrics.similarity import distances, learned, ordering, rows

WHOLE = slice(0, 5)


@pytest.fixture
def features():
    random = np.random.default_rng(0)
    return random.normal(size=(5, 7)).astype(np.float32), random.normal(size=(6, 7)).astype(np.float32)


def by_hand(query, gallery, metric):
    if metric == "euclidean":
        return np.array([[np.linalg.norm(q - g) for g in gallery] for q in query])
    return np.array([[1 - q @ g / np.linalg.norm(q) / np.linalg.norm(g) for g in gallery] for q in query])


@pytest.mark.parametrize("metric", similarity.METRICS)
def test_distances_are_those_of_the_formulas(features, metric):
    found = distances(*features, metric)
    together = np.concatenate([found(slice(0, 2)), found(slice(2, 5))])
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, by_hand(*features, metric), atol=1e-5)
    same = distances(features[0], features[0], metric)(WHOLE)
    assert np.isfinite(same).all()  # no root of −1e-7
    np.testing.assert_allclose(np.diag(same), 0, atol=2e-3)


@pytest.mark.parametrize("metric", similarity.METRICS)
def test_the_order_is_that_of_the_distances(features, metric):
    found = ordering(*features, metric)
    assert found(slice(1, 3)).shape == (2, 6) and found(slice(1, 3)).dtype == np.float32
    np.testing.assert_array_equal(np.argsort(-found(WHOLE)), np.argsort(by_hand(*features, metric)))
    block = found(WHOLE)
    block[:] = -np.inf  # written to by those who rank
    assert np.isfinite(found(WHOLE)).all()


@pytest.mark.parametrize("metric", similarity.METRICS)
def test_whole_numbers_have_exact_ties(metric):
    query, gallery = np.array([[1, 2]]), np.array([[2, 1], [2, 1], [4, 2], [0, 0]])
    found = ordering(query, gallery, metric)(slice(0, 1))[0]
    assert found[0] == found[1] and (found[0] == found[2]) == (metric == "cosine")
    assert np.isfinite(found[3])  # a feature of zeros has no direction


def test_memory_mapped_features_give_the_same_and_are_not_copied(features, tmp_path):
    np.save(tmp_path / "gallery.npy", features[1])
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    for metric in similarity.METRICS:
        np.testing.assert_array_equal(ordering(features[0], mapped, metric)(WHOLE), ordering(*features, metric)(WHOLE))
    assert np.shares_memory(rows(mapped, np.arange(2, 5)), mapped)


def test_rows_that_follow_one_another_are_a_view_and_others_a_copy(features):
    for indices in ([2, 3, 4], [0], [5]):
        found = rows(features[1], np.array(indices))
        np.testing.assert_array_equal(found, features[1][indices])
        assert np.shares_memory(found, features[1])
    for indices in ([2, 4], [3, 2], [1, 1]):
        found = rows(features[1], np.array(indices))
        np.testing.assert_array_equal(found, features[1][indices])
        assert not np.shares_memory(found, features[1])
    assert rows(features[1], np.zeros(0, np.int64)).shape == (0, 7)


def test_a_learned_similarity_sees_few_pairs_at_a_time(features, monkeypatch):
    monkeypatch.setattr(similarity, "LEARNED_ENTRIES", 7 * 4)
    seen = []

    def nearness(query, gallery):
        seen.append(len(query) * len(gallery))
        return -np.abs(query[:, None] - gallery).sum(axis=2)

    found = learned(nearness, *features)(slice(1, 5))
    np.testing.assert_allclose(found, nearness(features[0][1:5], features[1]), rtol=1e-6)
    assert max(seen[:-1]) == 4


def test_what_is_refused_says_why(features):
    query, gallery = features
    with pytest.raises(ValueError, match="Unknown metric 'manhattan': it must be one of cosine, euclidean"):
        ordering(query, gallery, "manhattan")
    with pytest.raises(ValueError, match="query features have 7 dimensions and the gallery features 3"):
        ordering(query, gallery[:, :3], "cosine")
    with pytest.raises(ValueError, match=r"gallery features must be \[N, D\], not \[6\]"):
        ordering(query, gallery[:, 0], "cosine")
    with pytest.raises(ValueError, match="query features hold NaN"):
        distances(query * np.nan, gallery, "cosine")
