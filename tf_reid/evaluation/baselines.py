"""What a method should beat: features that learn nothing, and simple ways to adapt an encoder to a target."""

from collections.abc import Callable, Sequence

import cv2
import keras
import numpy as np
import tensorflow as tf

from tf_reid.data import pipeline
from tf_reid.data.records import Records
from tf_reid.networks.layers import copied


def colour_moments(records: Records, image_size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Mean [3] and covariance [3, 3] of the pixels' RGB in [-1, 1]."""
    count, total, products = 0, np.zeros(3), np.zeros((3, 3))
    for batch in pipeline.image_batches(records, image_size, 64):
        pixels = batch.numpy().reshape(-1, 3).astype(np.float64)
        count, total, products = count + len(pixels), total + pixels.sum(0), products + pixels.T @ pixels
    mean = total / count
    return mean, products / count - np.outer(mean, mean)


class ColourCovariance:
    """An encoder whose input colours are mapped so that target pixels have the source's mean and covariance.

    The map is x -> C_s^½ C_t^-½ (x - mean_t) + mean_s, clipped to [-1, 1].
    """

    def __init__(
        self,
        encoder: Callable[[tf.Tensor], tf.Tensor],
        source: Records,
        target: Records,
        image_size: Sequence[int],
    ) -> None:
        (mean_s, covariance_s), (mean_t, covariance_t) = (colour_moments(r, image_size) for r in (source, target))
        matrix = _power(covariance_s, 0.5) @ _power(covariance_t, -0.5)
        self.encoder = encoder
        self.matrix = tf.constant(matrix.T, tf.float32)
        self.offset = tf.constant(mean_s - matrix @ mean_t, tf.float32)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        return self.encoder(tf.clip_by_value(images @ self.matrix + self.offset, -1.0, 1.0))


def adapted_encoders(
    encoder: keras.Model, source: Records, target: Records, image_size: Sequence[int]
) -> dict[str, Callable[[tf.Tensor], tf.Tensor]]:
    """Name -> the encoder after a simple adaptation to the target. One without batch norm has no second one."""
    adapted: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
        "colour_covariance": ColourCovariance(encoder, source, target, image_size)
    }
    if _normalisations(encoder):
        adapted["adaptive_batch_norm"] = adaptive_batch_norm(encoder, target, image_size)
    else:
        print("adaptive_batch_norm is left out: the encoder has no batch normalisation whose statistics could change.")
    return adapted


def _normalisations(encoder: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [layer for layer in encoder._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]


def adaptive_batch_norm(
    encoder: keras.Model, target: Records, image_size: Sequence[int], batch_size: int = 64
) -> keras.Model:
    """A copy of the encoder whose BatchNormalization statistics are the target's (Li et al., 2016, "AdaBN").

    With a momentum of k / (k + 1) at batch k, the moving averages become the mean over the batches of one pass.
    """
    adapted = copied(encoder)
    normalisations = _normalisations(adapted)
    batches = pipeline.image_batches(target, image_size, batch_size)
    for number, images in enumerate(batches):
        for layer in normalisations:
            layer.momentum = number / (number + 1)
        adapted(images, training=True)
    return adapted


def small_pixels(images: np.ndarray, size: tuple[int, int] = (32, 16)) -> np.ndarray:
    """A feature that learns nothing: the image itself, made small by averaging, which tolerates small shifts.

    Args:
        images: uint8 [N, H, W, 3], RGB.
        size: height, width.

    Returns:
        float32 [N, height × width × 3], 0 to 1.
    """
    small = [cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA) for image in images]
    return np.stack(small).reshape(len(images), -1).astype(np.float32) / 255.0


def colour_histogram(images: np.ndarray, stripes: int = 6) -> np.ndarray:
    """A feature that learns nothing: which colours are worn where on the body.

    Each horizontal stripe gives a joint histogram of hue, saturation and value (16 × 4 × 4 bins). The square
    root (Hellinger's map) makes the cosine of two features the Bhattacharyya coefficient of their histograms.

    Args:
        images: uint8 [N, H, W, 3], RGB.

    Returns:
        float32 [N, stripes × 256], rows of unit length.

    Raises:
        ValueError: images of another type or shape.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"Images must be uint8 [N, H, W, 3], not {images.dtype} {list(images.shape)}.")
    stripe = np.arange(images.shape[1]) * stripes // images.shape[1]
    counts = np.zeros((len(images), stripes * 256), np.float32)
    for row, image in enumerate(images):
        hue, saturation, value = np.moveaxis(cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int64), -1, 0)
        bins = (hue * 16 // 180) * 16 + (saturation // 64) * 4 + value // 64  # OpenCV's hue runs from 0 to 179
        counts[row] = np.bincount((stripe[:, None] * 256 + bins).ravel(), minlength=stripes * 256)
    return np.sqrt(counts / (images.shape[1] * images.shape[2]))


def _power(covariance: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.maximum(values, 1e-8) ** exponent) @ vectors.T
