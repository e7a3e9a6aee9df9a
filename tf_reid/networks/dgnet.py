"""DG-Net's networks. Structure encoder, decoder and discriminator see images normalised as for ImageNet.

Sizes are those of 256x128 images with ResNet-50 (`width` 32); with other images and backbones they scale.
"""

from functools import partial

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tf_reid.networks import losses
from tf_reid.networks.applications import DEVIATION, MEAN
from tf_reid.networks.compiled import Dropout
from tf_reid.networks.layers import BatchNormalization, InstanceNorm, ReflectPad, gan_init
from tf_reid.networks.precision import Conv2D, Dense, product, products_in
from tf_reid.networks.standardisation import standardised

HEAD_WIDTH = 512  # of the primary feature and of the fine-grained one
plain_norm = partial(InstanceNorm, affine=False)


def to_imagenet(images: tf.Tensor) -> tf.Tensor:
    """[-1, 1] -> zero mean and unit variance over ImageNet."""
    return ((images + 1.0) / 2.0 - tf.constant(MEAN)) / tf.constant(DEVIATION)


def from_imagenet(images: tf.Tensor) -> tf.Tensor:
    """The inverse of `to_imagenet`; what was generated may lie outside of [-1, 1]."""
    return (images * tf.constant(DEVIATION) + tf.constant(MEAN)) * 2.0 - 1.0


def appearance_encoder(maps: keras.Model, stripes: bool) -> keras.Model:
    """E_a: images [B, H, W, 3] in [-1, 1] -> appearance code [B, 4·C] and pooled features [B, C].

    The code holds the maxima of four stripes of the last maps; the pooled features, which the heads get, those of all.

    Args:
        maps: images -> a backbone's last maps [B, h, w, C].
        stripes: order the code by stripes; else by channels, as the authors' code does: a quarter of it then holds a
            quarter of the channels, at all four heights.

    Raises:
        ValueError: the last maps cannot be cut into four stripes of one height.
    """
    height, columns, channels = maps.output_shape[1:]
    if height % 4:
        raise ValueError(
            f"data.image_size is {list(maps.input_shape[1:3])}: the backbone's last maps are {height} high, but the "
            "appearance code needs a multiple of 4; choose another size, or method.last_stride=1."
        )
    rows = keras.ops.reshape(maps.output, (-1, 4, height // 4 * columns, channels))
    code = keras.ops.max(rows, axis=2)
    if not stripes:
        code = keras.ops.transpose(code, (0, 2, 1))
    code = keras.ops.reshape(code, (-1, 4 * channels))
    return keras.Model(maps.input, [code, keras.ops.max(maps.output, axis=(1, 2))], name="E_a")


def embedding_head(width: int, name: str) -> keras.Model:
    """[B, width] -> a feature [B, 512]: linear, then batch norm."""
    kaiming = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    norm = BatchNormalization()
    return keras.Sequential([keras.Input((width,)), Dense(HEAD_WIDTH, kernel_initializer=kaiming), norm], name=name)


def classifier_head(identities: int, dropout: float, name: str) -> keras.Model:
    """A feature [B, 512] -> logits [B, K]."""
    init = keras.initializers.RandomNormal(stddev=0.001)
    head = [Dropout(dropout), Dense(identities, kernel_initializer=init)]
    return keras.Sequential([keras.Input((HEAD_WIDTH,)), *head], name=name)


def structure_encoder(image_size: tuple[int, int], width: int, blocks: int = 4) -> keras.Model:
    """E_s: normalised images [B, H, W, 3], without their colour -> structure code [B, H/4, W/4, 4·width].

    Each of the code's channels has zero mean and unit variance over an image's places.

    Args:
        blocks: residual ones.

    Raises:
        ValueError: height or width is no multiple of 4.
    """
    if image_size[0] % 4 or image_size[1] % 4:
        raise ValueError(f"data.image_size is {list(image_size)}, but E_s halves it twice: use multiples of 4.")
    images = keras.Input((*image_size, 3))
    x = keras.ops.mean(images, axis=-1, keepdims=True)
    for channels, stride in ((width // 2, 2), (width, 1), (width, 1), (2 * width, 2)):
        x = _conv(x, channels, 3, stride, norm=plain_norm)
    for _ in range(blocks):
        x = _residual(x, norm=plain_norm)
    # Atrous spatial pyramid: the same maps seen through fields of four sizes; 3, 6 and 9 of 32 columns.
    linear = partial(_conv, norm=plain_norm, activation=False)
    fields = [linear(x, width, 1)]
    for part in (3, 6, 9):
        near = _conv(x, width, 1, norm=plain_norm)
        fields.append(linear(near, width, 3, dilation=max(1, round(part * x.shape[2] / 32))))
    return keras.Model(images, linear(keras.ops.concatenate(fields, axis=-1), 4 * width, 1), name="E_s")


def decoder(structure_shape: tuple[int, int, int], code_width: int, blocks: int = 4) -> keras.Model:
    """G: appearance code [B, code_width], structure code [B, h, w, S] -> normalised image [B, 4h, 4w, 3], not bounded.

    Args:
        blocks: residual ones. An equal part of the appearance code gives the scales and shifts of each block's norms.
    """
    appearance, structure = keras.Input((code_width,)), keras.Input(structure_shape)
    channels, width = structure_shape[-1], code_width // blocks
    x = structure
    for block in range(blocks):
        part = appearance[:, block * width : (block + 1) * width]
        scales, shifts = (_mlp(part, 2 * channels, f"block{block + 1}_{name}") for name in ("scale", "shift"))
        y = x
        for first, activation in ((0, True), (channels, False)):
            y = Conv2D(channels, 3, kernel_initializer="he_normal")(ReflectPad(1)(y))
            y = AdaptiveNorm()(y, *(v[:, first : first + channels] for v in (scales, shifts)))
            y = layers.LeakyReLU(0.2)(y) if activation else y
        x = x + y
    for _ in range(2):
        channels //= 2
        x = layers.LeakyReLU(0.2)(ImageNorm()(DoubledConv(channels, kernel_initializer="he_normal")(x)))
    x = _conv(_conv(x, channels, 3), channels, 3)
    return keras.Model([appearance, structure], _conv(x, 3, 1, activation=False), name="G")


def parts_of_decoder(decoder: keras.Model) -> tuple[keras.Model, keras.Model]:
    """G in two parts with the same weights, for structures that are seen in several appearances.

    Returns:
        Its first convolution, which depends on the structure alone: structure code [B, h, w, S] -> maps [B, h, w, S];
        and the rest: appearance code, structure code, those maps -> image.
    """
    appearance, structure = decoder.inputs
    maps = next(layer for layer in decoder.layers if isinstance(layer, Conv2D)).output
    return keras.Model(structure, maps), keras.Model([appearance, structure, maps], decoder.output)


def discriminator(image_size: tuple[int, int], width: int, scales: int, blocks: int = 4) -> keras.Model:
    """D: normalised images [B, H, W, 3] -> scores of patches [B, h, w, 1] at full, half, quarter size; 1 means real.

    Args:
        blocks: residual ones, at each size.

    Raises:
        ValueError: the images are too small for so many scales.
    """
    if min(image_size) < 2 ** (scales + 2):
        raise ValueError(
            f"data.image_size is {list(image_size)}, but method.scales={scales} needs {2 ** (scales + 2)} or more."
        )
    images = keras.Input((*image_size, 3))
    x, scores = images, []
    for scale in range(scales):
        if scale:
            x = HalfSize()(x)
        y = x
        plan = ((width, 1, 1), (width, 3, 1), (width, 3, 2), (width, 3, 1), (2 * width, 3, 2))
        for channels, kernel, stride in plan:
            y = _conv(y, channels, kernel, stride, init=gan_init)
        for _ in range(blocks):
            y = _residual(y, init=gan_init)
        scores.append(_conv(y, 1, 1, activation=False, init=gan_init))
    return keras.Model(images, scores, name="D")


def scores_of(discriminator: keras.Model, images: tf.Tensor) -> list[tf.Tensor]:
    """D's scores for normalised images [B, H, W, 3]: [B, h, w, 1] for each scale, also where there is one alone.

    Keras gives a single output of a model without its list.
    """
    return keras.tree.flatten(discriminator(images))


def discriminator_adversarial_loss(real: list[tf.Tensor], fake: list[tf.Tensor]) -> tf.Tensor:
    """Eq. 7 for D, with squares instead of logarithms, summed over scales and both directions of a swap.

    Args:
        real, fake: D's scores for real and generated images, [B, h, w, 1] for each scale.
    """
    scales = zip(real, fake, strict=True)
    return 2.0 * tf.add_n([losses.least_squares(r, 1.0) + losses.least_squares(f, 0.0) for r, f in scales])


def generator_adversarial_loss(fake: list[tf.Tensor]) -> tf.Tensor:
    """Eq. 7 for G: twice the squares, as in the authors' code, summed over scales and both directions of a swap."""
    return 4.0 * tf.add_n([losses.least_squares(scores, 1.0) for scores in fake])


def scores_and_penalty(discriminator, real: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
    """D's scores for real images, and R1: the squared gradient of each scale's scores at these images.

    R1 is summed over pixels, scales, and the two images of a row; mean over rows
    (Mescheder et al., 2018, https://arxiv.org/abs/1801.04406).
    """
    with products_in("float32"), tf.GradientTape(persistent=True) as tape:  # a gradient of gradients
        tape.watch(real)
        scores = scores_of(discriminator, real)
    gradients = [tape.gradient(score, real) for score in scores]
    return scores, 2.0 * tf.add_n([tf.reduce_mean(tf.reduce_sum(g * g, axis=(1, 2, 3))) for g in gradients])


def pooled_views(encoder: keras.Model) -> tuple[keras.KerasTensor, list[keras.KerasTensor]]:
    """Images, and the pooled features [B, C] of these images and of their mirror images.

    What is built on them by `weighted_features` is of one graph, in which the encoder is called twice in all.

    Args:
        encoder: images -> appearance code, pooled features.
    """
    images = keras.Input(encoder.input_shape[1:])
    return images, [encoder(view)[1] for view in (images, images[:, :, ::-1])]


def weighted_features(
    views: tuple[keras.KerasTensor, list[keras.KerasTensor]], heads: list[keras.Model], weights: list[float]
) -> keras.Model:
    """Images -> what is compared at test time: unit features of image and mirror image, summed and of unit length.

    The features of several heads are concatenated, each multiplied by its weight.

    Args:
        views: see `pooled_views`. heads: pooled features [B, C] -> features [B, 512].
    """
    images, pooled = views
    parts = [
        weight * _unit(sum(_unit(head(of_view)) for of_view in pooled))
        for head, weight in zip(heads, weights, strict=True)
    ]
    features = keras.ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
    return keras.Model(images, features, name="_".join(head.name for head in heads))


def _unit(features):
    return keras.ops.normalize(features, axis=-1)


class HalfSize(layers.Layer):
    """Mean over 3x3 pixels, stride 2; at the border over the pixels inside the image."""

    def call(self, x):
        def pooled(maps):
            return tf.nn.avg_pool2d(tf.pad(maps, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID")

        return pooled(x) / pooled(tf.ones_like(x[:1, :, :, :1]))

    def compute_output_shape(self, shape):
        batch, height, width, channels = shape
        return (batch, (height + 1) // 2, (width + 1) // 2, channels)


class DoubledConv(Conv2D):
    """Every pixel repeated twice both ways, then a 5x5 convolution over mirrored borders, in 9/25 of the arithmetic.

    A window of 5x5 repeated pixels has 3x3 different ones, and at a border two each way. Convolutions with sums of
    the kernel's taps therefore give the 2x2 output pixels of each input pixel as channels.
    """

    # [output pixel of two, input pixel, tap of five], of the first input pixel, those inside and the last one.
    FIRST = np.array([[[0, 1, 1, 1, 0], [1, 0, 0, 0, 1]], [[1, 1, 1, 0, 0], [0, 0, 0, 1, 1]]], np.float32)
    INSIDE = np.array(
        [[[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]], [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]]],
        np.float32,
    )
    LAST = FIRST[::-1, ::-1, ::-1]

    def __init__(self, filters, **kwargs):
        super().__init__(filters, **{**kwargs, "kernel_size": 5})

    def call(self, x):
        kernel = tf.convert_to_tensor(self.kernel)

        def maps(pixels, of_rows, of_columns):
            sums = tf.einsum("pia,qjb,abcd->ijcpqd", of_rows, of_columns, kernel)
            sums = tf.reshape(sums, (of_rows.shape[1], of_columns.shape[1], kernel.shape[2], 4 * self.filters))
            return product(partial(tf.nn.conv2d, strides=1, padding="VALID"), pixels, sums)

        rows, columns = (self._parts(size) for size in x.shape[1:3])
        made = []
        for down, of_rows in rows:
            strip = x[:, down]
            row = [maps(strip[:, :, across], of_rows, of_columns) for across, of_columns in columns]
            made.append(tf.concat(row, axis=2))
        return tf.nn.depth_to_space(tf.concat(made, axis=1), 2) + self.bias

    def _parts(self, size):
        """Slices of an axis of the input, each with the sums of taps for its output."""
        inside = [(slice(None), self.INSIDE)] if size > 2 else []
        return [(slice(0, 2), self.FIRST), *inside, (slice(-2, None), self.LAST)]

    def compute_output_shape(self, shape):
        batch, height, width, _ = shape
        return (batch, 2 * height, 2 * width, self.filters)


class AdaptiveNorm(layers.Layer):
    """AdaIN: each channel of each image standardised over its pixels, then scaled and shifted as its code says."""

    def call(self, x, scale, shift):
        """Maps [B, H, W, C], scale and shift [B, C] -> [B, H, W, C]."""
        return standardised(x, (1, 2), scale[:, None, None], shift[:, None, None])

    def compute_output_shape(self, x_shape, scale_shape, shift_shape):
        return x_shape


class ImageNorm(layers.Layer):
    """Each image minus its mean, over its deviation, of all its values; then channels scaled and shifted (MUNIT)."""

    def build(self, shape):
        self.gamma = self.add_weight(
            shape=(shape[-1],), initializer=keras.initializers.RandomUniform(0, 1), name="gamma"
        )
        self.beta = self.add_weight(shape=(shape[-1],), initializer="zeros", name="beta")

    def call(self, x):
        gamma, beta = (tf.reshape(tf.convert_to_tensor(v), (1, 1, 1, -1)) for v in (self.gamma, self.beta))
        return standardised(x, (1, 2, 3), gamma, beta, unbiased=True)


def _conv(x, channels, kernel, stride=1, dilation=1, norm=None, activation=True, init=None):
    """Convolution over mirrored borders, norm, leaky ReLU 0.2. TensorFlow's own padding is uneven where it strides."""
    if kernel > 1:
        x = ReflectPad(dilation * (kernel - 1) // 2)(x)
    make = init() if init else "he_normal"
    x = Conv2D(channels, kernel, stride, dilation_rate=dilation, kernel_initializer=make)(x)
    if norm:
        x = norm()(x)
    return layers.LeakyReLU(0.2)(x) if activation else x


def _residual(x, norm=None, init=None):
    y = _conv(x, x.shape[-1], 3, norm=norm, init=init)
    return x + _conv(y, x.shape[-1], 3, norm=norm, activation=False, init=init)


def _mlp(x, outputs, name):
    for units in (512, 512):
        x = layers.LeakyReLU(0.2)(Dense(units, kernel_initializer="he_normal")(x))
    return Dense(outputs, kernel_initializer="he_normal", name=name)(x)
