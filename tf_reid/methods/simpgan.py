"""SimPGAN: cross-dataset re-ID by translating the unlabelled target to the style of the labelled source.

"Cross-dataset Person Re-Identification Using Similarity Preserved Generative Adversarial Networks", 2018,
https://arxiv.org/abs/1806.04533.
"""

from typing import ClassVar, Literal, NamedTuple

import keras
import tensorflow as tf

from tf_reid.config import ConfigError
from tf_reid.methods.base import ReIDModel, Stage
from tf_reid.methods.classifiers import check_form
from tf_reid.methods.representation import Representation
from tf_reid.methods.simpgan_pictures import SimPGANPictures
from tf_reid.networks.backbones import Backbone
from tf_reid.networks.image_pool import ImagePool
from tf_reid.networks.layers import in_one_call
from tf_reid.networks.losses import l1, least_squares, verification
from tf_reid.networks.siamese import SiameseClassifier
from tf_reid.networks.simpgan import build_colour_generator, build_discriminator, build_generator
from tf_reid.networks.strong import StrongClassifier
from tf_reid.settings import ExistingPath, Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt, Weights


class Translations(NamedTuple):
    """What the generators make of a batch's images: float32 [2P, H, W, 3] in [-1, 1].

    Attributes:
        fake_target: G(source). fake_source: F(target).
        same_target: G(target). same_source: F(source). Both are None without the identity loss, which they serve.
    """

    fake_target: tf.Tensor
    fake_source: tf.Tensor
    same_target: tf.Tensor | None = None
    same_source: tf.Tensor | None = None


class SimPGAN(ReIDModel):
    """Two generators, two discriminators and a frozen siamese classifier; Eq. 1-12 of the paper.

    ```
              G                   F                             classifier (trained on the source, then frozen)
    source ──────▶ fake target ──────▶ reconstructed source ──────▶ as similar as the pair was (Eq. 10)
                     │ D_T: real target?  (Eq. 6, 7)
              F                   G
    target ──────▶ fake source ──────▶ reconstructed target
                     │ D_S: real source?  (Eq. 8, 9)
    ```
    Eq. 7 and 9 as printed take the other domain's images as real examples. Here the real examples of a discriminator
    are images of its own domain: otherwise it would never see what it has to recognise.

    Args:
        backbone, weights, dropout: of the classifier; see `Identity`.
        classifier: a finished run whose `networks/classifier.weights.h5` is taken instead of training a classifier.
        classifier_kind: "siamese" is the paper's; "strong" is the network of a finished run of `strong`, which
            `classifier` names. Its Eq. 10 compares the cosine of two features with a half.
        last_stride: of the backbone of a strong classifier, as in its run.
        generator: "tanh" is the paper's; "residual" predicts a change of its input and starts as the identity; "colour"
            predicts one affine map of the colours for an image: it changes style, but draws nothing.
        generator_width: channels of the first layer; the paper's code has 64.
        generator_blocks: residual blocks; the paper's code has 6.
        discriminator: "patch" is PatchGAN with instance norm (CycleGAN's), "official" the paper's code's (batch norm).
        discriminator_width: channels of the first layer.
        discriminator_layers: layers of stride 2 in "patch"; with 3, a patch has 70x70 pixels.
        discriminator_norm: instance norm in "patch" (the paper's); without it the discriminators see absolute colours.
        discriminator_every: the discriminators are updated at every n-th step (the paper: 1, its code: 6).
        adversarial_weight: of Eq. 6 and 8 (the paper: 1).
        cycle_weight: λ1 of Eq. 11.
        similarity_weight: λ2 of Eq. 11.
        identity_weight: of CycleGAN's identity loss, which asks F to leave source images and G target images as they
            are (not in the paper; its code: 5).
        pool_size: for half of the images, the discriminators see an earlier fake from a pool of this size; 0: no pool.
    """

    STAGES: ClassVar = {
        "classifier": Stage(players=("classifier",), sampler="pairs"),
        "translation": Stage(players=("generators", "discriminators"), sampler="pairs_of_two_domains", domains=2),
    }

    def __init__(
        self,
        image_size,
        identities,
        seed,
        *,
        backbone: Backbone = "ResNet50",
        weights: Weights = "imagenet",
        dropout: Fraction = 0.5,
        classifier: ExistingPath | None = None,
        classifier_kind: Literal["siamese", "strong"] = "siamese",
        last_stride: Literal[1, 2] = 1,
        generator: Literal["tanh", "residual", "colour"] = "tanh",
        generator_width: PositiveInt = 64,
        generator_blocks: PositiveInt = 6,
        discriminator: Literal["patch", "official"] = "patch",
        discriminator_width: PositiveInt = 64,
        discriminator_layers: PositiveInt = 3,
        discriminator_norm: bool = True,
        discriminator_every: PositiveInt = 1,
        adversarial_weight: NonNegativeFloat = 1.0,
        cycle_weight: NonNegativeFloat = 10.0,
        similarity_weight: NonNegativeFloat = 1.0,
        identity_weight: NonNegativeFloat = 0.0,
        pool_size: NonNegativeInt = 50,
    ):
        super().__init__(image_size, identities, seed)
        self.classifier_kind, self.classifier_given = classifier_kind, classifier is not None
        if classifier_kind == "strong":
            self.classifier = StrongClassifier(image_size, identities, backbone, None, last_stride)
        else:
            self.classifier = SiameseClassifier(image_size, identities, backbone, weights, dropout)
        if classifier:
            check_form(classifier, "classifier", self.classifier, last_stride)
            self.classifier.load(classifier, "method.classifier")
        self.G, self.F = (
            build_colour_generator(image_size, generator_width, name)
            if generator == "colour"
            else build_generator(image_size, generator_width, generator_blocks, generator == "residual", name)
            for name in ("G", "F")
        )
        images = keras.Input((*image_size, 3))
        self.translating_encoder = keras.Model(
            images, self.classifier.encoder(self.F(images)), name="F_then_classifier"
        )
        self.D_S, self.D_T = (
            build_discriminator(
                image_size,
                discriminator_width,
                discriminator_layers,
                discriminator == "official",
                discriminator_norm,
                name,
            )
            for name in ("D_S", "D_T")
        )
        self.source_pool = ImagePool(pool_size, image_size, seed=[seed, 1])
        self.target_pool = ImagePool(pool_size, image_size, seed=[seed, 2])
        self.discriminator_every = discriminator_every
        self.adversarial_weight, self.cycle_weight = adversarial_weight, cycle_weight
        self.similarity_weight, self.identity_weight = similarity_weight, identity_weight

    def players(self):
        return {
            "classifier": [self.classifier],
            "generators": [self.G, self.F],
            "discriminators": [self.D_S, self.D_T],
        }

    def backbones(self):
        return {"classifier": [self.classifier.backbone]}

    def networks(self):
        return {"classifier": self.classifier, "G": self.G, "F": self.F}

    def compile(self, stages, *args, **kwargs):
        super().compile(stages, *args, **kwargs)
        if self.classifier_kind == "strong" and self.steps_of_stage["classifier"]:
            raise ConfigError(
                "method.classifier_kind=strong takes a classifier that a run of strong has trained; set "
                "stages.classifier.steps=0."
            )

    def check_training(self):
        if self.classifier_kind == "strong" and not self.classifier_given:
            raise ConfigError("method.classifier_kind=strong needs a finished run of strong: method.classifier=RUN.")

    def phase_of(self, step):
        if self.stage == "classifier":
            return None
        return {"discriminators_move": step % self.discriminator_every == 0}

    def classifier_step(self, batch):
        with tf.GradientTape() as tape:
            losses = self.classifier.pair_losses(batch["source"], batch["source_identity"])
        self.minimize(tape, losses, "classifier")
        return self.report(classifier=losses)

    def translation_step(self, batch):
        source, target = self.domains(batch)

        # 1. G translates to the target and F to the source: real to the discriminators, cycle-consistent, and as
        #    similar to one another as before.
        with tf.GradientTape() as tape:
            made = self.translations(source, target)
            generator_losses = self.generator_losses(batch, source, target, made)
        self.minimize(tape, generator_losses, "generators")

        # 2. D_S and D_T learn to recognise fakes of their domain, which come out of the pools.
        fake_target = self.target_pool.exchange(tf.stop_gradient(made.fake_target), self.step)
        fake_source = self.source_pool.exchange(tf.stop_gradient(made.fake_source), self.step)
        with tf.GradientTape() as tape:
            discriminator_losses = self.discriminator_losses(source, target, fake_target, fake_source)
        if self.phase["discriminators_move"]:
            self.minimize(tape, discriminator_losses, "discriminators")
        return self.report(generators=generator_losses, discriminators=discriminator_losses)

    @staticmethod
    def domains(batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Source and target images [2P, H, W, 3] each, a pair's two images one after the other."""
        return tuple(tf.reshape(batch[d], (-1, *batch[d].shape[2:])) for d in ("source", "target"))

    def translations(self, source, target) -> Translations:
        """Each generator is called once, on the images that it translates and on those that it must leave alone."""
        if not self.identity_weight:
            return Translations(fake_target=self.G(source), fake_source=self.F(target))
        fake_target, same_target = in_one_call(self.G, source, target)
        fake_source, same_source = in_one_call(self.F, target, source)
        return Translations(fake_target, fake_source, same_target, same_source)

    def generator_losses(self, batch, source, target, made: Translations) -> dict[str, tf.Tensor]:
        """The terms of Eq. 11. The paper sums over a pair's two images: twice the mean over images."""
        reconstructed_source, reconstructed_target = self.F(made.fake_target), self.G(made.fake_source)
        losses = {
            "adversarial_G": self.adversarial_weight * generator_adversarial_loss(self.D_T, made.fake_target),  # Eq. 6
            "adversarial_F": self.adversarial_weight * generator_adversarial_loss(self.D_S, made.fake_source),  # Eq. 8
        }
        if self.cycle_weight:
            cycle = l1(reconstructed_source, source) + l1(reconstructed_target, target)
            losses["cycle"] = self.cycle_weight * 2.0 * cycle
        if self.similarity_weight:
            similarity = self.similarity_loss(reconstructed_source, batch["source_identity"])
            losses["similarity"] = self.similarity_weight * similarity
        if self.identity_weight:
            unchanged = l1(made.same_source, source) + l1(made.same_target, target)
            losses["identity"] = self.identity_weight * 2.0 * unchanged
        return losses

    def similarity_loss(self, reconstructed_source, identities):
        """Eq. 10: on F(G(source)), the frozen classifier must still recognise pairs of one identity.

        Args:
            reconstructed_source: float32 [2P, H, W, 3], a pair's two images one after the other.
            identities: int [P, 2].
        """
        features = self.classifier(reconstructed_source, training=False)
        logits = self.classifier.same_identity_logit(features[0::2], features[1::2])
        return verification(logits, tf.cast(identities[:, 0] == identities[:, 1], features.dtype))

    def discriminator_losses(self, source, target, fake_target, fake_source) -> dict[str, tf.Tensor]:
        """Eq. 7 and 9, with the real images of each discriminator's own domain; the fakes carry no gradient."""
        return {
            "adversarial_D_T": discriminator_adversarial_loss(self.D_T, target, fake_target),
            "adversarial_D_S": discriminator_adversarial_loss(self.D_S, source, fake_source),
        }

    @property
    def translates(self) -> bool:
        """Whether generators are trained; without, the run is the direct transfer."""
        return self.steps_of_stage.get("translation") != 0

    def encoders(self):
        return {"image": self.translating_encoder if self.translates else self.classifier.encoder}

    def representations(self):
        raw = {"raw": Representation({"image": self.classifier.encoder})}
        return raw | {"translated": Representation(self.encoders())} if self.translates else raw

    def presentation(self):
        return SimPGANPictures(self)


def generator_adversarial_loss(discriminator, fakes):
    """Eq. 6 and 8: the sum over a pair's two fakes of (D(fake) - 1)^2."""
    return 2.0 * least_squares(discriminator(fakes, training=True), 1.0)


def discriminator_adversarial_loss(discriminator, real, fakes):
    """Eq. 7 and 9: the sum over a pair's two images of D(fake)^2 + (D(real) - 1)^2."""
    of_fakes, of_real = in_one_call(discriminator, fakes, real)
    return 2.0 * (least_squares(of_fakes, 0.0) + least_squares(of_real, 1.0))
