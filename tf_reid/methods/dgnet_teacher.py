"""DG-Net's teacher, which labels the swaps in Eq. 8: the paper's baseline, or a finished run's classifier."""

from pathlib import Path

import keras
import tensorflow as tf

from tf_reid.config import ConfigError
from tf_reid.methods.classifiers import form_of
from tf_reid.methods.dgnet_swaps import SwapBatch, exchanged
from tf_reid.networks import dgnet as nets
from tf_reid.networks import losses
from tf_reid.networks.backbones import build_backbone
from tf_reid.networks.layers import frozen
from tf_reid.networks.siamese import SiameseClassifier
from tf_reid.networks.strong import StrongClassifier


class Teacher(keras.Model):
    """The paper's baseline: a backbone with average pooling, a block of 512 features, and a classifier.

    The block is that of E_a's heads: linear, batch norm, dropout, K-way softmax.
    Called on images [B, H, W, 3] in [-1, 1] it gives the 512 features.
    """

    def __init__(self, image_size, identities, backbone="ResNet50", weights=None, dropout=0.5):
        super().__init__(name="teacher")
        self.backbone = build_backbone(backbone, image_size, weights)
        self.embedding = nets.embedding_head(self.backbone.output_shape[-1], "teacher_embedding")
        self.classifier = nets.classifier_head(identities, dropout, "teacher_classifier")
        self.built = True

    @property
    def heads(self) -> list[keras.Model]:
        return [self.embedding, self.classifier]

    @property
    def trained(self) -> bool:
        """Whether it has seen images: a run trained by an earlier version has a teacher of another form."""
        return bool(tf.reduce_any(self.embedding.layers[-1].moving_mean.value != 0.0))

    def call(self, images, training=False):
        return self.embedding(self.backbone(images, training=training), training=training)

    def identity_loss(self, images: tf.Tensor, identities: tf.Tensor) -> tf.Tensor:
        """Cross-entropy of single images [B, H, W, 3] and their identities, int [B], in training mode."""
        logits = self.classifier(self(images, training=True), training=True)
        return losses.identification(logits, identities)

    def logits(self, images: tf.Tensor, batch_statistics: bool) -> tf.Tensor:
        """[B, K], without dropout, as a frozen network; `batch_statistics`: of batch norm, those of these images."""
        pooled = frozen(self.backbone, images, training=batch_statistics)
        return self.classifier(frozen(self.embedding, pooled, training=batch_statistics), training=False)

    def features(self) -> keras.Model:
        """Images -> what the baseline is scored by: the 512 features of image and mirror image, summed, of length 1."""
        images = keras.Input(self.backbone.input_shape[1:])
        pooled = [self.backbone(view) for view in (images, images[:, :, ::-1])]
        return nets.weighted_features((images, pooled), [self.embedding], [1.0])


class SiameseTeacher(SiameseClassifier):
    """The classifier of a finished run of `identity` in the teacher's place."""

    trained = True

    @property
    def heads(self) -> list[keras.Model]:
        return [self.identity_head]

    def identity_loss(self, images: tf.Tensor, identities: tf.Tensor) -> tf.Tensor:
        """As `Teacher.identity_loss`."""
        logits = self.identity_head(self.dropout(self(images, training=True), training=True))
        return losses.identification(logits, identities)

    def logits(self, images: tf.Tensor, batch_statistics: bool) -> tf.Tensor:
        """As `Teacher.logits`."""
        return self.identity_head(frozen(self.backbone, images, training=batch_statistics))

    def features(self) -> keras.Model:
        """Images -> the backbone's features."""
        return self.backbone


class StrongTeacher(StrongClassifier):
    """The classifier of a finished run of `strong` in the teacher's place."""

    trained = True

    @property
    def heads(self) -> list[keras.Layer]:
        return [self.identity_head] if self.neck is None else [self.neck, self.identity_head]

    def identity_loss(self, images: tf.Tensor, identities: tf.Tensor) -> tf.Tensor:
        """As `Teacher.identity_loss`."""
        return losses.identification(self.identity_head(self(images, training=True)), identities)

    def logits(self, images: tf.Tensor, batch_statistics: bool) -> tf.Tensor:
        """As `Teacher.logits`."""
        features = frozen(self.backbone, images, training=batch_statistics)
        if self.neck is not None:
            features = frozen(self.neck, features, training=batch_statistics)
        return self.identity_head(features)

    def features(self) -> keras.Model:
        """Images -> f_i."""
        return self.encoder


AnyTeacher = Teacher | SiameseTeacher | StrongTeacher


def build_teacher(
    run: str | None, image_size: tuple[int, int], identities: int, backbone: str, weights: str | None, dropout: float
) -> AnyTeacher:
    """A teacher to be trained, or that of a finished run: the baseline of one of `dgnet`, or of `strong`, `identity`.

    Args:
        run: the run's folder, or a file of its folder `networks`; None: a teacher to be trained.
        identities: K. backbone, weights, dropout: of the teacher; a run's weights replace `weights`.

    Raises:
        ConfigError: the run has no such network, one of another form, or one that was never trained.
    """
    if not run:
        return Teacher(image_size, identities, backbone, weights, dropout)
    path = _weights_file(Path(run))
    if path.name == "strong.weights.h5":
        strong = StrongTeacher(image_size, identities, backbone, None, **form_of(run))
        strong.load(str(path), "method.teacher")
        return strong
    kind = Teacher if path.name == "teacher.weights.h5" else SiameseTeacher
    teacher = kind(image_size, identities, backbone, None, dropout)
    if isinstance(teacher, SiameseTeacher):
        teacher.load(str(path), "method.teacher")
        return teacher
    try:
        teacher.load_weights(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"method.teacher: {path} does not hold the weights of this teacher (same backbone, image size and source "
            "data set, trained by this version); name another finished run, or null to train a teacher "
            f"({error})."
        ) from error
    if not teacher.trained:
        raise ConfigError(
            f"method.teacher: {path} holds a teacher that was never trained: its run had stages.teacher.steps=0; name "
            "another finished run, or null to train a teacher."
        )
    return teacher


def _weights_file(run: Path) -> Path:
    if not run.is_dir():
        return run
    names = ("teacher.weights.h5", "strong.weights.h5", "classifier.weights.h5")
    for path in (run / "networks" / name for name in names):
        if path.exists():
            return path
    raise ConfigError(
        f"method.teacher: {run} holds neither networks/{names[0]} (of a run of dgnet that trained its own teacher) "
        f"nor networks/{names[1]} or networks/{names[2]} (of a finished run of strong or identity); name another run, "
        "or null to train a teacher."
    )


def teacher_labels(
    teacher: AnyTeacher,
    style: str,
    batch_statistics: bool,
    batch: SwapBatch,
    swaps: tf.Tensor,
    identities: int,
) -> tf.Tensor:
    """q of Eq. 8: a distribution over identities for each swap, float32 [2P, K], without gradient.

    Args:
        style, batch_statistics: see `DGNet`, `teacher_style` and `teacher_batch_statistics`.
        swaps: x_ba and x_ab, float32 [2P, H, W, 3] in about [-1, 1].
        identities: K.
    """
    of_appearance = tf.one_hot(batch.pair_identities, identities)
    if style == "appearance":
        return of_appearance
    if style == "uniform":
        return tf.ones_like(of_appearance) / identities
    views = swaps, swaps[:, :, ::-1]
    labels = tf.add_n([tf.nn.softmax(teacher.logits(view, batch_statistics)) for view in views]) / 2.0
    if style == "hard":
        labels = tf.one_hot(tf.argmax(labels, axis=1), identities)
    if style == "both":
        labels *= of_appearance + exchanged(of_appearance)
        labels = tf.math.divide_no_nan(labels, tf.reduce_sum(labels, axis=1, keepdims=True))
    return tf.stop_gradient(labels)
