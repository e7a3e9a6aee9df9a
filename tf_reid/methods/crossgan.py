"""Cross-GAN: unsupervised; two VAEs, one a view, with aligned latents and coupled GANs as decoders.

"Cross-View Person Re-identification: Crossing Generative Adversarial Networks", 2018, https://arxiv.org/abs/1801.01760.
"""

import os
import warnings
from typing import Annotated, ClassVar, Literal, NamedTuple

import keras
import tensorflow as tf
from keras import layers
from pydantic import AfterValidator, Field

from tf_reid.config import ConfigError
from tf_reid.methods.base import ReIDModel, Stage
from tf_reid.methods.classifiers import encoder_of, names_run
from tf_reid.methods.crossgan_pictures import CrossGANPictures
from tf_reid.methods.representation import Representation
from tf_reid.networks import losses
from tf_reid.networks.backbones import spelled
from tf_reid.networks.compiled import normal
from tf_reid.networks.crossgan import (
    DISCRIMINATOR_UNITS,
    GENERATOR_UNITS,
    ViewTransform,
    build_encoder,
    coupled_discriminators,
    coupled_generators,
    discriminators_loss,
    encoder_input,
    generators_loss,
    mutual_neighbours,
)
from tf_reid.networks.precision import Dense
from tf_reid.settings import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Weights


class Latents(NamedTuple):
    """q(z|x) of one view's images (Eq. 4): its mean, log variance and a sample z, float32 [P, latent_width] each."""

    mean: tf.Tensor
    log_variance: tf.Tensor
    z: tf.Tensor


def _encoder(value: str) -> str:
    if names_run(folder := os.path.expanduser(value)):
        return folder
    try:
        return spelled(value, others=("pixels",))
    except ValueError as error:
        raise ValueError(f"{error}, or the folder of a finished run") from None


Encoder = Annotated[str, AfterValidator(_encoder)]


class Pairs(NamedTuple):
    """Which images of the two views Eq. 7 takes as pairs, among the P of the global batch.

    Attributes:
        nearest: int64 [P], for each of the first view its nearest of the second. mutual: float32 [P], 1 for a pair.
    """

    nearest: tf.Tensor
    mutual: tf.Tensor


class CrossGAN(ReIDModel):
    """A VAE for each view, an alignment of their latents, and two GANs that share weights; Eq. 1-12 of the paper.

    ```
    x ── E1 ── z ─────────────────┐          ┌── g1 ── reconstructed x ── f1: real?
                                  │ (Eq. 7)  │  (first k of 5 units shared)  (last l of 5 units shared)
    x̄ ── E2 ── z̄ ── Align ── as z ┘          └── g2 ── reconstructed x̄ ── f2: real?
    ```
    x and x̄ are images of two views, drawn independently: no identity is read. Images of more than two cameras are
    split into random halves instead, as in section 5.1; queries are then embedded as images of the first view.

    The paper prints two wrong signs: of the divergence in Eq. 5, and of the adversarial loss in Eq. 12 for all players
    but f. Its Table 1 cannot be built (a generator of stride 1 that ends in 20 channels). Here a generator is a dense
    unit, three deconvolutions that halve the channels and one to the image; a discriminator is three convolutions with
    pooling and two dense units.

    `pairing="nearest"` is ours: Eq. 7 of random pairs is given images of two people who have nothing to do with each
    other, and then its best answer is the mean. Images of a batch that are each other's nearest are pairs instead. All
    others, which may be most of a batch, have no pair in it, and Eq. 7 leaves them out; the two images that are nearest
    of all are always a pair. Nothing is kept between steps. A larger batch holds more true pairs.

    Args:
        latent_width: of z.
        encoder: the input of E1 and E2, which are perceptrons: "pixels", or features that are not trained: of a
            backbone, or of a finished run of `identity` or `strong`, trained on other people. The features of a run
            are also evaluated as they are, as `direct`, which the method has to beat.
        encoder_weights: of a backbone. If they, or a run, were learned from identities, the method is not unsupervised.
        encoder_width: hidden units.
        width: channels of a generator's first maps.
        generator_shared: k, units that g1 and g2 share; discriminator_shared: l, those that f1 and f2 share.
        reconstruction_weight: of the squared error of a VAE's reconstruction, beside the divergence of Eq. 5.
        alignment_weight: of Eq. 7; 0: latents are compared without alignment.
        threshold: tau of Eq. 7.
        pairing: which images are pairs in Eq. 7: "random" as in the paper, or "nearest", see above.
        paired_by: what is near: "latents", the means of q(z|x), or "features", the input of E1 and E2.
        clip: "whole": the larger of the squared distance and tau, as printed; "dimension": the squared distance in
            each dimension is at most tau.
        adversarial_weight: of Eq. 10; 0: no GANs.
        matching_weight: of the distance between the mean features of real and of generated images (Salimans et al.,
            2016).
        search_steps, search_rate: of the gradient search for z* that transforms an image to the other view.
    """

    STAGES: ClassVar = {
        "vae": Stage(players=("encoders", "generators"), sampler="unpaired_views"),
        "alignment": Stage(players=("alignment",), sampler="unpaired_views", weight="alignment_weight"),
        "joint": Stage(players=("encoders", "generators", "alignment", "discriminators"), sampler="unpaired_views"),
    }

    def __init__(
        self,
        image_size,
        identities,
        seed,
        *,
        latent_width: PositiveInt = 100,
        encoder: Encoder = "pixels",
        encoder_weights: Weights = None,
        encoder_width: PositiveInt = 512,
        width: Annotated[int, Field(ge=8, multiple_of=8)] = 512,
        generator_shared: Annotated[int, Field(ge=0, le=GENERATOR_UNITS - 1)] = 4,
        discriminator_shared: Annotated[int, Field(ge=0, le=DISCRIMINATOR_UNITS)] = 1,
        reconstruction_weight: PositiveFloat = 1.0,
        alignment_weight: NonNegativeFloat = 1.0,
        pairing: Literal["random", "nearest"] = "random",
        paired_by: Literal["latents", "features"] = "latents",
        threshold: NonNegativeFloat = 1.0,
        clip: Literal["whole", "dimension"] = "whole",
        adversarial_weight: NonNegativeFloat = 1.0,
        matching_weight: NonNegativeFloat = 1.0,
        search_steps: NonNegativeInt = 100,
        search_rate: PositiveFloat = 0.1,
    ):
        super().__init__(image_size, identities, seed)
        self.direct = names_run(encoder)
        self.features = _features(image_size, encoder, encoder_weights)
        self.E1, self.E2 = (build_encoder(self.features, encoder_width, latent_width, name) for name in ("E1", "E2"))
        self.g1, self.g2, g_units = coupled_generators(image_size, width, latent_width, generator_shared)
        self.f1, self.f2, f_units = coupled_discriminators(image_size, discriminator_shared)
        self.align = keras.Sequential(
            [keras.Input((latent_width,)), Dense(latent_width, activation="tanh")], name="align"
        )
        self.networks_of_players = {
            "encoders": [self.E1, self.E2],
            "generators": g_units,
            "alignment": [self.align],
            "discriminators": f_units,
        }
        self.latent_width = latent_width
        self.reconstruction_weight, self.alignment_weight = reconstruction_weight, alignment_weight
        self.pairing, self.paired_by = pairing, paired_by
        self.threshold, self.clip = threshold, clip
        self.adversarial_weight, self.matching_weight = adversarial_weight, matching_weight
        self.search_steps, self.search_rate = search_steps, search_rate

    def players(self):
        return self.networks_of_players

    def networks(self):
        coupled_networks = (self.g1, self.g2, self.f1, self.f2)
        return {network.name: network for network in (self.E1, self.E2, self.align, *coupled_networks)}

    def vae_step(self, batch):
        views = self.views(batch)
        with tf.GradientTape() as tape:
            latents = self.latents(views)
            elbo = self.vae_losses(views, latents, self.reconstructions(latents))
        self.minimize(tape, elbo, "encoders", "generators")
        return self.report(encoders=elbo, generators=elbo)

    def alignment_step(self, batch):
        views = self.views(batch)
        latents = self.latents(views)
        pairs = self.pairs(views, latents)
        with tf.GradientTape() as tape:
            alignment = self.alignment_losses(latents, pairs)
        self.minimize(tape, alignment, "alignment")
        return self.report(alignment=alignment | watched(pairs))

    def joint_step(self, batch):
        views = self.views(batch)
        with tf.GradientTape() as tape:
            latents = self.latents(views)
            pairs = self.pairs(views, latents)
            reconstructed = self.reconstructions(latents)
            # 1. f1 and f2 learn to recognise what the generators of their views make (Eq. 10, ascending).
            with tape.stop_recording():
                fakes = [tf.stop_gradient(images) for images in reconstructed]
                discriminator_losses = self._update_discriminators(views, fakes)
            # 2. Losses of the VAEs, the alignment and the generators, against the updated f1 and f2.
            elbo = self.vae_losses(views, latents, reconstructed)
            alignment = self.alignment_losses(latents, pairs)
            adversarial = self.adversarial_losses(views, reconstructed)
        # The alignment loss has no gradient for the generators, and Align has none of any other loss.
        generator_losses = elbo | adversarial
        moved = ("encoders", "generators", "alignment") if alignment else ("encoders", "generators")
        self.minimize(tape, generator_losses | alignment, *moved)
        return self.report(
            encoders=generator_losses | alignment,
            generators=generator_losses,
            alignment=alignment | watched(pairs),
            discriminators=discriminator_losses,
        )

    @staticmethod
    def views(batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Images of the first view and of the second, float32 [P, H, W, 3] each."""
        return batch["source"][:, 0], batch["source"][:, 1]

    def latents(self, views) -> list[Latents]:
        """Of the first view by E1 and of the second by E2."""
        latents = []
        for number, (encoder, images) in enumerate(zip((self.E1, self.E2), views, strict=True)):
            mean, log_variance = encoder(images)
            noise = self.drawn(normal, images.shape[0], (self.latent_width,), number)
            latents.append(Latents(mean, log_variance, mean + tf.exp(0.5 * log_variance) * noise))
        return latents

    def reconstructions(self, latents: list[Latents]) -> list[tf.Tensor]:
        """g1 of the first view's samples and g2 of the second's."""
        return [g(of_view.z, training=True) for g, of_view in zip((self.g1, self.g2), latents, strict=True)]

    def vae_losses(self, views, latents: list[Latents], reconstructed) -> dict[str, tf.Tensor]:
        """Eq. 5 and 6, with the sign of the divergence put right: sums over the views, means over images."""
        divergence = tf.add_n([losses.normal_divergence(of_view.mean, of_view.log_variance) for of_view in latents])
        errors = [0.5 * losses.squared_error(a, b) for a, b in zip(reconstructed, views, strict=True)]
        return {"divergence": divergence, "reconstruction": self.reconstruction_weight * tf.add_n(errors)}

    def pairs(self, views, latents: list[Latents]) -> Pairs | None:
        """What are pairs in Eq. 7; None: the images that a batch's rows have brought together."""
        if self.pairing == "random" or not self.alignment_weight:
            return None
        if self.paired_by == "features":
            compared = [self.features(images, training=False) for images in views]
        else:
            compared = [of_view.mean for of_view in latents]
        nearest, mutual = mutual_neighbours(*(self.global_batch(of_view) for of_view in compared))
        return Pairs(nearest, tf.cast(mutual, tf.float32))

    def alignment_losses(self, latents: list[Latents], pairs: Pairs | None = None) -> dict[str, tf.Tensor]:
        """Eq. 7 and 11, weighted: the mean over pairs."""
        if not self.alignment_weight:
            return {}
        first, second = (of_view.z for of_view in latents)
        if pairs:
            first, second = self.global_batch(first), self.global_batch(second)
        aligned = self.align(second)
        if pairs:
            aligned = tf.gather(aligned, pairs.nearest)
        square = tf.square(first - aligned)
        if self.clip == "whole":
            distance = tf.maximum(tf.reduce_sum(square, axis=1), self.threshold)
        else:
            distance = tf.reduce_sum(tf.minimum(square, self.threshold), axis=1)
        if pairs:
            mean = tf.reduce_sum(pairs.mutual * distance) / tf.reduce_sum(pairs.mutual)
        else:
            mean = tf.reduce_mean(distance)
        return {"alignment": self.alignment_weight * mean}

    def adversarial_losses(self, views, fakes) -> dict[str, tf.Tensor]:
        """The generators' side of Eq. 10, in its form that does not saturate, and feature matching; sums over views."""
        if not self.adversarial_weight and not self.matching_weight:
            return {}
        judged = [(f(real), f(fake)) for f, real, fake in zip((self.f1, self.f2), views, fakes, strict=True)]
        terms = {}
        if self.adversarial_weight:
            terms["adversarial"] = self.adversarial_weight * generators_loss([logits for _, (_, logits) in judged])
        if self.matching_weight:
            means = [(self._mean(real), self._mean(fake)) for (real, _), (fake, _) in judged]
            each = [tf.reduce_sum(tf.square(tf.stop_gradient(real) - fake)) for real, fake in means]
            terms["feature_matching"] = self.matching_weight * tf.add_n(each)
        return terms

    def _mean(self, features):
        """Over the global batch, [D]."""
        return tf.reduce_mean(self.global_batch(features), axis=0)

    def _update_discriminators(self, views, fakes):
        """f1 and f2 on Eq. 10, of which they descend the negative."""
        if not self.adversarial_weight and not self.matching_weight:
            return {}
        with tf.GradientTape() as tape:
            loss = {"adversarial": discriminators_loss((self.f1, self.f2), views, fakes)}
        self.minimize(tape, loss, "discriminators")
        return loss

    def encoders(self):
        """The means of q(z|x), the second view's after the alignment."""
        second = self.E2.output[0]
        aligned = self.align(second) if self.alignment_weight else second
        return {"probe": keras.Model(self.E1.input, self.E1.output[0]), "gallery": keras.Model(self.E2.input, aligned)}

    def representations(self):
        representations = {"raw": Representation(self.encoders())}
        if self.direct:
            representations["direct"] = Representation({"image": self.features})
        if self.adversarial_weight or self.matching_weight:
            first, second = (keras.Model(f.input, f.output[0]) for f in (self.f1, self.f2))
            representations["discriminator"] = Representation({"probe": first, "gallery": second})
        if self.search_steps:
            pixels = keras.Input((*self.image_size, 3))
            transformed = keras.Model(pixels, layers.Flatten()(self.transform()(pixels)))
            flattened = keras.Model(pixels, layers.Flatten()(pixels))
            representations["transformed"] = Representation({"probe": transformed, "gallery": flattened})
        return representations

    def transform(self) -> keras.Model:
        """Images of the first view -> the same in the second view, by the gradient search of section 5.2."""
        pixels = keras.Input((*self.image_size, 3))
        search = ViewTransform(self.E1, self.g1, self.g2, self.search_steps, self.search_rate)
        return keras.Model(pixels, search(pixels))

    def presentation(self):
        return CrossGANPictures(self)


def watched(pairs: Pairs | None) -> dict[str, tf.Tensor]:
    """What is logged of pairs: the part of the first view's images that have one."""
    return {"mutual": tf.reduce_mean(pairs.mutual)} if pairs else {}


def _features(image_size, encoder, weights) -> keras.Model:
    """Images -> what E1 and E2 are given, with a warning where identities may have taught it.

    Raises:
        ConfigError: both a run and weights are named, or the run cannot be taken; see `encoder_of`.
    """
    if names_run(encoder):
        if weights:
            raise ConfigError("method.encoder names a run, which has weights; set method.encoder_weights=null.")
        _warn(f"method.encoder={encoder}: these features were learned from the identities of other people, so")
        return encoder_of(encoder, image_size)
    if encoder != "pixels" and weights not in (None, "imagenet"):
        _warn(f"method.encoder_weights={weights}: if these weights were learned from identities,")
    return encoder_input(image_size, encoder, weights)


def _warn(taught):
    warnings.warn(f"{taught} this run is not unsupervised.", stacklevel=4)
