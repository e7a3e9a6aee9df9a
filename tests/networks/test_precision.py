"""Layers whose products are computed in the precision of a context."""

import importlib
import os
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_reid
from tf_reid.networks import precision
from tf_reid.networks.precision import products_in

# Layer, its settings, the shape of its inputs.
LAYERS = {
    "Conv2D": ({"filters": 6, "kernel_size": 3, "strides": 2, "padding": "same"}, (2, 8, 6, 5)),
    "Conv2DTranspose": ({"filters": 6, "kernel_size": 4, "strides": 2, "padding": "same"}, (2, 8, 6, 5)),
    "DepthwiseConv2D": ({"kernel_size": 3, "strides": 2, "padding": "same"}, (2, 8, 6, 5)),
    "Dense": ({"units": 6}, (4, 5)),
}


def built(name, shape, activation="tanh", **settings):
    layer = getattr(precision, name)(activation=activation, bias_initializer="random_normal", **settings)
    layer.build(shape)
    return layer


def values(shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def test_a_separable_convolution_rounds_the_factors_of_both_products():
    layer = built("SeparableConv2D", (2, 8, 6, 5), filters=6, kernel_size=3, strides=2, padding="same")
    reference = keras.layers.SeparableConv2D.from_config(layer.get_config())
    reference.build((2, 8, 6, 5))
    reference.set_weights(layer.get_weights())
    x = values((2, 8, 6, 5))
    np.testing.assert_allclose(layer(x), reference(x), atol=1e-6)
    depthwise, pointwise, bias = layer.get_weights()
    with products_in("bfloat16"):
        low = layer(x)
    between = keras.ops.depthwise_conv(rounded(x), rounded(depthwise), 2, "same")
    expected = keras.ops.conv(rounded(rounded(between)), rounded(pointwise)) + bias
    np.testing.assert_allclose(low, tf.tanh(expected), atol=2**-7)
    assert np.abs(low - reference(x)).max() > 1e-4


def rounded(x):
    return tf.cast(tf.cast(x, tf.bfloat16), tf.float32)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_that_of_keras_but_for_rounded_factors(name):
    """In float32 bit for bit; in bfloat16 with rounded factors and product, and a bias that is not rounded."""
    settings, shape = LAYERS[name]
    x, layer = values(shape), built(name, shape, **settings)
    reference = getattr(keras.layers, name).from_config(layer.get_config())
    reference.build(shape)
    reference.set_weights(layer.get_weights())
    expected = reference(x)
    np.testing.assert_array_equal(layer(x), expected)
    with products_in("bfloat16"):
        low = layer(x)
    assert low.dtype == tf.float32 and layer.kernel.dtype == "float32"
    assert np.abs(low - expected).max() > 1e-4
    kernel, bias = layer.get_weights()
    reference.set_weights([rounded(kernel), bias])
    np.testing.assert_allclose(low, reference(rounded(x)), atol=2**-7)  # a product is rounded to eight bits
    np.testing.assert_array_equal(layer(x), expected)

    reference.set_weights([kernel * 0.0, bias])
    layer.set_weights([kernel * 0.0, bias])
    with products_in("bfloat16"):
        np.testing.assert_array_equal(layer(x), reference(x))


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_float32_and_those_of_rounded_factors(name):
    settings, shape = LAYERS[name]
    x, layer = values(shape), built(name, shape, activation=None, **settings)

    def gradients(inputs, kernel):
        layer.set_weights([kernel, *layer.get_weights()[1:]])
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(layer(inputs) * weight)
        return tape.gradient(loss, [inputs, *(variable.value for variable in layer.trainable_variables)])

    weight, kernel = rounded(values(layer(x).shape, seed=1)), layer.get_weights()[0]
    with products_in("bfloat16"):
        low = gradients(x, kernel)
    for found, expected in zip(low, gradients(rounded(x), rounded(kernel)), strict=True):
        assert found.dtype == tf.float32
        np.testing.assert_allclose(found, expected, rtol=2**-8, atol=1e-5)


def test_a_context_ends_with_an_error_is_nested_and_belongs_to_its_thread():
    x, layer = values((4, 5)), built("Dense", (4, 5), units=6)
    expected, elsewhere = layer(x), []
    with products_in("bfloat16"):
        assert np.any(layer(x) != expected)
        with products_in("float32"):
            np.testing.assert_array_equal(layer(x), expected)
        assert np.any(layer(x) != expected)
        other = threading.Thread(target=lambda: elsewhere.append(layer(x)))
        other.start()
        other.join()
        np.testing.assert_array_equal(elsewhere[0], expected)
    with pytest.raises(KeyError), products_in("bfloat16"):
        raise KeyError
    np.testing.assert_array_equal(layer(x), expected)


def test_weights_of_networks_of_keras_are_read(tmp_path):
    """Our layers are named as Keras's, in a network and in its weights file."""

    def network(layers):
        images = keras.Input((8, 8, 3))
        x = layers.Conv2DTranspose(2, 2)(layers.Conv2D(4, 3)(layers.DepthwiseConv2D(3)(layers.Conv2D(4, 3)(images))))
        return keras.Model(images, layers.Dense(2)(x))

    theirs, ours = network(keras.layers), network(precision)
    names = [[layer.name.rstrip("_0123456789") for layer in model.layers] for model in (theirs, ours)]
    assert names[0] == names[1]
    theirs.save_weights(tmp_path / "of.weights.h5")
    ours.load_weights(tmp_path / "of.weights.h5")
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_strided_convolutions_on_small_maps_are_right():
    """oneDNN's kernels for AMX compute some of them wrong; `import tf_reid` leaves AMX out."""
    images, kernel = values((8, 4, 2, 256)), values((3, 3, 256, 32), seed=1)
    low = [tf.cast(value, tf.bfloat16) for value in (images, kernel)]
    found = tf.cast(tf.nn.conv2d(*low, strides=2, padding="SAME"), tf.float32)
    expected = tf.nn.conv2d(*(tf.cast(value, tf.float32) for value in low), strides=2, padding="SAME")
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize(("before", "after"), [(None, "AVX512_CORE_BF16"), ("AVX2", "AVX2")])
def test_amx_is_left_out_unless_the_user_chose(before, after, monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if before:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", before)
    importlib.reload(tf_reid)
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == after
