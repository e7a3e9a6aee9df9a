"""The baseline of identification and verification, with which every other method is compared."""

from typing import ClassVar

import tensorflow as tf

from tf_reid.methods.base import ReIDModel, Stage
from tf_reid.methods.presentation import Presentation
from tf_reid.networks.backbones import Backbone, maps_of
from tf_reid.networks.siamese import SiameseClassifier
from tf_reid.settings import Fraction, Weights


class Identity(ReIDModel):
    """Train the siamese classifier of SimPGAN, section 4.2, on one labelled data set (Eq. 1-5).

    Args:
        backbone: a name in `tf_reid.networks.backbones`.
        weights: "imagenet", a local weights file, or null for random weights.
        dropout: before both heads.
    """

    STAGES: ClassVar = {"classifier": Stage(players=("classifier",), sampler="pairs")}

    def __init__(
        self,
        image_size,
        identities,
        seed,
        *,
        backbone: Backbone = "ResNet50",
        weights: Weights = "imagenet",
        dropout: Fraction = 0.5,
    ):
        super().__init__(image_size, identities, seed)
        self.classifier = SiameseClassifier(image_size, identities, backbone, weights, dropout)

    def players(self):
        return {"classifier": [self.classifier]}

    def backbones(self):
        return {"classifier": [self.classifier.backbone]}

    def networks(self):
        return {"classifier": self.classifier}

    def classifier_step(self, batch):
        with tf.GradientTape() as tape:
            losses = self.classifier.pair_losses(batch["source"], batch["source_identity"])
        self.minimize(tape, losses, "classifier")
        return self.report(classifier=losses)

    def encoders(self):
        return {"image": self.classifier.backbone}

    def presentation(self):
        return Presentation(self, maps={"image": maps_of(self.classifier.backbone)})
