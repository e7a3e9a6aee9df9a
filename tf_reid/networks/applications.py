"""Networks of `keras.applications` as backbones: images float32 [B, H, W, 3] in [-1, 1] -> features float32 [B, D].

A family is a module of `keras.applications`, such as `resnet_v2`: its networks were trained on images of one range.
"""

import inspect
import re
from collections.abc import Callable

import h5py
import keras
import numpy as np
from keras import layers

from tf_reid.networks.compiled import Dropout, MaxPooling2D
from tf_reid.networks.layers import BatchNormalization
from tf_reid.networks.precision import Conv2D, Dense, DepthwiseConv2D, SeparableConv2D

OURS = {  # what stands in for Keras's
    layers.Conv2D: Conv2D,
    layers.Dense: Dense,
    layers.DepthwiseConv2D: DepthwiseConv2D,
    layers.SeparableConv2D: SeparableConv2D,
    layers.BatchNormalization: BatchNormalization,
    layers.MaxPooling2D: MaxPooling2D,
    layers.Dropout: Dropout,
}
OF_DEPTHWISE = ("name", "kernel_size", "strides", "padding", "dilation_rate", "activation", "use_bias")
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue in [0, 1]


class CaffePreprocessing(layers.Layer):
    """[-1, 1] RGB -> what the first networks' weights were trained on: 0-255 BGR less ImageNet's mean."""

    def call(self, x):
        return (x[..., ::-1] + 1.0) * 127.5 - keras.ops.array([103.939, 116.779, 123.68], x.dtype)


def standardisation() -> layers.Layer:
    """[-1, 1] -> ImageNet's mean subtracted, divided by its standard deviation."""
    scale = [0.5 / deviation for deviation in DEVIATION]
    offset = [(0.5 - mean) / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)]
    return layers.Rescaling(scale, offset)


def bytes_again() -> layers.Layer:
    """[-1, 1] -> 0-255, for a network that contains its own preprocessing."""
    return layers.Rescaling(127.5, 127.5)


PREPROCESSING: dict[str, Callable[[], layers.Layer]] = {  # by family; all others were trained on images in [-1, 1]
    "resnet": CaffePreprocessing,
    "vgg16": CaffePreprocessing,
    "vgg19": CaffePreprocessing,
    "densenet": standardisation,
    "efficientnet": bytes_again,
    "efficientnet_v2": bytes_again,
    "convnext": bytes_again,
    "mobilenet_v3": bytes_again,
}

# By family: the convolutions and poolings that halve the maps before the last stage.
LAST_STRIDE = {
    "resnet": r"conv5_block1_[01]_conv",
    "resnet_v2": r"conv4_block\d+_2_conv",  # beside it, the last pooling of one pixel
    "densenet": r"pool4_pool",
    "mobilenet": r"conv_dw_12",
    "mobilenet_v2": r"block_13_depthwise",
    "mobilenet_v3": r"expanded_conv_(8|12)_depthwise",
    "efficientnet": r"block6a_dwconv",
    "efficientnet_v2": r"block6a_dwconv2",
}


def names() -> list[str]:
    """Keras's names of its networks, such as "MobileNetV2"."""
    return [name for name, build in vars(keras.applications).items() if inspect.isfunction(build)]


def family_of(name: str) -> str:
    """The module of `keras.applications` that has a network: "ResNet101V2" -> "resnet_v2"."""
    return getattr(keras.applications, name).__module__.rpartition(".")[2]


def build(
    name: str, image_size: tuple[int, int], weights: str | None = "imagenet", last_stride: int = 2
) -> keras.Model:
    """A network of Keras's without its classification layer, behind its preprocessing, globally averaged.

    Args:
        name: Keras's.
        image_size: (height, width).
        weights: "imagenet" (fetched by Keras), a local weights file for `include_top=False`, that of a backbone of this
            kind, such as a finished run of `strong` keeps, or None.
        last_stride: of the last stage, 2 or 1; with 1 the last maps are twice as large, which suits re-ID.

    Raises:
        OSError: the ImageNet weights could not be fetched.
        ValueError: the images are too small or have a size that the weights do not fit, the file holds other weights,
            or the last stage cannot keep its size.
    """
    family = family_of(name)
    if last_stride != 2 and family not in LAST_STRIDE:
        raise no_last_stride(name, last_stride)
    of_backbone = weights not in (None, "imagenet") and _is_of_a_backbone(weights)
    network = _built_by_keras(name, family, image_size, None if of_backbone else weights)
    network = with_our_layers(network, family, last_stride)
    images = keras.Input((*image_size, 3))
    seen = PREPROCESSING[family]()(images) if family in PREPROCESSING else images
    try:
        maps = network(seen)
    except ValueError as error:
        raise _too_small(name, image_size) from error
    if 0 in maps.shape:
        raise _too_small(name, image_size)
    backbone = averaged(images, maps)
    if of_backbone:
        load(backbone, name, weights)
    return backbone


def no_last_stride(name: str, last_stride: int) -> ValueError:
    """The error of a backbone whose last stage cannot keep its size."""
    return ValueError(
        f"method.last_stride is {last_stride}, but the last stage of {name} cannot keep its size: set 2, or take a "
        "backbone of another family, such as ResNet50 or MobileNetV2."
    )


def averaged(images, maps) -> keras.Model:
    """The backbone from its input to the global average of its last maps."""
    return keras.Model(images, layers.GlobalAveragePooling2D()(maps), name="backbone")


def load(network: keras.Model, name: str, path: str) -> None:
    """Load a local file of weights into a network.

    Raises:
        ValueError: it is no such file, or it holds the weights of another network.
    """
    try:
        network.load_weights(path)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path} does not hold the weights of the backbone {name}: name the file of a backbone of this kind, or "
            f"Keras's own file of it without the classification layer ({reason[:300]})."
        ) from error


def _built_by_keras(name, family, image_size, weights):
    make = getattr(keras.applications, name)
    # NASNet reads the size of its maps while it is built; all others take any size.
    size = {"input_shape": (*image_size, 3)} if family == "nasnet" else {}
    if weights != "imagenet":
        try:
            network = make(include_top=False, weights=None, **size)
        except ValueError as error:
            raise _too_small(name, image_size) from error
        if weights:
            load(network, name, weights)
        return network
    try:
        return make(include_top=False, weights="imagenet", **size)
    except ValueError as error:
        raise ValueError(
            f"Keras cannot build {name} with its ImageNet weights for images of {list(image_size)} pixels: {error}"
        ) from error
    except Exception as error:
        raise OSError(
            f"The ImageNet weights of {name} could not be fetched by Keras; fetch the file elsewhere and set "
            f"the method's weights to its path, or to null to start from random weights ({error})."
        ) from error


def _too_small(name, image_size):
    return ValueError(f"data.image_size is {list(image_size)}, which is too small for {name}: take larger images.")


def _is_of_a_backbone(path):
    """Whether a file holds the weights of a backbone, which has Keras's network as a part."""
    try:
        with h5py.File(path) as file:
            return "functional" in file.get("layers", ())
    except OSError:
        return False  # `load` says what is wrong with it


def with_our_layers(network: keras.Model, family: str, last_stride: int = 2) -> keras.Model:
    """The same network with our convolutions, pooling, dropout and batch norm, and with this stride of its last stage.

    Keras has other momenta and epsilons of batch norm; the running variances make up for the epsilons here.
    """
    kept = _kept_size(network, family) if last_stride == 1 else {}

    def ours(layer):
        if not isinstance(layer, layers.Layer):  # an operation, such as a sum: it has no state
            return layer
        settings = layer.get_config() | kept.get(layer.name, {})
        if isinstance(layer, layers.BatchNormalization):
            del settings["momentum"], settings["epsilon"]
        if family == "efficientnet":
            settings |= _fixed_standardisation(layer)
        if _is_of_single_channels(layer):
            return DepthwiseConv2D.from_config({key: settings[key] for key in OF_DEPTHWISE})
        padded_pooling = isinstance(layer, layers.MaxPooling2D) and layer.padding == "same"
        kind = type(layer) if padded_pooling else OURS.get(type(layer), type(layer))
        return kind.from_config(settings)

    clone = keras.models.clone_model(network, clone_function=ours, recursive=True)
    for old, new in zip(network.layers, clone.layers, strict=True):
        if _is_of_single_channels(old):
            kernel, *bias = old.get_weights()
            new.set_weights([np.swapaxes(kernel, 2, 3), *bias])
        elif not isinstance(old, layers.Normalization):
            new.set_weights(old.get_weights())
        if isinstance(old, layers.BatchNormalization):
            new.moving_variance.assign_add(old.epsilon - new.epsilon)
    return clone


def _is_of_single_channels(layer):
    """Whether this is a depthwise convolution in the form of one with groups, which on CPUs needs XLA: ConvNeXt's."""
    return type(layer) is layers.Conv2D and layer.groups == layer.filters == layer.input.shape[-1] > 1


def _fixed_standardisation(layer):
    """Settings of a layer of EfficientNet's preprocessing with ImageNet's mean and deviation as constants.

    Keras's file has them as weights, as the variance the deviation itself; where weights are "imagenet", a second
    rescaling divides by its root once more.
    """
    if isinstance(layer, layers.Normalization):
        return {"mean": MEAN, "variance": [deviation**2 for deviation in DEVIATION]}
    if isinstance(layer, layers.Rescaling) and isinstance(layer.scale, list):
        return {"scale": 1.0}
    return {}


def _kept_size(network, family):
    """Layer -> settings with which the last stage keeps its size; the padding before a strided convolution goes."""
    changed = {}
    pattern = re.compile(LAST_STRIDE[family])
    of_one_pixel = [x for x in network.layers if isinstance(x, layers.MaxPooling2D) and x.pool_size == (1, 1)]
    if family == "resnet_v2":
        changed[of_one_pixel[-1].name] = {"strides": 1}
    for layer in network.layers:
        if not pattern.fullmatch(layer.name) or tuple(layer.strides) == (1, 1):
            continue
        changed[layer.name] = {"strides": 1}
        if family == "densenet":
            changed[layer.name]["pool_size"] = 1
        before = layer.input._keras_history.operation
        if isinstance(before, layers.ZeroPadding2D) and family != "resnet_v2":  # whose padding is even
            changed[layer.name]["padding"] = "same"
            changed[before.name] = {"padding": 0}
    return changed
