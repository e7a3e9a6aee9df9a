"""Convolutions in int8: near the float32 ones, from constants alone, whatever is around them stays as it was."""

import collections

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tf_reid.encoders.servable import Servable

SIZE = (32, 16)


def network():
    """The first convolution, some with and without a ReLU and a stride, a sum of two, one with a negative input."""
    keras.utils.set_random_seed(0)
    images = keras.Input((*SIZE, 3))
    maps = layers.Conv2D(16, 3, padding="same", activation="relu")(images)
    block = layers.Conv2D(16, 3, padding="same", strides=2, activation="relu")(maps)
    block = layers.BatchNormalization()(layers.Conv2D(24, 1)(block))
    maps = layers.ReLU()(layers.Add()([block, layers.Conv2D(24, 1, strides=2)(maps)]))
    maps = layers.LeakyReLU()(layers.Conv2D(16, 3, padding="same")(layers.MaxPooling2D()(maps)))
    maps = layers.Conv2D(16, 3, padding="same", bias_initializer="random_normal", activation="relu")(maps)
    return keras.Model(images, layers.Dense(8)(layers.GlobalAveragePooling2D()(maps)))


def test_quantised_embeddings_are_near_and_the_graph_says_what_is_in_8_bits():
    encoder, rng = network(), np.random.default_rng(0)
    pixels = rng.integers(256, size=(20, *SIZE, 3), dtype=np.uint8)
    in_float = Servable(encoder, SIZE, flip=True, unit=True)
    in_int8 = Servable(encoder, SIZE, flip=True, unit=True, calibration=pixels[:12])
    assert (in_float.quantised, in_int8.quantised, in_int8.left_in_float) == (0, 10, 2)  # twice, because of the flip
    assert not in_int8.variables and in_int8.width == 8
    expected, found = (one.from_pixels(tf.constant(pixels))["embedding"].numpy() for one in (in_float, in_int8))
    cosines = (expected * found).sum(axis=1)
    assert 0.995 < cosines.min() < 0.9999999  # near, not the same
    assert ((expected[:1] * expected[1:]).sum(axis=1) < cosines.min()).all()  # nearer than to another image
    kinds = collections.Counter(operation.type for operation in in_int8.embedded.graph.get_operations())
    assert kinds["Conv2D"] == 2
    assert kinds["QuantizedConv2DWithBiasAndReluAndRequantize"] == 4
    assert kinds["QuantizedConv2DWithBiasAndRequantize"] == 6
    single = in_int8.from_pixels(tf.constant(pixels[:1]))["embedding"].numpy()
    np.testing.assert_allclose(single, found[:1], atol=1e-5)


def test_a_network_without_such_a_convolution_stays_as_it_is():
    keras.utils.set_random_seed(0)
    images = keras.Input((*SIZE, 3))
    encoder = keras.Model(images, layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(images)))
    pixels = np.random.default_rng(0).integers(256, size=(3, *SIZE, 3), dtype=np.uint8)
    servable = Servable(encoder, SIZE, flip=False, unit=True, calibration=pixels)
    assert (servable.quantised, servable.left_in_float) == (0, 1)
    expected = Servable(encoder, SIZE, flip=False, unit=True).from_pixels(tf.constant(pixels))["embedding"]
    np.testing.assert_allclose(servable.from_pixels(tf.constant(pixels))["embedding"], expected, atol=1e-6)
