"""The norm and its gradient against TensorFlow's own gradient of the plain expression."""

import numpy as np
import pytest
import tensorflow as tf

from tf_reid.networks.standardisation import standardised


def plainly(x, axes, scale, shift, unbiased):
    mean, variance = tf.nn.moments(x, axes, keepdims=True)
    count = float(np.prod([x.shape[axis] for axis in axes]))
    deviation = tf.sqrt(variance * count / (count - 1.0)) + 1e-5 if unbiased else tf.sqrt(variance + 1e-5)
    made = (x - mean) / deviation
    return made if scale is None else made * scale + shift


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("axes", [(1, 2), (1, 2, 3)])
@pytest.mark.parametrize("affine_rows", [None, 1, 3])
def test_values_and_first_and_second_gradients_are_those_of_the_plain_expression(axes, affine_rows, unbiased):
    rng = np.random.default_rng(0)
    given = [tf.constant(rng.normal(1.0, 2.0, (3, 4, 5, 6)), tf.float32)]
    if affine_rows:
        given += [tf.constant(rng.normal(size=(affine_rows, 1, 1, 6)), tf.float32) for _ in range(2)]
    weight = tf.constant(rng.normal(size=(3, 4, 5, 6)), tf.float32)

    def results(norm):
        x, scale, shift = given if affine_rows else (given[0], None, None)
        with tf.GradientTape() as outer:
            outer.watch(given)
            with tf.GradientTape() as inner:
                inner.watch(given)
                made = norm(x, axes, scale, shift, unbiased)
                loss = tf.reduce_sum(weight * made**2)
            first = inner.gradient(loss, given)
            steepness = tf.add_n([tf.reduce_sum(gradient**2) for gradient in first])
        return [made, *first, *outer.gradient(steepness, given)]

    for ours, expected in zip(results(standardised), results(plainly), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max())
