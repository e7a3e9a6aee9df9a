"""Random numbers, dropout and max pooling are the same with and without XLA, and those of TensorFlow."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_reid.networks import compiled


def plain_and_compiled(function, *arguments):
    """What a function gives as part of a plain and of a compiled step."""

    def within(*arguments):
        with compiled.compiling():
            return function(*arguments)

    return tf.function(function)(*arguments), tf.function(within, jit_compile=True)(*arguments)


@pytest.mark.parametrize("shape", [[], [3], [4, 6], [101, 7]])
def test_draws_are_tensorflows(shape):
    seed = tf.constant([7, -5], tf.int64)
    for found in plain_and_compiled(lambda seed: compiled.uniform(shape, seed), seed):
        np.testing.assert_array_equal(found, tf.random.stateless_uniform(shape, seed))
    plain, by_xla = plain_and_compiled(lambda seed: compiled.normal(shape, seed), seed)
    np.testing.assert_array_equal(plain, tf.random.stateless_normal(shape, seed))
    np.testing.assert_allclose(by_xla, plain, atol=1e-5)


@pytest.mark.parametrize("shape", [None, (None, 1)])  # the second one drops whole rows
def test_dropout_is_keras_dropout(shape):
    x = tf.random.stateless_normal((8, 16), [0, 1])
    expected = keras.layers.Dropout(0.4, shape, seed=3)(x, training=True)
    for compile_it in (False, True):
        layer = compiled.Dropout(0.4, shape, seed=3)
        found = plain_and_compiled(lambda x, layer=layer: layer(x, training=True), x)[compile_it]
        if compile_it:  # the second call of this layer
            keras_layer = keras.layers.Dropout(0.4, shape, seed=3)
            keras_layer(x, training=True)
            expected = keras_layer(x, training=True)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(layer(x, training=False), x)


def test_replicas_draw_the_parts_of_one_dropout(two_replicas):
    x = tf.random.stateless_normal((8, 16), [0, 1])
    with two_replicas.scope():
        layer = compiled.Dropout(0.4, seed=3)
        halves = next(iter(two_replicas.experimental_distribute_dataset(tf.data.Dataset.from_tensors(x))))
        found = two_replicas.run(lambda part: layer(part, training=True), args=(halves,))
    parts = [part.numpy() for part in two_replicas.experimental_local_results(found)]
    np.testing.assert_array_equal(np.concatenate(parts), compiled.Dropout(0.4, seed=3)(x, training=True))


def test_contexts_may_be_nested():
    with compiled.compiling():
        with compiled.compiling():
            pass
        assert compiled.is_compiled()
    assert not compiled.is_compiled()


@pytest.mark.parametrize("settings", [{"padding": "same"}, {"data_format": "channels_first"}])
def test_max_pooling_refuses_what_it_does_not_compile(settings):
    with pytest.raises(ValueError, match=r"needs padding='valid' and data_format='channels_last'"):
        compiled.MaxPooling2D(2, **settings)


@pytest.mark.parametrize(("pool", "stride"), [(2, None), (3, 2)])
def test_max_pooling_and_its_gradient_are_keras(pool, stride):
    """With zeros that are equal in a window, as after ReLU; the gradient goes to the first."""
    x = tf.nn.relu(tf.random.stateless_normal((2, 9, 8, 3), [0, 2]))
    weights = tf.random.stateless_normal(keras.layers.MaxPooling2D(pool, stride)(x).shape, [0, 3])

    def pooled(layer):
        def with_gradient(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                maxima = layer(x)
                loss = tf.reduce_sum(maxima * weights)
            return maxima, tape.gradient(loss, x)

        return with_gradient

    expected = pooled(keras.layers.MaxPooling2D(pool, stride))(x)
    for found in plain_and_compiled(pooled(compiled.MaxPooling2D(pool, stride)), x):
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
