"""Backbones: images float32 [B, H, W, 3] in [-1, 1] -> features float32 [B, D].

Each contains its input preprocessing, inside the graph and differentiable, so that gradients reach generated images.
"""

from typing import Literal

import h5py
import keras
import numpy as np
import scipy.io
import tensorflow as tf
from keras import layers
from scipy.io.matlab import MatReadError

from tf_reid.networks.compiled import MaxPooling2D
from tf_reid.networks.layers import BatchNormalization
from tf_reid.networks.precision import Conv2D, DepthwiseConv2D

OURS = {  # what stands in for Keras's
    layers.Conv2D: Conv2D,
    layers.DepthwiseConv2D: DepthwiseConv2D,
    layers.BatchNormalization: BatchNormalization,
    layers.MaxPooling2D: MaxPooling2D,
}


class CaffePreprocessing(layers.Layer):
    """[-1, 1] RGB -> what Keras's ResNet-50 weights were trained on: 0-255 BGR less ImageNet's mean."""

    def call(self, x):
        return (x[..., ::-1] + 1.0) * 127.5 - tf.constant([103.939, 116.779, 123.68], x.dtype)


def resnet50(image_size, weights="imagenet", last_stride=2) -> keras.Model:
    """ResNet-50 without its classification layer, globally averaged: D = 2048.

    Args:
        last_stride: of the last of its four stages; with 1 the last maps are twice as large, which suits re-ID.
    """
    return _application(keras.applications.ResNet50, image_size, weights, last_stride)


def vgg16(image_size, weights="imagenet") -> keras.Model:
    """VGG-16's convolutions ("D-Net"), globally averaged: D = 512."""
    return _application(keras.applications.VGG16, image_size, weights)


def vgg19(image_size, weights="imagenet") -> keras.Model:
    """VGG-19's convolutions, globally averaged: D = 512."""
    return _application(keras.applications.VGG19, image_size, weights)


def mobilenet_v2(image_size, weights="imagenet") -> keras.Model:
    """MobileNetV2's convolutions, globally averaged: D = 1280. Its weights were trained on images in [-1, 1]."""
    return _application(keras.applications.MobileNetV2, image_size, weights, preprocessing=None)


def _application(build, image_size, weights, last_stride=2, preprocessing=CaffePreprocessing):
    """A network of Keras's behind the preprocessing of its weights.

    Args:
        image_size: (height, width).
        weights: "imagenet" (fetched by Keras), a local weights file for `include_top=False`, that of a backbone of this
            kind, such as a finished run of `strong` keeps, or None.
        preprocessing: the layer from [-1, 1] to what the weights were trained on; None: that range itself.

    Raises:
        OSError: the ImageNet weights could not be fetched.
    """
    if weights and weights != "imagenet" and _is_of_a_backbone(weights):
        backbone = _application(build, image_size, None, last_stride, preprocessing)
        backbone.load_weights(weights)
        return backbone
    images = keras.Input((*image_size, 3))
    try:
        network = build(include_top=False, weights=weights)
    except Exception as error:
        if weights != "imagenet":
            raise
        raise OSError(
            f"The ImageNet weights of {build.__name__} could not be fetched by Keras; fetch the file elsewhere and set "
            f"the method's weights to its path, or to null to start from random weights ({error})."
        ) from error
    network = _with_our_layers(network, last_stride)
    return _averaged(images, network(preprocessing()(images) if preprocessing else images))


def _is_of_a_backbone(path):
    """Whether a file holds the weights of a backbone with its global average, which Keras's own files have not."""
    try:
        with h5py.File(path) as file:
            return any(name.startswith("global_average_pooling2d") for name in file.get("layers", ()))
    except OSError:
        return False  # Keras says what is wrong with it


def _with_our_layers(network, last_stride):
    """The same network with our convolutions, pooling and batch norm, and with this stride of ResNet-50's last stage.

    Keras has other momenta, epsilons of 1.001e-5 and 1e-3, which the running variances make up for here, and the stride
    of a stage in its first block's two 1x1.
    """

    def same_but(layer):
        settings = layer.get_config()
        if isinstance(layer, layers.BatchNormalization):
            del settings["momentum"], settings["epsilon"]
        if layer.name in ("conv5_block1_0_conv", "conv5_block1_1_conv"):
            settings["strides"] = last_stride
        return OURS.get(type(layer), type(layer)).from_config(settings)

    clone = keras.models.clone_model(network, clone_function=same_but)
    clone.set_weights(network.get_weights())
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            ours = clone.get_layer(layer.name)
            ours.moving_variance.assign_add(layer.epsilon - ours.epsilon)
    return clone


class LocalResponseNorm(layers.Layer):
    """x / (2 + 1e-4 · sum over five neighbouring channels of x²)^0.75, as VGG-M was trained with."""

    def call(self, x):
        return tf.nn.local_response_normalization(x, depth_radius=2, bias=2.0, alpha=1e-4, beta=0.75)


def vgg_m(image_size, weights=None) -> keras.Model:
    """VGG-M's convolutions ("M-Net"), globally averaged: D = 512 (Chatfield et al., https://arxiv.org/abs/1405.3531).

    Args:
        image_size: (height, width), at least (64, 64).
        weights: a `.weights.h5` file of this network, MatConvNet's `imagenet-vgg-m.mat`, or None. Keras has none.

    Raises:
        ValueError: weights are "imagenet", or the file holds other layers.
    """
    _refuse_imagenet("vgg_m", weights)
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
    network = _averaged(images, x, None if from_matlab else weights)
    if from_matlab:
        _load_matconvnet(network, weights)
    return network


def _averaged(images, x, weights=None):
    """The backbone from its input to the global average of its last maps, with weights of a file if there is one."""
    network = keras.Model(images, layers.GlobalAveragePooling2D()(x), name="backbone")
    if weights:
        network.load_weights(weights)
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
    return _averaged(images, x, weights)


def small_vgg(image_size, weights=None) -> keras.Model:
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
    images = keras.Input((*image_size, 3))
    x = _conv_norm(_conv_norm(images, 32, stride=2, activation="relu"), 32, activation="relu")
    for channels in (64, 128, 256):
        x = MaxPooling2D(2)(x)
        x = _conv_norm(_conv_norm(x, channels, activation="relu"), channels, activation="relu")
    return _averaged(images, x, weights)


def _conv_norm(x, channels, stride=1, kernel=3, activation=None):
    x = Conv2D(channels, kernel, stride, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
    x = BatchNormalization()(x)
    return layers.Activation(activation)(x) if activation else x


def maps_of(backbone) -> keras.Model:
    """A backbone without the global average at its end: images -> its last maps, float32 [B, h, w, D]."""
    return keras.Model(backbone.input, backbone.layers[-1].input, name="maps")


BACKBONES = {
    "resnet50": resnet50,
    "vgg16": vgg16,
    "vgg19": vgg19,
    "vgg_m": vgg_m,
    "mobilenet_v2": mobilenet_v2,
    "small": small,
    "small_vgg": small_vgg,
}

Backbone = Literal[tuple(BACKBONES)]  # the type of a setting that names one
