"""Distances of images against slow references and known values."""

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

from tf_reid.metrics import image_quality

RNG = np.random.default_rng(0)


def frechet_by_hand(real, generated):
    c = [np.cov(features, rowvar=False) for features in (real, generated)]
    root = scipy.linalg.sqrtm(c[0] @ c[1]).real
    return ((real.mean(0) - generated.mean(0)) ** 2).sum() + np.trace(c[0] + c[1] - 2 * root)


@pytest.mark.parametrize("counts", [(200, 150), (200, 5), (4, 150), (6, 7)])  # of images with 6 features
def test_frechet_distance_equals_the_formula(counts):
    real, generated = RNG.normal(size=(counts[0], 6)), RNG.normal(1.0, 2.0, size=(counts[1], 6))
    # The root of a covariance of too few images is of an eigenvalue that only rounding keeps from zero.
    expected, near = frechet_by_hand(real, generated), 1e-9 if min(counts) > 6 else 1e-6
    np.testing.assert_allclose(image_quality.frechet_distance(real, generated), expected, rtol=near)
    np.testing.assert_allclose(image_quality.frechet_distance(generated, real), expected, rtol=near)
    np.testing.assert_allclose(image_quality.frechet_distance(real, real), 0.0, atol=1e-9)


def test_frechet_distance_of_one_feature_that_does_not_vary():
    real, generated = RNG.normal(size=(200, 6)), RNG.normal(1.0, 2.0, size=(150, 6))
    real[:, 2], generated[:, 2] = 1.0, 4.0
    rest = np.delete(real, 2, axis=1), np.delete(generated, 2, axis=1)
    expected = 3.0**2 + image_quality.frechet_distance(*rest)
    np.testing.assert_allclose(image_quality.frechet_distance(real, generated), expected, rtol=1e-9)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_frechet_distance_is_never_negative_and_takes_float32(kind):
    for seed in range(20):  # of equal sets rounding alone decides the sign
        real = np.random.default_rng(seed).normal(size=(40, 12)).astype(kind)
        assert 0.0 <= image_quality.frechet_distance(real, real[::-1]) < 1e-9
    other = 2.0 * real + 1.0
    expected = frechet_by_hand(real.astype(np.float64), other.astype(np.float64))
    np.testing.assert_allclose(image_quality.frechet_distance(real, other.astype(kind)), expected, rtol=1e-9)


def test_frechet_distance_of_fewer_images_than_dimensions_is_finite():
    real, generated = RNG.normal(size=(10, 50)), RNG.normal(size=(12, 50))
    assert 0 < image_quality.frechet_distance(real, generated) < 200
    with pytest.raises(ValueError, match="1 real and 12 generated"):
        image_quality.frechet_distance(real[:1], generated)


def test_kernel_distance_equals_a_slow_reference():
    real, generated = RNG.normal(size=(7, 4)), RNG.normal(0.5, 1.0, size=(7, 4))

    def k(a, b):
        return (a @ b / 4 + 1) ** 3

    n = 7
    expected = sum(k(a, b) for i, a in enumerate(real) for j, b in enumerate(real) if i != j) / (n * (n - 1))
    expected += sum(k(a, b) for i, a in enumerate(generated) for j, b in enumerate(generated) if i != j) / (n * (n - 1))
    expected -= 2 * sum(k(a, b) for a in real for b in generated) / n**2
    mean, spread = image_quality.kernel_distance(real, generated, subsets=3)
    np.testing.assert_allclose([mean, spread], [expected, 0.0], atol=1e-9)


def test_kernel_distance_is_about_zero_for_one_distribution_and_larger_for_two():
    real, same, other = RNG.normal(size=(3, 600, 8)) + np.array([0, 0, 0.5])[:, None, None]
    mean, spread = image_quality.kernel_distance(real, same, subsets=20, size=200)
    assert abs(mean) < 2 * spread
    assert image_quality.kernel_distance(real, other, subsets=20, size=200)[0] > 5 * spread


def test_likeness_is_one_for_copies_and_of_one_identity_alone():
    copies = np.repeat(RNG.integers(256, size=(2, 16, 16, 3), dtype=np.uint8), 2, axis=0)
    assert image_quality.likeness_within(copies, np.array([1, 1, 2, 2]), pairs=10) == pytest.approx(1.0)
    different = image_quality.likeness_within(copies, np.array([1, 2, 1, 2]), pairs=10)
    assert different == pytest.approx(float(tf.image.ssim(copies[0], copies[2], 255)), abs=1e-5)
    with pytest.raises(ValueError, match="No identity has two images"):
        image_quality.likeness_within(copies, np.arange(4))


def test_a_file_that_is_not_inceptions_is_refused(tmp_path):
    (tmp_path / "weights.h5").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"weights\.h5 is not inception_v3.*MD5"):
        image_quality.inception(str(tmp_path / "weights.h5"))
