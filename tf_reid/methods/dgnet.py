"""DG-Net: images with the appearance of one identity and the structure of another teach the re-ID features online.

"Joint Discriminative and Generative Learning for Person Re-identification", CVPR 2019,
https://arxiv.org/abs/1904.07223.
"""

from contextlib import nullcontext
from typing import ClassVar, Literal

import tensorflow as tf

from tf_reid.methods.base import ReIDModel, Stage
from tf_reid.methods.dgnet_features import FED_IN, feature_models, representations_of, scored_by
from tf_reid.methods.dgnet_offline import FinishedGenerator, check_feed, check_pretraining
from tf_reid.methods.dgnet_pictures import presentation_of
from tf_reid.methods.dgnet_swaps import Codes, SwapBatch, exchanged, generated_images, losses_of_images, partly_erased
from tf_reid.methods.dgnet_teacher import build_teacher, teacher_labels
from tf_reid.networks import dgnet as nets
from tf_reid.networks import losses
from tf_reid.networks.backbones import Backbone, build_backbone, maps_of
from tf_reid.networks.compiled import uniform
from tf_reid.networks.layers import frozen, scale_gradient
from tf_reid.settings import (
    ExistingPath,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Weights,
)


class DGNet(ReIDModel):
    """Appearance encoder with two heads, structure encoder, decoder and discriminator; Eq. 1-10 of the paper.

    ```
                                       ┌── primary head ────── identity of the appearance  (Eq. 3, 6; 8: by a teacher)
    x_a ── E_a ── appearance a ────────┤
                     │                 └── fine-grained head ─ identity of the structure   (Eq. 9)
                     G ── image ── D: real?                                                (Eq. 7)
                     │
    x_b ── E_s ── structure s, of the grey image
    ```
    The swaps x_ba = G(a_a, s_b) and x_ab = G(a_b, s_a) exchange the appearance of two identities; losses sum over both.
    Where the paper and the authors' code differ, this follows the code, which gave the published results, with two
    exceptions: Eq. 4 has the gradient that the code loses, and the two identities of a row always differ.

    Stage `teacher` trains the network that labels the swaps in Eq. 8, the paper's baseline; give it 0 steps if
    `teacher` names a finished run. Stage `pretrain` is Eq. 3 alone, for an encoder that starts from random weights;
    with ImageNet weights, as in the paper, it has 0 steps. With `feed="offline"` it learns Eq. 8 and 9, too.

    Args:
        backbone, weights: of E_a, whose last maps have D channels.
        last_stride: of the backbone's last block; 1, as in the authors' code, doubles the size of the last maps.
        dropout, fine_dropout: before the primary and before the fine-grained classifier.
        teacher: a finished run of `dgnet`, `strong` or `identity` on the same images, for its teacher or classifier.
        teacher_backbone, teacher_weights, teacher_dropout: of that network.
        teacher_style: labels of a swap. "soft": the teacher's mean prediction for the image and its mirror image;
            "hard": the most likely identity of it; "appearance": the identity of the appearance; "uniform": all
            identities alike; "both": the soft labels, restricted to the identities of appearance and structure.
        teacher_batch_statistics: the teacher's batch norm uses the statistics of the generated batch.
        feed: "online": the heads learn from the swaps of stage `joint`; "offline": in stage `pretrain`, from those that
            a finished run of `dgnet` makes, `swaps_from`; then `joint` has 0 steps.
        width: channels of the discriminator's first layers; E_s and G scale with it.
        scales: sizes at which the discriminator judges, each half of the one before.
        blocks: residual blocks of E_s, of G, and of the discriminator at each size.
        stripes: each of G's four blocks receives a stripe of the body, not a quarter of the channels as in the code.
        detach_appearance: E_a learns from identity losses alone; without, Eq. 1, 2 and 7 train it too.
        code_gradient: of Eq. 4; "paper": through a frozen E_a to the image; "released": none, as in the authors' code.
        image_weight: of Eq. 1 and 2. appearance_code_weight, structure_code_weight: of Eq. 4 and 5, once warmed up.
        identity_weight: of Eq. 3. generated_identity_weight: of Eq. 6. adversarial_weight: of Eq. 7.
        cycle_weight: of swapping twice, which must give the first image, once warmed up (not in the paper).
        primary_weight: lambda_prim, of Eq. 8. fine_ratio: alpha, of Eq. 9 relative to it.
        penalty_weight: of the squared gradient of D at real images (R1).
        warm_up: steps of the stage before the heads learn from generated images.
        ramp: growth of the weights of Eq. 4, 5, 8, 9 and the cycle in a step, up to their own values.
        erasing: fraction of the images of which a rectangle is erased for the identity losses.
        fine_at_test: beta, the weight of the fine-grained half of the representation.
    """

    STAGES: ClassVar = {
        "teacher": Stage(players=("teacher", "teacher_head"), sampler="single_images"),
        "pretrain": Stage(players=("appearance", "heads"), sampler="swaps"),
        "joint": Stage(players=("appearance", "heads", "generator", "discriminator"), sampler="swaps"),
    }
    RESCORED: ClassVar = ("fine_at_test",)

    def __init__(
        self,
        image_size,
        identities,
        seed,
        *,
        backbone: Backbone = "ResNet50",
        weights: Weights = "imagenet",
        last_stride: Literal[1, 2] = 1,
        dropout: Fraction = 0.5,
        fine_dropout: Fraction = 0.75,
        teacher: ExistingPath | None = None,
        teacher_backbone: Backbone = "ResNet50",
        teacher_weights: Weights = "imagenet",
        teacher_dropout: Fraction = 0.5,
        teacher_style: Literal["soft", "hard", "appearance", "uniform", "both"] = "soft",
        teacher_batch_statistics: bool = True,
        feed: Literal["online", "offline"] = "online",
        swaps_from: ExistingPath | None = None,
        width: PositiveInt = 32,
        scales: PositiveInt = 3,
        blocks: Literal[1, 2, 4] = 4,
        stripes: bool = False,
        detach_appearance: bool = True,
        code_gradient: Literal["paper", "released"] = "paper",
        image_weight: PositiveFloat = 5.0,
        appearance_code_weight: NonNegativeFloat = 1.0,
        structure_code_weight: NonNegativeFloat = 1.0,
        identity_weight: NonNegativeFloat = 1.0,
        generated_identity_weight: NonNegativeFloat = 0.5,
        adversarial_weight: NonNegativeFloat = 1.0,
        cycle_weight: NonNegativeFloat = 2.0,
        primary_weight: NonNegativeFloat = 2.0,
        fine_ratio: NonNegativeFloat = 0.2,
        penalty_weight: NonNegativeFloat = 0.01,
        warm_up: NonNegativeInt = 30_000,
        ramp: PositiveFloat = 5.0e-4,
        erasing: Fraction = 0.5,
        fine_at_test: NonNegativeFloat = 0.5,
    ):
        super().__init__(image_size, identities, seed)
        self.teacher = build_teacher(
            teacher, image_size, identities, teacher_backbone, teacher_weights, teacher_dropout
        )
        self.last_maps = maps_of(build_backbone(backbone, image_size, weights, last_stride))
        self.E_a = nets.appearance_encoder(self.last_maps, stripes)
        code_width, pooled_width = (shape[-1] for shape in self.E_a.output_shape)
        self.primary, self.fine = (nets.embedding_head(pooled_width, name) for name in ("primary", "fine"))
        self.primary_classifier = nets.classifier_head(identities, dropout, "primary_classifier")
        self.fine_classifier = nets.classifier_head(identities, fine_dropout, "fine_classifier")
        self.E_s = nets.structure_encoder(image_size, width, blocks)
        self.G = nets.decoder(self.E_s.output_shape[1:], code_width, blocks)
        self.parts_of_G = nets.parts_of_decoder(self.G)
        self.D = nets.discriminator(image_size, width, scales, blocks)
        self.features = feature_models(self.E_a, self.primary, self.fine, fine_at_test)
        self.feed = feed
        self.finished = FinishedGenerator(swaps_from, self.E_a, self.E_s, self.G) if swaps_from else None
        self.teacher_style, self.teacher_batch_statistics = teacher_style, teacher_batch_statistics
        self.detach_appearance, self.code_gradient = detach_appearance, code_gradient
        self.image_weight, self.adversarial_weight, self.cycle_weight = image_weight, adversarial_weight, cycle_weight
        self.appearance_code_weight, self.structure_code_weight = appearance_code_weight, structure_code_weight
        self.identity_weight, self.generated_identity_weight = identity_weight, generated_identity_weight
        self.primary_weight, self.fine_ratio, self.penalty_weight = primary_weight, fine_ratio, penalty_weight
        self.warm_up, self.ramp, self.erasing = warm_up, ramp, erasing

    def players(self):
        return {
            "teacher": [self.teacher.backbone],
            "teacher_head": self.teacher.heads,
            "appearance": [self.E_a],
            "heads": [self.primary, self.fine, self.primary_classifier, self.fine_classifier],
            "generator": [self.E_s, self.G],
            "discriminator": [self.D],
        }

    def backbones(self):
        return {"teacher": [self.teacher.backbone], "appearance": [self.last_maps]}

    def networks(self):
        heads = {network.name: network for network in self.players()["heads"]}
        return {"teacher": self.teacher, "E_a": self.E_a, "E_s": self.E_s, "G": self.G, "D": self.D} | heads

    def compile(self, stages, *args, **kwargs):
        super().compile(stages, *args, **kwargs)
        check_pretraining(self)

    def check_training(self):
        check_feed(self)

    def phase_of(self, step):
        return {"fed": self.stage == FED_IN[self.feed] and step >= self.warm_up}

    def teacher_step(self, batch):
        with tf.GradientTape() as tape:
            identity = {"identity": self.teacher.identity_loss(batch["source"], batch["source_identity"])}
        self.minimize(tape, identity, "teacher", "teacher_head")
        return self.report(teacher=identity, teacher_head=identity)

    def pretrain_step(self, batch):
        batch = SwapBatch.of(batch)
        with tf.GradientTape() as tape:
            terms, pooled = self.identity_losses(batch)
            if self.feeds:
                swaps = self.finished.swaps(batch.pair)
                terms = terms | self.fed_losses(batch, swaps, self.E_a(swaps, training=True)[1], pooled)
        self.minimize(tape, terms, "appearance", "heads")
        return self.report(appearance=terms, heads=terms)

    def joint_step(self, batch):
        batch = SwapBatch.of(batch)
        real = nets.to_imagenet(batch.pair)
        with tf.GradientTape(persistent=True) as tape:
            # 1. Codes of the images, and the images that G makes of these codes.
            codes = self.codes(batch, real, tape)
            generated = generated_images(self.parts_of_G, codes)
            # 2. D learns to recognise swaps; it is updated before the generator's losses are computed.
            with tape.stop_recording():
                discriminator_losses = self._update_discriminator(real, tf.stop_gradient(generated.swapped))
            # 3. Losses of E_s and G.
            image_losses = losses_of_images(self.D, real, generated, self.image_weight, self.adversarial_weight)
            seen, pooled_swaps = self.seen_in(generated.swapped)
            generator_losses = image_losses | self.code_losses(batch, real, codes, generated.swapped, seen)
            # 4. Losses of E_a and its heads.
            feature_losses, pooled = self.identity_losses(batch)
            if self.feeds:
                swaps = nets.from_imagenet(tf.stop_gradient(generated.swapped))
                feature_losses = feature_losses | self.fed_losses(batch, swaps, pooled_swaps, pooled)
        self.minimize(tape, generator_losses, "generator")
        appearance_losses = self._update_appearance(tape, feature_losses, image_losses)
        moved = {"generator": generator_losses, "appearance": appearance_losses, "heads": feature_losses}
        return self.report(**moved, discriminator=discriminator_losses)

    def _update_discriminator(self, real, swapped):
        """D on Eq. 7 and the gradient penalty."""
        with tf.GradientTape() as tape:
            real_scores, penalty = (
                nets.scores_and_penalty(self.D, real) if self.penalty_weight else (nets.scores_of(self.D, real), None)
            )
            adversarial = nets.discriminator_adversarial_loss(real_scores, nets.scores_of(self.D, swapped))
            terms = {"adversarial": self.adversarial_weight * adversarial}
            if self.penalty_weight:
                terms["gradient_penalty"] = self.penalty_weight * penalty
        self.minimize(tape, terms, "discriminator")
        return terms

    def _update_appearance(self, tape, feature_losses, image_losses):
        """E_a and its heads on the identity losses; E_a on the losses of images too, where it is not detached."""
        appearance_losses = feature_losses if self.detach_appearance else feature_losses | image_losses
        if feature_losses:
            self.minimize(tape, appearance_losses, "appearance", "heads")
        elif appearance_losses:
            self.minimize(tape, appearance_losses, "appearance")
        return appearance_losses

    def codes(self, batch: SwapBatch, real, tape) -> Codes:
        """Appearance codes of all images and structure codes of `real`, the normalised x_a and x_b."""
        appearance, pair = self.appearance_codes(batch.images, tape), batch.pair.shape[0]
        return Codes(positive_appearance=appearance[pair:], appearance=appearance[:pair], structure=self.E_s(real))

    def appearance_codes(self, images, tape):
        """a of each image, in training mode; without gradient, unless losses of images are to train E_a.

        The heads are called too, so that the statistics of their batch norm see whole images, not only erased and
        generated ones.
        """
        with tape.stop_recording() if self.detach_appearance else nullcontext():
            appearance, pooled = self.E_a(images, training=True)
            for head in (self.primary, self.fine):
                head(pooled, training=True)
        return tf.stop_gradient(appearance) if self.detach_appearance else appearance

    @property
    def feeds(self):
        """Whether the heads learn from swaps at this step."""
        return self.phase["fed"] and self.primary_weight

    def seen_in(self, swapped):
        """E_a's outputs for swaps, through which G learns, and the pooled features that the heads learn from, or None.

        One call serves both if codes are detached: then no loss of features can reach E_a through a swap.
        """
        swaps = nets.from_imagenet(swapped)
        if self.feeds and self.detach_appearance:
            seen = self.E_a(swaps, training=True)
            return seen, seen[1]
        pooled = self.E_a(tf.stop_gradient(swaps), training=True)[1] if self.feeds else None
        return frozen(self.E_a, swaps, training=True), pooled

    def code_losses(self, batch: SwapBatch, real, codes: Codes, swapped, seen) -> dict[str, tf.Tensor]:
        """Eq. 6 and, after the warm-up, Eq. 4, Eq. 5 and the cycle: a swap keeps the codes that it was made of.

        Args:
            real, swapped: normalised [2P, H, W, 3]: x_a and x_b, x_ba and x_ab. seen: E_a's outputs for `swapped`.
        """
        appearance, pooled = seen
        terms = {}
        if self.generated_identity_weight:
            logits = self.primary_classifier(frozen(self.primary, pooled, training=True), training=False)
            identity = losses.identification(logits, batch.pair_identities)
            terms["generated_identity"] = self.generated_identity_weight * 2.0 * identity
        if not self.phase["fed"]:
            return terms
        if self.appearance_code_weight:
            shown = tf.stop_gradient(appearance) if self.code_gradient == "released" else appearance
            distance = 2.0 * losses.l1(shown, tf.stop_gradient(codes.appearance))
            terms["appearance_code"] = self._ramped(self.appearance_code_weight) * distance
        if self.structure_code_weight or self.cycle_weight:
            # A coin decides whether this step teaches G to keep a structure, or E_s to recognise it.
            coin = tf.round(uniform([], self.seed_of_step(1)))
            structure = frozen(self.E_s, scale_gradient(swapped, coin), fraction=coin)
        if self.structure_code_weight:
            distance = 2.0 * losses.l1(structure, tf.stop_gradient(exchanged(codes.structure)))
            terms["structure_code"] = self._ramped(self.structure_code_weight) * distance
        if self.cycle_weight:
            cycled = self.G([tf.stop_gradient(appearance), exchanged(structure)])
            terms["cycle"] = self._ramped(self.cycle_weight) * 2.0 * losses.l1(cycled, real)
        return terms

    def identity_losses(self, batch: SwapBatch):
        """Eq. 3 of all real images, some of them partly erased -> losses, and their pooled features [4P, C]."""
        draws = self.drawn(uniform, len(batch.images) // 4, (4, 5))
        _, pooled = self.E_a(partly_erased(batch.images, draws, self.erasing), training=True)
        if not self.identity_weight:
            return {}, pooled
        logits = self.primary_classifier(self.primary(pooled, training=True), training=True)
        return {"identity": self.identity_weight * 4.0 * losses.identification(logits, batch.identities)}, pooled

    def fed_losses(self, batch: SwapBatch, swaps, pooled_swaps, pooled) -> dict[str, tf.Tensor]:
        """Eq. 8 and Eq. 9 of the swaps, and the fine-grained head's identification of real images.

        Args:
            swaps: float32 [2P, H, W, 3] in about [-1, 1], without gradient.
            pooled_swaps: E_a's pooled features of them [2P, C]. pooled: those of the real images [4P, C].
        """
        primary = self.primary_classifier(self.primary(pooled_swaps, training=True), training=True)
        fine = self.fine_classifier(self.fine(pooled_swaps, training=True), training=True)
        fine_of_real = self.fine_classifier(self.fine(pooled[: len(swaps)], training=True), training=True)
        weight = self._ramped(self.primary_weight)
        terms = {"primary": weight * 2.0 * losses.kullback_leibler(self.teacher_labels(batch, swaps), primary)}
        if self.fine_ratio:
            of_pair, of_structure = batch.pair_identities, exchanged(batch.pair_identities)
            terms["fine"] = weight * self.fine_ratio * 2.0 * losses.identification(fine, of_structure)
            terms["fine_of_real"] = weight * self.fine_ratio * 2.0 * losses.identification(fine_of_real, of_pair)
        return terms

    def teacher_labels(self, batch: SwapBatch, swaps):
        """q of Eq. 8, float32 [2P, K]; see `dgnet_teacher.teacher_labels`."""
        style, batch_statistics = self.teacher_style, self.teacher_batch_statistics
        return teacher_labels(self.teacher, style, batch_statistics, batch, swaps, self.identities)

    def _ramped(self, weight):
        """From 0 at the end of the warm-up to `weight`."""
        return tf.minimum(self.ramp * tf.cast(self.step + 1 - self.warm_up, tf.float32), weight)

    def encoders(self):
        return {"image": self.features[scored_by(self)]}

    def representations(self):
        return representations_of(self)

    def presentation(self):
        return presentation_of(self)
