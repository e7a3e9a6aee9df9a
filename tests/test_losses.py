"""Every loss against a plain NumPy reference."""

import numpy as np
import pytest
import tensorflow as tf

from tf_reid import losses

rng = np.random.default_rng(0)


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_least_squares_is_the_mean_squared_distance_to_the_target(target):
    scores = rng.normal(size=(3, 4, 2, 1)).astype(np.float32)
    expected = np.mean([(score - target) ** 2 for score in scores.ravel()])
    np.testing.assert_allclose(losses.least_squares(scores, target), expected, rtol=1e-6)


def test_l1_is_the_mean_absolute_difference():
    a, b = rng.normal(size=(2, 2, 4, 3, 3)).astype(np.float32)
    np.testing.assert_allclose(losses.l1(a, b), np.abs(a - b).sum() / a.size, rtol=1e-6)


def test_identification_is_minus_the_log_of_the_right_persons_softmax():
    logits, person = rng.normal(size=(6, 5)).astype(np.float32), rng.integers(5, size=6)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = np.mean([-np.log(softmax[i, k]) for i, k in enumerate(person)])
    np.testing.assert_allclose(losses.identification(logits, person), expected, rtol=1e-5)


def test_verification_is_the_cross_entropy_of_the_sigmoid():
    logits, same = rng.normal(size=7).astype(np.float32), np.array([1, 0, 0, 1, 1, 0, 1], np.float32)
    q = 1 / (1 + np.exp(-logits))
    expected = np.mean(-same * np.log(q) - (1 - same) * np.log(1 - q))
    np.testing.assert_allclose(losses.verification(logits, same), expected, rtol=1e-5)


def test_a_pair_of_one_person_pulls_the_logit_up_and_another_pushes_it_down():
    logits = tf.constant([0.0, 0.0])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.verification(logits, tf.constant([1.0, 0.0]))
    up, down = -tape.gradient(loss, logits).numpy()
    assert up > 0 > down
