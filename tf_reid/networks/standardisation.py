"""The norms of images' maps that need no statistics of a batch, with a gradient of few passes over memory."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

EPSILON = 1e-5


def standardised(
    x: tf.Tensor,
    axes: Sequence[int],
    scale: tf.Tensor | None = None,
    shift: tf.Tensor | None = None,
    unbiased: bool = False,
) -> tf.Tensor:
    """(x - mean) / deviation · scale + shift, with mean and deviation of each image over `axes`.

    TensorFlow's own gradient of this expression goes through memory three times as often as it must.

    Args:
        x: float [B, H, W, C].
        axes: (1, 2) for statistics of each channel, (1, 2, 3) for those of the whole image.
        scale, shift: float [B, 1, 1, C] or [1, 1, 1, C], both or none.
        unbiased: the deviation is sqrt(sum of squares / (n - 1)) + epsilon; else sqrt(mean of squares + epsilon).
    """
    count = float(np.prod([x.shape[axis] for axis in axes]))
    across = [axis for axis in axes if axis == 3]  # what a group spans beyond a channel's places

    @tf.custom_gradient
    def normalised(x, *affine):
        centered = x - tf.reduce_mean(x, axes, keepdims=True)
        variance = tf.reduce_mean(tf.square(centered), axes, keepdims=True)
        if unbiased:
            spread = tf.sqrt(variance * (count / (count - 1.0)))
            deviation, slope = spread + EPSILON, 0.5 * (count / (count - 1.0)) / spread  # slope: by the variance
        else:
            deviation = tf.sqrt(variance + EPSILON)
            slope = 0.5 / deviation
        factor = affine[0] / deviation if affine else 1.0 / deviation

        def gradients(upstream):
            total = tf.reduce_sum(upstream, (1, 2), keepdims=True)
            along = tf.reduce_sum(upstream * centered, (1, 2), keepdims=True)
            to_deviation = -tf.reduce_sum(factor * along, across, keepdims=True) / deviation
            to_mean = tf.reduce_sum(factor * total, across, keepdims=True) / count
            to_x = upstream * factor + (centered * (2.0 / count * slope * to_deviation) - to_mean)
            if not affine:
                return to_x
            return to_x, _of_shape(along / deviation, affine[0]), _of_shape(total, affine[1])

        made = centered * factor
        return (made + affine[1] if affine else made), gradients

    return normalised(x) if scale is None else normalised(x, scale, shift)


def _of_shape(gradient, parameter):
    """The gradient [B, 1, 1, C], summed over images if these share the parameter."""
    return tf.reduce_sum(gradient, axis=0, keepdims=True) if parameter.shape[0] == 1 else gradient
