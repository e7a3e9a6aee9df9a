"""Re-ranking against the paper's procedure written out densely, and its memory."""

import tracemalloc

import numpy as np
import pytest

from tf_reid.metrics import reranking
from tf_reid.metrics.reranking import k_reciprocal


def dense(query, gallery, metric, k1, k2, original_weight):
    """Section 3 of the paper, one image after the other, with the authors' scaling of the distances."""
    x = np.concatenate([query, gallery]).astype(np.float64)
    if metric == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    distance = ((x[:, None] - x) ** 2).sum(axis=2)
    distance /= distance.max(axis=1, keepdims=True)
    ranking = np.argsort(distance, axis=1, kind="stable")

    def reciprocal(i, k):
        return {j for j in ranking[i, : k + 1] if i in ranking[j, : k + 1]}

    encoding = np.zeros_like(distance)
    for i in range(len(x)):
        members = reciprocal(i, k1)
        widened = set(members)
        for j in members:
            candidate = reciprocal(j, round(k1 / 2))
            if len(candidate & members) > 2 / 3 * len(candidate):
                widened |= candidate
        for j in widened:
            encoding[i, j] = np.exp(-distance[i, j])
        encoding[i] /= encoding[i].sum()
    encoding = np.stack([encoding[ranking[i, :k2]].mean(axis=0) for i in range(len(x))])
    jaccard = np.empty((len(query), len(gallery)))
    for i in range(len(query)):
        for j in range(len(gallery)):
            p, g = encoding[i], encoding[len(query) + j]
            jaccard[i, j] = 1 - np.minimum(p, g).sum() / np.maximum(p, g).sum()
    return (1 - original_weight) * jaccard + original_weight * distance[: len(query), len(query) :]


def clusters(seed, queries=9, images=40, identities=6, dimensions=5):
    random = np.random.default_rng(seed)
    centres = random.normal(size=(identities, dimensions))
    spread = random.uniform(0.2, 1.0)
    x = centres[random.integers(identities, size=queries + images)] + spread * random.normal(
        size=(queries + images, dimensions)
    )
    return x[:queries].astype(np.float32), x[queries:].astype(np.float32)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (6, 3), (5, 1), (3, 2)])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_papers_procedure(metric, k1, k2, seed, monkeypatch):
    monkeypatch.setattr(reranking, "BLOCK_ENTRIES", 49 * (5 + seed))  # blocks that do not divide the 49 images
    monkeypatch.setattr(reranking, "ROWS", 10 + seed)
    query, gallery = clusters(seed)
    weight = (0.3, 0.0, 0.8, 1.0)[seed]
    similarity = k_reciprocal(query, gallery, metric, k1, k2, weight)
    found = np.concatenate([similarity(slice(0, 4)), similarity(slice(4, 9))])
    assert found.dtype == np.float32
    np.testing.assert_allclose(-found, dense(query, gallery, metric, k1, k2, weight), atol=2e-5)


def test_the_nearest_are_those_of_a_stable_sort():
    random = np.random.default_rng(0)
    query, gallery = (random.integers(0, 6, (n, 3)).astype(np.float32) for n in (40, 1900))  # with many ties
    images = reranking._Images(query, gallery, "euclidean")
    distances = images.distances(np.arange(1940))
    neighbours, furthest = reranking._nearest(images, 3)
    np.testing.assert_array_equal(neighbours, np.argsort(distances, axis=1, kind="stable")[:, :3])
    np.testing.assert_array_equal(furthest, distances.max(axis=1))


def test_fewer_images_than_neighbours_are_all_neighbours():
    query, gallery = clusters(0, queries=2, images=5)
    found = k_reciprocal(query, gallery)(slice(0, 2))
    np.testing.assert_allclose(-found, dense(query, gallery, "cosine", 6, 6, 0.3), atol=2e-5)


def test_images_that_are_all_the_same_have_no_distance_to_divide_by():
    same = np.ones((4, 3), np.float32)
    assert np.isfinite(k_reciprocal(same[:1], same, "euclidean", k1=2, k2=3)(slice(0, 1))).all()


def test_what_is_refused():
    query, gallery = clusters(0)
    with pytest.raises(ValueError, match="Unknown metric 'manhattan'"):
        k_reciprocal(query, gallery, "manhattan")
    with pytest.raises(ValueError, match="gallery features hold NaN"):
        k_reciprocal(query, gallery * np.nan)
    with pytest.raises(ValueError, match=r"k1=5 knows 6 neighbours .* average over k2=7; choose a k2 of at most 6"):
        k_reciprocal(query, gallery, k1=5, k2=7)
    assert np.isfinite(k_reciprocal(query, gallery, k1=5, k2=6)(slice(0, 1))).all()


def test_no_matrix_of_all_images_is_held(monkeypatch):
    query, gallery = clusters(0, queries=500, images=2500, identities=300)
    monkeypatch.setattr(reranking, "BLOCK_ENTRIES", 3000 * 20)
    monkeypatch.setattr(reranking, "ROWS", 256)
    tracemalloc.start()
    try:
        similarity = k_reciprocal(query, gallery)
        for start in range(0, 500, 20):
            similarity(slice(start, start + 20))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3000 * 3000 * 4 / 2  # half of the distances alone
