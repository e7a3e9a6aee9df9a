"""Backbones: images float32 [B, H, W, 3] in [-1, 1] -> features float32 [B, D].

Each contains its input preprocessing, inside the graph and differentiable, so that gradients reach generated images.
"""

import difflib
from functools import partial
from typing import Annotated

import keras
import numpy as np
import scipy.io
import tensorflow as tf
from keras import layers
from pydantic import AfterValidator
from scipy.io.matlab import MatReadError

from tf_reid.networks import applications
from tf_reid.networks.applications import averaged, load, no_last_stride
from tf_reid.networks.compiled import MaxPooling2D
from tf_reid.networks.layers import BatchNormalization
from tf_reid.networks.precision import Conv2D


class LocalResponseNorm(layers.Layer):
    """x / (2 + 1e-4 · sum over five neighbouring channels of x²)^0.75, as VGG-M was trained with."""

    def call(self, x):
        return tf.nn.local_response_normalization(x, depth_radius=2, bias=2.0, alpha=1e-4, beta=0.75)


def vgg_m(image_size, weights=None, last_stride=2) -> keras.Model:
    """VGG-M's convolutions ("M-Net"), globally averaged: D = 512 (Chatfield et al., https://arxiv.org/abs/1405.3531).

    Args:
        image_size: (height, width), at least (64, 64).
        weights: a `.weights.h5` file of this network, MatConvNet's `imagenet-vgg-m.mat`, or None. Keras has none.

    Raises:
        ValueError: weights are "imagenet", or the file holds other layers.
    """
    _refuse_imagenet("vgg_m", weights)
    if last_stride != 2:
        raise no_last_stride("vgg_m", last_stride)
    if min(image_size) < 64:
        raise ValueError(f"data.image_size is {list(image_size)}, but vgg_m halves it five times: use 64 or more.")
    images = keras.Input((*image_size, 3))
    x = (images + 1.0) * 127.5 - keras.ops.array([123.68, 116.779, 103.939], dtype="float32")
    x = Conv2D(96, 7, 2, activation="relu", kernel_initializer="he_normal", name="conv1")(x)
    x = MaxPooling2D(3, 2)(LocalResponseNorm()(x))
    x = layers.ZeroPadding2D(1)(x)
    x = Conv2D(256, 5, 2, activation="relu", kernel_initializer="he_normal", name="conv2")(x)
    x = MaxPooling2D(3, 2)(layers.ZeroPadding2D(((0, 1), (0, 1)))(LocalResponseNorm()(x)))
    for name in ("conv3", "conv4", "conv5"):
        x = Conv2D(512, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=name)(x)
    x = MaxPooling2D(3, 2, name="pool5")(x)
    from_matlab = bool(weights) and weights.endswith(".mat")
    network = averaged(images, x) if from_matlab else _with_weights(averaged(images, x), "vgg_m", weights)
    if from_matlab:
        _load_matconvnet(network, weights)
    return network


def _load_matconvnet(network, path):
    """Copy kernels (height, width, in, out, as Keras has them) and biases by the layers' names."""
    try:
        file_layers = scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False)["layers"]
        weights = {layer.name: layer.weights for layer in file_layers if layer.type == "conv"}
        for name in ("conv1", "conv2", "conv3", "conv4", "conv5"):
            kernel, bias = weights[name]
            network.get_layer(name).set_weights([kernel, np.atleast_1d(bias)])
    except (OSError, ValueError, KeyError, AttributeError, TypeError, NotImplementedError, MatReadError) as error:
        raise ValueError(f"{path} is not MatConvNet's imagenet-vgg-m.mat: it holds other layers ({error}).") from None


def _with_weights(network, name, weights):
    if weights:
        load(network, name, weights)
    return network


def _refuse_imagenet(name, weights):
    if weights == "imagenet":
        raise ValueError(f"Keras has no ImageNet weights of the backbone {name}; set its weights to null or to a file.")


def small(image_size, weights=None, last_stride=2) -> keras.Model:
    """A residual net of 1.2 million weights for CPUs and small images: D = 256.

    A 3x3 stem of stride 2 and 32 channels, a residual block of 32, then blocks of 64, 128 and 256 channels, each at
    half the size of the one before.

    Args:
        image_size: (height, width), at least (32, 16).
        weights: a local `.weights.h5` file of this network, or None.
        last_stride: of the last block.

    Raises:
        ValueError: weights are "imagenet".
    """
    _refuse_imagenet("small", weights)
    images = keras.Input((*image_size, 3))
    x = _conv_norm(images, 32, stride=2, activation="relu")
    for channels, stride in ((32, 1), (64, 2), (128, 2), (256, last_stride)):
        shortcut = x if channels == 32 else _conv_norm(x, channels, stride, kernel=1)
        x = _conv_norm(x, channels, stride, activation="relu")
        x = _conv_norm(x, channels)
        x = layers.ReLU()(x + shortcut)
    return _with_weights(averaged(images, x), "small", weights)


def small_vgg(image_size, weights=None, last_stride=2) -> keras.Model:
    """A plain net of 1.2 million weights for CPUs and small images, unlike `small` in form: D = 256.

    Four pairs of 3x3 convolutions of 32, 64, 128 and 256 channels with batch norm, the first of stride 2, and a 2x2
    pooling between two pairs.

    Args:
        image_size: (height, width), at least (32, 16).
        weights: a local `.weights.h5` file of this network, or None.

    Raises:
        ValueError: weights are "imagenet".
    """
    _refuse_imagenet("small_vgg", weights)
    if last_stride != 2:
        raise no_last_stride("small_vgg", last_stride)
    images = keras.Input((*image_size, 3))
    x = _conv_norm(_conv_norm(images, 32, stride=2, activation="relu"), 32, activation="relu")
    for channels in (64, 128, 256):
        x = MaxPooling2D(2)(x)
        x = _conv_norm(_conv_norm(x, channels, activation="relu"), channels, activation="relu")
    return _with_weights(averaged(images, x), "small_vgg", weights)


def _conv_norm(x, channels, stride=1, kernel=3, activation=None):
    x = Conv2D(channels, kernel, stride, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
    x = BatchNormalization()(x)
    return layers.Activation(activation)(x) if activation else x


def maps_of(backbone) -> keras.Model:
    """A backbone without the global average at its end: images -> its last maps, float32 [B, h, w, D]."""
    return keras.Model(backbone.input, backbone.layers[-1].input, name="maps")


OWN = {"small": small, "small_vgg": small_vgg, "vgg_m": vgg_m}
BACKBONES = OWN | {name: partial(applications.build, name) for name in applications.names()}


def spelled(name: str, others: tuple[str, ...] = ()) -> str:
    """The name of a backbone as this package and Keras spell it; case and underscores do not matter.

    Args:
        others: what is also accepted.

    Raises:
        ValueError: it names no backbone.
    """
    known = {_plain(each): each for each in (*BACKBONES, *others)}
    if _plain(name) in known:
        return known[_plain(name)]
    near = [known[each] for each in difflib.get_close_matches(_plain(name), known, n=3, cutoff=0.5)]
    hint = f"; similar ones are {', '.join(near)}" if near else ""
    allowed = ", ".join((*others, *OWN))
    raise ValueError(f"it must be a network of keras.applications by its name, or one of {allowed}{hint}")


def _plain(name):
    return name.lower().replace("_", "")


Backbone = Annotated[str, AfterValidator(spelled)]  # the type of a setting that names one


def build_backbone(
    name: str, image_size: tuple[int, int], weights: str | None = None, last_stride: int = 2
) -> keras.Model:
    """The backbone of this name: images float32 [B, H, W, 3] in [-1, 1] -> features float32 [B, D].

    Args:
        name: as `spelled` reads it.
        image_size: (height, width).
        weights: "imagenet", a local file of weights, or None for random ones.
        last_stride: of its last stage; with 1 its last maps are twice as large.

    Raises:
        OSError: the ImageNet weights could not be fetched.
        ValueError: there is no such backbone, it has no ImageNet weights, the images are too small for it, the file
            holds other weights, or its last stage cannot keep its size.
    """
    return BACKBONES[spelled(name)](image_size, weights, last_stride=last_stride)
