import keras
import numpy as np

from tf_reid import layers


def test_instance_norm_equals_group_normalisation_with_one_channel_a_group():
    x = np.random.default_rng(0).normal(2.0, 3.0, size=(2, 8, 4, 6)).astype(np.float32)
    ours, reference = layers.InstanceNorm(), keras.layers.GroupNormalization(groups=-1, epsilon=1e-5)
    ours.build(x.shape), reference.build(x.shape)
    weights = [np.linspace(0.5, 2, 6), np.linspace(-1, 1, 6)]
    ours.set_weights(weights), reference.set_weights(weights)
    np.testing.assert_allclose(ours(x), reference(x), atol=1e-5)


def test_reflect_pad_mirrors_without_repeating_the_border():
    x = np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1)
    padded = layers.ReflectPad(2)(x).numpy()
    np.testing.assert_array_equal(padded, np.pad(x, [(0, 0), (2, 2), (2, 2), (0, 0)], mode="reflect"))


def test_two_layers_do_not_start_alike():
    first, second = layers.gan_init(), layers.gan_init()
    assert not np.allclose(first((3, 3)), second((3, 3)))
