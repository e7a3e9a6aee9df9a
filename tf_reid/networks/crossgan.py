"""Networks of Cross-GAN: encoders that are perceptrons; generators and discriminators of five units, some shared."""

from functools import partial

import keras
from keras import layers

from tf_reid.networks.backbones import BACKBONES
from tf_reid.networks.layers import BatchNormalization, gan_init

GENERATOR_UNITS = 5  # m of Eq. 8
DISCRIMINATOR_UNITS = 5  # n of Eq. 9


def what_is_seen(image_size, encoder, weights) -> keras.Model:
    """What the perceptrons are given of an image: its pixels in a row, or a backbone's features, which stay."""
    if encoder == "pixels":
        return keras.Sequential([keras.Input((*image_size, 3)), layers.Flatten()])
    backbone = BACKBONES[encoder](image_size, weights)
    backbone.trainable = False
    return backbone


def build_encoder(see, hidden, latent_width, name) -> keras.Model:
    """Images [B, H, W, 3] -> mean and log variance of q(z|x), [B, latent_width] each."""
    images = keras.Input(see.input_shape[1:])
    x = layers.Dense(hidden, activation="relu")(see(images, training=False))
    return keras.Model(images, [layers.Dense(latent_width)(x), layers.Dense(latent_width)(x)], name=name)


def generator_units(image_size, width, latent_width) -> list:
    """Makers of the five units of Eq. 8, from z to an image in [-1, 1]."""
    height, columns = image_size[0] // 16, image_size[1] // 16

    def first():
        dense = layers.Dense(height * columns * width, use_bias=False, kernel_initializer=gan_init())
        return keras.Sequential(
            [keras.Input((latent_width,)), dense, layers.Reshape((height, columns, width)), *_norm_relu()]
        )

    def doubling(level):
        shape = (height << level, columns << level, width >> level)
        if level == GENERATOR_UNITS - 2:
            return keras.Sequential([keras.Input(shape), _deconvolution(3, use_bias=True, activation="tanh")])
        return keras.Sequential([keras.Input(shape), _deconvolution(shape[-1] // 2, use_bias=False), *_norm_relu()])

    return [first, *(partial(doubling, level) for level in range(GENERATOR_UNITS - 1))]


def discriminator_units(image_size) -> list:
    """Makers of the five units of Eq. 9, from an image to what the last hidden layer sees and a logit."""

    def convolution(level):
        shape = (image_size[0] >> level, image_size[1] >> level, 3 if level == 0 else 20)
        conv = layers.Conv2D(20, 5, padding="same", kernel_initializer=gan_init())
        return keras.Sequential([keras.Input(shape), conv, layers.MaxPooling2D(2), layers.LeakyReLU(0.2)])

    def dense():
        maps = keras.Input((image_size[0] >> 3, image_size[1] >> 3, 20))
        return keras.Sequential([maps, layers.Flatten(), layers.Dense(1024, "relu", kernel_initializer=gan_init())])

    def last():
        inputs = keras.Input((1024,))
        features = layers.Dense(1024, "relu", kernel_initializer=gan_init())(inputs)
        return keras.Model(inputs, [features, layers.Dense(1, kernel_initializer=gan_init())(features)])

    return [*(partial(convolution, level) for level in range(3)), dense, last]


def coupled(makers, shared) -> tuple[list, list]:
    """Units of two networks, of which those numbered in `shared` are the very same."""
    first = [make() for make in makers]
    return first, [unit if i in shared else make() for i, (unit, make) in enumerate(zip(first, makers, strict=True))]


def chained(units, name) -> keras.Model:
    """One network of units in a row."""
    inputs = x = keras.Input(units[0].input_shape[1:])
    for unit in units:
        x = unit(x)
    return keras.Model(inputs, x, name=name)


def distinct(pair_of_units) -> list:
    """The units of two networks, those that both have once."""
    return list({id(unit): unit for units in pair_of_units for unit in units}.values())


def _deconvolution(channels, **settings):
    return layers.Conv2DTranspose(channels, 4, 2, padding="same", kernel_initializer=gan_init(), **settings)


def _norm_relu():
    return BatchNormalization(), layers.ReLU()
