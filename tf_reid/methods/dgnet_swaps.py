"""What a step of DG-Net works with: a batch for swaps, its codes, and the images made of them."""

from typing import NamedTuple

import keras
import tensorflow as tf

from tf_reid.data.pipeline import erased
from tf_reid.networks import losses
from tf_reid.networks.dgnet import from_imagenet, generator_adversarial_loss, scores_of


class SwapBatch(NamedTuple):
    """Two identities a row, a and b, and a positive of each: another image of the same identity.

    Attributes:
        images: x_a, x_b, the positives of x_a, the positives of x_b: float32 [4P, H, W, 3] in [-1, 1].
        identities: of `images`, int [4P].
        pair: x_a and x_b, [2P, H, W, 3]. pair_identities: y_a and y_b, [2P].
    """

    images: tf.Tensor
    identities: tf.Tensor
    pair: tf.Tensor
    pair_identities: tf.Tensor

    @classmethod
    def of(cls, batch) -> "SwapBatch":
        """From the pipeline's rows of four images, as the sampler `swaps` draws them."""
        images = tf.concat(tf.unstack(batch["source"], axis=1), axis=0)
        identities = tf.concat(tf.unstack(batch["source_identity"], axis=1), axis=0)
        half = images.shape[0] // 2
        return cls(images, identities, images[:half], identities[:half])


class Codes(NamedTuple):
    """Codes of a batch's images.

    Attributes:
        appearance: a_a and a_b, [2P, A]. positive_appearance: of their positives.
        structure: s_a and s_b, [2P, h, w, S].
    """

    appearance: tf.Tensor
    positive_appearance: tf.Tensor
    structure: tf.Tensor


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


def exchanged(rows: tf.Tensor) -> tf.Tensor:
    """What belongs to x_a and then x_b [2P, ...] -> the same of x_b and then x_a."""
    of_a, of_b = tf.split(rows, 2)
    return tf.concat([of_b, of_a], axis=0)


def generated_images(parts_of_decoder: tuple[keras.Model, keras.Model], codes: Codes) -> GeneratedImages:
    """Reconstructions, reconstructions by the positives' appearance, and swaps, all from one call of G.

    What G makes of a structure before it sees an appearance is computed once for the three.

    Args:
        parts_of_decoder: see `networks.dgnet.parts_of_decoder`.
    """
    begin, end = parts_of_decoder

    def for_all_three(structures):
        return tf.concat([structures, structures, exchanged(structures)], axis=0)

    appearance = tf.concat([codes.appearance, codes.positive_appearance, codes.appearance], axis=0)
    made = end([appearance, for_all_three(codes.structure), for_all_three(begin(codes.structure))])
    return GeneratedImages(*tf.split(made, 3))


def losses_of_images(
    discriminator, real: tf.Tensor, generated: GeneratedImages, image_weight: float, adversarial_weight: float
) -> dict[str, tf.Tensor]:
    """Eq. 1, Eq. 2, and the generator's side of Eq. 7, of the normalised x_a and x_b, [2P, H, W, 3]."""
    terms = {
        "reconstruction": image_weight * 2.0 * losses.l1(generated.reconstructed, real),
        "reconstruction_by_positive": image_weight * 2.0 * losses.l1(generated.by_positive, real),
    }
    if adversarial_weight:
        terms["adversarial"] = adversarial_weight * generator_adversarial_loss(
            scores_of(discriminator, generated.swapped)
        )
    return terms


def partly_erased(images: tf.Tensor, draws: tf.Tensor, fraction: float) -> tf.Tensor:
    """Images with a rectangle of ImageNet's mean in this fraction of them; see `erased`.

    Args:
        images: as `SwapBatch.images`. draws: float32 [P, 4, 5] in [0, 1), by the batch's rows.
    """
    draws = tf.reshape(tf.transpose(draws, (1, 0, 2)), (-1, 5))
    return erased(images, draws, fraction, from_imagenet(tf.zeros(3)))
