"""Cross-GAN's networks: perceptrons as encoders; generators and discriminators of five units, some of them shared."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import keras
import tensorflow as tf
from keras import layers

from tf_reid.networks import losses
from tf_reid.networks.backbones import build_backbone
from tf_reid.networks.compiled import MaxPooling2D
from tf_reid.networks.layers import BatchNormalization, gan_init
from tf_reid.networks.precision import Conv2D, Conv2DTranspose, Dense

GENERATOR_UNITS = 5  # m of Eq. 8
DISCRIMINATOR_UNITS = 5  # n of Eq. 9


def encoder_input(image_size: tuple[int, int], encoder: str, weights: str | None) -> keras.Model:
    """Images -> what E1 and E2 are given: the flattened pixels, or the features of a backbone that is not trained."""
    if encoder == "pixels":
        return keras.Sequential([keras.Input((*image_size, 3)), layers.Flatten()])
    backbone = build_backbone(encoder, image_size, weights)
    backbone.trainable = False
    return backbone


def build_encoder(features: keras.Model, hidden: int, latent_width: int, name: str) -> keras.Model:
    """Images [B, H, W, 3] -> mean and log variance of q(z|x), [B, latent_width] each."""
    images = keras.Input(features.input_shape[1:])
    x = Dense(hidden, activation="relu")(features(images, training=False))
    return keras.Model(images, [Dense(latent_width)(x), Dense(latent_width)(x)], name=name)


def generator_units(image_size: tuple[int, int], width: int, latent_width: int) -> list[Callable[[], keras.Model]]:
    """Functions that build the five units of Eq. 8, from z to an image in [-1, 1]."""
    height, columns = image_size[0] // 16, image_size[1] // 16

    def first():
        dense = Dense(height * columns * width, use_bias=False, kernel_initializer=gan_init())
        return keras.Sequential(
            [keras.Input((latent_width,)), dense, layers.Reshape((height, columns, width)), *_norm_relu()]
        )

    def doubling(level):
        shape = (height << level, columns << level, width >> level)
        if level == GENERATOR_UNITS - 2:
            return keras.Sequential([keras.Input(shape), _deconvolution(3, use_bias=True, activation="tanh")])
        return keras.Sequential([keras.Input(shape), _deconvolution(shape[-1] // 2, use_bias=False), *_norm_relu()])

    return [first, *(partial(doubling, level) for level in range(GENERATOR_UNITS - 1))]


def discriminator_units(image_size: tuple[int, int]) -> list[Callable[[], keras.Model]]:
    """Functions that build the five units of Eq. 9, from an image to the last hidden layer's features and a logit."""

    def convolution(level):
        shape = (image_size[0] >> level, image_size[1] >> level, 3 if level == 0 else 20)
        conv = Conv2D(20, 5, padding="same", kernel_initializer=gan_init())
        return keras.Sequential([keras.Input(shape), conv, MaxPooling2D(2), layers.LeakyReLU(0.2)])

    def dense():
        maps = keras.Input((image_size[0] >> 3, image_size[1] >> 3, 20))
        return keras.Sequential([maps, layers.Flatten(), Dense(1024, "relu", kernel_initializer=gan_init())])

    def last():
        inputs = keras.Input((1024,))
        features = Dense(1024, "relu", kernel_initializer=gan_init())(inputs)
        return keras.Model(inputs, [features, Dense(1, kernel_initializer=gan_init())(features)])

    return [*(partial(convolution, level) for level in range(3)), dense, last]


class Coupled(NamedTuple):
    """Two networks of five units, some of which are the same in both, and the units of both, each shared one once."""

    first: keras.Model
    second: keras.Model
    units: list[keras.Model]


def coupled_generators(image_size: tuple[int, int], width: int, latent_width: int, shared: int) -> Coupled:
    """g1 and g2, from z to an image in [-1, 1], whose first `shared` units are the same (Eq. 8).

    Raises:
        ValueError: the image's sides are no multiples of 16.
    """
    if image_size[0] % 16 or image_size[1] % 16:
        raise ValueError(
            f"data.image_size is {list(image_size)}, but a generator doubles four times: use multiples of 16."
        )
    return _coupled(generator_units(image_size, width, latent_width), range(shared), "g")


def coupled_discriminators(image_size: tuple[int, int], shared: int) -> Coupled:
    """f1 and f2, from an image to features and a logit, whose last `shared` units are the same (Eq. 9)."""
    last = range(DISCRIMINATOR_UNITS - shared, DISCRIMINATOR_UNITS)
    return _coupled(discriminator_units(image_size), last, "f")


def discriminators_loss(discriminators, real, fake) -> tf.Tensor:
    """Cross-entropy of real and fake, of each view's discriminator on images of that view: a sum over the views.

    Args:
        discriminators: f1 and f2. real, fake: float32 [P, H, W, 3] of the first view and of the second.
    """
    terms = []
    for f, real_images, fake_images in zip(discriminators, real, fake, strict=True):
        real_logits, fake_logits = f(real_images)[1][:, 0], f(fake_images)[1][:, 0]
        terms += [losses.verification(real_logits, tf.ones_like(real_logits))]
        terms += [losses.verification(fake_logits, tf.zeros_like(fake_logits))]
    return tf.add_n(terms)


def generators_loss(fake_logits) -> tf.Tensor:
    """Cross-entropy of fakes with "real", the form that does not saturate: a sum over the views.

    Args:
        fake_logits: float32 [P, 1] of the first view and of the second.
    """
    return tf.add_n([losses.verification(logits[:, 0], tf.ones_like(logits[:, 0])) for logits in fake_logits])


def mutual_neighbours(first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Which rows of two views are each other's nearest. Without gradient.

    Near is a high cosine, of vectors less the mean of their own view: what all images of a camera have in common, such
    as its light, says nothing about a person.

    Args:
        first, second: float32 [P, D].

    Returns:
        For each of `first` the place of its nearest in `second`, int64 [P]; whether it is that one's nearest too,
        bool [P]. At least one is.
    """
    unit = [tf.math.l2_normalize(view - tf.reduce_mean(view, axis=0), axis=1) for view in (first, second)]
    cosine = tf.matmul(*unit, transpose_b=True)
    nearest, nearest_of_second = tf.argmax(cosine, axis=1), tf.argmax(cosine, axis=0)
    places = tf.range(tf.shape(nearest, tf.int64)[0])
    return nearest, tf.gather(nearest_of_second, nearest) == places


def _coupled(builders, shared, name):
    """Both networks; the units whose number is in `shared` are the same in both."""
    first = [build() for build in builders]
    second = [first[number] if number in shared else build() for number, build in enumerate(builders)]
    own_of_second = [unit for number, unit in enumerate(second) if number not in shared]
    return Coupled(_chained(first, f"{name}1"), _chained(second, f"{name}2"), first + own_of_second)


def _chained(units, name):
    """The network that calls these units one after the other."""
    inputs = x = keras.Input(units[0].input_shape[1:])
    for unit in units:
        x = unit(x)
    return keras.Model(inputs, x, name=name)


class ViewTransform(layers.Layer):
    """An image of the first view in the second: g2(z*) with z* = argmin ||g1(z) - x||^2 (section 5.2).

    float32 [B, H, W, 3] -> the same shape. Adam searches z*, starting at E1's mean.
    """

    def __init__(self, E1: keras.Model, g1: keras.Model, g2: keras.Model, steps: int, rate: float):
        super().__init__()
        self.E1, self.g1, self.g2, self.steps, self.rate = E1, g1, g2, steps, rate

    def call(self, images):
        return self.g2(self.nearest(images))

    def nearest(self, images: tf.Tensor) -> tf.Tensor:
        """z*, float32 [B, latent_width]."""
        z = self.E1(images)[0]

        def step(number, z, mean, square):
            with tf.GradientTape() as tape:
                tape.watch(z)
                error = tf.reduce_sum(tf.square(self.g1(z) - images))
            gradient = tape.gradient(error, z)
            mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient * gradient
            done = tf.cast(number + 1, tf.float32)
            change = mean / (1.0 - 0.9**done) / (tf.sqrt(square / (1.0 - 0.999**done)) + 1e-8)
            return number + 1, z - self.rate * change, mean, square

        start = (0, z, tf.zeros_like(z), tf.zeros_like(z))
        return tf.while_loop(lambda number, *_: number < self.steps, step, start)[1]

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        """All that its output depends on but weights; kept features are recognised by it."""
        networks = {network.name: network.get_config() for network in (self.E1, self.g1, self.g2)}
        return super().get_config() | {"steps": self.steps, "rate": self.rate, "networks": networks}


def _deconvolution(channels, **settings):
    return Conv2DTranspose(channels, 4, 2, padding="same", kernel_initializer=gan_init(), **settings)


def _norm_relu():
    return BatchNormalization(), layers.ReLU()
