"""The classifier of the strong baseline: a backbone, a batch-norm neck and a linear classifier."""

import keras
import tensorflow as tf

from tf_reid.networks import finished
from tf_reid.networks.backbones import build_backbone
from tf_reid.networks.layers import BatchNormalization
from tf_reid.networks.precision import Dense


class StrongClassifier(keras.Model):
    """BNNeck (Luo et al., 2019, https://arxiv.org/abs/1903.07071, section 3.5).

    ```
    images ── backbone ── f_t ── batch norm without shift ── f_i ── K-way classifier without bias
    ```
    Called on images [B, H, W, 3] in [-1, 1] it gives f_i, float32 [B, D].

    Args:
        image_size: (height, width). identities: K. backbone, weights, last_stride: see `tf_reid.networks.backbones`.
        bnneck: without, there is no batch norm, and f_i is f_t.

    Attributes:
        encoder: images -> f_i, the model that is evaluated and exported.
    """

    def __init__(self, image_size, identities, backbone="ResNet50", weights=None, last_stride=1, bnneck=True):
        super().__init__(name="strong")
        self.backbone = build_backbone(backbone, image_size, weights, last_stride)
        width = self.backbone.output_shape[-1]
        self.neck = self._build_neck(width) if bnneck else None
        self.encoder = self._with_neck(image_size) if bnneck else self.backbone
        initial = keras.initializers.RandomNormal(stddev=0.001)
        self.identity_head = Dense(identities, use_bias=False, kernel_initializer=initial)
        self.identity_head.build((None, width))
        self.built = True

    @staticmethod
    def _build_neck(width):
        neck = BatchNormalization(center=False, name="neck")
        neck.build((None, width))
        return neck

    def _with_neck(self, image_size):
        images = keras.Input((*image_size, 3))
        return keras.Model(images, self.neck(self.backbone(images)), name="encoder")

    def load(self, run: str, key: str):
        """Load the weights of a finished run of `strong`, or of its file `networks/strong.weights.h5`.

        Args:
            run: the run's folder, or the file. key: the setting that names it, for the error.

        Raises:
            ValueError: they are the weights of another network.
        """
        what = (
            "this strong classifier (same backbone, image size and source data set, with method.bnneck as here); "
            "name another finished run"
        )
        finished.load(self, run, "strong.weights.h5", key, what)

    def call(self, images, training=False):
        return self.encoder(images, training=training)

    def features(self, images: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """f_t and f_i of images [B, H, W, 3], float32 [B, D] each; without the neck they are one tensor."""
        before_neck = self.backbone(images, training=training)
        return before_neck, before_neck if self.neck is None else self.neck(before_neck, training=training)

    def same_identity_logit(self, v1: tf.Tensor, v2: tf.Tensor) -> tf.Tensor:
        """How sure it is that two images show one identity: ten times (the cosine of f_i minus a half), [P, D] -> [P].

        For SimPGAN's Eq. 10 in the place of a trained verification: the cosines 0 and 1 have the probabilities 0.7 and
        99.3 %.
        """
        cosine = tf.reduce_sum(tf.math.l2_normalize(v1, axis=1) * tf.math.l2_normalize(v2, axis=1), axis=1)
        return 10.0 * (cosine - 0.5)
