"""DG-Net: images made of one person's appearance and another's structure teach the re-ID features, as they are made.

"Joint Discriminative and Generative Learning for Person Re-identification", CVPR 2019,
https://arxiv.org/abs/1904.07223.
"""

from contextlib import nullcontext
from typing import ClassVar, Literal

import keras
import tensorflow as tf

from tf_reid.config import ExistingPath, Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Weights
from tf_reid.data.pipeline import erased
from tf_reid.methods.base import ReIDModel, Stage
from tf_reid.methods.representation import Representation
from tf_reid.networks import losses
from tf_reid.networks.backbones import BACKBONES, Backbone, maps_of
from tf_reid.networks.dgnet import (
    appearance_encoder,
    classifier_head,
    decoder,
    discriminator,
    embedding_head,
    from_imagenet,
    structure_encoder,
    to_imagenet,
)
from tf_reid.networks.layers import frozen, scale_gradient
from tf_reid.networks.siamese import SiameseClassifier
from tf_reid.pictures.page import PARTS, Page


class DGNet(ReIDModel):
    """Appearance encoder with two heads, structure encoder, decoder and discriminator; Eq. 1-10 of the paper.

    ```
                                       ┌── primary head ────── who wears this?     (Eq. 3, 6; 8: as a teacher says)
    x_a ── E_a ── appearance a ────────┤
                     │                 └── fine-grained head ─ whose shape is this?  (Eq. 9)
                     G ── image ── D: real?                                        (Eq. 7)
                     │
    x_b ── E_s ── structure s, of the grey image
    ```
    x_ba = G(a_a, s_b) and x_ab = G(a_b, s_a) are the swaps of two persons. Both directions are summed. Where the paper
    and the authors' code differ, the code is followed, as it is what gave the figures, but for Eq. 4, whose gradient
    the code loses; and the persons of a row always differ, as the paper asks.

    Stage `teacher` trains the network whose answers are Eq. 8's labels, by identification alone; give it 0 steps where
    `teacher` names a finished run. Stage `pretrain` is Eq. 3 alone, for an encoder from random weights; with ImageNet
    weights, as in the paper, that has 0 steps.

    Args:
        backbone, weights: of E_a, which has D features a position of its last maps.
        last_stride: of the backbone's last block; 1, as in the authors' code, gives maps twice as large.
        dropout, fine_dropout: before the primary and before the fine-grained classifier.
        teacher: a finished run of `identity` on the same images, whose `networks/classifier.weights.h5` is the teacher.
        teacher_backbone, teacher_weights, teacher_dropout: of that network.
        teacher_style: "soft": the teacher's answer to the image and its mirror image; "hard": the likeliest of it;
            "appearance": whose appearance it has; "uniform": everyone alike; "both": the soft answer between those two
            persons whose appearance and structure it has.
        teacher_batch_statistics: the teacher's batch norm takes the statistics of the generated batch.
        width: channels of the discriminator's first layers; E_s and G scale with it.
        scales: sizes at which the discriminator looks, each half of the one before.
        stripes: the four blocks of G receive a stripe of the body each; the authors' code gives each a quarter of the
            channels at all four heights.
        detach_appearance: no gradient of an image's losses reaches E_a, which learns from persons alone. Without,
            Eq. 1, 2 and 7 teach it too.
        code_gradient: of Eq. 4; "paper": through a frozen E_a to the image; "released": none, as in the authors' code.
        image_weight: of Eq. 1 and 2. appearance_code_weight, structure_code_weight: of Eq. 4 and 5, once warmed up.
        identity_weight: of Eq. 3. generated_identity_weight: of Eq. 6. adversarial_weight: of Eq. 7.
        cycle_weight: of swapping the swapped back, once warmed up (not in the paper).
        primary_weight: lambda_prim, of Eq. 8. fine_ratio: alpha, of Eq. 9 relative to it.
        penalty_weight: of the squared gradient of D at real images.
        warm_up: steps of stage `joint` before generated images are fed back.
        ramp: how much the weights of Eq. 4, 5, 8, 9 and the cycle grow a step, up to their own.
        erasing: part of the images that have a rectangle erased where persons are learned.
        fine_at_test: beta, the weight of the fine-grained half of the representation.
    """

    STAGES: ClassVar = {
        "teacher": Stage(players=("teacher", "teacher_head"), sampler="pairs"),
        "pretrain": Stage(players=("appearance", "heads"), sampler="swaps", weight="identity_weight"),
        "joint": Stage(players=("appearance", "heads", "generator", "discriminator"), sampler="swaps"),
    }

    def __init__(
        self,
        image_size,
        identities,
        seed,
        *,
        backbone: Literal["resnet50", "small"] = "resnet50",
        weights: Weights = "imagenet",
        last_stride: Literal[1, 2] = 1,
        dropout: Fraction = 0.5,
        fine_dropout: Fraction = 0.75,
        teacher: ExistingPath | None = None,
        teacher_backbone: Backbone = "resnet50",
        teacher_weights: Weights = "imagenet",
        teacher_dropout: Fraction = 0.5,
        teacher_style: Literal["soft", "hard", "appearance", "uniform", "both"] = "soft",
        teacher_batch_statistics: bool = True,
        width: PositiveInt = 32,
        scales: PositiveInt = 3,
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
        if image_size[0] % 4 or image_size[1] % 4:
            raise ValueError(
                f"data.image_size is {list(image_size)}, but structure is halved twice: use multiples of 4."
            )
        self.teacher = SiameseClassifier(image_size, identities, teacher_backbone, teacher_weights, teacher_dropout)
        if teacher:
            self.teacher.load(teacher, "method.teacher")
        self.last_maps = maps_of(BACKBONES[backbone](image_size, weights, last_stride=last_stride))
        self.E_a = appearance_encoder(self.last_maps, stripes)
        code_width, pooled_width = (shape[-1] for shape in self.E_a.output_shape)
        self.primary, self.fine = (embedding_head(pooled_width, name) for name in ("primary", "fine"))
        self.primary_classifier = classifier_head(identities, dropout, "primary_classifier")
        self.fine_classifier = classifier_head(identities, fine_dropout, "fine_classifier")
        self.E_s = structure_encoder(image_size, width)
        self.G = decoder(self.E_s.output_shape[1:], code_width)
        self.D = discriminator(image_size, width, scales)
        self.representation = {
            "both": self._representation({"primary": 1.0, "fine": fine_at_test**0.5}),
            "primary": self._representation({"primary": 1.0}),
            "fine": self._representation({"fine": 1.0}),
        }
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
            "teacher_head": [self.teacher.identity_head],
            "appearance": [self.E_a],
            "heads": [self.primary, self.fine, self.primary_classifier, self.fine_classifier],
            "generator": [self.E_s, self.G],
            "discriminator": [self.D],
        }

    def networks(self):
        heads = {network.name: network for network in self.players()["heads"]}
        return {"teacher": self.teacher, "E_a": self.E_a, "E_s": self.E_s, "G": self.G, "D": self.D} | heads

    def phase_of(self, step):
        if self.stage != "joint":
            return None
        return {"fed": step >= self.warm_up}

    def teacher_step(self, batch):
        with tf.GradientTape() as tape:
            identity = {"identity": self.teacher.pair_losses(batch["source"], batch["source_identity"])["identity"]}
        self.minimize(tape, identity, "teacher", "teacher_head")
        return self.report(teacher=identity, teacher_head=identity)

    def pretrain_step(self, batch):
        images, identities = _columns(batch)
        with tf.GradientTape() as tape:
            identity, _ = self.real_losses(images, identities)
        self.minimize(tape, identity, "appearance", "heads")
        return self.report(appearance=identity, heads=identity)

    def joint_step(self, batch):
        images, identities = _columns(batch)  # x_a and x_b, then their positives
        pair, of_pair = images[: len(images) // 2], identities[: len(identities) // 2]
        real = to_imagenet(pair)
        with tf.GradientTape(persistent=True) as tape:
            # 1. Codes, and what they make: each image again, again by its positive's appearance, and the swaps.
            appearance = self.appearance_codes(images, tape)
            of_positive = appearance[len(pair) :]
            appearance = appearance[: len(pair)]
            structure = self.E_s(real)
            appearances = tf.concat([appearance, of_positive, appearance], axis=0)
            structures = tf.concat([structure, structure, _other(structure)], axis=0)
            again, by_positive, swapped = tf.split(self.G([appearances, structures]), 3)
            # 2. D tells real images from swaps (Eq. 7).
            with tape.stop_recording():
                discriminator_losses = self._minimize_discriminator(real, tf.stop_gradient(swapped))
            # 3. E_s and G make images that are right, that D, as it now stands, takes for real, and whose person shows.
            images_losses = {
                "image": self.image_weight * 2.0 * losses.l1(again, real),  # Eq. 1, of x_a and of x_b
                "image_by_positive": self.image_weight * 2.0 * losses.l1(by_positive, real),  # Eq. 2
            }
            if self.adversarial_weight:
                images_losses["fools"] = self.adversarial_weight * fools(self.D(swapped))
            seen, to_learn_of = self.seen_in(swapped)
            generator_losses = images_losses | self.code_losses(real, appearance, structure, swapped, seen, of_pair)
            # 4. E_a and its heads learn persons of real images, and of the swaps.
            appearance_losses, pooled = self.real_losses(images, identities)
            if self.feeds:
                fed = self.fed_losses(from_imagenet(tf.stop_gradient(swapped)), to_learn_of, of_pair, pooled)
                appearance_losses = appearance_losses | fed

        self.minimize(tape, generator_losses, "generator")
        taught = appearance_losses if self.detach_appearance else appearance_losses | images_losses
        if appearance_losses:
            self.minimize(tape, taught, "appearance", "heads")
        elif taught:
            self.minimize(tape, taught, "appearance")
        return self.report(
            generator=generator_losses,
            appearance=taught,
            heads=appearance_losses,
            discriminator=discriminator_losses,
        )

    def appearance_codes(self, images, tape):
        """a of each image, in training mode; detached, but where image losses are to teach E_a.

        The heads see the images, too: their batch norm's statistics are to be not only of erased images and swaps.
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
        """What E_a sees in swaps: its outputs through which G learns, and what the heads learn from, or None.

        One look serves both where codes are detached: then no feature's loss finds a way through the swap into E_a.
        """
        look = from_imagenet(swapped)
        if self.feeds and self.detach_appearance:
            seen = self.E_a(look, training=True)
            return seen, seen[1]
        to_learn_of = self.E_a(tf.stop_gradient(look), training=True)[1] if self.feeds else None
        return frozen(self.E_a, look, training=True), to_learn_of

    def code_losses(self, real, appearance, structure, swapped, seen, identities) -> dict:
        """Eq. 6 and, once fed, Eq. 4, Eq. 5 and the cycle: swaps show the person and the codes they were made of.

        Args:
            real, swapped: [2P, H, W, 3], normalised. The first half of `swapped` is x_ba, the second x_ab.
            appearance, structure: the codes of `real`. seen: E_a's outputs for `swapped`.
            persons: int [2P], of `real`, so of the swaps' appearance.
        """
        found, pooled = seen
        terms = {}
        if self.generated_identity_weight:
            logits = self.primary_classifier(frozen(self.primary, pooled, training=True), training=False)
            terms["swapped_identity"] = self.generated_identity_weight * 2.0 * losses.identification(logits, identities)
        if not self.phase["fed"]:
            return terms
        if self.appearance_code_weight:
            shown = tf.stop_gradient(found) if self.code_gradient == "released" else found
            apart = 2.0 * losses.l1(shown, tf.stop_gradient(appearance))
            terms["appearance_code"] = self._ramped(self.appearance_code_weight) * apart
        if self.structure_code_weight or self.cycle_weight:
            # A coin decides whether this step teaches G to keep a structure, or E_s to find it.
            coin = tf.round(tf.random.stateless_uniform([], self.seed_of_step(1)))
            found_structure = frozen(self.E_s, scale_gradient(swapped, coin), share=coin)
        if self.structure_code_weight:
            apart = 2.0 * losses.l1(found_structure, tf.stop_gradient(_other(structure)))
            terms["structure_code"] = self._ramped(self.structure_code_weight) * apart
        if self.cycle_weight:
            back = self.G([tf.stop_gradient(found), _other(found_structure)])
            terms["cycle"] = self._ramped(self.cycle_weight) * 2.0 * losses.l1(back, real)
        return terms

    def real_losses(self, images, identities):
        """Eq. 3 of all four columns, parts of some images erased -> losses, and what the heads see [4P, C].

        Args:
            images: float32 [4P, H, W, 3] in [-1, 1]. persons: int [4P].
        """
        _, pooled = self.E_a(self._erased(images), training=True)
        if not self.identity_weight:
            return {}, pooled
        logits = self.primary_classifier(self.primary(pooled, training=True), training=True)
        return {"identity": self.identity_weight * 4.0 * losses.identification(logits, identities)}, pooled

    def fed_losses(self, swapped, seen, identities, pooled) -> dict:
        """Eq. 8 and Eq. 9 of the swaps, and the fine-grained head's answer to real images.

        Args:
            swapped: float32 [2P, H, W, 3], in pixels' scale, without gradient.
            seen: what the heads see of them [2P, C].
            persons: int [2P], of their appearance. pooled: what the heads see of the real images [4P, C].
        """
        primary = self.primary_classifier(self.primary(seen, training=True), training=True)
        fine = self.fine_classifier(self.fine(seen, training=True), training=True)
        of_real = self.fine_classifier(self.fine(pooled[: len(swapped)], training=True), training=True)
        weight = self._ramped(self.primary_weight)
        terms = {"primary": weight * 2.0 * losses.kullback_leibler(self.teachers_labels(swapped, identities), primary)}
        if self.fine_ratio:
            terms["fine"] = weight * self.fine_ratio * 2.0 * losses.identification(fine, _other(identities))
            terms["fine_of_real"] = weight * self.fine_ratio * 2.0 * losses.identification(of_real, identities)
        return terms

    def teachers_labels(self, swapped, identities):
        """q of Eq. 8: float32 [2P, K], a distribution over persons for each swap."""
        of_appearance = tf.one_hot(identities, self.identities)
        if self.teacher_style == "appearance":
            return of_appearance
        if self.teacher_style == "uniform":
            return tf.ones_like(of_appearance) / self.identities
        both = [
            frozen(self.teacher.backbone, view, training=self.teacher_batch_statistics)
            for view in (swapped, swapped[:, :, ::-1])
        ]
        answer = tf.add_n([tf.nn.softmax(self.teacher.identity_head(features)) for features in both]) / 2.0
        if self.teacher_style == "hard":
            answer = tf.one_hot(tf.argmax(answer, axis=1), self.identities)
        if self.teacher_style == "both":
            answer *= of_appearance + _other(of_appearance)
            answer = tf.math.divide_no_nan(answer, tf.reduce_sum(answer, axis=1, keepdims=True))
        return tf.stop_gradient(answer)

    def _minimize_discriminator(self, real, swapped):
        with tf.GradientTape() as tape:
            of_real, penalty = scores_and_penalty(self.D, real) if self.penalty_weight else (self.D(real), 0.0)
            terms = {"tells_apart": self.adversarial_weight * tells_apart(of_real, self.D(swapped))}
            if self.penalty_weight:
                terms["penalty"] = self.penalty_weight * penalty
        self.minimize(tape, terms, "discriminator")
        return terms

    def _ramped(self, weight):
        """From 0 at the end of the warm-up to `weight`."""
        return tf.minimum(self.ramp * tf.cast(self.step + 1 - self.warm_up, tf.float32), weight)

    def _erased(self, images):
        own = tf.transpose(self.drawn(tf.random.stateless_uniform, images.shape[0] // 4, (4, 5)), (1, 0, 2))
        return erased(images, tf.reshape(own, (-1, 5)), self.erasing, from_imagenet(tf.zeros(3)))

    def _representation(self, weights) -> keras.Model:
        """Images -> each head's unit features of image and mirror image, summed, of unit length, weighted, in a row."""
        images = keras.Input((*self.image_size, 3))
        seen = [self.E_a(view)[1] for view in (images, images[:, :, ::-1])]
        heads = {"primary": self.primary, "fine": self.fine}
        parts = [weight * _unit(sum(_unit(heads[name](pooled)) for pooled in seen)) for name, weight in weights.items()]
        features = keras.ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
        return keras.Model(images, features, name="_".join(weights))

    def encoders(self):
        never_fed = self.steps_of_stage["joint"] <= self.warm_up or not self.primary_weight
        return {"image": self.representation["primary" if never_fed or not self.fine_ratio else "both"]}

    def representations(self):
        own = self.encoders()
        found = {"raw": Representation(own)}
        if own["image"] is self.representation["both"]:
            for head in ("primary", "fine"):
                found[head] = Representation({"image": self.representation[head]})
        if self.steps_of_stage["teacher"]:
            found["teacher"] = Representation({"image": self.teacher.backbone})
        return found

    def maps(self):
        return {"image": self.last_maps}

    def generated(self, batch):
        images, identities = _columns(batch)
        pair, of_pair = images[: len(images) // 2], identities[: len(identities) // 2]
        return {"swaps": (self.composed(pair, _other(pair)), pair, of_pair)}

    def composed(self, of_appearance, of_structure):
        """Images in [-1, 1] -> those that have the appearance of the one and the structure of the other."""
        return self.drawn_image(self.E_a(of_appearance)[0], self.E_s(to_imagenet(of_structure)))

    def image_maker(self):
        return ("appearance", "structure"), self.composed

    def drawn_image(self, appearance, structure):
        """Codes -> images in [-1, 1]."""
        return tf.clip_by_value(from_imagenet(self.G([appearance, structure])), -1.0, 1.0)

    def pictures(self, batch):
        if self.stage != "joint":
            return {}
        pair = _columns(batch)[0]
        pair = pair[: len(pair) // 2]
        columns = pair, self.composed(pair, pair), self.composed(pair, _other(pair))
        halves = [half for images in columns for half in tf.split(images, 2)]
        titles = ["a", "b", "a again", "b again", "a's clothes, b's pose", "b's clothes, a's pose"]
        return {"swaps": (titles, halves)}

    def pages(self):
        return {"swaps": self.swaps_page, "interpolation": self.interpolation_page}

    def swaps_page(self, appearance, structure):
        """Rows of one appearance, columns of one structure (the paper's Fig. 1)."""
        nothing = tf.ones_like(structure.images[:1])
        rows = [tf.concat([nothing, structure.images], axis=0)]
        for image in appearance.images:
            worn = tf.repeat(image[None], len(structure.images), axis=0)
            rows.append(tf.concat([image[None], self.composed(worn, structure.images)], axis=0))
        columns = ["", *(f"structure of {caption}" for caption in structure.captions)]
        return Page(rows, columns, ["", *(f"appearance of\n{caption}" for caption in appearance.captions)])

    def interpolation_page(self, first, second):
        """From the appearance of the first to that of the second, in the first's structure (the paper's Fig. 5)."""
        one, other = (self.E_a(shown.images)[0] for shown in (first, second))
        structure = self.E_s(to_imagenet(first.images))
        between = [self.drawn_image((1.0 - part) * one + part * other, structure) for part in PARTS]
        columns = [first.images, *between, second.images]
        rows = [f"from {a}\nto {b}" for a, b in zip(first.captions, second.captions, strict=True)]
        titles = ["pose, and clothes", *(f"{part:.0%}" for part in PARTS), "clothes"]
        return Page.of_columns(titles, columns, rows)


def scores_and_penalty(discriminator, real):
    """Scores of real images and their squared gradient, summed over pixels, scales, both sides; mean over images.

    (Mescheder et al., 2018, https://arxiv.org/abs/1801.04406: R1.)
    """
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(real)
        scores = discriminator(real)
    gradients = [tape.gradient(score, real) for score in scores]
    return scores, 2.0 * tf.add_n([tf.reduce_mean(tf.reduce_sum(g * g, axis=(1, 2, 3))) for g in gradients])


def tells_apart(real, swapped):
    """Eq. 7 for the discriminator, with squares in place of logarithms, summed over scales and both directions."""
    pairs = zip(real, swapped, strict=True)
    return 2.0 * tf.add_n([losses.least_squares(r, 1.0) + losses.least_squares(s, 0.0) for r, s in pairs])


def fools(swapped):
    """Eq. 7 for the generator: twice the squares, as in the authors' code, summed over scales and both directions."""
    return 4.0 * tf.add_n([losses.least_squares(scores, 1.0) for scores in swapped])


def _columns(batch):
    """Rows of four -> images [4P, H, W, 3], persons [4P]: all x_a, all x_b, then their positives in the same order."""
    images = tf.concat(tf.unstack(batch["source"], axis=1), axis=0)
    return images, tf.concat(tf.unstack(batch["source_identity"], axis=1), axis=0)


def _other(rows):
    """The halves of [2P, ...] in the other order: what belongs to x_b beside x_a, and to x_a beside x_b."""
    first, second = tf.split(rows, 2)
    return tf.concat([second, first], axis=0)


def _unit(features):
    return keras.ops.normalize(features, axis=-1)
