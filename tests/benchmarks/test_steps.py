"""The steps to measure: their multiply-adds and their kinds."""

from types import SimpleNamespace

import pytest
import tensorflow as tf

from benchmarks import steps


def model_of(train_step=None, phase_of=lambda step: None, count=100):
    return SimpleNamespace(
        step=tf.Variable(0, dtype=tf.int64),
        steps_of_stage={"stage": count},
        begin=lambda stage: None,
        phase_of=phase_of,
        train_step=train_step,
    )


@pytest.mark.parametrize(
    ("convolution", "kernel", "features", "of_convolution"),
    [
        # 8x8 -> 4x4 at stride 2; at each of the 2 * 4 * 4 places 3 * 3 * 3 * 5 products
        (tf.nn.conv2d, (3, 3, 3, 5), 5, 2 * 4 * 4 * 3 * 3 * 3 * 5),
        (tf.nn.depthwise_conv2d, (3, 3, 3, 2), 6, 2 * 4 * 4 * 3 * 3 * 3 * 2),
    ],
)
def test_multiply_adds_of_a_small_network_and_of_its_gradients(convolution, kernel, features, of_convolution):
    kernel, matrix = tf.ones(kernel), tf.ones((features, 7))

    def train_step(images):
        with tf.GradientTape() as tape:
            tape.watch([images, kernel, matrix])
            strides = (1, 2, 2, 1)
            maps = convolution(images, kernel, strides, "SAME")
            loss = tf.reduce_sum((tf.reduce_sum(maps, [1, 2]) @ matrix) ** 2)
        return tape.gradient(loss, [images, kernel, matrix])

    of_product = 2 * features * 7  # the product once, and two gradients, as of the convolution
    counted = steps.multiply_adds(model_of(train_step), "stage", tf.ones((2, 8, 8, 3)), at=0)
    assert counted == 3 * of_convolution + 3 * of_product


def test_kinds_of_steps_before_and_after_a_warm_up_and_in_turn():
    warm = steps.kinds_of_steps(model_of(phase_of=lambda step: {"fed": step >= 50}), "stage")
    assert [(kind.name, kind.at, kind.period) for kind in warm] == [
        ("stage, first step", 0, 1),
        ("stage, last step", 99, 1),
    ]
    (in_turn,) = steps.kinds_of_steps(model_of(phase_of=lambda step: {"moves": step % 3 == 0}), "stage")
    assert (in_turn.at, in_turn.period) == (0, 3)
    (alike,) = steps.kinds_of_steps(model_of(), "stage")
    assert (alike.name, alike.period) == ("stage", 1)
