"""How good generated images are: Fréchet and kernel distance of features, likeness within an identity."""

import hashlib
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

INCEPTION_MD5 = "bcbd6486424b2319ff4ef7d526e38f63"  # Keras's own, of InceptionV3's ImageNet weights without its top


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """FID of two sets of features: |mean - mean'|² + trace(C + C' - 2 (C C')^½) (Heusel et al., 2017).

    https://arxiv.org/abs/1706.08500. Lower is better. It falls with the number of images: compare equal numbers only.

    Args:
        real: float [N, D]. generated: float [M, D].

    Raises:
        ValueError: fewer than two images on a side.
    """
    _enough(real, generated)
    real, generated = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    means = [features.mean(axis=0) for features in (real, generated)]
    roots = [_covariance_root(features) for features in (real, generated)]
    # C = A'A and C' = B'B, so the square roots of the eigenvalues of C C' are the singular values of AB'. The
    # eigenvalues themselves are not computed: the root of one that should be zero turns rounding of 1e-16 into 1e-8.
    trace_of_root = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    traces = sum(np.sum(root**2) for root in roots)
    # Of equal sets rounding leaves a number on either side of zero.
    return max(0.0, float(np.sum((means[0] - means[1]) ** 2) + traces - 2.0 * trace_of_root))


def _covariance_root(features):
    """A matrix A with A'A the covariance of features [N, D]: [N, D], or [D, D] where there are more images."""
    centered = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return centered if len(centered) <= centered.shape[1] else np.linalg.qr(centered, mode="r")


def kernel_distance(
    real: np.ndarray, generated: np.ndarray, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """KID: unbiased squared MMD of features under the kernel (x·y / D + 1)³, over random subsets.

    (Bińkowski et al., 2018, https://arxiv.org/abs/1801.01401.) Unlike FID's, its expectation does not depend on the
    number of images.

    Args:
        real: float [N, D]. generated: float [M, D]. size: of a subset, if there are as many images.

    Returns:
        mean and standard deviation over the subsets.

    Raises:
        ValueError: fewer than two images on a side.
    """
    _enough(real, generated)
    real, generated = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    rng = np.random.default_rng(seed)
    size = min(size, len(real), len(generated))

    def mmd(a, b):
        within = [(kernel.sum() - np.trace(kernel)) / (size * (size - 1)) for kernel in (_cubic(a, a), _cubic(b, b))]
        return sum(within) - 2.0 * _cubic(a, b).mean()

    def some(features):
        return features[rng.choice(len(features), size, replace=False)]

    found = [mmd(some(real), some(generated)) for _ in range(subsets)]
    return float(np.mean(found)), float(np.std(found))


def _cubic(a, b):
    return (a @ b.T / a.shape[1] + 1.0) ** 3


def _enough(real, generated):
    if min(len(real), len(generated)) < 2:
        raise ValueError(f"{len(real)} real and {len(generated)} generated images: two or more of each are needed.")


def likeness_within(images: np.ndarray, identities: np.ndarray, pairs: int = 1000, seed: int = 0) -> float:
    """Mean structural similarity (SSIM) of two random images of one identity; the lower, the more diverse they are.

    Args:
        images: uint8 [N, H, W, 3], at least 11 pixels high and wide. identities: int [N]. pairs: how many are drawn.

    Raises:
        ValueError: no identity has two images.
    """
    rng = np.random.default_rng(seed)
    of_identity = [np.flatnonzero(identities == p) for p in np.unique(identities)]
    of_identity = [indices for indices in of_identity if len(indices) > 1]
    if not of_identity:
        raise ValueError("No identity has two images, so there is no likeness within one.")
    drawn = [of_identity[i] for i in rng.integers(len(of_identity), size=pairs)]
    chosen = np.array([rng.choice(indices, 2, replace=False) for indices in drawn])
    parts = [chosen[start : start + 256] for start in range(0, pairs, 256)]
    found = [tf.image.ssim(images[part[:, 0]], images[part[:, 1]], max_val=255).numpy() for part in parts]
    return float(np.concatenate(found).mean())


def inception(weights: str) -> keras.Model:
    """Images [B, H, W, 3] in [-1, 1] -> InceptionV3's 2,048 pooled features, after a bilinear resize to 299x299.

    These are Keras's ImageNet weights. The published FIDs stand on another Inception network (of 2015): figures of one
    are not comparable with those of the other.

    Args:
        weights: "imagenet", fetched by Keras, or the path of that file.

    Raises:
        ValueError: the file is not Keras's.
        OSError: it could not be fetched.
    """
    if weights != "imagenet":
        found = hashlib.md5(Path(weights).read_bytes()).hexdigest()
        if found != INCEPTION_MD5:
            raise ValueError(
                f"{weights} is not inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5 as Keras publishes it "
                f"(its MD5 is {found}, not {INCEPTION_MD5})."
            )
    try:
        network = keras.applications.InceptionV3(include_top=False, pooling="avg", weights=weights)
    except Exception as error:
        if weights != "imagenet":
            raise
        raise OSError(
            "InceptionV3's weights could not be fetched by Keras; fetch the file elsewhere and name its path "
            f"({error})."
        ) from error
    images = keras.Input((None, None, 3))
    large = keras.layers.Resizing(299, 299, interpolation="bilinear")(images)
    return keras.Model(images, network(large, training=False), name="inception")
