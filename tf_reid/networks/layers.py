"""Layers and blocks that several networks share. Images are NHWC float32 in [-1, 1]."""

import keras
import tensorflow as tf

from tf_reid.networks.precision import Dense
from tf_reid.networks.standardisation import standardised


def gan_init() -> keras.initializers.Initializer:
    """The initialisation of DCGAN and CycleGAN, N(0, 0.02). Use one for each layer: an instance repeats its values."""
    return keras.initializers.RandomNormal(stddev=0.02)


class InstanceNorm(keras.layers.Layer):
    """Normalise each channel of each image over its pixels, then scale and shift, if `affine` (epsilon 1e-5).

    Same values as `GroupNormalization(groups=-1, epsilon=1e-5)`, which is slower on CPUs.
    """

    def __init__(self, affine=True, **kwargs):
        super().__init__(**kwargs)
        self.affine = affine

    def build(self, shape):
        self.gamma = self.beta = None
        if self.affine:
            self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones", name="gamma")
            self.beta = self.add_weight(shape=(shape[-1],), initializer="zeros", name="beta")

    def call(self, x):
        if not self.affine:
            return standardised(x, (1, 2))
        gamma, beta = (tf.reshape(tf.convert_to_tensor(v), (1, 1, 1, -1)) for v in (self.gamma, self.beta))
        return standardised(x, (1, 2), gamma, beta)


class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's batch normalisation with the statistics of the global batch, over all replicas, and faster.

    On one replica, maps [B, H, W, C] go through TensorFlow's fused operation: on CPUs, a training step of ResNet-50
    takes a fifth less time. Everything else goes through Keras's own call.
    """

    def __init__(self, momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **{**kwargs, "synchronized": True})

    def call(self, inputs, training=None, mask=None):
        fused = training and self.trainable and len(inputs.shape) == 4
        if not fused or tf.distribute.get_strategy().num_replicas_in_sync > 1:
            return super().call(inputs, training=training, mask=mask)
        gamma = tf.convert_to_tensor(self.gamma) if self.scale else tf.ones(inputs.shape[-1:])
        beta = tf.convert_to_tensor(self.beta) if self.center else tf.zeros(inputs.shape[-1:])
        # The operation updates running statistics, with a variance over n - 1 where Keras divides by n.
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
        biased = tf.maximum(count - 1.0, 1.0) / count
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=gamma,
            offset=beta,
            mean=tf.convert_to_tensor(self.moving_mean),
            variance=self.moving_variance / biased,
            epsilon=self.epsilon,
            exponential_avg_factor=1.0 - self.momentum,
        )
        self.moving_mean.assign(mean)
        self.moving_variance.assign(variance * biased)
        return outputs


class StandardisedImages(keras.layers.Layer):
    """Each image minus its mean, over its standard deviation; both of all its pixels and channels."""

    def call(self, x):
        mean, variance = tf.nn.moments(x, axes=[1, 2, 3], keepdims=True)
        return (x - mean) * tf.math.rsqrt(tf.maximum(variance, (2.0 / 255.0) ** 2))  # at least one grey level


class GreyImages(keras.layers.Layer):
    """Each image without its colours: three channels that equal its luminance. Grey images stay as they are."""

    def call(self, x):
        return tf.repeat(tf.image.rgb_to_grayscale(x), 3, axis=-1)


class OneChannel(keras.layers.Layer):
    """Images [B, H, W, C] of equal channels -> one of the channels as it is, the others 0."""

    def __init__(self, channel: int, **kwargs):
        super().__init__(**kwargs)
        self.channel = channel

    def call(self, x):
        return x * tf.one_hot(self.channel, x.shape[-1], dtype=x.dtype)

    def get_config(self):
        return super().get_config() | {"channel": self.channel}


class ReflectPad(keras.layers.Layer):
    """Pad height and width by `margin` pixels, mirrored at the border."""

    def __init__(self, margin, **kwargs):
        super().__init__(**kwargs)
        self.margin = margin

    def call(self, x):
        m = self.margin
        return tf.pad(x, [[0, 0], [m, m], [m, m], [0, 0]], mode="REFLECT")

    def compute_output_shape(self, shape):
        batch, height, width, channels = shape
        return (batch, height + 2 * self.margin, width + 2 * self.margin, channels)


def feed_forward(width: int, hidden: list[int], outputs: int, name: str) -> keras.Model:
    """[B, width] -> [B, outputs], through hidden layers with these numbers of units and ReLU."""
    dense = [Dense(units, activation="relu") for units in hidden]
    return keras.Sequential([keras.Input((width,)), *dense, Dense(outputs)], name=name)


def in_one_call(network: keras.Model, *batches: tf.Tensor) -> list[tf.Tensor]:
    """A network's outputs in training for several batches, from one call on all their rows: fewer, larger operations.

    A network whose batch normalisation takes the statistics of a batch is called once for each of them.

    Args:
        network: one input, one output. batches: [B1, ...], [B2, ...] ...

    Returns:
        As many outputs, [B1, ...], [B2, ...] ..., equal to those of separate calls within rounding.
    """
    if network.non_trainable_variables:
        return [network(batch, training=True) for batch in batches]
    outputs = network(tf.concat(batches, axis=0), training=True)
    return tf.split(outputs, [batch.shape[0] for batch in batches])


def frozen(network: keras.Model, *inputs, training: bool = False, fraction: float | tf.Tensor = 1.0):
    """Call a network as if its weights were constants: gradients flow to the inputs and to none of its weights.

    With `training`, its batch normalisation uses the statistics of these inputs; the running statistics do not change.

    Args:
        fraction: of the weights' gradient that is withheld, a number or a scalar tensor.
    """
    held = [
        (variable, scale_gradient(tf.convert_to_tensor(variable), 1.0 - fraction))
        for variable in network.trainable_variables
    ]
    with keras.StatelessScope(state_mapping=held):  # what the call would write is dropped with the scope
        return network(*inputs, training=training)


def copied(network: keras.Model) -> keras.Model:
    """The same functional network with variables of its own and the same values."""

    def layer_copy(layer):
        return layer.from_config(layer.get_config())

    copy = keras.models.clone_model(network, clone_function=layer_copy, recursive=True)
    copy.set_weights(network.get_weights())
    return copy


def scale_gradient(x: tf.Tensor, factor: float | tf.Tensor) -> tf.Tensor:
    """x, with `factor` times its gradient; with 0 and 1 its value is exactly that of x."""
    if isinstance(factor, float) and factor == 0.0:
        return tf.stop_gradient(x)
    return factor * x + (1.0 - factor) * tf.stop_gradient(x)
