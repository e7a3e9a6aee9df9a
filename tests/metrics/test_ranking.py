"""Ranks and rates against the definitions walked through one gallery image after the other."""

import tracemalloc
from collections import Counter

import numpy as np
import pytest

from tf_reid.metrics import ranking
from tf_reid.metrics.similarity import ordering


def quality_of(ranks):
    """The quality of one query whose right images stand at these ranks."""
    return ranking.ranking_quality(np.zeros(len(ranks), int), np.array(ranks))


def given(similarities):
    """Similarities that are there already."""
    return lambda block: np.array(similarities, np.float32)[block]


def slow_score(distances, labels, same_camera_ignored, ignored_cameras):
    """The definitions; Market's AP as its original walks down the list."""
    first_ranks, first_identities, steps, trapezoids, inps, reasons = [], [], [], [], [], Counter()
    for q, (identity, camera) in enumerate(zip(labels[0], labels[1], strict=True)):
        ranked, identities = [], []
        for g in sorted(range(len(labels[2])), key=lambda g, q=q: (distances[q][g], g)):
            same_camera = labels[2][g] == identity and labels[3][g] == camera
            if labels[2][g] == -1 or (same_camera_ignored and same_camera) or (camera, labels[3][g]) in ignored_cameras:
                continue
            ranked.append(labels[2][g] == identity and identity > 0)
            found = labels[2][g] if labels[2][g] > 0 else f"unknown {g}"
            if found not in identities:
                identities.append(found)
        if not any(ranked):
            if identity <= 0:
                reasons[ranking.NO_IDENTITY] += 1
            else:
                reasons[ranking.ONLY_IGNORED if identity in labels[2] else ranking.NOT_IN_GALLERY] += 1
            continue
        first_ranks.append(ranked.index(True) + 1)
        first_identities.append(identities.index(identity) + 1)
        inps.append(sum(ranked) / max(rank for rank, right in enumerate(ranked, 1) if right))
        steps.append(np.mean([sum(ranked[:rank]) / rank for rank, right in enumerate(ranked, 1) if right]))
        old_recall, old_precision, area, hits = 0.0, 1.0, 0.0, 0
        for rank, right in enumerate(ranked, 1):
            hits += right
            recall, precision = hits / sum(ranked), hits / rank
            area += (recall - old_recall) * (old_precision + precision) / 2
            old_recall, old_precision = recall, precision
        trapezoids.append(area)
    cmcs = [[100 * np.mean([r <= k for r in ranks]) for k in range(1, 51)] for ranks in (first_ranks, first_identities)]
    means = [100 * np.mean(values) for values in (steps, trapezoids, inps)]
    return {"image": cmcs[0], "identity": cmcs[1]}, means, len(first_ranks), dict(reasons)


def random_case(seed):
    """Features and labels with junk, distractors, missing matches and (whole numbers) many exact ties."""
    random = np.random.default_rng(seed)
    queries, images = random.integers(1, 12), random.integers(1, 40)
    query, gallery = random.integers(0, 3, (queries, 2)), random.integers(0, 3, (images, 2))
    labels = [
        random.integers(low, high, count)
        for low, high, count in ((-1, 6, queries), (1, 4, queries), (-1, 6, images), (1, 4, images))
    ]
    ignored = [(), ((1, 2),), ((3, 1), (3, 2), (2, 2))][seed % 3]
    return query, gallery, labels, bool(seed % 2), ignored, int(random.integers(1, 200))


def slow_result(seed):
    query, gallery, labels, same_camera_ignored, ignored, _ = random_case(seed)
    distances = [[np.sum((q - g) ** 2) for g in gallery] for q in query]
    return slow_score(distances, [part.tolist() for part in labels], same_camera_ignored, ignored)


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered")
@pytest.mark.parametrize("cmc", ["image", "identity"])
@pytest.mark.parametrize("seed", range(90))
def test_score_agrees_with_the_definitions(seed, cmc, monkeypatch):
    query, gallery, labels, same_camera_ignored, ignored, entries = random_case(seed)
    monkeypatch.setattr(ranking, "BLOCK_ENTRIES", entries)  # blocks of every size
    cmcs, (step, trapezoid, inp), evaluated, reasons = slow_result(seed)
    arguments = (ordering(query, gallery, "euclidean"), *labels, same_camera_ignored, ignored, cmc)

    if evaluated == 0:
        with pytest.raises(ValueError, match="No query has a match: "):
            ranking.score(*arguments)
        return
    result = ranking.score(*arguments)
    np.testing.assert_allclose(result["cmc"], cmcs[cmc], rtol=1e-12)
    assert [result[f"rank{k}"] for k in (1, 5, 10, 20)] == pytest.approx([cmcs[cmc][k - 1] for k in (1, 5, 10, 20)])
    assert result["mAP"] == pytest.approx(step)
    assert result["mAP_trapezoid"] == pytest.approx(trapezoid)
    assert result["mINP"] == pytest.approx(inp)
    assert result["queries"] == evaluated
    assert result["dropped"] == len(query) - evaluated
    assert result["dropped_because"] == reasons
    assert result["gallery"] == np.sum(labels[2] != -1)


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered")
def test_random_cases_meet_what_they_are_for():
    results = [slow_result(seed) for seed in range(90)]
    evaluated = [result[2] for result in results]
    reasons = [set(result[3]) for result in results]
    assert sum(count == 0 for count in evaluated) >= 2  # nothing to score
    assert sum(count > 0 for count in evaluated) >= 60
    assert sum(count > 0 and bool(why) for count, why in zip(evaluated, reasons, strict=True)) >= 30  # some of both
    assert sum(len(why) == 3 for why in reasons) >= 4
    assert sum(result[0]["image"] != result[0]["identity"] for result in results if result[2]) >= 30


@pytest.mark.parametrize("seed", range(20))
def test_ranks_are_those_of_a_stable_sort(seed):
    random = np.random.default_rng(seed)
    row = random.integers(0, 4, 30).astype(np.float32)
    row[random.permutation(30)[:seed]] = -np.inf
    positions = np.flatnonzero(np.isfinite(row))
    expected = np.argsort(np.argsort(-row, kind="stable"), kind="stable") + 1
    np.testing.assert_array_equal(ranking.ranks_of(row, positions), expected[positions])


def test_right_at_ranks_1_and_3():
    quality = quality_of([1, 3])
    assert quality["ap_step"] == pytest.approx([(1 + 2 / 3) / 2])
    assert quality["ap_trapezoid"] == pytest.approx([((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2) / 2])
    assert quality["inp"] == pytest.approx([2 / 3])


def test_right_at_rank_2_alone():
    quality = quality_of([2])
    assert quality["ap_step"] == pytest.approx([1 / 2])
    assert quality["ap_trapezoid"] == pytest.approx([(0 + 1 / 2) / 2])
    assert quality["inp"] == pytest.approx([1 / 2])


def test_a_perfect_ranking_scores_100_everywhere():
    identity = np.arange(1, 5)
    result = ranking.score(given(np.eye(4)), identity, np.ones(4), identity, np.full(4, 2), True)
    assert all(result[key] == 100 for key in ranking.RATES)
    assert result["cmc"].tolist() == [100] * 50


def test_ties_keep_the_order_of_the_gallery():
    for place, rate in ((0, 100), (1, 0), (2, 0)):
        gallery_identity = np.full(3, 2)
        gallery_identity[place] = 1
        result = ranking.score(given(np.ones((1, 3))), [1], [1], gallery_identity, [2, 2, 2], True)
        assert result["rank1"] == rate
        assert result["mAP"] == pytest.approx(100 / (place + 1))


def test_junk_and_distractors():
    similarity = given(np.tile([0, -1, -2], (3, 1)))
    result = ranking.score(similarity, [5, 0, -1], [1, 1, 1], [-1, 0, 5], [2, 2, 2], True)
    assert result["mAP"] == 50  # the distractor is before the match, the junk is not
    assert (result["queries"], result["dropped"], result["gallery"]) == (1, 2, 2)
    assert result["dropped_because"] == {ranking.NO_IDENTITY: 2}


def test_ignored_cameras_hide_everybody_but_for_the_query_cameras_they_are_ignored_for():
    # Cameras 2 and 4 hold another identity before the person; camera 2 stands at the place of camera 3.
    similarity, gallery = given([[9, 8, 7], [9, 8, 7]]), ([8, 9, 1], [2, 4, 4])
    result = ranking.score(similarity, [1, 1], [3, 6], *gallery, True, ignored_cameras=((3, 2),))
    assert result["mAP"] == pytest.approx(100 * (1 / 2 + 1 / 3) / 2)


def test_cmc_by_identity_counts_each_identity_once_and_every_distractor():
    similarity = given([[9, 8, 7, 6, 5, 4]])
    labels = ([1], [1], [7, 7, 0, 0, 7, 1], [2] * 6)
    by_image, by_identity = (ranking.score(similarity, *labels, True, cmc=cmc) for cmc in ("image", "identity"))
    assert np.flatnonzero(by_image["cmc"])[0] + 1 == 6
    assert np.flatnonzero(by_identity["cmc"])[0] + 1 == 4  # identity 7, two distractors, identity 1
    assert by_identity["mAP"] == by_image["mAP"] == pytest.approx(100 / 6)
    with pytest.raises(ValueError, match="cmc is 'tracklet'"):
        ranking.score(similarity, *labels, True, cmc="tracklet")


def test_memory_is_that_of_a_block(monkeypatch):
    random = np.random.default_rng(0)
    query, gallery = (random.normal(size=(n, 8)).astype(np.float32) for n in (800, 4000))
    identity, camera = random.integers(1, 100, 4800), random.integers(1, 4, 4800)
    labels = identity[:800], camera[:800], identity[800:], camera[800:]
    monkeypatch.setattr(ranking, "BLOCK_ENTRIES", 4000 * 50)
    tracemalloc.start()
    try:
        ranking.score(ordering(query, gallery, "cosine"), *labels, True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 800 * 4000 * 4 / 2  # half of the similarities alone


@pytest.mark.parametrize("cores", [2, 16, 64])
@pytest.mark.parametrize("images", [1, 19_732, 93_820, 519_000])
def test_blocks_stay_large_enough_for_fast_products(cores, images):
    workers, threads, blocks = ranking._plan(3_368, images, cores)
    sizes = [block.stop - block.start for block in blocks]
    assert [blocks[0].start, *(block.stop for block in blocks)] == [*(block.start for block in blocks), 3_368]
    assert min(sizes) >= 120 and max(sizes) <= ranking.BLOCK_QUERIES
    assert workers * max(sizes) * images <= ranking.BLOCK_ENTRIES
    assert threads >= 1 and workers * threads <= cores
    if cores * ranking.LEAST_QUERIES * images <= ranking.BLOCK_ENTRIES:
        assert (workers, threads) == (cores, 1)


def test_a_gallery_that_is_too_large_for_such_blocks_has_smaller_ones():
    assert ranking._plan(3, ranking.BLOCK_ENTRIES, 4) == (1, 4, [slice(0, 1), slice(1, 2), slice(2, 3)])


def test_blocks_give_the_same_bits_and_leave_numpy_its_threads(monkeypatch):
    random = np.random.default_rng(0)
    query, gallery = (random.normal(size=(n, 64)).astype(np.float32) for n in (70, 500))
    identity, camera = random.integers(1, 20, 570), random.integers(1, 4, 570)
    labels = identity[:70], camera[:70], identity[70:], camera[70:]
    with ranking._linear_algebra().limit(limits=2):

        def threads():
            of_numpy = [one for one in ranking._linear_algebra().lib_controllers if "numpy" in one.filepath]
            return {library.num_threads for library in of_numpy}  # others may count threads for each thread

        before, inside = threads(), []

        def alike(block):
            inside.append((block.stop - block.start, threads()))
            return ordering(query, gallery, "cosine")(block)

        expected = ranking.score(alike, *labels, True)
        monkeypatch.setattr(ranking, "BLOCK_QUERIES", 30)
        result = ranking.score(alike, *labels, True)
        assert sorted(size for size, _ in inside) == [23, 23, 24, 70]  # blocks of about one size
        assert all(found == {1} for _, found in inside) and threads() == before == {2}
        np.testing.assert_equal(result, expected)
        with pytest.raises(ValueError, match="NaN or infinite"):
            ranking.score(lambda block: np.full((block.stop - block.start, 500), np.nan), *labels, True)
        assert threads() == before


@pytest.mark.parametrize(
    ("query_identity", "query_camera", "gallery_identity", "gallery_camera", "reason"),
    [
        ([1, 2], [1, 1], [1, 2], [1, 1], "the query's own camera"),
        ([1, 2], [1, 1], [3, 4], [2, 2], "no identity in common"),
        ([1, 2], [1, 1], [-1, 0], [2, 2], "every gallery image is junk or a distractor"),
        ([0, -1], [1, 1], [0, 1], [2, 2], "every query image is junk or a distractor"),
        ([], [], [1, 2], [1, 1], "the query has no image"),
        ([1, 2], [1, 1], [], [], "the gallery has no image"),
    ],
)
def test_no_match_says_why(query_identity, query_camera, gallery_identity, gallery_camera, reason):
    similarity = given(np.ones((len(query_identity), len(gallery_identity))))
    with pytest.raises(ValueError, match=f"No query has a match: .*{reason}"):
        ranking.score(similarity, query_identity, query_camera, gallery_identity, gallery_camera, True)


def test_what_does_not_fit_or_is_not_finite_says_so():
    labels = ([1, 1], [1, 1], [1, 2, 3], [2, 2, 2])
    with pytest.raises(ValueError, match="2 identities and 1 cameras of the query"):
        ranking.score(given(np.ones((2, 3))), [1, 1], [1], *labels[2:], True)
    with pytest.raises(ValueError, match=r"2 queries and 3 gallery images by their identities, but .* 2 x 4"):
        ranking.score(given(np.ones((2, 4))), *labels, True)
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match=r"similarities of query 1 .* NaN or infinite"):
            ranking.score(given([[1, 2, 3], [1, wrong, 3]]), *labels, True)
    with pytest.raises(ValueError, match=r"similarities of query 0 .* NaN or infinite"):
        ranking.score(given([[-np.inf, 2, 3], [1, 2, 3]]), *labels, True)


def test_average_of_trials():
    def trial(rank1, queries):
        rates = dict.fromkeys(ranking.RATES, 50.0) | {"rank1": rank1}
        return rates | {"queries": queries, "dropped": 5 - queries, "gallery": 7, "cmc": np.full(50, rank1)}

    first = trial(10.0, 3) | {"dropped_because": {ranking.NOT_IN_GALLERY: 1, ranking.NO_IDENTITY: 1}}
    second = trial(30.0, 4) | {"dropped_because": {ranking.NO_IDENTITY: 1}}
    mean = ranking.average([first, second])
    assert mean["dropped_because"] == {ranking.NOT_IN_GALLERY: 0.5, ranking.NO_IDENTITY: 1}
    assert (mean["rank1"], mean["spread"]["rank1"], mean["spread"]["mAP"]) == (20.0, 10.0, 0.0)
    assert mean["cmc"].tolist() == [20.0] * 50
    assert mean["trials"] == 2
    assert mean["gallery"] == 7 and isinstance(mean["gallery"], int)
    assert mean["queries"] == 3.5
    with pytest.raises(ValueError, match="no result to average"):
        ranking.average([])
