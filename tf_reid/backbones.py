"""Backbones: images float32 [B, H, W, 3] in [-1, 1] -> features float32 [B, D].

Each owns its input preprocessing, inside the graph and differentiable, so that generated images and their gradients
pass through it as real ones do.
"""

import keras
import tensorflow as tf
from keras import layers


class CaffePreprocessing(layers.Layer):
    """[-1, 1] RGB -> what Keras's ResNet-50 weights were trained on: 0-255 BGR less ImageNet's mean."""

    def call(self, x):
        return (x[..., ::-1] + 1.0) * 127.5 - tf.constant([103.939, 116.779, 123.68], x.dtype)


def resnet50(image_size, weights="imagenet") -> keras.Model:
    """ResNet-50 without its classification layer, globally averaged: D = 2048.

    Args:
        image_size: (height, width).
        weights: "imagenet" (fetched by Keras), a local weights file for `include_top=False`, or None.

    Raises:
        OSError: the ImageNet weights could not be fetched.
    """
    images = keras.Input((*image_size, 3))
    try:
        network = keras.applications.ResNet50(include_top=False, weights=weights, pooling="avg", name="resnet50")
    except Exception as error:
        if weights != "imagenet":
            raise
        raise OSError(
            "The ImageNet weights of ResNet-50 could not be fetched by Keras; fetch the file elsewhere and set "
            f"method.weights to its path, or to null to start from random weights ({error})."
        ) from error
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.synchronized = True  # statistics of the whole batch, over all replicas
    return keras.Model(images, network(CaffePreprocessing()(images)), name="backbone")


def small(image_size, weights=None) -> keras.Model:
    """A residual net of 1.2 million weights for CPUs and small images: D = 256.

    A 3x3 stem of stride 2 and 32 channels, a residual block of 32, then blocks of 64, 128 and 256 channels, each at
    half the size of the one before.

    Args:
        image_size: (height, width), at least (32, 16).
        weights: a local `.weights.h5` file of this network, or None.

    Raises:
        ValueError: weights are "imagenet".
    """
    if weights == "imagenet":
        raise ValueError(
            "method.weights=imagenet belongs to method.backbone=resnet50; small starts from weights: null."
        )
    images = keras.Input((*image_size, 3))
    x = _conv_norm(images, 32, stride=2, activation="relu")
    for channels, stride in ((32, 1), (64, 2), (128, 2), (256, 2)):
        shortcut = x if stride == 1 else _conv_norm(x, channels, stride, kernel=1)
        x = _conv_norm(x, channels, stride, activation="relu")
        x = _conv_norm(x, channels)
        x = layers.ReLU()(x + shortcut)
    network = keras.Model(images, layers.GlobalAveragePooling2D()(x), name="backbone")
    if weights:
        network.load_weights(weights)
    return network


def _conv_norm(x, channels, stride=1, kernel=3, activation=None):
    x = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, synchronized=True)(x)
    return layers.Activation(activation)(x) if activation else x


BACKBONES = {"resnet50": resnet50, "small": small}
