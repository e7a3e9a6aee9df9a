import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_reid.networks import layers


def test_instance_norm_equals_group_normalisation_with_one_channel_a_group():
    x = np.random.default_rng(0).normal(2.0, 3.0, size=(2, 8, 4, 6)).astype(np.float32)
    ours, reference = layers.InstanceNorm(), keras.layers.GroupNormalization(groups=-1, epsilon=1e-5)
    ours.build(x.shape), reference.build(x.shape)
    weights = [np.linspace(0.5, 2, 6), np.linspace(-1, 1, 6)]
    ours.set_weights(weights), reference.set_weights(weights)
    np.testing.assert_allclose(ours(x), reference(x), atol=1e-5)


def test_norms_equal_those_of_tensorflow_addons():
    addons = np.load(pathlib.Path(__file__).parent.parent / "reference" / "tensorflow_addons.npz")
    norm = layers.InstanceNorm()
    norm.build(addons["images"].shape)
    norm.set_weights([addons["gamma"], addons["beta"]])
    np.testing.assert_allclose(norm(addons["images"]), addons["instance_norm"], atol=1e-5)
    spectral = keras.layers.SpectralNormalization(keras.layers.Dense(4), power_iterations=50)
    spectral.build((None, 6))
    spectral.layer.kernel.assign(addons["kernel"])
    spectral(np.ones((1, 6), np.float32), training=True)
    np.testing.assert_allclose(spectral.layer.kernel, addons["spectral_norm"], atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"scale": False}, {"center": False}])
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (1, 1, 1, 6)], ids=["images", "one-value"])
def test_batch_normalization_equals_that_of_keras(settings, shape):
    """In training, at test and frozen; gradients and running statistics too."""
    rng = np.random.default_rng(0)
    x, weight = (rng.normal(2.0, 3.0, size=shape).astype(np.float32) for _ in range(2))
    ours = layers.BatchNormalization(**settings)
    reference = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, **settings)
    found = []
    for norm in (ours, reference):
        norm.build(x.shape)
        affine = [np.linspace(0.5, 2, 6)] * norm.scale + [np.linspace(-1, 1, 6)] * norm.center
        norm.set_weights([*affine, np.ones(6), np.full(6, 4.0)])
        with tf.GradientTape() as tape:
            images = tf.constant(x)
            tape.watch(images)
            made = norm(images, training=True)
            loss = tf.reduce_sum(made * weight)
        gradients = tape.gradient(loss, [images, *(variable.value for variable in norm.trainable_variables)])
        moving = norm.get_weights()[-2:]
        norm.trainable = False
        found.append([made, *gradients, *moving, norm(x, training=True), norm(x, training=False)])
    for values, expected in zip(*found, strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)


def test_batch_normalization_takes_the_statistics_of_all_replicas(two_replicas):
    x = np.random.default_rng(0).normal(2.0, 3.0, size=(4, 4, 5, 6)).astype(np.float32)
    with two_replicas.scope():
        shared = layers.BatchNormalization()
        shared.build(x.shape)
    halves = two_replicas.experimental_distribute_values_from_function(
        lambda context: tf.constant(x[2 * context.replica_id_in_sync_group :][:2])
    )
    made = two_replicas.run(tf.function(lambda images: shared(images, training=True)), [halves])
    alone = layers.BatchNormalization()
    expected = alone(x, training=True)
    np.testing.assert_allclose(np.concatenate(two_replicas.experimental_local_results(made)), expected, atol=1e-4)
    np.testing.assert_allclose(shared.moving_variance, alone.moving_variance, rtol=1e-4)


def test_feed_forward_has_relu_between_its_layers():
    net = layers.feed_forward(3, [5, 4], 2, "net")
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    (w1, b1, w2, b2, w3, b3), expected = net.get_weights(), x
    for w, b in ((w1, b1), (w2, b2)):
        expected = np.maximum(expected @ w + b, 0)
    np.testing.assert_allclose(net(x), expected @ w3 + b3, atol=1e-5)


def test_standardised_images_have_no_brightness_or_contrast_of_their_own():
    images = np.random.default_rng(0).uniform(-1, 1, (2, 6, 4, 3)).astype(np.float32)
    standardised = layers.StandardisedImages()
    x = standardised(images).numpy()
    np.testing.assert_allclose(x.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(axis=(1, 2, 3)), 1, atol=1e-5)
    np.testing.assert_allclose(standardised(0.1 * images - 0.8), x, atol=1e-4)
    assert np.isfinite(standardised(np.full((1, 6, 4, 3), -1, np.float32))).all()


def test_reflect_pad_mirrors_without_repeating_the_border():
    x = np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1)
    padded = layers.ReflectPad(2)(x).numpy()
    np.testing.assert_array_equal(padded, np.pad(x, [(0, 0), (2, 2), (2, 2), (0, 0)], mode="reflect"))


def test_two_layers_do_not_start_alike():
    first, second = layers.gan_init(), layers.gan_init()
    assert not np.allclose(first((3, 3)), second((3, 3)))


def small_network():
    images = keras.Input((8, 4, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(images))
    return keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(x)))


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_a_frozen_network_passes_gradients_on_and_keeps_none(fraction):
    keras.utils.set_random_seed(0)
    network, x = small_network(), tf.constant(np.random.default_rng(0).normal(size=(4, 8, 4, 3)), tf.float32)
    statistics = [v.numpy() for v in network.non_trainable_variables]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        output = layers.frozen(network, x, training=True, fraction=tf.constant(fraction))
        loss = tf.reduce_sum(output**2)
    assert np.abs(tape.gradient(loss, x).numpy()).max() > 0
    gradients = [g.numpy() for g in tape.gradient(loss, network.trainable_variables)]
    assert all((np.abs(g).max() > 0) == (fraction == 0.0) for g in gradients[:1] + gradients[2:])
    assert all((a == b.numpy()).all() for a, b in zip(statistics, network.non_trainable_variables, strict=True))
    np.testing.assert_array_equal(output, network(x, training=True))  # with statistics of these images
    assert any((a != b.numpy()).any() for a, b in zip(statistics, network.non_trainable_variables, strict=True))


def test_scaled_gradients_leave_the_value():
    x = tf.Variable([0.1, -3.0])
    for factor in (0.0, 1.0, tf.constant(0.25)):
        with tf.GradientTape() as tape:
            y = layers.scale_gradient(x, factor)
            loss = tf.reduce_sum(2.0 * y)
        np.testing.assert_array_equal(y, x)
        gradient = tape.gradient(loss, x, unconnected_gradients="zero")
        np.testing.assert_allclose(gradient, 2.0 * float(factor) * np.ones(2))
