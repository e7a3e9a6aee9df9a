import numpy as np
import pytest

from tf_reid import metrics


def ranking(matches, ignored=None):
    """The quality of one query whose gallery, best first, is right where `matches` is 1."""
    matches = np.array([matches], bool)
    ignored = np.zeros_like(matches) if ignored is None else np.array([ignored], bool)
    distances = np.arange(matches.shape[1], dtype=np.float32)[None]
    return metrics.ranking_quality(*metrics.ranks_of_matches(distances, matches, ignored))


def slow_score(distances, query_person, query_camera, gallery_person, gallery_camera, same_camera_ignored):
    """The definitions, one gallery image after the other; Market's AP as its original walks down the list."""
    first_ranks, steps, trapezoids, inps = [], [], [], []
    for q, person in enumerate(query_person):
        ranked = []
        for g in sorted(range(len(gallery_person)), key=lambda g, q=q: (distances[q][g], g)):
            same_camera = gallery_person[g] == person and gallery_camera[g] == query_camera[q]
            if gallery_person[g] != -1 and not (same_camera_ignored and same_camera):
                ranked.append(gallery_person[g] == person and person > 0)
        if not any(ranked):
            continue
        first_ranks.append(ranked.index(True) + 1)
        inps.append(sum(ranked) / max(rank for rank, right in enumerate(ranked, 1) if right))
        steps.append(np.mean([sum(ranked[:rank]) / rank for rank, right in enumerate(ranked, 1) if right]))
        old_recall, old_precision, area, hits = 0.0, 1.0, 0.0, 0
        for rank, right in enumerate(ranked, 1):
            hits += right
            recall, precision = hits / sum(ranked), hits / rank
            area += (recall - old_recall) * (old_precision + precision) / 2
            old_recall, old_precision = recall, precision
        trapezoids.append(area)
    cmc = [100 * np.mean([first <= k for first in first_ranks]) for k in range(1, 51)] if first_ranks else []
    means = [100 * np.mean(values) if values else None for values in (steps, trapezoids, inps)]
    return cmc, *means, len(first_ranks)


def random_case(seed):
    """Features and labels with junk, distractors, missing matches and (whole numbers) many exact ties."""
    random = np.random.default_rng(seed)
    queries, images = random.integers(1, 12), random.integers(1, 40)
    query, gallery = random.integers(0, 3, (queries, 2)), random.integers(0, 3, (images, 2))
    labels = [
        random.integers(low, high, count)
        for low, high, count in ((-1, 6, queries), (1, 4, queries), (-1, 6, images), (1, 4, images))
    ]
    return query, gallery, labels, bool(seed % 2), int(random.integers(1, 200))


@pytest.mark.parametrize("seed", range(60))
def test_score_agrees_with_the_definitions(seed, monkeypatch):
    query, gallery, labels, same_camera_ignored, entries = random_case(seed)
    monkeypatch.setattr(metrics, "BLOCK_ENTRIES", entries)  # blocks of every size
    distances = [[np.sum((q - g) ** 2) for g in gallery] for q in query]
    cmc, step, trapezoid, inp, evaluated = slow_score(distances, *labels, same_camera_ignored)

    if evaluated == 0:
        with pytest.raises(ValueError, match="No query has a match: "):
            metrics.score(query, gallery, *labels, same_camera_ignored, "euclidean")
        return
    result = metrics.score(query, gallery, *labels, same_camera_ignored, "euclidean")
    np.testing.assert_allclose(result["cmc"], cmc, rtol=1e-12)
    assert [result["rank1"], result["rank5"], result["rank10"], result["rank20"]] == pytest.approx(
        [cmc[0], cmc[4], cmc[9], cmc[19]]
    )
    assert result["mAP"] == pytest.approx(step)
    assert result["mAP_trapezoid"] == pytest.approx(trapezoid)
    assert result["mINP"] == pytest.approx(inp)
    assert result["queries"] == evaluated
    assert result["dropped"] == len(query) - evaluated
    assert result["gallery"] == np.sum(labels[2] != -1)


def test_random_cases_meet_what_they_are_for():
    evaluated, dropped = [], []
    for seed in range(60):
        query, gallery, labels, same_camera_ignored, _ = random_case(seed)
        distances = [[np.sum((q - g) ** 2) for g in gallery] for q in query]
        evaluated.append(slow_score(distances, *labels, same_camera_ignored)[-1])
        dropped.append(len(query) - evaluated[-1])
    assert sum(count == 0 for count in evaluated) >= 2  # nothing to score
    assert sum(count > 0 for count in evaluated) >= 40
    assert sum(a > 0 and b > 0 for a, b in zip(evaluated, dropped, strict=True)) >= 20  # some of both


def test_right_at_ranks_1_and_3():
    quality = ranking([1, 0, 1, 0])
    assert quality["first_rank"].tolist() == [1]
    assert quality["ap_step"] == pytest.approx([(1 + 2 / 3) / 2])
    assert quality["ap_trapezoid"] == pytest.approx([((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2) / 2])
    assert quality["inp"] == pytest.approx([2 / 3])


def test_right_at_rank_2_alone():
    quality = ranking([0, 1])
    assert quality["first_rank"].tolist() == [2]
    assert quality["ap_step"] == pytest.approx([1 / 2])
    assert quality["ap_trapezoid"] == pytest.approx([(0 + 1 / 2) / 2])
    assert quality["inp"] == pytest.approx([1 / 2])


def test_ignored_images_leave_the_ranking():
    quality = ranking([1, 0, 1, 0, 1], ignored=[1, 1, 0, 0, 0])
    assert quality["first_rank"].tolist() == [1]
    assert quality["ap_step"] == pytest.approx([(1 + 2 / 3) / 2])


def test_a_perfect_ranking_scores_100_everywhere():
    features, person = np.eye(4), np.arange(1, 5)
    result = metrics.score(features, features, person, np.ones(4), person, np.full(4, 2), True)
    assert all(result[key] == 100 for key in metrics.RATES)
    assert result["cmc"].tolist() == [100] * 50


def test_ties_keep_the_order_of_the_gallery():
    one, three = np.ones((1, 2)), np.ones((3, 2))
    for place, rate in ((0, 100), (1, 0), (2, 0)):
        gallery_person = np.full(3, 2)
        gallery_person[place] = 1
        result = metrics.score(one, three, [1], [1], gallery_person, [2, 2, 2], True)
        assert result["rank1"] == rate
        assert result["mAP"] == pytest.approx(100 / (place + 1))


def test_junk_and_distractors():
    query, gallery = np.array([[0.0], [0.0], [0.0]]), np.array([[0.0], [1.0], [2.0]])
    result = metrics.score(query, gallery, [5, 0, -1], [1, 1, 1], [-1, 0, 5], [2, 2, 2], True, "euclidean")
    assert result["mAP"] == 50  # the distractor is before the match, the junk is not
    assert (result["queries"], result["dropped"], result["gallery"]) == (1, 2, 2)


def test_distances():
    random = np.random.default_rng(0)
    query, gallery = random.normal(size=(5, 7)), random.normal(size=(6, 7))
    cosine, euclidean = (metrics.pairwise_distance(query, gallery, m) for m in ("cosine", "euclidean"))
    for q in range(5):
        for g in range(6):
            similarity = query[q] @ gallery[g] / np.linalg.norm(query[q]) / np.linalg.norm(gallery[g])
            assert cosine[q, g] == pytest.approx(1 - similarity, abs=1e-6)
            assert euclidean[q, g] == pytest.approx(np.linalg.norm(query[q] - gallery[g]), abs=1e-5)
    assert cosine.dtype == euclidean.dtype == np.float32
    assert np.all(np.isfinite(metrics.pairwise_distance(query, query, "euclidean")))  # no root of −1e-7
    np.testing.assert_array_equal(metrics.normalise(np.zeros((1, 3))), np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"Unknown metric 'manhattan'"):
        metrics.pairwise_distance(query, gallery, "manhattan")


@pytest.mark.parametrize(
    ("query_person", "query_camera", "gallery_person", "gallery_camera", "reason"),
    [
        ([1, 2], [1, 1], [1, 2], [1, 1], "the query's own camera"),
        ([1, 2], [1, 1], [3, 4], [2, 2], "no id in common"),
        ([1, 2], [1, 1], [-1, 0], [2, 2], "every gallery image is junk or a distractor"),
        ([0, -1], [1, 1], [0, 1], [2, 2], "every query image is junk or a distractor"),
        ([], [], [1, 2], [1, 1], "the query has no image"),
        ([1, 2], [1, 1], [], [], "the gallery has no image"),
    ],
)
def test_no_match_says_why(query_person, query_camera, gallery_person, gallery_camera, reason):
    query, gallery = np.ones((len(query_person), 3)), np.ones((len(gallery_person), 3))
    with pytest.raises(ValueError, match=f"No query has a match: .*{reason}"):
        metrics.score(query, gallery, query_person, query_camera, gallery_person, gallery_camera, True)


def test_bad_features_say_why():
    one = np.ones((1, 2))
    with pytest.raises(ValueError, match="2 gallery features for 1 person ids"):
        metrics.score(one, np.ones((2, 2)), [1], [1], [1], [2], True)
    with pytest.raises(ValueError, match="query features have 2 dimensions and the gallery features 3"):
        metrics.score(one, np.ones((1, 3)), [1], [1], [1], [2], True)
    with pytest.raises(ValueError, match="query features hold NaN"):
        metrics.score(one * np.nan, one, [1], [1], [1], [2], True)


def test_average_of_trials():
    def trial(rank1, queries):
        rates = dict.fromkeys(metrics.RATES, 50.0) | {"rank1": rank1}
        return rates | {"queries": queries, "dropped": 0, "gallery": 7, "cmc": np.full(50, rank1)}

    mean = metrics.average([trial(10.0, 3), trial(30.0, 4)])
    assert (mean["rank1"], mean["spread"]["rank1"], mean["spread"]["mAP"]) == (20.0, 10.0, 0.0)
    assert mean["cmc"].tolist() == [20.0] * 50
    assert mean["trials"] == 2
    assert mean["gallery"] == 7 and isinstance(mean["gallery"], int)
    assert mean["queries"] == 3.5
    with pytest.raises(ValueError, match="no result to average"):
        metrics.average([])


def test_colour_histogram_tells_colours_and_where_they_are():
    red, blue = np.full((6, 4, 3), (255, 0, 0), np.uint8), np.full((6, 4, 3), (0, 0, 255), np.uint8)
    images = np.stack([red, blue, np.concatenate([red[:3], blue[3:]]), np.concatenate([blue[:3], red[3:]])])
    features = metrics.colour_histogram(images)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-6)
    distance = metrics.pairwise_distance(features, features)
    np.testing.assert_allclose(distance[0], [0, 1, 0.5, 0.5], atol=1e-6)
    assert distance[2, 3] == pytest.approx(1)  # the same colours, worn the other way round
    with pytest.raises(ValueError, match="uint8"):
        metrics.colour_histogram(images.astype(np.float32))
