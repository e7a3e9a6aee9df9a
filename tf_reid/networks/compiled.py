"""What a step must compute by other operations where XLA compiles it: random numbers, and the gradient of a maximum.

XLA turns the same random bits into other numbers than TensorFlow does, and it refuses the gradient of max pooling where
operations are to be deterministic. With the functions and layers of this module, a compiled step equals a plain one.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import keras
import tensorflow as tf

# Each thread has its own: a strategy traces each replica's step in a thread of its own.
_compiled: ContextVar[bool] = ContextVar("compiled", default=False)


@contextmanager
def compiling() -> Iterator[None]:
    """In this context a step is traced that XLA is to compile."""
    before = _compiled.set(True)
    try:
        yield
    finally:
        _compiled.reset(before)


def is_compiled() -> bool:
    """Whether the step that is traced now is to be compiled by XLA."""
    return _compiled.get()


def uniform(shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """The numbers of `tf.random.stateless_uniform`, float32 in [0, 1), bit for bit, also where XLA compiles it.

    Args:
        seed: int [2].
    """
    draw = tf.random.stateless_uniform
    bits = draw(shape, seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox")
    return tf.bitcast((bits & 0x7FFFFF) | 0x3F800000, tf.float32) - 1.0  # TensorFlow's way; XLA uses the upper bits


def normal(shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """The numbers of `tf.random.stateless_normal`, float32; where XLA compiles it, the same but for rounding.

    Args:
        seed: int [2].
    """
    if not is_compiled():
        return tf.random.stateless_normal(shape, seed)
    count = math.prod(shape)
    pairs = uniform([-(-count // 2), 2], seed)
    radius = tf.sqrt(-2.0 * tf.math.log(tf.maximum(pairs[:, 0], 1e-7)))  # Box and Muller, as TensorFlow does it
    angle = 2.0 * math.pi * pairs[:, 1]
    both = tf.stack([tf.sin(angle) * radius, tf.cos(angle) * radius], axis=1)
    return tf.reshape(tf.reshape(both, [-1])[:count], shape)


def of_this_replica(draw: Callable[..., tf.Tensor], shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """A draw for the images of all replicas: the part [rows, ...] for this replica's.

    Args:
        draw: `uniform` or `normal`. shape: of the part. seed: the same on every replica.
    """
    context = tf.distribute.get_replica_context()
    rows, first = shape[0], context.replica_id_in_sync_group * shape[0]
    of_all = draw([rows * context.num_replicas_in_sync, *shape[1:]], seed)
    return of_all[first : first + rows]


class Dropout(keras.layers.Dropout):
    """Keras's dropout, which draws the same with and without XLA, and not the same on all replicas."""

    def call(self, inputs, training=False):
        if not training or not self.rate:
            return inputs
        seed = self.seed_generator.next() % (tf.int32.max - 1)  # as Keras makes its seed of the generator's state

        def drawn(shape, dtype):
            return tf.cast(of_this_replica(uniform, shape, seed), dtype)

        sizes = self.noise_shape or inputs.shape  # such as (None, 1, 1, 1): one draw an image
        sizes = [tf.shape(inputs)[axis] if size is None else size for axis, size in enumerate(sizes)]
        return tf.nn.experimental.general_dropout(inputs, self.rate, drawn, sizes)


class MaxPooling2D(keras.layers.MaxPooling2D):
    """Keras's max pooling without padding; its gradient is deterministic where XLA compiles it.

    Of equal values in a window, the first one gets the gradient.

    Raises:
        ValueError: it has padding, or channels come first.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if (self.padding, self.data_format) != ("valid", "channels_last"):
            raise ValueError(
                f"{self.name}: this max pooling needs padding='valid' and data_format='channels_last'; for "
                f"padding={self.padding!r} and data_format={self.data_format!r} use Keras's."
            )

    def call(self, x):
        if not is_compiled():
            return super().call(x)
        (high, wide), (down, right) = self.pool_size, self.strides
        last_row, last_column = x.shape[1] - high, x.shape[2] - wide  # where a window can begin
        places = [(row, column) for row in range(high) for column in range(wide)]
        parts = [x[:, r : last_row + r + 1 : down, c : last_column + c + 1 : right] for r, c in places]
        return functools.reduce(tf.maximum, parts)
