"""Adversarial view adaptation: a mapping for each view, trained against a view discriminator.

"Cross-Entropy Adversarial View Adaptation for Person Re-identification", Wu, Hong, Wang and Wang, 2019.
"""

from dataclasses import replace
from typing import ClassVar, Literal

import tensorflow as tf

from tf_reid.config import ConfigError
from tf_reid.methods.base import ReIDModel, Stage
from tf_reid.methods.presentation import Presentation
from tf_reid.methods.representation import Representation
from tf_reid.networks import losses
from tf_reid.networks.backbones import Backbone, build_backbone, maps_of
from tf_reid.networks.layers import feed_forward, frozen
from tf_reid.settings import ExistingPath, NonNegativeFloat, PositiveFloat, PositiveInt, Weights

UNUSED_BY_BASELINE = {"dan": ("similarity", "adversarial"), "adda": ("similarity",)}  # stages, by `baseline`


class ViewAdaptation(ReIDModel):
    """Two mappings without shared weights, a view discriminator and a similarity discriminator; Eq. 1-6 of the paper.

    ```
    probe image ─── M_s ──┬──────────────┬── concatenated ── D_s: the same identity?   (Eq. 2, 5: first term)
                          ├── distance ──┤                   small for one identity    (Eq. 2, 5: second term)
    gallery image ─ M_t ──┴──────────────┴── each alone ──── D_d: which view?          (Eq. 1; Eq. 3 confuses it)
    ```
    A step updates D_d on Eq. 1, then both mappings on Eq. 3, then mappings and D_s on Eq. 2 or 5, as Eq. 4 lists them.
    The loop of Algorithm 1 as printed lacks the last update; a constant mapping is then its minimum.

    Args:
        probe_backbone, gallery_backbone: M_s and M_t, whose features have the same length.
        probe_weights, gallery_weights: "imagenet", a local weights file, or null for random weights.
        vgg_m_weights: the file that "imagenet" stands for where the backbone is "vgg_m", of which Keras has no weights.
        shared: one mapping for both views, M_t = M_s = the probe's.
        similarity_widths, view_widths: hidden units of D_s and D_d.
        weighting: of the term of distances. "uniform" is Eq. 2, over equally many negative and positive pairs;
            "outside", "inside" and "pooled" are readings of Eq. 5, see `losses.adaptive_contrastive`.
        weights_carry_gradient: see `losses.adaptive_contrastive`.
        contrastive_weight: gamma.
        margin: m, between distances.
        normalise: give features unit length before distances; without it the margin has no fixed scale.
        adaptation: the loss of the mappings' own update. "confusion": Eq. 3; "adda": the gallery mapping alone learns
            to be taken for the probe's by D_d; "mmd": maximum mean discrepancy of the views, without D_d (DAN); "none".
        adaptation_weight: of that loss.
        literal_alg1: the loop of Algorithm 1 as printed, without Eq. 2 or 5.
        baseline: train as another paper does, with the labels of the probe view alone and the probe's backbone for both
            views. "dan" (Long et al., 2015, https://arxiv.org/abs/1502.02791): one network learns identities and makes
            the features and the class scores of both views alike, in stage `finetune`, the only one. "adda" (Tzeng et
            al., 2017, https://arxiv.org/abs/1702.05464): M_s learns identities in `finetune`; M_t starts as M_s and is
            adapted to it in `adversarial`, by inverted labels of D_d. A batch's probe and gallery images are then drawn
            independently. `shared`, `adaptation`, `gallery_backbone` and `gallery_weights` are then not read.
    """

    STAGES: ClassVar = {
        "finetune": Stage(players=("mappings", "heads"), sampler="views"),
        "similarity": Stage(players=("mappings", "similarity"), sampler="views", validated=True),
        "adversarial": Stage(players=("view", "mappings", "similarity"), sampler="views", validated=True),
    }

    def __init__(
        self,
        image_size,
        identities,
        seed,
        *,
        probe_backbone: Backbone = "vgg_m",
        gallery_backbone: Backbone = "VGG16",
        probe_weights: Weights = None,
        gallery_weights: Weights = "imagenet",
        vgg_m_weights: ExistingPath | None = None,
        shared: bool = False,
        similarity_widths: list[PositiveInt] = [1024, 2048],  # noqa: B006
        view_widths: list[PositiveInt] = [500],  # noqa: B006
        weighting: Literal["uniform", "outside", "inside", "pooled"] = "outside",
        weights_carry_gradient: bool = False,
        contrastive_weight: NonNegativeFloat = 2.5,
        margin: PositiveFloat = 2.0,
        normalise: bool = True,
        adaptation: Literal["confusion", "adda", "mmd", "none"] = "confusion",
        adaptation_weight: PositiveFloat = 1.0,
        literal_alg1: bool = False,
        baseline: Literal["dan", "adda"] | None = None,
    ):
        super().__init__(image_size, identities, seed)
        if literal_alg1 and adaptation == "none":
            raise ValueError(
                "method.literal_alg1 with method.adaptation=none moves no mapping: change one of the two settings."
            )
        if baseline:  # both views have the probe's backbone; ADDA's second one gets its weights in `finish`
            shared, adaptation = baseline == "dan", baseline
            gallery_backbone, gallery_weights = probe_backbone, None
            self.STAGES = {name: replace(stage, sampler="unmatched_views") for name, stage in self.STAGES.items()}

        def mapping(backbone, weights):
            if backbone == "vgg_m" and weights == "imagenet" and vgg_m_weights:
                weights = vgg_m_weights
            return build_backbone(backbone, image_size, weights)

        self.M_s = mapping(probe_backbone, probe_weights)
        self.M_t = self.M_s if shared else mapping(gallery_backbone, gallery_weights)
        width = self.M_s.output_shape[-1]
        if self.M_t.output_shape[-1] != width:
            raise ValueError(
                f"method.probe_backbone={probe_backbone} gives {width} features and method.gallery_backbone="
                f"{gallery_backbone} gives {self.M_t.output_shape[-1]}: choose two backbones with equally many."
            )
        self.heads = [feed_forward(width, [], identities, f"{view}_head") for view in ("probe", "gallery")]
        self.D_s = feed_forward(2 * width, similarity_widths, 1, "D_s")
        self.D_d = feed_forward(width, view_widths, 2, "D_d")
        self.shared, self.weighting, self.weights_carry_gradient = shared, weighting, weights_carry_gradient
        self.contrastive_weight, self.margin, self.normalise = contrastive_weight, margin, normalise
        self.adaptation, self.adaptation_weight, self.literal_alg1 = adaptation, adaptation_weight, literal_alg1
        self.baseline = baseline

    def players(self):
        mappings = [self.M_s] if self.shared else [self.M_s, self.M_t]
        return {"mappings": mappings, "heads": self.heads, "similarity": [self.D_s], "view": [self.D_d]}

    def backbones(self):
        return {"mappings": self.players()["mappings"]}

    def networks(self):
        return {"M_s": self.M_s, "M_t": self.M_t, "D_s": self.D_s, "D_d": self.D_d}

    def compile(self, stages, *args, **kwargs):
        if self.baseline:
            self._check_stages_of_baseline({name: stage for name, stage in stages.items() if stage.steps})
        super().compile(stages, *args, **kwargs)

    def _check_stages_of_baseline(self, stages):
        for name, stage in stages.items():
            if name in UNUSED_BY_BASELINE[self.baseline]:
                raise ConfigError(f"method.baseline={self.baseline} has no stage {name}; set stages.{name}.steps=0.")
            for key, watched in stage.watched.items():
                if watched == "loss":
                    raise ConfigError(
                        f"method.baseline={self.baseline} minimises no loss that validation identities have; set "
                        f"stages.{name}.{key}=null."
                    )

    def finish(self):
        """ADDA's M_t, which `finetune` does not train, is M_s until `adversarial`; also in evaluations before that."""
        super().finish()
        if self.baseline == "adda" and self.stage == "finetune":
            self.M_t.set_weights(self.M_s.get_weights())

    def finetune_step(self, batch):
        if self.baseline:
            return self._baseline_finetune_step(batch)
        identities = batch["source_identity"][:, 0]
        with tf.GradientTape() as tape:
            logits = [head(features) for head, features in zip(self.heads, self.mapped(batch), strict=True)]
            identity = {
                "identity_probe": losses.identification(logits[0], identities),
                "identity_gallery": losses.identification(logits[1], identities),
            }
        self.minimize(tape, identity, "mappings", "heads")
        return self.report(mappings=identity, heads=identity)

    def similarity_step(self, batch):
        with tf.GradientTape(persistent=True) as tape:
            matching = self.matching_losses(*self.mapped(batch), batch["source_identity"][:, 0])
        return self.report(**self._update_matching(tape, matching))

    def _baseline_finetune_step(self, batch):
        """Identities of the probe view; for DAN, also what makes the views alike in the last two layers."""
        with tf.GradientTape() as tape:
            probe = self.M_s(batch["source"][:, 0], training=True)
            logits = self.heads[0](probe)
            terms = {"identity_probe": losses.identification(logits, batch["source_identity"][:, 0])}
            if self.baseline == "dan":
                gallery = self.M_t(batch["source"][:, 1], training=True)
                layers = (probe, gallery), (logits, self.heads[0](gallery))
                discrepancies = [self._discrepancy(*layer) for layer in layers]
                terms["dan"] = self.adaptation_weight * tf.add_n(discrepancies)
        self.minimize(tape, terms, "mappings", "heads")
        return self.report(mappings=terms, heads=terms)

    def _adda_step(self, batch):
        """D_d tells the views apart; M_t alone learns to be taken for M_s, which is fixed.

        Both have the batch's statistics in their batch norm: by another kind of statistics D_d could tell them apart.
        """
        probe = frozen(self.M_s, batch["source"][:, 0], training=True)
        with tf.GradientTape() as tape:
            gallery = self.M_t(batch["source"][:, 1], training=True)
            with tape.stop_recording():
                view = self._update_view_discriminator(probe, tf.stop_gradient(gallery))
            adapting = self.adaptation_losses(probe, gallery)
        self.minimize(tape, adapting, "mappings")
        return self.report(view=view, mappings=adapting)

    def adversarial_step(self, batch):
        if self.baseline == "adda":
            return self._adda_step(batch)
        with tf.GradientTape() as tape:
            probe, gallery = self.mapped(batch)
            # 1. D_d recognises the view of features, which get no gradient from it (Eq. 1).
            with tape.stop_recording():
                view = self._update_view_discriminator(tf.stop_gradient(probe), tf.stop_gradient(gallery))
            # 2. The mappings make the views alike to the updated D_d (Eq. 3).
            adapting = self.adaptation_losses(probe, gallery)
        if adapting:
            self.minimize(tape, adapting, "mappings")

        if self.literal_alg1:
            return self.report(view=view, mappings=adapting)

        # 3. Mappings and D_s learn identities (Eq. 2 or 5).
        with tf.GradientTape(persistent=True) as tape:
            matching = self.matching_losses(*self.mapped(batch), batch["source_identity"][:, 0])
        moved = self._update_matching(tape, matching)
        return self.report(view=view, mappings=adapting | moved["mappings"], similarity=moved["similarity"])

    def validation_loss(self, batch):
        """Eq. 2 or 5, which `similarity` and `adversarial` both descend."""
        matching = self.matching_losses(*self.mapped(batch, training=False), batch["source_identity"][:, 0])
        return tf.add_n(list(matching.values()))

    def mapped(self, batch, training=True):
        """Features of the probe images and of the gallery images, float32 [P, D] each."""
        images = batch["source"]
        return self.M_s(images[:, 0], training=training), self.M_t(images[:, 1], training=training)

    def _update_view_discriminator(self, probe, gallery):
        """D_d on Eq. 1 -> its loss and accuracy."""
        with tf.GradientTape() as tape:
            probe_logits, gallery_logits = self.D_d(probe), self.D_d(gallery)
            loss = {"view": view_loss(probe_logits, gallery_logits)}
        self.minimize(tape, loss, "view")
        correct = [tf.argmax(probe_logits, axis=1) == 1, tf.argmax(gallery_logits, axis=1) == 0]
        return loss | {"accuracy": tf.reduce_mean(tf.cast(tf.concat(correct, axis=0), tf.float32))}

    def _update_matching(self, tape, matching):
        """Mappings and D_s on Eq. 2 or 5 -> player -> its losses; D_s has no part in the term of distances."""
        of_similarity = {"match": matching["match"]}
        self.minimize(tape, matching, "mappings")
        self.minimize(tape, of_similarity, "similarity")
        return {"mappings": matching, "similarity": of_similarity}

    def adaptation_losses(self, probe, gallery) -> dict[str, tf.Tensor]:
        """The loss that makes the mapped views alike, weighted; D_d is not updated on it."""
        if self.adaptation == "confusion":  # Eq. 3: a sum over the two views
            loss = losses.uniform_cross_entropy(self.D_d(probe)) + losses.uniform_cross_entropy(self.D_d(gallery))
        elif self.adaptation == "adda":
            logits = self.D_d(gallery)
            loss = losses.identification(logits, tf.ones(tf.shape(logits)[0], tf.int32))  # "this is a probe"
        elif self.adaptation == "mmd":
            loss = self._discrepancy(probe, gallery)
        else:
            return {}
        return {self.adaptation: self.adaptation_weight * loss}

    def _discrepancy(self, probe, gallery):
        """Of the views, over the global batch; with several kernels, as DAN has it."""
        return losses.maximum_mean_discrepancy(self.global_batch(probe), self.global_batch(gallery))

    def matching_losses(self, probe, gallery, identities) -> dict[str, tf.Tensor]:
        """Eq. 2 or Eq. 5, with the signs of their negative terms put right and the missing half of the cross-entropy.

        D_s compares each probe image with the gallery image of its pair and with one of the next identity.

        Args:
            probe, gallery: float32 [P, D], a pair of one identity a row; the pairs of an identity are adjacent.
            identities: int [P].
        """
        probe, gallery, identities = (self.global_batch(rows) for rows in (probe, gallery, identities))
        positive = identities[:, None] == identities
        count = tf.shape(identities)[0]
        rows, pairs_of_identity = tf.range(count), tf.reduce_sum(tf.cast(positive, tf.int32), axis=1)
        # If all identities have equally many pairs, each gallery image is the negative of one probe image.
        negative = (rows + pairs_of_identity) % count
        both = [tf.concat([probe, probe], axis=0), tf.concat([gallery, tf.gather(gallery, negative)], axis=0)]
        same = tf.cast(tf.concat([tf.ones_like(rows), tf.zeros_like(rows)], axis=0), probe.dtype)
        # Both terms are sums over an anchor's positive and its negative: twice the mean over both.
        matching = {"match": 2.0 * losses.verification(self.D_s(tf.concat(both, axis=1))[:, 0], same)}
        if not self.contrastive_weight:
            return matching
        if self.normalise:
            probe, gallery = (tf.math.l2_normalize(rows, axis=1, epsilon=1e-12) for rows in (probe, gallery))
        distance = losses.distances(probe, gallery)
        if self.weighting == "uniform":
            pairs = tf.concat([tf.linalg.diag_part(distance), tf.gather(distance, negative, batch_dims=1)], axis=0)
            apart = 2.0 * losses.contrastive(pairs, same, self.margin)
        else:
            options = (self.margin, self.weighting, self.weights_carry_gradient)
            apart = losses.adaptive_contrastive(distance, positive, ~positive, *options)
        return matching | {"contrastive": self.contrastive_weight * apart}

    def encoders(self):
        return {"probe": self.M_s, "gallery": self.M_t}

    def presentation(self):
        return Presentation(self, maps={role: maps_of(encoder) for role, encoder in self.encoders().items()})

    def representations(self):
        """Features compared by their distance, and by D_s, which no baseline trains."""
        encoders = self.encoders()
        by_distance = {"raw": Representation(encoders)}
        if self.baseline:
            return by_distance
        return by_distance | {"learned": Representation(encoders, self.similarity, [self.D_s])}

    def similarity(self, probe: tf.Tensor, gallery: tf.Tensor) -> tf.Tensor:
        """D_s's logit for each probe feature [B, D] and each gallery feature [G, D]: float32 [B, G]."""

        def of_one(row):
            return self.D_s(tf.concat([tf.repeat(row[None], tf.shape(gallery)[0], axis=0), gallery], axis=1))[:, 0]

        return tf.map_fn(of_one, probe)


def view_loss(probe_logits, gallery_logits):
    """Eq. 1: cross-entropy of the class "probe", 1 for probe and 0 for gallery images, summed over the two views."""
    ones = tf.ones(tf.shape(probe_logits)[0], tf.int32)
    return losses.identification(probe_logits, ones) + losses.identification(gallery_logits, tf.zeros_like(ones))
