"""Folded batch normalisation: the same features, fewer operations, nothing folded that something else reads."""

import keras
import numpy as np
import pytest
from conftest import METHODS, SIZE, build
from keras import layers

from tf_reid.encoders.folding import folded

IMAGES = np.random.default_rng(0).uniform(-1, 1, (4, *SIZE, 3)).astype(np.float32)


def with_statistics(model):
    """The model, its batch normalisations far from the identity."""
    rng = np.random.default_rng(1)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            for variable in layer.weights:
                positive = variable.path.endswith(("gamma", "moving_variance"))
                variable.assign(rng.uniform(0.5, 2.0, variable.shape) if positive else rng.normal(size=variable.shape))
    return model


def compare(model, expected_folded, expected_left):
    found, done, left = folded(with_statistics(model))
    assert (done, left) == (expected_folded, expected_left)
    a, b = model(IMAGES, training=False), found(IMAGES, training=False)
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(a).max())
    kept = [layer for layer in found._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
    assert len(kept) == expected_left
    return found


@pytest.mark.parametrize("settings", [{}, {"scale": False}, {"center": False}])
@pytest.mark.parametrize("use_bias", [True, False])
def test_a_convolution_takes_the_normalisation_after_it(settings, use_bias):
    images = keras.Input((*SIZE, 3))
    x = layers.Conv2D(4, 3, use_bias=use_bias, bias_initializer="normal")(images)
    x = layers.ReLU()(layers.BatchNormalization(epsilon=0.1, **settings)(x))
    compare(keras.Model(images, layers.Flatten()(x)), 1, 0)


@pytest.mark.parametrize(
    "layer", [layers.DepthwiseConv2D(3, depth_multiplier=2), layers.SeparableConv2D(5, 3, depth_multiplier=2)]
)
def test_depthwise_and_separable_convolutions_take_it_too(layer):
    images = keras.Input((*SIZE, 3))
    x = layers.BatchNormalization(epsilon=0.1)(layer(images))
    compare(keras.Model(images, layers.Flatten()(x)), 1, 0)


def test_a_dense_layer_inside_a_model_inside_a_model_too():
    images = keras.Input((*SIZE, 3))
    inner = keras.Sequential([layers.Dense(5), layers.BatchNormalization(), layers.ReLU()])
    outer = keras.Sequential([layers.Flatten(), inner])
    compare(keras.Model(images, outer(images)), 1, 0)


def test_a_model_called_twice_is_folded_once():
    images = keras.Input((*SIZE, 3))
    inner = keras.Sequential([layers.Input((*SIZE, 3)), layers.Conv2D(4, 3), layers.BatchNormalization()])
    compare(keras.Model(images, layers.Flatten()(inner(images) + inner(images[:, :, ::-1]))), 1, 0)


def test_what_is_read_elsewhere_or_has_an_activation_is_left():
    images = keras.Input((*SIZE, 3))
    x = layers.Conv2D(4, 3)(images)
    twice = x + layers.BatchNormalization()(x)
    active = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(twice))
    pooled = layers.BatchNormalization()(layers.AveragePooling2D(2)(active))
    compare(keras.Model(images, layers.Flatten()(pooled)), 0, 3)


def test_what_is_also_an_output_is_left():
    images = keras.Input((*SIZE, 3))
    x = layers.Flatten()(images)
    seen = layers.Dense(3)(x)
    inner = keras.Model(images, [seen, layers.BatchNormalization()(seen)])
    found, done, left = folded(with_statistics(inner))
    assert (done, left) == (0, 1)
    for a, b in zip(inner(IMAGES), found(IMAGES), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_every_methods_encoders_keep_their_features(name):
    for encoder in build(name).encoders().values():
        kinds = [layer for layer in encoder._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
        left = int(name == "strong")  # whose neck follows the average of all maps, which has no weights to take it
        compare(encoder, len(kinds) - left, left)
