"""Scores of trials and their mean, against values worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import make_records

from tf_reid.evaluation.comparison import Comparison, check_matches, score
from tf_reid.metrics import ranking
from tf_reid.metrics.protocols import Trial
from tf_reid.metrics.reranking import k_reciprocal


def compared(query, gallery, records, trials, distance="cosine", **options):
    return score(Comparison(query, gallery, distance, **options), records, trials)


def test_scores_are_the_mean_over_trials():
    # Angles on a circle: the nearer, the smaller the cosine distance.
    angle = np.radians([0.0, 90.0, 10.0, 80.0, 45.0])
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    records = make_records([1, 2, 1, 2, 3], [1, 1, 2, 2, 2])
    # Trial 0: 0 finds 2 first, 1 finds 3 first. Trial 1: the gallery's identities lie the wrong way round.
    right = Trial("right", np.array([0, 1]), np.array([2, 3, 4]), same_camera_ignored=False)
    crossed = np.array([1, 2, 2, 1, 3])
    wrong = make_records(crossed, [1, 1, 2, 2, 2])

    found = compared(features, features, records, [right, right])
    assert (found["rank1"], found["mAP"], found["mINP"], found["trials"]) == (100, 100, 100, 2)
    assert (found["queries"], found["gallery"], found["dropped"]) == (2, 3, 0)

    # Identity 1's image stands third for query 0 (after 10° and 45°), and identity 2's third for query 1.
    worst = compared(features, features, wrong, [right])
    assert (worst["rank1"], worst["rank5"]) == (0, 100)
    assert worst["mAP"] == pytest.approx(100 / 3)

    # One query right, the other third: trials of one query each average to the same as by hand.
    half = make_records([1, 1, 1, 2, 3], [1, 1, 2, 2, 2])
    trials = [Trial(str(q), np.array([q]), np.array([2, 3, 4]), same_camera_ignored=False) for q in (0, 1)]
    found = compared(features, features, half, trials)
    assert found["rank1"] == 50 and found["spread"]["rank1"] == 50
    assert found["mAP"] == pytest.approx((100 + 100 / 3) / 2)


def test_query_and_gallery_features_keep_their_sides_and_the_distance_is_the_one_asked_for():
    records = make_records([1, 1, 2], [1, 2, 2])
    trial = Trial("", np.array([0]), np.array([1, 2]), same_camera_ignored=False)
    query = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    gallery = np.array([[0.0, 0.0], [9.0, 0.0], [1.0, 1.0]])  # nearest by angle, nearest by length
    assert compared(query, gallery, records, [trial])["rank1"] == 100
    assert compared(query, gallery, records, [trial], "euclidean")["rank1"] == 0


def test_a_learned_similarity_takes_the_place_of_the_distance():
    records = make_records([1, 1, 2], [1, 2, 2])
    trial = Trial("", np.array([0]), np.array([1, 2]), same_camera_ignored=False)
    features = np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.1]], np.float32)

    def opposite(query, gallery):
        return -tf.matmul(query, gallery, transpose_b=True)

    assert compared(features, features, records, [trial])["rank1"] == 0
    assert compared(features, features, records, [trial], learned=opposite)["rank1"] == 100
    comparison = Comparison(features, features, "cosine", learned=opposite)
    np.testing.assert_allclose(comparison.distances(trial)(slice(0, 1)), [[-1, 1]])
    with pytest.raises(ValueError, match=r"evaluate\.rerank needs a distance"):
        Comparison(features, features, "cosine", rerank=True, learned=opposite)


def test_reranking_takes_the_place_of_the_distance():
    places = np.array([0.0, 2.0, -1.5, 1.0, -1.7, -1.6, -1.8, -1.9, 2.2], np.float32)
    features = np.stack([places, np.zeros(9, np.float32)], axis=1)
    records = make_records([1, 1, 2, 3, 4, 5, 6, 7, 1], [1] + [2] * 8)
    trial = Trial("", np.array([0]), np.arange(1, 9), same_camera_ignored=True)
    comparison = Comparison(features, features, "euclidean", rerank=True)
    expected = k_reciprocal(features[:1], features[1:], "euclidean")
    np.testing.assert_allclose(comparison.distances(trial)(slice(0, 1)), -expected(slice(0, 1)))
    labels = records.identity[:1], records.camera[:1], records.identity[1:], records.camera[1:]
    assert score(comparison, records, [trial])["mAP"] == ranking.score(expected, *labels, True)["mAP"]
    assert comparison.similarity(trial) is comparison.similarity(trial)  # not made anew for the rank list


def test_several_images_of_a_query_are_averaged():
    records = make_records([1, 1, 1, 2, 1], [1, 1, 1, 2, 2])
    angle = np.radians([80.0, -30.0, -30.0, 60.0, 0.0])
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    single = Trial("", np.array([0]), np.array([3, 4]), same_camera_ignored=True)
    several = Trial("", np.array([0]), np.array([3, 4]), same_camera_ignored=True, averaged=[np.array([0, 1, 2])])
    assert compared(features, features, records, [single])["rank1"] == 0
    assert compared(features, features, records, [several])["rank1"] == 100


def test_a_trials_rules_reach_the_score():
    records = make_records([1, 8, 9, 9, 1], [3, 2, 4, 4, 4])
    features = np.array([[1, 0], [1, 0.1], [1, 0.2], [1, 0.3], [1, 0.4]], np.float32)

    def first_rank(**rules):
        trial = Trial("", np.array([0]), np.arange(1, 5), same_camera_ignored=True, **rules)
        return 1 + np.flatnonzero(compared(features, features, records, [trial])["cmc"])[0]

    assert first_rank() == 4
    assert first_rank(ignored_cameras=((3, 2),)) == 3
    assert first_rank(ignored_cameras=((3, 2),), cmc="identity") == 2


def test_a_protocol_that_counts_the_querys_own_camera_is_offered_where_it_has_matches():
    protocols = {"market": {"kind": "market"}, "same_camera": {"kind": "market", "same_camera": True}}
    records = make_records([1, 2, 1, 2], [1, 1, 1, 1], protocols=protocols)
    trial = Trial("market", np.array([0, 1]), np.array([2, 3]), same_camera_ignored=True)
    offer = "evaluate.protocol=same_camera also counts images of the query's own camera."
    with pytest.raises(ValueError, match=rf"^No query has a match: .*check the camera numbers\. {offer}$"):
        check_matches(records, [trial])
    records.protocols.pop("same_camera")
    with pytest.raises(ValueError, match=r"check the camera numbers\.$"):
        check_matches(records, [trial])
    disjoint = make_records([1, 2, 3, 4], [1, 1, 1, 1], protocols=protocols)
    with pytest.raises(ValueError, match=r"have no identity in common\.$"):
        check_matches(disjoint, [trial])
