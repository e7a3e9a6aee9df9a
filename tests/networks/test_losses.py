"""Every loss against a plain NumPy reference."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tf_reid.networks import losses

rng = np.random.default_rng(0)


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_least_squares_is_the_mean_squared_distance_to_the_target(target):
    scores = rng.normal(size=(3, 4, 2, 1)).astype(np.float32)
    expected = np.mean([(score - target) ** 2 for score in scores.ravel()])
    np.testing.assert_allclose(losses.least_squares(scores, target), expected, rtol=1e-6)


def test_l1_is_the_mean_absolute_difference():
    a, b = rng.normal(size=(2, 2, 4, 3, 3)).astype(np.float32)
    np.testing.assert_allclose(losses.l1(a, b), np.abs(a - b).sum() / a.size, rtol=1e-6)


def test_identification_is_minus_the_log_of_the_right_identities_softmax():
    logits, identity = rng.normal(size=(6, 5)).astype(np.float32), rng.integers(5, size=6)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = np.mean([-np.log(softmax[i, k]) for i, k in enumerate(identity)])
    np.testing.assert_allclose(losses.identification(logits, identity), expected, rtol=1e-5)


def test_smoothed_labels_are_the_cross_entropy_with_a_part_spread_over_all_identities():
    logits, identity = rng.normal(size=(6, 5)).astype(np.float32), rng.integers(5, size=6)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = np.full((6, 5), 0.1 / 5) + 0.9 * np.eye(5)[identity]
    expected = -(wanted * np.log(softmax)).sum(axis=1).mean()
    np.testing.assert_allclose(losses.identification(logits, identity, 0.1), expected, rtol=1e-5)


def test_the_center_loss_is_the_mean_squared_distance_to_the_own_center():
    features, centers = rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    identity = np.array([0, 4, 4, 2, 0, 1])
    expected = np.mean([((f - centers[k]) ** 2).sum() for f, k in zip(features, identity, strict=True)])
    np.testing.assert_allclose(losses.center(features, tf.constant(centers), identity), expected, rtol=1e-5)


def test_verification_is_the_cross_entropy_of_the_sigmoid():
    logits, same = rng.normal(size=7).astype(np.float32), np.array([1, 0, 0, 1, 1, 0, 1], np.float32)
    q = 1 / (1 + np.exp(-logits))
    expected = np.mean(-same * np.log(q) - (1 - same) * np.log(1 - q))
    np.testing.assert_allclose(losses.verification(logits, same), expected, rtol=1e-5)


def test_a_pair_of_one_identity_pulls_the_logit_up_and_another_pushes_it_down():
    logits = tf.constant([0.0, 0.0])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.verification(logits, tf.constant([1.0, 0.0]))
    up, down = -tape.gradient(loss, logits).numpy()
    assert up > 0 > down


# --------------------------------------------------------------------- losses that compare a batch's images

ADDONS = np.load(pathlib.Path(__file__).parent.parent / "reference" / "tensorflow_addons.npz")


def masks(identities):
    same = identities[:, None] == identities
    return same & ~np.eye(len(identities), dtype=bool), ~same


@pytest.mark.parametrize("name", ["euclidean", "squared"])
def test_distances_equal_those_of_tensorflow_addons(name):
    ours = losses.distances if name == "euclidean" else losses.squared_distances
    features = tf.constant(ADDONS["features"])
    np.testing.assert_allclose(ours(features, features), ADDONS[f"distances_{name}"], atol=1e-5)


@pytest.mark.parametrize("margin", [0.5, 1.4])
@pytest.mark.parametrize("name", ["euclidean", "squared"])
@pytest.mark.parametrize("mining", ["all", "hard", "semi_hard"])
def test_triplets_equal_those_of_tensorflow_addons(mining, name, margin):
    identities, distance = ADDONS["identities"], ADDONS[f"distances_{name}"]
    if mining == "hard":  # its hard loss also counts anchors that have no positive, as if they were their own
        identities, distance = identities[:10], distance[:10, :10]
    found = losses.triplet(tf.constant(distance), *masks(identities), margin, mining)
    np.testing.assert_allclose(found, ADDONS[f"{mining}_{name}_{margin}"], rtol=1e-5)


@pytest.mark.parametrize("margin", [1.0, 2.0])
def test_contrastive_equals_that_of_tensorflow_addons(margin):
    found = losses.contrastive(tf.constant(ADDONS["pair_distances"]), tf.constant(ADDONS["pair_same"]), margin)
    np.testing.assert_allclose(found, ADDONS[f"contrastive_{margin}"], rtol=1e-5)


def test_distances_have_a_finite_gradient_where_two_rows_are_equal():
    a = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    with tf.GradientTape() as tape:
        tape.watch(a)
        total = tf.reduce_sum(losses.distances(a, tf.constant([[1.0, 2.0]])))
    np.testing.assert_allclose(tape.gradient(total, a), [[0.0, 0.0], [0.5**0.5, 0.5**0.5]], rtol=1e-6)


def test_triplets_across_two_sides_are_counted_one_by_one():
    distance = rng.uniform(0, 3, (4, 5)).astype(np.float32)
    positive = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1]], bool)
    negative = ~positive
    negative[2] = False
    terms = [
        max(distance[a, p] - distance[a, n] + 1.4, 0)
        for a in range(4)
        for p in np.flatnonzero(positive[a])
        for n in np.flatnonzero(negative[a])
    ]
    found = losses.triplet(tf.constant(distance), positive, negative, 1.4)
    np.testing.assert_allclose(found, np.mean(terms), rtol=1e-6)


@pytest.mark.parametrize("mining", ["all", "hard", "semi_hard"])
def test_no_triplet_is_no_loss_and_a_descent_brings_positives_nearer(mining):
    nobody = np.zeros((2, 2), bool)
    assert losses.triplet(tf.ones((2, 2)), nobody, ~nobody, 1.0, mining) == 0
    distance = tf.constant([[1.0, 1.2], [1.1, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch(distance)
        loss = losses.triplet(distance, np.eye(2, dtype=bool), ~np.eye(2, dtype=bool), 1.4, mining)
    gradient = tape.gradient(loss, distance).numpy()
    assert (np.diag(gradient) > 0).all() and gradient[0, 1] < 0 and gradient[1, 0] < 0


def test_contrastive_pulls_the_same_identity_together_and_pushes_others_to_the_margin():
    distance = tf.constant([1.0, 1.0, 2.5])
    with tf.GradientTape() as tape:
        tape.watch(distance)
        loss = losses.contrastive(distance, tf.constant([1.0, 0.0, 0.0]), 2.0)
    pull, push, beyond = tape.gradient(loss, distance).numpy()
    assert pull > 0 > push and beyond == 0


def adaptive_reference(distance, positive, negative, margin, reading):
    """One anchor after the other, as Eq. 5 and 6 are meant."""
    total = 0.0
    for d, p, n in zip(distance.astype(np.float64), positive, negative, strict=True):
        far, near = np.exp(d[p]) / np.exp(d[p]).sum(), np.exp(-d[n]) / np.exp(-d[n]).sum()
        total += (far * d[p] ** 2).sum()
        if not n.any():
            continue
        if reading == "outside":
            total += (near * np.maximum(margin - d[n], 0) ** 2).sum()
        elif reading == "inside":
            total += (np.maximum(margin - near * d[n], 0) ** 2).sum()
        else:
            total += max(margin - (near * d[n]).sum(), 0) ** 2
    return total / len(distance)


@pytest.mark.parametrize("reading", ["outside", "inside", "pooled"])
def test_adaptive_weights_equal_a_plain_reference(reading):
    distance = rng.uniform(0, 3, (5, 6)).astype(np.float32)
    positive = rng.random((5, 6)) < 0.4
    positive[:, 0] = True
    positive[4] = True  # an anchor without any negative
    found = losses.adaptive_contrastive(tf.constant(distance), positive, ~positive, 2.0, reading)
    np.testing.assert_allclose(found, adaptive_reference(distance, positive, ~positive, 2.0, reading), rtol=1e-5)


@pytest.mark.parametrize("reading", ["outside", "inside", "pooled"])
@pytest.mark.parametrize("through_weights", [False, True])
def test_adaptive_weights_pull_positives_and_push_negatives(reading, through_weights):
    distance = tf.constant([[0.5, 1.5, 0.6, 1.6]])
    positive = np.array([[True, True, False, False]])
    with tf.GradientTape() as tape:
        tape.watch(distance)
        loss = losses.adaptive_contrastive(distance, positive, ~positive, 2.0, reading, through_weights)
    near_positive, far_positive, near_negative, far_negative = tape.gradient(loss, distance).numpy()[0]
    assert far_positive > near_positive and far_positive > 0 > near_negative
    if not through_weights:
        assert near_positive > 0 > far_negative
        if reading != "inside":
            assert abs(near_negative) > abs(far_negative)


def test_uniform_weights_would_be_the_plain_loss():
    """Equal distances have equal weights: then Eq. 5 is Eq. 2, per anchor instead of per pair."""
    positive = np.array([[True, True, False, False]])
    found = losses.adaptive_contrastive(tf.fill((1, 4), 1.2), positive, ~positive, 2.0)
    np.testing.assert_allclose(found, 1.2**2 + 0.8**2, rtol=1e-6)


def test_far_negatives_do_not_underflow_to_no_weight():
    distance = tf.constant([[1.0, 300.0, 301.0]])
    positive = np.array([[True, False, False]])
    assert np.isfinite(losses.adaptive_contrastive(distance, positive, ~positive, 400.0))
    found = losses.adaptive_contrastive(distance, positive, ~positive, 400.0)
    near = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(found, 1 + near * 100**2 + (1 - near) * 99**2, rtol=1e-5)


def test_confusion_is_least_where_both_views_are_as_likely():
    logits = rng.normal(size=(5, 2)).astype(np.float32)
    p = np.exp(logits[:, 1]) / np.exp(logits).sum(1)
    expected = np.mean(-0.5 * np.log(p) - 0.5 * np.log(1 - p))
    np.testing.assert_allclose(losses.uniform_cross_entropy(logits), expected, rtol=1e-5)
    np.testing.assert_allclose(losses.uniform_cross_entropy(np.zeros((3, 2), np.float32)), np.log(2), rtol=1e-6)
    assert losses.uniform_cross_entropy(np.array([[3.0, 0.0]], np.float32)) > np.log(2)


def test_mean_discrepancy_is_zero_for_one_sample_and_grows_with_the_shift():
    sample = tf.constant(rng.normal(size=(20, 3)), tf.float32)
    values = [float(losses.maximum_mean_discrepancy(sample, sample + shift)) for shift in (0.0, 0.5, 2.0)]
    assert abs(values[0]) < 1e-6 < values[1] < values[2]
    a, b = rng.normal(size=(4, 3)), rng.normal(size=(6, 3)) + 1
    both = np.concatenate([a, b])
    squares = ((both[:, None] - both) ** 2).sum(-1)
    kernel = np.mean([np.exp(-squares / (f * squares.mean())) for f in (0.25, 0.5, 1, 2, 4)], axis=0)
    expected = kernel[:4, :4].mean() + kernel[4:, 4:].mean() - 2 * kernel[:4, 4:].mean()
    found = losses.maximum_mean_discrepancy(tf.constant(a, tf.float32), tf.constant(b, tf.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_kullback_leibler_is_zero_at_the_target_and_positive_elsewhere():
    q = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]], np.float32)
    logits = rng.normal(size=(2, 3)).astype(np.float32)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.mean(
        [sum(a * np.log(a / b) for a, b in zip(*rows, strict=True) if a) for rows in zip(q, p, strict=True)]
    )
    np.testing.assert_allclose(losses.kullback_leibler(q, logits), expected, rtol=1e-5)
    np.testing.assert_allclose(losses.kullback_leibler(q, np.log(np.maximum(q, 1e-20))), 0.0, atol=1e-6)
