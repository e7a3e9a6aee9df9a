"""The smallest method: an encoder and a classifier, trained to recognise identities."""

from typing import ClassVar

import tensorflow as tf

from tf_reid.methods.base import ReIDModel, Stage
from tf_reid.networks.backbones import Backbone, build_backbone
from tf_reid.networks.layers import feed_forward
from tf_reid.networks.losses import identification
from tf_reid.settings import Weights


class Toy(ReIDModel):
    """Softmax cross-entropy over the identities of the training images.

    Args:
        backbone, weights: of the encoder.
    """

    STAGES: ClassVar = {"identification": Stage(players=("encoder",), sampler="pairs")}

    def __init__(self, image_size, identities, seed, *, backbone: Backbone = "ResNet50", weights: Weights = "imagenet"):
        super().__init__(image_size, identities, seed)
        self.encoder = build_backbone(backbone, image_size, weights)
        self.classifier = feed_forward(self.encoder.output_shape[-1], [], identities, "classifier")

    def players(self):
        return {"encoder": [self.encoder, self.classifier]}

    def networks(self):
        return {"encoder": self.encoder}

    def encoders(self):
        return {"image": self.encoder}

    def identification_step(self, batch):
        images = tf.reshape(batch["source"], (-1, *self.image_size, 3))
        identities = tf.reshape(batch["source_identity"], [-1])
        with tf.GradientTape() as tape:
            logits = self.classifier(self.encoder(images, training=True))
            losses = {"identification": identification(logits, identities)}
        self.minimize(tape, losses, "encoder")
        return self.report(encoder=losses)
