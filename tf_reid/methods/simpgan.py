"""SimPGAN: cross-dataset re-ID by translating the unlabelled target to the style of the labelled source.

"Cross-dataset Person Re-Identification Using Similarity Preserved Generative Adversarial Networks", 2018,
https://arxiv.org/abs/1806.04533.
"""

from typing import ClassVar, Literal

import keras
import tensorflow as tf
from keras import layers

from tf_reid.config import ExistingPath, Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt, Weights
from tf_reid.methods.base import ReIDModel, Stage
from tf_reid.methods.representation import Representation
from tf_reid.networks.backbones import Backbone, maps_of
from tf_reid.networks.image_pool import ImagePool
from tf_reid.networks.layers import BatchNormalization, InstanceNorm, ReflectPad, gan_init
from tf_reid.networks.losses import l1, least_squares, verification
from tf_reid.networks.siamese import SiameseClassifier
from tf_reid.pictures.page import Page


class SimPGAN(ReIDModel):
    """Two generators, two critics and a frozen siamese classifier; Eq. 1-12 of the paper.

    ```
              G                  F                 classifier (trained on the source, then frozen)
    source ──────▶ to_target ──────▶ back_source ──────▶ as alike as the pair was (Eq. 10)
                     │ D_T: real target?  (Eq. 6, 7)
              F                  G
    target ──────▶ to_source ──────▶ back_target
                     │ D_S: real source?  (Eq. 8, 9)
    ```
    The paper prints the other domain's images as the critics' real examples in Eq. 7 and 9; here each critic's real
    examples are its own domain's, without which it would never see what it must recognise.

    Args:
        backbone, weights, dropout: of the classifier; see `Identity`.
        classifier: a finished run whose `networks/classifier.weights.h5` to start from, in place of training one.
        generator: "tanh" as the paper's; "residual" predicts a change of its input and starts as the identity; "colour"
            predicts one affine map of the colours an image and can move its style, but cannot draw.
        generator_width: channels of the first layer; the paper's code has 64.
        generator_blocks: residual blocks; the paper's code has 6.
        critic: "patch" is PatchGAN with instance norm (CycleGAN's), "official" the paper's code's (batch norm).
        discriminator_width: channels of the first layer.
        discriminator_layers: layers of stride 2 in "patch"; 3 judge patches of 70x70 pixels.
        discriminator_norm: instance norm in "patch" (the paper's); without it the critics see absolute colours.
        discriminator_every: the critics move at every n-th step (the paper: 1, its code: 6).
        adversarial_weight: of Eq. 6 and 8 (the paper: 1).
        cycle_weight: λ1 of Eq. 11.
        similarity_weight: λ2 of Eq. 11.
        identity_weight: of the loss that asks F to leave source images and G target images alone (not in the paper; its
            code: 5).
        pool_size: critics see fakes out of a pool of so many earlier ones, for half of the images; 0: no pool.
    """

    STAGES: ClassVar = {
        "classifier": Stage(players=("classifier",), sampler="pairs"),
        "translation": Stage(players=("generators", "discriminators"), sampler="pairs_of_two_domains", domains=2),
    }

    def __init__(
        self,
        image_size,
        identities,
        seed,
        *,
        backbone: Backbone = "resnet50",
        weights: Weights = "imagenet",
        dropout: Fraction = 0.5,
        classifier: ExistingPath | None = None,
        generator: Literal["tanh", "residual", "colour"] = "tanh",
        generator_width: PositiveInt = 64,
        generator_blocks: PositiveInt = 6,
        discriminator: Literal["patch", "official"] = "patch",
        discriminator_width: PositiveInt = 64,
        discriminator_layers: PositiveInt = 3,
        discriminator_norm: bool = True,
        discriminator_every: PositiveInt = 1,
        adversarial_weight: NonNegativeFloat = 1.0,
        cycle_weight: NonNegativeFloat = 10.0,
        similarity_weight: NonNegativeFloat = 1.0,
        identity_weight: NonNegativeFloat = 0.0,
        pool_size: NonNegativeInt = 50,
    ):
        super().__init__(image_size, identities, seed)
        self.classifier = SiameseClassifier(image_size, identities, backbone, weights, dropout)
        if classifier:
            self.classifier.load(classifier, "method.classifier")
        self.G, self.F = (
            build_colour_generator(image_size, generator_width, name)
            if generator == "colour"
            else build_generator(image_size, generator_width, generator_blocks, generator == "residual", name)
            for name in ("G", "F")
        )
        images = keras.Input((*image_size, 3))
        self.translating_encoder = keras.Model(
            images, self.classifier.backbone(self.F(images)), name="F_then_classifier"
        )
        self.D_S, self.D_T = (
            build_discriminator(
                image_size,
                discriminator_width,
                discriminator_layers,
                discriminator == "official",
                discriminator_norm,
                name,
            )
            for name in ("D_S", "D_T")
        )
        self.source_pool = ImagePool(pool_size, image_size, seed=[seed, 1])
        self.target_pool = ImagePool(pool_size, image_size, seed=[seed, 2])
        self.discriminator_every = discriminator_every
        self.adversarial_weight, self.cycle_weight = adversarial_weight, cycle_weight
        self.similarity_weight, self.identity_weight = similarity_weight, identity_weight

    def players(self):
        return {
            "classifier": [self.classifier],
            "generators": [self.G, self.F],
            "discriminators": [self.D_S, self.D_T],
        }

    def networks(self):
        return {"classifier": self.classifier, "G": self.G, "F": self.F}

    def phase_of(self, step):
        if self.stage == "classifier":
            return None
        return {"discriminators_move": step % self.discriminator_every == 0}

    def classifier_step(self, batch):
        with tf.GradientTape() as tape:
            losses = self.classifier.pair_losses(batch["source"], batch["source_identity"])
        self.minimize(tape, losses, "classifier")
        return self.report(classifier=losses)

    def translation_step(self, batch):
        source, target = _images(batch["source"]), _images(batch["target"])

        # 1. G: S -> T and F: T -> S fool the critics, lead back to where they came from, and keep a pair's similarity.
        with tf.GradientTape() as tape:
            to_target, to_source = self.G(source), self.F(target)
            generator_losses = self.generator_losses(batch, source, target, to_target, to_source)
        self.minimize(tape, generator_losses, "generators")

        # 2. D_S and D_T tell real images of their domain from translated ones, the latter out of the pools.
        to_target = self.target_pool.exchange(tf.stop_gradient(to_target), self.step)
        to_source = self.source_pool.exchange(tf.stop_gradient(to_source), self.step)
        with tf.GradientTape() as tape:
            discriminator_losses = self.discriminator_losses(source, target, to_target, to_source)
        if self.phase["discriminators_move"]:
            self.minimize(tape, discriminator_losses, "discriminators")
        return self.report(generators=generator_losses, discriminators=discriminator_losses)

    def generator_losses(self, batch, source, target, to_target, to_source) -> dict:
        """Eq. 11, term by term. The paper sums over a pair's two images: twice the mean over images."""
        back_source, back_target = self.F(to_target), self.G(to_source)
        losses = {
            "G_fools_D_T": self.adversarial_weight * _fools(self.D_T, to_target),  # Eq. 6
            "F_fools_D_S": self.adversarial_weight * _fools(self.D_S, to_source),  # Eq. 8
        }
        if self.cycle_weight:
            losses["cycle"] = self.cycle_weight * 2.0 * (l1(back_source, source) + l1(back_target, target))
        if self.similarity_weight:
            similarity = self.similarity_loss(back_source, batch["source_identity"])
            losses["similarity"] = self.similarity_weight * similarity
        if self.identity_weight:
            unchanged = l1(self.F(source), source) + l1(self.G(target), target)
            losses["identity"] = self.identity_weight * 2.0 * unchanged
        return losses

    def similarity_loss(self, back_source, identities):
        """Eq. 10: the frozen classifier must still tell same from different on F(G(source)).

        Args:
            back_source: float32 [2P, H, W, 3], a pair's two images one after the other.
            persons: int [P, 2].
        """
        features = self.classifier(back_source, training=False)
        logits = self.classifier.same_identity_logit(features[0::2], features[1::2])
        return verification(logits, tf.cast(identities[:, 0] == identities[:, 1], features.dtype))

    def discriminator_losses(self, source, target, to_target, to_source) -> dict:
        """Eq. 7 and 9 with their real domains put right; `to_target` and `to_source` carry no gradient."""
        return {
            "D_T": _tells_apart(self.D_T, target, to_target),
            "D_S": _tells_apart(self.D_S, source, to_source),
        }

    def encoders(self):
        if self.steps_of_stage.get("translation") == 0:  # the direct transfer
            return {"image": self.classifier.backbone}
        return {"image": self.translating_encoder}

    def representations(self):
        raw = {"raw": Representation({"image": self.classifier.backbone})}
        if self.steps_of_stage.get("translation") == 0:
            return raw
        return raw | {"translated": Representation(self.encoders())}

    def maps(self):
        maps = maps_of(self.classifier.backbone)
        if self.steps_of_stage.get("translation") == 0:
            return {"image": maps}
        images = keras.Input((*self.image_size, 3))
        return {"image": keras.Model(images, maps(self.F(images)))}

    def image_maker(self):
        return None if self.steps_of_stage.get("translation") == 0 else (("target",), self.F)

    def pages(self):
        return {} if self.steps_of_stage.get("translation") == 0 else {"translation": self.translation_page}

    def translation_page(self, source, target):
        pairs = zip(source.captions, target.captions, strict=True)
        return Page.of_columns(*self.translations(source.images, target.images), [f"{a}\n{b}" for a, b in pairs])

    def translations(self, source, target):
        """Images of either domain as they are, translated, and brought back: titles, columns."""
        titles = ["source", "G(source)", "F(G(source))", "target", "F(target)", "G(F(target))"]
        to_target, to_source = self.G(source), self.F(target)
        return titles, [source, to_target, self.F(to_target), target, to_source, self.G(to_source)]

    def generated(self, batch):
        source, target = _images(batch["source"]), _images(batch["target"])
        identities = tf.reshape(batch["source_identity"], [-1])
        return {"G(source)": (self.G(source), target, identities), "F(target)": (self.F(target), source, None)}

    def pictures(self, batch):
        if self.stage == "classifier":
            return {}
        titles, columns = self.translations(_images(batch["source"]), _images(batch["target"]))
        return {"source to target": (titles[:3], columns[:3]), "target to source": (titles[3:], columns[3:])}


def build_generator(image_size, width, blocks, residual, name) -> keras.Model:
    """CycleGAN's generator: images [B, H, W, 3] in [-1, 1] -> the same. Height and width must be multiples of 4.

    7x7 to `width`; two 3x3 of stride 2 to 4·`width`; `blocks` residual ones; two transposed 3x3 of stride 2; 7x7 to 3.
    With `residual`, the last layer starts at zero and its output is added to the input before the tanh.
    """
    if image_size[0] % 4 or image_size[1] % 4:
        raise ValueError(f"data.image_size is {list(image_size)}, but a generator halves it twice: use multiples of 4.")
    images = keras.Input((*image_size, 3))
    x = _conv(ReflectPad(3)(images), width, 7, padding="valid")
    x = _conv(x, 2 * width, 3, 2)
    x = _conv(x, 4 * width, 3, 2)
    for _ in range(blocks):
        y = _conv(ReflectPad(1)(x), 4 * width, 3, padding="valid")
        y = _conv(ReflectPad(1)(y), 4 * width, 3, padding="valid", activation=None)
        x = x + y
    for channels in (2 * width, width):
        x = layers.Conv2DTranspose(channels, 3, 2, padding="same", use_bias=False, kernel_initializer=gan_init())(x)
        x = layers.ReLU()(InstanceNorm()(x))
    init = "zeros" if residual else gan_init()
    x = layers.Conv2D(3, 7, kernel_initializer=init)(ReflectPad(3)(x))
    if residual:
        x = x + keras.ops.arctanh(0.98 * images)
    return keras.Model(images, keras.ops.tanh(x), name=name)


def build_colour_generator(image_size, width, name) -> keras.Model:
    """Images [B, H, W, 3] in [-1, 1] -> the same through a map of colours that is predicted from the whole image.

    Three 4x4 of stride 2 (leaky ReLU, no norm: absolute colours are what it must see), global average, and 12 numbers
    that start at zero: x -> tanh((I + A)·arctanh(x) + b), so that it starts as the identity.
    """
    images = keras.Input((*image_size, 3))
    x = images
    for channels in (width, 2 * width, 4 * width):
        x = layers.Conv2D(channels, 4, 2, padding="same", kernel_initializer="he_normal")(x)
        x = layers.LeakyReLU(0.2)(x)
    x = layers.Dense(12, kernel_initializer="zeros")(layers.GlobalAveragePooling2D()(x))
    change, offset = layers.Reshape((3, 3))(x[:, :9]), layers.Reshape((1, 1, 3))(x[:, 9:])
    colours = keras.ops.arctanh(0.98 * images)
    moved = keras.ops.einsum("bhwc,bcd->bhwd", colours, change)
    return keras.Model(images, keras.ops.tanh(colours + moved + offset), name=name)


def build_discriminator(image_size, width, layers_of_stride_2, official, norm, name) -> keras.Model:
    """Images [B, H, W, 3] in [-1, 1] -> a score a patch [B, h, w, 1]; 1 says real.

    "patch": 4x4 convolutions with instance norm and leaky ReLU 0.2, `layers_of_stride_2` of them halving, then two of
    stride 1. "official": three 4x4 of stride 2 with batch norm and leaky ReLU 0.05, then one 4x4 without padding.
    """
    if official and min(image_size) < 32:
        raise ValueError(
            f"method.discriminator=official judges patches of 32 pixels; data.image_size is {list(image_size)}."
        )
    images = keras.Input((*image_size, 3))
    slope = 0.05 if official else 0.2
    x = layers.Conv2D(width, 4, 2, padding="same", kernel_initializer=gan_init())(images)
    x = layers.LeakyReLU(slope)(x)
    strides = [2] * 2 if official else [2] * (layers_of_stride_2 - 1) + [1]
    for depth, stride in enumerate(strides, start=1):
        channels = width * min(2**depth, 8)
        x = layers.Conv2D(channels, 4, stride, padding="same", kernel_initializer=gan_init())(x)
        if official:
            x = BatchNormalization()(x)
        elif norm:
            x = InstanceNorm()(x)
        x = layers.LeakyReLU(slope)(x)
    padding = "valid" if official else "same"
    scores = layers.Conv2D(1, 4, padding=padding, kernel_initializer=gan_init())(x)
    return keras.Model(images, scores, name=name)


def _conv(x, channels, kernel, stride=1, padding="same", activation="relu"):
    x = layers.Conv2D(channels, kernel, stride, padding, use_bias=False, kernel_initializer=gan_init())(x)
    x = InstanceNorm()(x)
    return layers.Activation(activation)(x) if activation else x


def _images(pairs):
    """[P, 2, H, W, 3] -> [2P, H, W, 3], a pair's two images one after the other."""
    return tf.reshape(pairs, (-1, *pairs.shape[2:]))


def _fools(discriminator, fakes):
    """Eq. 6, 8: the sum over a pair's two fakes of (critic - 1)^2."""
    return 2.0 * least_squares(discriminator(fakes, training=True), 1.0)


def _tells_apart(discriminator, real, fakes):
    """Eq. 7, 9: the sum over a pair's two images of critic(fake)^2 + (critic(real) - 1)^2."""
    return 2.0 * (
        least_squares(discriminator(fakes, training=True), 0.0) + least_squares(discriminator(real, training=True), 1.0)
    )
