"""cmGAN: one embedding for RGB and infrared images that a modality discriminator cannot tell apart.

"Cross-Modality Person Re-Identification with Generative Adversarial Training", IJCAI 2018,
https://www.ijcai.org/proceedings/2018/94.
"""

from typing import Annotated, ClassVar, Literal

import keras
import tensorflow as tf
from pydantic import Field

from tf_reid.config import ConfigError
from tf_reid.methods.base import ReIDModel, Stage
from tf_reid.methods.presentation import Presentation
from tf_reid.networks.backbones import Backbone, build_backbone, maps_of
from tf_reid.networks.layers import GreyImages, OneChannel, StandardisedImages, feed_forward
from tf_reid.networks.losses import identification, squared_distances, triplet
from tf_reid.settings import NonNegativeFloat, PositiveFloat, PositiveInt, Weights


class CmGAN(ReIDModel):
    """A shared encoder with an identification head plays against a modality discriminator; Eq. 1-8 of the paper.

    ```
    P identities: P RGB images ──┐             ┌── identification head ── K-way softmax            (Eq. 1)
                                 ├── encoder ──┼── triplets across the modalities, both ways       (Eq. 2-4)
                  P infrared  ───┘             └── discriminator: RGB or infrared?                 (Eq. 6)
    ```
    Generator and discriminator take turns. The generator (encoder and head) descends Eq. 5 minus `adversarial_weight`
    times Eq. 6; the discriminator descends `adversarial_weight` times Eq. 6 (Eq. 7, 8). Algorithm 1 does not say which
    variables a turn updates; here they are those of its player.

    Stage `pretrain` is Eq. 1 alone, for an encoder that starts from random weights, which triplets would slow down.
    With ImageNet weights, as in the paper, it has 0 steps.

    Args:
        backbone, weights: of the encoder; images of one channel are read as three equal ones.
        last_stride: of the backbone's last stage; with 1 its last maps are twice as large.
        channels: what the encoder sees of an image. "colour": its three channels; "grey": three that are equal, of
            colour images as well (the one-stream network of Wu et al., 2017); "zero_padding": the grey image in the
            first channel if it is an RGB image, in the second if it is infrared, 0 elsewhere (their deep zero-padding).
        standardise: give every image zero mean and unit variance before the encoder, so that a dark infrared image
            is as strong a signal as a colour image. Not in the paper; for encoders that are trained from scratch.
        head_width, discriminator_widths: hidden units of the two feed-forward networks.
        triplet_weight, identity_weight: alpha and beta of Eq. 5; 0 leaves the loss out.
        adversarial_weight: gamma of Eq. 7; 0 trains without an adversarial loss (the discriminator is trained, and
            does not influence the generator).
        margin: of the triplets, between squared distances.
        mining: which triplets count, see `losses.triplet`; in the paper, all.
        normalise: give features unit length for the triplets; the heads always see them as they are.
        turns: K of Algorithm 1.
        schedule: who is updated at a step. "iteration": the discriminator at every K-th step, the generator at the
            others (K - 1 to 1); "after": the discriminator once after K steps of the generator (K to 1); "epoch": the
            discriminator in every K-th epoch, which is the number of steps that sees each identity once, where all
            identities have images of both modalities.
        raise_below, raise_by: when the batch's triplet loss first falls below `raise_below` (0: never), learning rates
            are multiplied by `raise_by` and stay there. The paper does so at 0.1, by a factor that it does not state.
    """

    STAGES: ClassVar = {
        "pretrain": Stage(players=("generator",), sampler="modalities"),
        "adversarial": Stage(players=("generator", "discriminator"), sampler="modalities"),
    }

    def __init__(
        self,
        image_size,
        identities,
        seed,
        *,
        backbone: Backbone = "ResNet50",
        weights: Weights = "imagenet",
        last_stride: Literal[1, 2] = 2,
        channels: Literal["colour", "grey", "zero_padding"] = "colour",
        standardise: bool = False,
        head_width: PositiveInt = 512,
        discriminator_widths: list[PositiveInt] = [1000, 500],  # noqa: B006
        triplet_weight: NonNegativeFloat = 1.0,
        identity_weight: NonNegativeFloat = 1.0,
        adversarial_weight: NonNegativeFloat = 0.05,
        margin: PositiveFloat = 1.4,
        mining: Literal["all", "hard", "semi_hard"] = "all",
        normalise: bool = True,
        turns: Annotated[int, Field(ge=2)] = 5,
        schedule: Literal["iteration", "after", "epoch"] = "iteration",
        raise_below: NonNegativeFloat = 0.0,
        raise_by: PositiveFloat = 10.0,
    ):
        super().__init__(image_size, identities, seed)
        if not triplet_weight and not identity_weight:
            raise ValueError("method.triplet_weight and method.identity_weight are both 0: no identity is learned.")
        self.network = build_backbone(backbone, image_size, weights, last_stride)
        self.encoder, self.last_maps = self.network, maps_of(self.network)
        if channels != "colour" or standardise:
            images = keras.Input((*image_size, 3))
            seen = images if channels == "colour" else GreyImages()(images)
            seen = StandardisedImages()(seen) if standardise else seen
            first = OneChannel(0)(seen) if channels == "zero_padding" else seen
            self.encoder, self.last_maps = self._behind(images, first)
        self.infrared_encoder, self.infrared_maps = self.encoder, self.last_maps
        if channels == "zero_padding":
            second = OneChannel(1)(seen)
            self.infrared_encoder, self.infrared_maps = self._behind(images, second)
            self.padded = keras.Model(images, first), keras.Model(images, second)
        width = self.encoder.output_shape[-1]
        self.identity_head = feed_forward(width, [head_width], identities, "identity_head")
        self.discriminator = feed_forward(width, discriminator_widths, 2, "discriminator")
        self.triplet_weight, self.identity_weight = triplet_weight, identity_weight
        self.adversarial_weight, self.margin, self.mining = adversarial_weight, margin, mining
        self.normalise, self.turns, self.schedule = normalise, turns, schedule
        self.raise_below, self.raise_by = raise_below, raise_by

    def _behind(self, images, seen):
        """The encoder, and its last maps, of images that the network sees as `seen`."""
        maps = maps_of(self.network)
        return keras.Model(images, self.network(seen), name="encoder"), keras.Model(images, maps(seen))

    def players(self):
        return {"generator": [self.encoder, self.identity_head], "discriminator": [self.discriminator]}

    def backbones(self):
        return {"generator": [self.network]}

    def networks(self):
        return {"encoder": self.encoder, "discriminator": self.discriminator}

    def phase_of(self, step):
        if self.stage == "pretrain":
            return None
        if self.schedule == "epoch":
            batches = max(1, self.identities // (self.batch_size_of_stage["adversarial"] // 2))
            return {"discriminator_moves": step // batches % self.turns == 0}
        cycle = self.turns if self.schedule == "iteration" else self.turns + 1
        return {"discriminator_moves": step % cycle == 0}

    def pretrain_step(self, batch):
        images, identities = rgb_then_infrared(batch)
        with tf.GradientTape() as tape:
            losses = {"identity": self.identity_loss(self.features(images), identities)}
        self.minimize(tape, losses, "generator")
        return self.report(generator=losses)

    def compile(self, stages, *args, **kwargs):
        super().compile(stages, *args, **kwargs)
        if self.raise_below and "plateau" in stages["adversarial"].watched:
            raise ConfigError(
                "stages.adversarial.plateau lowers the learning rates that method.raise_below raises; set one of them "
                "to null or 0."
            )

    def adversarial_step(self, batch):
        images, identities = rgb_then_infrared(batch)

        # 1. The generator separates identities in both modalities and makes the modalities alike (Eq. 5, 7).
        with tf.GradientTape() as tape:
            features = self.features(images)
            generator_losses = self.generator_losses(features, identities)
        # 2. The discriminator recognises the modality of features, which get no gradient from it (Eq. 8).
        features = tf.stop_gradient(features)
        with tf.GradientTape() as discriminator_tape:
            logits = self.discriminator(features)
            modality = modality_loss(logits)
            # With an adversarial weight of 0 it is still trained, at full weight: its accuracy is worth knowing.
            discriminator_losses = {"modality": (self.adversarial_weight or 1.0) * modality}

        if self.phase["discriminator_moves"]:
            self.minimize(discriminator_tape, discriminator_losses, "discriminator")
        else:
            self.minimize(tape, generator_losses, "generator")
            if self.raise_below and self.triplet_weight:
                converged = generator_losses["triplet"] / self.triplet_weight < self.raise_below
                self.rate_factor.assign(tf.where(converged, self.raise_by, self.rate_factor.read_value()))
        # Logged without its weight, as Fig. 4 plots it: an untrained discriminator is at ln 2.
        watched = {"modality": modality, "accuracy": modality_accuracy(logits)}
        return self.report(generator=generator_losses, discriminator=watched)

    def features(self, images):
        """Of the RGB images, then of the infrared images: [2P, H, W, 3] -> float32 [2P, D], in training mode.

        One call of the network, so that its batch statistics are of both modalities.
        """
        if self.infrared_encoder is self.encoder:
            return self.encoder(images, training=True)
        padded = [pad(part) for pad, part in zip(self.padded, tf.split(images, 2), strict=True)]
        return self.network(tf.concat(padded, axis=0), training=True)

    def generator_losses(self, features, identities) -> dict[str, tf.Tensor]:
        """Eq. 5 and the adversarial term of Eq. 7, weighted.

        Args:
            features: float32 [2P, D], of the RGB images, then of the infrared images.
            identities: int [P], all different, 0..K-1.
        """
        losses = {}
        if self.triplet_weight:
            losses["triplet"] = self.triplet_weight * self.triplet_loss(features, identities)
        if self.identity_weight:
            losses["identity"] = self.identity_weight * self.identity_loss(features, identities)
        if self.adversarial_weight:
            losses["adversarial"] = -self.adversarial_weight * modality_loss(self.discriminator(features))
        return losses

    def identity_loss(self, features, identities):
        """Eq. 1, of the images of both modalities."""
        return identification(self.identity_head(features), tf.concat([identities, identities], axis=0))

    def triplet_loss(self, features, identities):
        """Eq. 2 + Eq. 3: anchors of one modality, positives and negatives of the other, over the global batch."""
        if self.normalise:
            features = tf.math.l2_normalize(features, axis=1, epsilon=1e-12)
        rgb, infrared = (self.global_batch(part) for part in tf.split(features, 2))
        identities = self.global_batch(identities)
        same = identities[:, None] == identities
        square = squared_distances(rgb, infrared)
        ways = (square, tf.transpose(square))
        return tf.add_n([triplet(way, same, ~same, self.margin, self.mining) for way in ways])

    def encoders(self):
        return {"rgb": self.encoder, "ir": self.infrared_encoder}

    def presentation(self):
        return Presentation(self, maps={"rgb": self.last_maps, "ir": self.infrared_maps})


def rgb_then_infrared(batch):
    """Images [2P, H, W, 3], the RGB images first, and the identities of each half, int [P]."""
    return tf.concat([batch["source"][:, 0], batch["source"][:, 1]], axis=0), batch["source_identity"][:, 0]


def modality_loss(logits):
    """Eq. 6: two-way cross-entropy of each image with its own modality, mean over images.

    Args:
        logits: float32 [2P, 2], of the RGB images, then of the infrared images.
    """
    return identification(logits, _infrared(logits))


def modality_accuracy(logits):
    """Fraction of the images whose modality is recognised; `logits` as in `modality_loss`."""
    predicted = tf.argmax(logits, axis=1, output_type=tf.int32)
    return tf.reduce_mean(tf.cast(predicted == _infrared(logits), tf.float32))


def _infrared(rows):
    """[2P, ...] -> int32 [2P], 0 for the first half (RGB), 1 for the second (infrared)."""
    count = tf.shape(rows)[0]
    return tf.cast(tf.range(count) >= count // 2, tf.int32)
