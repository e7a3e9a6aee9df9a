"""The siamese classifier: a baseline of its own, SimPGAN's classifier and DG-Net's teacher."""

import keras
import tensorflow as tf

from tf_reid.networks import finished, losses
from tf_reid.networks.backbones import build_backbone
from tf_reid.networks.compiled import Dropout
from tf_reid.networks.precision import Dense


class SiameseClassifier(keras.Model):
    """The identification + verification network of SimPGAN, section 4.2 (after Zheng et al., 2016).

    ```
    image 1 ── backbone ── v1 ──┬── dropout ── K-way softmax   (Eq. 3, 4)
                                └─ (v1 - v2)² ── 1 logit       (Eq. 1, 2)
    image 2 ── backbone ── v2 ──┬── dropout ── K-way softmax
    ```
    Called on images [B, H, W, 3] in [-1, 1] it gives v, float32 [B, D].
    """

    def __init__(self, image_size, identities, backbone="ResNet50", weights=None, dropout=0.5):
        super().__init__(name="classifier")
        self.backbone = build_backbone(backbone, image_size, weights)
        width = self.backbone.output_shape[-1]
        self.dropout = Dropout(dropout)
        self.identity_head = Dense(identities, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01))
        self.same_head = Dense(1, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01))
        self.same_dropout = Dropout(dropout)
        self.identity_head.build((None, width))
        self.same_head.build((None, width))
        self.dropout.build((None, width))
        self.same_dropout.build((None, width))
        self.built = True

    @property
    def encoder(self) -> keras.Model:
        """Images -> v, the model that is evaluated."""
        return self.backbone

    def load(self, run: str, key: str):
        """Load the weights of a finished run, or of a weights file.

        Args:
            run: the run's folder, or the file.
            key: the setting that names it, for the error.

        Raises:
            ValueError: they are the weights of another network.
        """
        what = (
            "this classifier (same backbone, image size and source data set); name another finished run, or null to "
            "train a classifier"
        )
        finished.load(self, run, "classifier.weights.h5", key, what)

    def call(self, images, training=False):
        return self.backbone(images, training=training)

    def same_identity_logit(self, v1: tf.Tensor, v2: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Eq. 1 before its sigmoid: [P, D], [P, D] -> [P]."""
        return self.same_head(self.same_dropout(tf.square(v1 - v2), training=training))[:, 0]

    def pair_losses(self, pairs: tf.Tensor, identities: tf.Tensor, training: bool = True) -> dict[str, tf.Tensor]:
        """Eq. 5: identification (Eq. 4, summed over the pair) and verification (Eq. 2).

        Args:
            pairs: float32 [P, 2, H, W, 3] in [-1, 1].
            identities: int [P, 2], values 0..K-1.
        """
        both = tf.concat([pairs[:, 0], pairs[:, 1]], axis=0)
        features = self(both, training=training)
        logits = self.identity_head(self.dropout(features, training=training))
        v1, v2 = tf.split(features, 2)
        same_identity = tf.cast(identities[:, 0] == identities[:, 1], features.dtype)
        return {
            "identity": 2.0 * losses.identification(logits, tf.concat([identities[:, 0], identities[:, 1]], axis=0)),
            "verification": losses.verification(self.same_identity_logit(v1, v2, training=training), same_identity),
        }
