"""Mixed precision: convolutions and matrix products may be computed in bfloat16, all else is float32.

Models are built in float32 and stay so. A training step that is traced inside `products_in("bfloat16")` casts what
its layers multiply; evaluation, pictures and exported models are traced outside of it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import keras
import tensorflow as tf

# Each thread has its own, so that replicas, which are traced in threads of their own, do not change each other's.
_precision: ContextVar[str] = ContextVar("precision", default="float32")


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """In this context, the layers of this module compute their products in this precision.

    Args:
        precision: "float32" or "bfloat16".

    Gradients of what is computed here have the same precision, wherever they are taken. Contexts may be nested:
    `products_in("float32")` excludes a part of a step.
    """
    before = _precision.set(precision)
    try:
        yield
    finally:
        _precision.reset(before)


def product(operation: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], inputs, kernel) -> tf.Tensor:
    """`operation(inputs, kernel)` in the precision of `products_in`: float32 tensors -> float32.

    Args:
        operation: linear in both, such as `tf.matmul`. inputs, kernel: float32 tensors or variables.
    """
    precision = _precision.get()
    if precision == "float32":
        return operation(inputs, kernel)
    factors = (tf.cast(tf.convert_to_tensor(factor), precision) for factor in (inputs, kernel))
    return tf.cast(operation(*factors), tf.float32)


class Conv2D(keras.layers.Conv2D):
    """Keras's, in the precision of `products_in`; bias and activation are float32."""

    def convolution_op(self, inputs, kernel):
        return product(super().convolution_op, inputs, kernel)


class Conv2DTranspose(keras.layers.Conv2DTranspose):
    """Keras's, in the precision of `products_in`; bias and activation are float32."""

    def call(self, inputs):
        def convolution(images, kernel):
            return keras.ops.conv_transpose(
                images, kernel, self.strides, self.padding, self.output_padding, self.data_format, self.dilation_rate
            )

        outputs = product(convolution, inputs, self.kernel)
        if self.use_bias:
            outputs = keras.ops.add(outputs, self.bias)
        return self.activation(outputs)


class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """Keras's for maps [B, H, W, C], in the precision of `products_in`; bias and activation are float32."""

    def call(self, inputs):
        def convolution(maps, kernel):
            return keras.ops.depthwise_conv(
                maps, kernel, self.strides, self.padding, self.data_format, self.dilation_rate
            )

        outputs = product(convolution, inputs, self.kernel)
        if self.use_bias:
            outputs = keras.ops.add(outputs, self.bias)
        return self.activation(outputs)


class SeparableConv2D(keras.layers.SeparableConv2D):
    """Keras's for maps [B, H, W, C], in the precision of `products_in`; bias and activation are float32."""

    def call(self, inputs):
        def depthwise(maps, kernel):
            return keras.ops.depthwise_conv(
                maps, kernel, self.strides, self.padding, self.data_format, self.dilation_rate
            )

        def pointwise(maps, kernel):
            return keras.ops.conv(maps, kernel, 1, "valid", self.data_format)

        outputs = product(pointwise, product(depthwise, inputs, self.depthwise_kernel), self.pointwise_kernel)
        if self.use_bias:
            outputs = keras.ops.add(outputs, self.bias)
        return self.activation(outputs)


class Dense(keras.layers.Dense):
    """Keras's, in the precision of `products_in`; bias and activation are float32."""

    def call(self, inputs, training=None):
        outputs = product(keras.ops.matmul, inputs, self.kernel)
        if self.use_bias:
            outputs = keras.ops.add(outputs, self.bias)
        return self.activation(outputs)
