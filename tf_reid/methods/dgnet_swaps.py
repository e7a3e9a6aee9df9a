"""What a step of DG-Net works with: a batch for swaps, its codes, the images made of them, and the teacher's labels."""

from typing import NamedTuple

import tensorflow as tf

from tf_reid.networks.layers import frozen
from tf_reid.networks.siamese import SiameseClassifier


class SwapBatch(NamedTuple):
    """Two identities a row, a and b, and a positive of each: another image of the same identity.

    Images are float32 [P, H, W, 3] in [-1, 1], identities int [P].
    """

    x_a: tf.Tensor
    x_b: tf.Tensor
    positive_a: tf.Tensor
    positive_b: tf.Tensor
    y_a: tf.Tensor
    y_b: tf.Tensor

    @classmethod
    def of(cls, batch) -> "SwapBatch":
        """From the pipeline's rows of four images, as the sampler `swaps` draws them."""
        y_a, y_b, *_ = tf.unstack(batch["source_identity"], axis=1)
        return cls(*tf.unstack(batch["source"], axis=1), y_a, y_b)

    @property
    def pair(self) -> tf.Tensor:
        """x_a and x_b, [2P, H, W, 3]."""
        return tf.concat([self.x_a, self.x_b], axis=0)

    @property
    def images(self) -> tf.Tensor:
        """x_a, x_b and their positives, [4P, H, W, 3]."""
        return tf.concat([self.x_a, self.x_b, self.positive_a, self.positive_b], axis=0)

    @property
    def identities(self) -> tf.Tensor:
        """Of x_a and x_b, and so of the appearance of x_ba and x_ab: int [2P]."""
        return tf.concat([self.y_a, self.y_b], axis=0)

    @property
    def structure_identities(self) -> tf.Tensor:
        """Of the structure of x_ba and x_ab: int [2P]."""
        return tf.concat([self.y_b, self.y_a], axis=0)


class Codes(NamedTuple):
    """Appearance codes [P, A] of a, b and their positives, and structure codes [P, h, w, S] of a and b."""

    a_a: tf.Tensor
    a_b: tf.Tensor
    a_positive_a: tf.Tensor
    a_positive_b: tf.Tensor
    s_a: tf.Tensor
    s_b: tf.Tensor

    @property
    def appearance(self) -> tf.Tensor:
        """Of x_a and x_b, and so of x_ba and x_ab: [2P, A]."""
        return tf.concat([self.a_a, self.a_b], axis=0)

    @property
    def swapped_structure(self) -> tf.Tensor:
        """Of x_ba and x_ab: [2P, h, w, S]."""
        return tf.concat([self.s_b, self.s_a], axis=0)


class GeneratedImages(NamedTuple):
    """What G makes of codes: normalised images [2P, H, W, 3].

    Attributes:
        reconstructed: G(a_a, s_a), then G(a_b, s_b).
        by_positive: the same, with the appearance of the positives.
        swapped: x_ba = G(a_a, s_b), then x_ab = G(a_b, s_a).
    """

    reconstructed: tf.Tensor
    by_positive: tf.Tensor
    swapped: tf.Tensor


def generated_images(decoder, codes: Codes) -> GeneratedImages:
    """Reconstructions, reconstructions by the positives' appearance, and swaps, all from one call of G."""
    a_a, a_b, a_positive_a, a_positive_b, s_a, s_b = codes
    appearance = tf.concat([a_a, a_b, a_positive_a, a_positive_b, a_a, a_b], axis=0)
    structure = tf.concat([s_a, s_b, s_a, s_b, s_b, s_a], axis=0)
    return GeneratedImages(*tf.split(decoder([appearance, structure]), 3))


def teacher_labels(
    teacher: SiameseClassifier, style: str, batch_statistics: bool, batch: SwapBatch, swaps: tf.Tensor, identities: int
) -> tf.Tensor:
    """q of Eq. 8: a distribution over identities for each swap, float32 [2P, K], without gradient.

    Args:
        style, batch_statistics: see `DGNet`, `teacher_style` and `teacher_batch_statistics`.
        swaps: x_ba and x_ab, float32 [2P, H, W, 3] in about [-1, 1].
        identities: K.
    """
    of_appearance = tf.one_hot(batch.identities, identities)
    if style == "appearance":
        return of_appearance
    if style == "uniform":
        return tf.ones_like(of_appearance) / identities
    features = [frozen(teacher.backbone, view, training=batch_statistics) for view in (swaps, swaps[:, :, ::-1])]
    labels = tf.add_n([tf.nn.softmax(teacher.identity_head(of_view)) for of_view in features]) / 2.0
    if style == "hard":
        labels = tf.one_hot(tf.argmax(labels, axis=1), identities)
    if style == "both":
        labels *= of_appearance + tf.one_hot(batch.structure_identities, identities)
        labels = tf.math.divide_no_nan(labels, tf.reduce_sum(labels, axis=1, keepdims=True))
    return tf.stop_gradient(labels)
