"""The strong baseline: one network, trained with labels by the tricks that became customary.

"Bag of Tricks and a Strong Baseline for Deep Person Re-identification", CVPR workshops 2019,
https://arxiv.org/abs/1903.07071.
"""

from typing import Annotated, ClassVar, Literal

import keras
import tensorflow as tf
from pydantic import Field

from tf_reid.methods.base import ReIDModel, Stage
from tf_reid.methods.presentation import Presentation
from tf_reid.networks import losses
from tf_reid.networks.backbones import Backbone, maps_of
from tf_reid.networks.strong import StrongClassifier
from tf_reid.settings import NonNegativeFloat, PositiveFloat, Weights


class Strong(ReIDModel):
    """Identification with smoothed labels, batch-hard triplets and a center loss, on two sides of a batch norm.

    ```
    images ── backbone ── f_t ──┬── batch norm without shift ── f_i ── K-way classifier (identification)
                                ├── batch-hard triplets of the global batch
                                └── distance to the identity's center
    ```
    The other tricks are settings of data and stage: `data.augment.erase`, and `warmup` of the optimizer.
    Without `bnneck`, all losses and the evaluation take f_t.

    Args:
        backbone: a name in `tf_reid.networks.backbones`.
        weights: "imagenet", a local weights file, or null for random weights.
        last_stride: of the backbone's last stage; 1 doubles the size of its last maps.
        bnneck: batch norm between f_t and f_i.
        label_smoothing: of the identification: this part of a label's weight is spread over all identities.
        triplet_weight, margin: of the batch-hard triplets.
        center_weight: of the center loss for the network. The centers have an optimizer of their own, without weight.
    """

    STAGES: ClassVar = {"classifier": Stage(players=("classifier", "centers"), sampler="identities")}

    def __init__(
        self,
        image_size,
        identities,
        seed,
        *,
        backbone: Backbone = "ResNet50",
        weights: Weights = "imagenet",
        last_stride: Literal[1, 2] = 1,
        bnneck: bool = True,
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        triplet_weight: NonNegativeFloat = 1.0,
        margin: PositiveFloat = 0.3,
        center_weight: NonNegativeFloat = 5.0e-4,
    ):
        super().__init__(image_size, identities, seed)
        self.classifier = StrongClassifier(image_size, identities, backbone, weights, last_stride, bnneck)
        width = self.classifier.backbone.output_shape[-1]
        initial = keras.initializers.RandomNormal(stddev=1.0)
        self.centers = keras.layers.Embedding(identities, width, embeddings_initializer=initial, name="centers")
        self.centers.build()
        self.label_smoothing, self.triplet_weight, self.margin = label_smoothing, triplet_weight, margin
        self.center_weight = center_weight

    def players(self):
        return {"classifier": [self.classifier], "centers": [self.centers]}

    def backbones(self):
        return {"classifier": [self.classifier.backbone]}

    def networks(self):
        return {"strong": self.classifier, "backbone": self.classifier.backbone}

    def classifier_step(self, batch):
        images = tf.reshape(batch["source"], (-1, *self.image_size, 3))
        identities = tf.reshape(batch["source_identity"], [-1])
        with tf.GradientTape() as tape:
            before_neck, after_neck = self.classifier.features(images, training=True)
            terms = self.network_losses(before_neck, after_neck, identities)
        with tf.GradientTape() as center_tape:
            of_centers = {"center": self.center_loss(tf.stop_gradient(before_neck), identities)}
        self.minimize(tape, terms, "classifier")
        if not self.center_weight:
            return self.report(classifier=terms)
        self.minimize(center_tape, of_centers, "centers")
        return self.report(classifier=terms, centers=of_centers)

    def network_losses(self, before_neck, after_neck, identities) -> dict[str, tf.Tensor]:
        """What the network descends, weighted.

        Args:
            before_neck, after_neck: f_t and f_i, float32 [B, D]. identities: int [B], values 0..K-1.
        """
        logits = self.classifier.identity_head(after_neck)
        terms = {"identity": losses.identification(logits, identities, self.label_smoothing)}
        if self.triplet_weight:
            terms["triplet"] = self.triplet_weight * self.triplet_loss(before_neck, identities)
        if self.center_weight:
            terms["center"] = self.center_weight * self.center_loss(before_neck, identities)
        return terms

    def triplet_loss(self, features, identities):
        """Each image of the global batch against its farthest positive and its nearest negative, by Euclidean distance.

        An image is no positive of its own.
        """
        features, identities = self.global_batch(features), self.global_batch(identities)
        same = identities[:, None] == identities
        rows = tf.range(tf.shape(identities)[0])
        itself = rows[:, None] == rows
        distance = losses.distances(features, features)
        return losses.triplet(distance, same & ~itself, ~same, self.margin, mining="hard")

    def center_loss(self, features, identities):
        """Mean over images, as in the authors' code; the paper has half the sum."""
        return losses.center(features, tf.convert_to_tensor(self.centers.embeddings), identities)

    def encoders(self):
        return {"image": self.classifier.encoder}

    def presentation(self):
        return Presentation(self, maps={"image": maps_of(self.classifier.backbone)})
