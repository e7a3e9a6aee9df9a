"""Features of all records in order, by role; scores of trials and their mean, against values worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, make_records

from tf_reid.data import pipeline
from tf_reid.data.records import Records
from tf_reid.evaluation import extraction
from tf_reid.metrics import ranking
from tf_reid.metrics.protocols import Trial
from tf_reid.metrics.reranking import k_reciprocal


@pytest.fixture(scope="module")
def records():
    return make_records(np.arange(1, 8), np.ones(7, np.int64))


def pixels(records):
    return tf.concat(list(pipeline.image_batches(records, SIZE, 64)), axis=0)


def index_of(images):
    """The record an image is: `make_records` paints its index in red."""
    return tf.round((images[:, 0, 0, :1] + 1.0) * 127.5)


def test_features_are_the_encoders_of_every_record_in_order_with_a_last_partial_batch(records, encoder):
    found = extraction.extract(encoder, records, SIZE, batch_size=3)
    assert found.shape == (7, 5) and found.dtype == np.float32
    np.testing.assert_allclose(found, encoder(pixels(records)), atol=1e-5)
    order = extraction.extract(index_of, records, SIZE, batch_size=3)
    np.testing.assert_array_equal(order[:, 0], np.arange(7))


def test_flip_averages_an_image_and_its_mirror_image(records, encoder):
    images = pixels(records)
    straight, mirrored = encoder(images).numpy(), encoder(tf.reverse(images, axis=[2])).numpy()
    assert np.abs(straight - mirrored).max() > 0.1
    found = extraction.extract(encoder, records, SIZE, batch_size=4, flip=True)
    np.testing.assert_allclose(found, (straight + mirrored) / 2, atol=1e-5)


def whole(query=range(7), gallery=range(7), **rules):
    return [Trial("", np.array(query), np.array(gallery), False, **rules)]


def test_one_encoder_serves_query_and_gallery(records):
    query, gallery = extraction.extract_roles({"image": index_of}, records, whole(), SIZE)
    np.testing.assert_array_equal(query[:, 0], np.arange(7))
    assert gallery is query


def test_probe_and_gallery_have_an_encoder_each(records):
    encoders = {"gallery": lambda images: index_of(images) + 100.0, "probe": index_of}
    query, gallery = extraction.extract_roles(encoders, records, whole(), SIZE, batch_size=3)
    np.testing.assert_array_equal(query[:, 0], np.arange(7))
    np.testing.assert_array_equal(gallery[:, 0], np.arange(7) + 100)


@pytest.mark.parametrize("infrared", [[1, 4, 5], [], range(7)])
def test_every_image_goes_through_the_encoder_of_its_modality(records, infrared):
    modality = np.full(7, "rgb", dtype="<U8")
    modality[list(infrared)] = "infrared"
    mixed = Records(**{**records.__dict__, "modality": modality})
    encoders = {"rgb": index_of, "ir": lambda images: -1.0 - index_of(images)}
    query, gallery = extraction.extract_roles(encoders, mixed, whole(), SIZE, batch_size=2)
    expected = np.where(modality == "infrared", -1 - np.arange(7), np.arange(7))
    np.testing.assert_array_equal(query[:, 0], expected)
    np.testing.assert_array_equal(gallery, query)


class Watched:
    """An encoder that knows which images it was given."""

    def __init__(self):
        self.seen = []

    def __call__(self, images):
        tf.py_function(lambda found: self.seen.extend(found.numpy()[:, 0].astype(int).tolist()), [index_of(images)], [])
        return index_of(images)


def test_only_images_that_a_trial_needs_are_looked_at_and_each_once(records):
    trials = [*whole([1, 3], [4, 5], averaged=[np.array([1, 2]), np.array([3])]), *whole([3], [5, 6])]
    image, probe, gallery = Watched(), Watched(), Watched()
    found, _ = extraction.extract_roles({"image": image}, records, trials, SIZE, batch_size=2)
    assert image.seen == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(found[1:, 0], np.arange(1, 7))
    extraction.extract_roles({"probe": probe, "gallery": gallery}, records, trials, SIZE)
    assert (probe.seen, gallery.seen) == ([1, 2, 3], [4, 5, 6])


def compared(query, gallery, records, trials, distance="cosine", **options):
    return extraction.score(extraction.Comparison(query, gallery, distance, **options), records, trials)


def test_scores_are_the_mean_over_trials():
    # Angles on a circle: the nearer, the smaller the cosine distance.
    angle = np.radians([0.0, 90.0, 10.0, 80.0, 45.0])
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    records = make_records([1, 2, 1, 2, 3], [1, 1, 2, 2, 2])
    # Trial 0: 0 finds 2 first, 1 finds 3 first. Trial 1: the gallery's persons lie the wrong way round.
    right = Trial("right", np.array([0, 1]), np.array([2, 3, 4]), same_camera_ignored=False)
    crossed = np.array([1, 2, 2, 1, 3])
    wrong = make_records(crossed, [1, 1, 2, 2, 2])

    found = compared(features, features, records, [right, right])
    assert (found["rank1"], found["mAP"], found["mINP"], found["trials"]) == (100, 100, 100, 2)
    assert (found["queries"], found["gallery"], found["dropped"]) == (2, 3, 0)

    # Person 1's image stands third for query 0 (after 10° and 45°), and person 2's third for query 1.
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
    comparison = extraction.Comparison(features, features, "cosine", learned=opposite)
    np.testing.assert_allclose(comparison.distances(trial)(slice(0, 1)), [[-1, 1]])
    with pytest.raises(ValueError, match=r"evaluate\.rerank needs a distance"):
        extraction.Comparison(features, features, "cosine", rerank=True, learned=opposite)


def test_reranking_takes_the_place_of_the_distance():
    places = np.array([0.0, 2.0, -1.5, 1.0, -1.7, -1.6, -1.8, -1.9, 2.2], np.float32)
    features = np.stack([places, np.zeros(9, np.float32)], axis=1)
    records = make_records([1, 1, 2, 3, 4, 5, 6, 7, 1], [1] + [2] * 8)
    trial = Trial("", np.array([0]), np.arange(1, 9), same_camera_ignored=True)
    comparison = extraction.Comparison(features, features, "euclidean", rerank=True)
    expected = k_reciprocal(features[:1], features[1:], "euclidean")
    np.testing.assert_allclose(comparison.distances(trial)(slice(0, 1)), -expected(slice(0, 1)))
    labels = records.identity[:1], records.camera[:1], records.identity[1:], records.camera[1:]
    assert extraction.score(comparison, records, [trial])["mAP"] == ranking.score(expected, *labels, True)["mAP"]
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
