"""The cheap baselines do what their formulas say, and leave the encoder they are given alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, make_records

from tf_reid.data import pipeline
from tf_reid.evaluation import baselines, extraction
from tf_reid.evaluation.baselines import ColourCovariance, adaptive_batch_norm, colour_moments
from tf_reid.networks.backbones import BACKBONES, small


def coloured(mean, mixing, seed, count=6):
    """Records of correlated colours around `mean`, far from 0 and 255, as PNG."""
    rng = np.random.default_rng(seed)
    records = make_records(np.arange(1, count + 1), np.ones(count, np.int64))
    for i in range(count):
        pixels = np.clip(mean + rng.normal(size=(*SIZE, 3)) @ np.transpose(mixing), 1, 254)
        assert pixels.min() > 20 and pixels.max() < 235  # nothing is clipped
        records.images[i] = tf.io.encode_png(np.round(pixels).astype(np.uint8)).numpy()
    return records


def pixels(records):
    return tf.concat(list(pipeline.image_batches(records, SIZE, 64)), axis=0)


def moments(images):
    flat = np.asarray(images, np.float64).reshape(-1, 3)
    return flat.mean(0), np.cov(flat.T, ddof=0)


@pytest.fixture(scope="module")
def source():
    return coloured([110, 140, 120], [[12, 0, 0], [6, 9, 0], [3, -4, 8]], seed=1)


@pytest.fixture(scope="module")
def target():
    return coloured([150, 100, 130], [[8, 2, 0], [0, 14, 3], [5, 0, 6]], seed=2)


def identity(images):
    return images


def test_moments_are_those_of_all_pixels(source):
    mean, covariance = colour_moments(source, SIZE)
    expected_mean, expected_covariance = moments(pixels(source))
    np.testing.assert_allclose(mean, expected_mean, atol=1e-6)
    np.testing.assert_allclose(covariance, expected_covariance, atol=1e-6)


def test_target_pixels_get_the_sources_mean_and_covariance(source, target):
    matched = ColourCovariance(identity, source, target, SIZE)(pixels(target))
    expected_mean, expected_covariance = moments(pixels(source))
    assert np.abs(expected_mean - moments(pixels(target))[0]).max() > 0.1
    mean, covariance = moments(matched)
    np.testing.assert_allclose(mean, expected_mean, atol=1e-4)
    np.testing.assert_allclose(covariance, expected_covariance, atol=1e-5)


def test_equal_domains_are_left_alone(source):
    matched = ColourCovariance(identity, source, source, SIZE)(pixels(source))
    np.testing.assert_allclose(matched, pixels(source), atol=1e-4)


def test_matched_colours_stay_within_range(source):
    bright = make_records([1, 2], [1, 1])  # noise over the whole range
    matched = ColourCovariance(identity, bright, source, SIZE)(pixels(source)).numpy()
    assert matched.min() >= -1 and matched.max() <= 1 and (np.abs(matched) == 1).any()


@pytest.fixture(scope="module")
def encoder():
    """Its statistics are those of no data set, as after training."""
    keras.utils.set_random_seed(0)
    encoder = small(SIZE)
    rng = np.random.default_rng(0)
    encoder.set_weights([w + np.abs(rng.normal(0, 0.1, w.shape)) for w in encoder.get_weights()])
    return encoder


def test_statistics_become_the_plain_mean_over_batches(encoder, target):
    before = [w.copy() for w in encoder.get_weights()]
    adapted = adaptive_batch_norm(encoder, target, SIZE, batch_size=4)

    def first(network, kind):
        return next(x for x in network.layers if isinstance(x, kind))

    activations = keras.Model(encoder.input, first(encoder, keras.layers.Conv2D).output)
    batches = [activations(batch).numpy() for batch in pipeline.image_batches(target, SIZE, 4)]
    assert [len(batch) for batch in batches] == [4, 2]
    normalisation = first(adapted, keras.layers.BatchNormalization)
    expected_mean = np.mean([b.mean((0, 1, 2)) for b in batches], axis=0)
    np.testing.assert_allclose(normalisation.moving_mean, expected_mean, atol=1e-4)
    expected_variance = np.mean([b.var((0, 1, 2)) for b in batches], axis=0)
    np.testing.assert_allclose(normalisation.moving_variance, expected_variance, rtol=1e-3, atol=1e-5)

    for a, b in zip(before, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(encoder.trainable_variables, adapted.trainable_variables, strict=True):
        assert a is not b
        np.testing.assert_array_equal(a, b)


def test_an_adapted_encoder_sees_through_a_shift_of_the_target(source):
    """Contrast and brightness changed as a whole: after adaptation features are as those of the unchanged images."""
    keras.utils.set_random_seed(0)
    images = x = keras.Input((*SIZE, 3))
    for channels in (8, 6):  # without padding, whose zeros a shift of the images does not reach
        x = keras.layers.BatchNormalization(epsilon=1e-5)(keras.layers.Conv2D(channels, 3, strides=2)(x))
        x = keras.layers.ReLU()(x)
    encoder = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    shifted = make_records(source.identity, source.camera)
    for i, image in enumerate(pixels(source).numpy()):
        changed = np.round((0.6 * image - 0.15 + 1) * 127.5).astype(np.uint8)
        shifted.images[i] = tf.io.encode_png(changed).numpy()

    trained = adaptive_batch_norm(encoder, source, SIZE)
    expected = extraction.extract(trained, source, SIZE)
    direct = extraction.extract(trained, shifted, SIZE)
    adapted = extraction.extract(adaptive_batch_norm(trained, shifted, SIZE), shifted, SIZE)
    assert np.abs(direct - expected).mean() > 0.2
    np.testing.assert_allclose(adapted, expected, atol=0.03)


@pytest.mark.parametrize("name", ["small", "small_vgg", "vgg_m", "ResNet50", "MobileNetV2", "VGG16"])
def test_every_backbone_can_be_adapted(name, target):
    keras.utils.set_random_seed(0)
    encoder = BACKBONES[name]((64, 64), None)
    adapted = adaptive_batch_norm(encoder, target.take(np.arange(2)), (64, 64))
    statistics = [w for w in adapted.non_trainable_weights if "moving_mean" in w.path]
    assert len(statistics) == {"ResNet50": 53, "MobileNetV2": 52, "small": 12, "small_vgg": 8}.get(name, 0)
    assert all(np.abs(mean).max() > 0 for mean in statistics)
    adapted.set_weights(encoder.get_weights())
    images = tf.random.stateless_uniform((2, 64, 64, 3), [0, 1], -1, 1)
    np.testing.assert_allclose(adapted(images), encoder(images), rtol=1e-4, atol=1e-5)


def test_colour_histogram_tells_colours_and_where_they_are():
    red, blue = np.full((6, 4, 3), (255, 0, 0), np.uint8), np.full((6, 4, 3), (0, 0, 255), np.uint8)
    images = np.stack([red, blue, np.concatenate([red[:3], blue[3:]]), np.concatenate([blue[:3], red[3:]])])
    features = baselines.colour_histogram(images)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-6)
    distance = 1 - features @ features.T
    np.testing.assert_allclose(distance[0], [0, 1, 0.5, 0.5], atol=1e-6)
    assert distance[2, 3] == pytest.approx(1)  # the same colours, worn the other way round
    with pytest.raises(ValueError, match="uint8"):
        baselines.colour_histogram(images.astype(np.float32))


def test_small_pixels_forgive_a_shift_of_a_pixel():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (2, 8, 4, 3)).astype(np.uint8)
    images = np.kron(coarse, np.ones((1, 16, 16, 1), np.uint8))
    same, shifted, other = baselines.small_pixels(np.stack([images[0], np.roll(images[0], 1, 1), images[1]]))
    assert same.shape == (32 * 16 * 3,) and same.dtype == np.float32 and same.min() >= 0.0 and same.max() <= 1.0
    assert np.abs(same - shifted).mean() < np.abs(same - other).mean() / 4
    chessboard = (np.indices(images.shape).sum(axis=0) % 2 * 255).astype(np.uint8)
    np.testing.assert_allclose(baselines.small_pixels(chessboard), 0.5, atol=0.01)  # pixels are averaged, not skipped


def test_an_encoder_without_batch_norm_is_adapted_in_colours_alone(source, target, capsys):
    encoder = keras.Sequential([keras.Input((*SIZE, 3)), keras.layers.Flatten(), keras.layers.LayerNormalization()])
    assert list(baselines.adapted_encoders(encoder, source, target, SIZE)) == ["colour_covariance"]
    assert "adaptive_batch_norm is left out: the encoder has no batch normalisation" in capsys.readouterr().out
    assert list(baselines.adapted_encoders(small(SIZE), source, target, SIZE))[1:] == ["adaptive_batch_norm"]
