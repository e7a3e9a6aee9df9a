"""SimPGAN's networks: generators that translate images between two domains, and their discriminators."""

import keras
from keras import layers

from tf_reid.networks.layers import BatchNormalization, InstanceNorm, ReflectPad, gan_init
from tf_reid.networks.precision import Conv2D, Conv2DTranspose, Dense


def build_generator(image_size: tuple[int, int], width: int, blocks: int, residual: bool, name: str) -> keras.Model:
    """CycleGAN's generator: images [B, H, W, 3] in [-1, 1] -> the same. Height and width must be multiples of 4.

    7x7 to `width`; two 3x3 of stride 2 to 4·`width`; `blocks` residual ones; two transposed 3x3 of stride 2; 7x7 to 3.
    With `residual`, the last layer starts at zero and its output is added to the input before the tanh.

    Raises:
        ValueError: height or width is no multiple of 4.
    """
    if image_size[0] % 4 or image_size[1] % 4:
        raise ValueError(f"data.image_size is {list(image_size)}, but a generator halves it twice: use multiples of 4.")
    images = keras.Input((*image_size, 3))
    x = _conv(ReflectPad(3)(images), width, 7, padding="valid")
    x = _conv(x, 2 * width, 3, 2)
    x = _conv(x, 4 * width, 3, 2)
    for _ in range(blocks):
        y = _conv(ReflectPad(1)(x), 4 * width, 3, padding="valid")
        y = _conv(ReflectPad(1)(y), 4 * width, 3, padding="valid", activation=None)
        x = x + y
    for channels in (2 * width, width):
        x = Conv2DTranspose(channels, 3, 2, padding="same", use_bias=False, kernel_initializer=gan_init())(x)
        x = layers.ReLU()(InstanceNorm()(x))
    init = "zeros" if residual else gan_init()
    x = Conv2D(3, 7, kernel_initializer=init)(ReflectPad(3)(x))
    if residual:
        x = x + keras.ops.arctanh(0.98 * images)
    return keras.Model(images, keras.ops.tanh(x), name=name)


def build_colour_generator(image_size: tuple[int, int], width: int, name: str) -> keras.Model:
    """Images [B, H, W, 3] in [-1, 1] -> the same after an affine map of the colours, predicted from the whole image.

    Three 4x4 of stride 2 (leaky ReLU; no norm, which would remove absolute colours), a global average, and 12 numbers
    that start at zero: x -> tanh((I + A)·arctanh(x) + b). It starts as the identity.
    """
    images = keras.Input((*image_size, 3))
    x = images
    for channels in (width, 2 * width, 4 * width):
        x = Conv2D(channels, 4, 2, padding="same", kernel_initializer="he_normal")(x)
        x = layers.LeakyReLU(0.2)(x)
    x = Dense(12, kernel_initializer="zeros")(layers.GlobalAveragePooling2D()(x))
    change, offset = layers.Reshape((3, 3))(x[:, :9]), layers.Reshape((1, 1, 3))(x[:, 9:])
    colours = keras.ops.arctanh(0.98 * images)
    moved = keras.ops.einsum("bhwc,bcd->bhwd", colours, change)
    return keras.Model(images, keras.ops.tanh(colours + moved + offset), name=name)


def build_discriminator(
    image_size: tuple[int, int], width: int, layers_of_stride_2: int, official: bool, norm: bool, name: str
) -> keras.Model:
    """Images [B, H, W, 3] in [-1, 1] -> a score for each patch [B, h, w, 1]; 1 means real.

    Patch discriminator: 4x4 convolutions with instance norm and leaky ReLU 0.2, `layers_of_stride_2` of stride 2, then
    two of stride 1. `official`: three 4x4 of stride 2 with batch norm and leaky ReLU 0.05, then a 4x4 without padding.

    Raises:
        ValueError: the images are too small for the official discriminator.
    """
    if official and min(image_size) < 32:
        raise ValueError(
            f"method.discriminator=official judges patches of 32 pixels; data.image_size is {list(image_size)}."
        )
    images = keras.Input((*image_size, 3))
    slope = 0.05 if official else 0.2
    x = Conv2D(width, 4, 2, padding="same", kernel_initializer=gan_init())(images)
    x = layers.LeakyReLU(slope)(x)
    strides = [2] * 2 if official else [2] * (layers_of_stride_2 - 1) + [1]
    for depth, stride in enumerate(strides, start=1):
        channels = width * min(2**depth, 8)
        x = Conv2D(channels, 4, stride, padding="same", kernel_initializer=gan_init())(x)
        if official:
            x = BatchNormalization()(x)
        elif norm:
            x = InstanceNorm()(x)
        x = layers.LeakyReLU(slope)(x)
    padding = "valid" if official else "same"
    scores = Conv2D(1, 4, padding=padding, kernel_initializer=gan_init())(x)
    return keras.Model(images, scores, name=name)


def _conv(x, channels, kernel, stride=1, padding="same", activation="relu"):
    x = Conv2D(channels, kernel, stride, padding, use_bias=False, kernel_initializer=gan_init())(x)
    x = InstanceNorm()(x)
    return layers.Activation(activation)(x) if activation else x
