"""The strong baseline: every loss against plain NumPy, which side of the neck it takes, and whom it moves."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import IDENTITIES, SIZE, build, random_batch

from tf_reid.encoders.folding import folded

IDENTITY = np.array([3, 3, 0, 0, 3, 1, 2, 2])  # identity 1 has one image, and so no positive


@pytest.fixture(scope="module")
def model():
    return build("strong", triplet_weight=2.0, center_weight=0.1, label_smoothing=0.2)


@pytest.fixture(scope="module")
def features(model):
    """f_t and f_i as two unrelated matrices: a loss that takes the wrong one has another value."""
    rng = np.random.default_rng(0)
    width = model.classifier.backbone.output_shape[-1]
    return [tf.constant(rng.normal(scale=0.05, size=(8, width)), tf.float32) for _ in range(2)]


def hardest(before_neck):
    """Image -> its farthest positive and its nearest negative, by a plain search, of images that have both."""
    distance = np.linalg.norm(before_neck[:, None] - before_neck, axis=2)
    chosen = {}
    for a, own in enumerate(IDENTITY):
        positives = [b for b in range(8) if b != a and IDENTITY[b] == own]
        negatives = [b for b in range(8) if IDENTITY[b] != own]
        if positives:
            farthest = max(positives, key=lambda b, a=a: distance[a, b])
            chosen[a] = farthest, min(negatives, key=lambda b, a=a: distance[a, b])
    return distance, chosen


def test_every_loss_equals_a_plain_reference(model, features):
    before_neck, after_neck = features
    found = model.network_losses(before_neck, after_neck, tf.constant(IDENTITY))

    logits = after_neck.numpy() @ model.classifier.identity_head.kernel.numpy()
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wanted = 0.8 * np.eye(IDENTITIES)[IDENTITY] + 0.2 / IDENTITIES
    np.testing.assert_allclose(found["identity"], -(wanted * np.log(p)).sum(axis=1).mean(), rtol=1e-5)

    distance, chosen = hardest(before_neck.numpy())
    excess = [max(distance[a, p] - distance[a, n] + 0.3, 0) for a, (p, n) in chosen.items()]
    assert len(chosen) == 7 and min(excess) > 0
    np.testing.assert_allclose(found["triplet"], 2.0 * np.mean(excess), rtol=1e-5)

    apart = before_neck.numpy() - model.centers.embeddings.numpy()[IDENTITY]
    np.testing.assert_allclose(found["center"], 0.1 * (apart**2).sum(axis=1).mean(), rtol=1e-5)


def test_the_farthest_positive_is_pulled_and_the_nearest_negative_pushed(model, features):
    """The gradient is that of the images which a plain search picks, and of no others."""
    before_neck = features[0]
    with tf.GradientTape() as tape:
        tape.watch(before_neck)
        loss = model.triplet_loss(before_neck, tf.constant(IDENTITY))
    rows = before_neck.numpy()
    distance, chosen = hardest(rows)
    expected = np.zeros_like(rows)
    for a, (p, n) in chosen.items():
        for other, sign in ((p, 1.0), (n, -1.0)):
            pull = sign * (rows[a] - rows[other]) / distance[a, other] / len(chosen)
            expected[a] += pull
            expected[other] -= pull
    np.testing.assert_allclose(tape.gradient(loss, before_neck), expected, atol=1e-6)


def test_identification_reaches_the_network_through_the_neck_and_the_others_only_before_it(model, features):
    before_neck, after_neck = features
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(features)
        found = model.network_losses(before_neck, after_neck, tf.constant(IDENTITY))
    for name, term in found.items():
        reached = [tape.gradient(term, one) is not None for one in features]
        assert reached == ([False, True] if name == "identity" else [True, False]), name

    images = random_batch()["source"][:, 0]
    with tf.GradientTape() as tape:
        f_t, f_i = model.classifier.features(images, training=True)
    statistics = f_t.numpy().mean(axis=0), f_t.numpy().var(axis=0)
    neck = model.classifier.neck
    expected = (f_t.numpy() - statistics[0]) / np.sqrt(statistics[1] + 1e-5) * neck.gamma.numpy()
    np.testing.assert_allclose(f_i, expected, atol=1e-4)
    gradients = tape.gradient(f_i, [neck.gamma, model.classifier.backbone.trainable_variables[0]])
    assert all(gradient is not None for gradient in gradients)


def test_neck_and_classifier_have_no_shift_of_their_own(model):
    head = model.classifier.identity_head
    assert [v.path.split("/")[-1] for v in model.classifier.neck.trainable_variables] == ["gamma"]
    assert head.bias is None and 5e-4 < head.kernel.numpy().std() < 2e-3


def test_centers_move_by_their_own_step_without_the_weight(one_step):
    """One step of plain descent at rate r moves a center by 2 r / B times the sum of (f_t - c) over its images."""
    model, batch = build("strong", learning_rate=0.5, center_weight=5e-4), random_batch()
    images, identity = tf.reshape(batch["source"], (-1, *SIZE, 3)), batch["source_identity"].numpy().ravel()
    f_t = model.classifier.features(images, training=True)[0].numpy()
    before = model.centers.embeddings.numpy()
    reported = one_step(model, "classifier", batch)
    expected = before.copy()
    for feature, own in zip(f_t, identity, strict=True):
        expected[own] += 0.5 * 2.0 / len(identity) * (feature - before[own])
    np.testing.assert_allclose(model.centers.embeddings.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(reported["classifier/center"], 5e-4 * reported["centers/center"], rtol=1e-6)


def test_without_weight_the_centers_rest_and_the_other_losses_stay(one_step):
    model = build("strong", center_weight=0.0, triplet_weight=0.0)
    before = model.centers.embeddings.numpy()
    assert set(one_step(model, "classifier", random_batch())) == {"classifier/identity"}
    np.testing.assert_array_equal(model.centers.embeddings.numpy(), before)


def test_without_the_neck_all_losses_and_the_evaluation_take_one_feature():
    model, images = build("strong", bnneck=False), random_batch()["source"][:, 0]
    before_neck, after_neck = model.classifier.features(images, training=True)
    assert before_neck is after_neck and model.encoders() == {"image": model.classifier.backbone}


def test_the_encoder_is_backbone_and_neck_in_inference_and_can_be_folded(model):
    images = random_batch()["source"][:, 0]
    f_t, f_i = model.classifier.features(images)
    neck, encoder = model.classifier.neck, model.encoders()["image"]
    neck.moving_mean.assign(np.linspace(-1, 1, f_t.shape[1]))
    gamma, mean, variance = (v.numpy() for v in (neck.gamma, neck.moving_mean, neck.moving_variance))
    expected = (f_t.numpy() - mean) / np.sqrt(variance + 1e-5) * gamma
    np.testing.assert_allclose(encoder(images), expected, atol=1e-5)
    assert np.abs(f_i - expected).max() > 0.5
    small, _, left = folded(encoder)
    assert left == 1  # the neck follows the average of all maps, which has no weights to take it
    np.testing.assert_allclose(small(images), expected, atol=1e-4)


def test_the_last_stride_doubles_the_last_maps():
    sizes = [build("strong", last_stride=stride).presentation().maps()["image"].output_shape[1:3] for stride in (1, 2)]
    assert sizes == [(4, 2), (2, 1)]
