"""CoGAN as a way to adapt views: two GANs that share layers, and a classifier on what their discriminators share.

"Coupled Generative Adversarial Networks", Liu and Tuzel, 2016, https://arxiv.org/abs/1606.07536.
"""

from typing import Annotated, ClassVar

import keras
import tensorflow as tf
from pydantic import Field

from tf_reid.methods.base import ReIDModel, Stage
from tf_reid.networks import losses
from tf_reid.networks.compiled import uniform
from tf_reid.networks.crossgan import (
    DISCRIMINATOR_UNITS,
    GENERATOR_UNITS,
    chained,
    coupled,
    discriminator_units,
    distinct,
    generator_units,
)
from tf_reid.networks.layers import feed_forward
from tf_reid.settings import NonNegativeFloat, PositiveInt


class CoGAN(ReIDModel):
    """Two GANs, one a view, and identities of the probe view; section 5 of the paper. A baseline of view adaptation.

    ```
        ┌── g1 ── fake probe ─────┐                                ┌── real or fake?
    z ──┤ (first units shared)    ├── f1, f2 (last units shared) ──┤
        └── g2 ── fake gallery ───┘                                └── classifier ── K-way softmax, of probe images
    ```
    One z makes an image of either view. What finds an identity in gallery images, whose labels are not read, is that f1
    and f2 share their last hidden layer, which is the feature.

    Args:
        latent_width: of z, which is uniform in [-1, 1].
        width: channels of a generator's first maps.
        generator_shared: first units that g1 and g2 share; discriminator_shared: last ones that f1 and f2 share.
        identity_weight: of the classifier's loss, beside the discriminators'.
    """

    STAGES: ClassVar = {"joint": Stage(players=("discriminators", "generators"), sampler="views")}

    def __init__(
        self,
        image_size,
        identities,
        seed,
        *,
        latent_width: PositiveInt = 100,
        width: Annotated[int, Field(ge=8, multiple_of=8)] = 512,
        generator_shared: Annotated[int, Field(ge=0, le=GENERATOR_UNITS - 1)] = 4,
        discriminator_shared: Annotated[int, Field(ge=1, le=DISCRIMINATOR_UNITS)] = 2,
        identity_weight: NonNegativeFloat = 1.0,
    ):
        super().__init__(image_size, identities, seed)
        if image_size[0] % 16 or image_size[1] % 16:
            raise ValueError(
                f"data.image_size is {list(image_size)}, but a generator doubles four times: use multiples of 16."
            )
        g_units = coupled(generator_units(image_size, width, latent_width), range(generator_shared))
        last = range(DISCRIMINATOR_UNITS - discriminator_shared, DISCRIMINATOR_UNITS)
        f_units = coupled(discriminator_units(image_size), last)
        self.g1, self.g2 = (chained(units, name) for units, name in zip(g_units, ("g1", "g2"), strict=True))
        self.f1, self.f2 = (chained(units, name) for units, name in zip(f_units, ("f1", "f2"), strict=True))
        self.classifier = feed_forward(self.f1.output_shape[0][-1], [], identities, "classifier")
        self.networks_of_players = {
            "discriminators": [*distinct(f_units), self.classifier],
            "generators": distinct(g_units),
        }
        self.latent_width, self.identity_weight = latent_width, identity_weight

    def players(self):
        return self.networks_of_players

    def networks(self):
        return {network.name: network for network in (self.g1, self.g2, self.f1, self.f2)}

    def joint_step(self, batch):
        views = batch["source"][:, 0], batch["source"][:, 1]
        z = self.drawn(uniform, views[0].shape[0], (self.latent_width,)) * 2.0 - 1.0
        with tf.GradientTape() as tape:
            fakes = [g(z, training=True) for g in (self.g1, self.g2)]
            # 1. The discriminators tell real images from fakes, which get no gradient, and the classifier the probes.
            with tape.stop_recording():
                judging = self._update_discriminators(views, fakes, batch["source_identity"][:, 0])
            # 2. The generators make images that the updated discriminators take for real ones.
            generator_losses = {"adversarial": self.adversarial_loss(fakes, 1.0)}
        self.minimize(tape, generator_losses, "generators")
        return self.report(discriminators=judging, generators=generator_losses)

    def _update_discriminators(self, views, fakes, identities):
        fakes = [tf.stop_gradient(images) for images in fakes]
        with tf.GradientTape() as tape:
            terms = {"adversarial": self.adversarial_loss(views, 1.0) + self.adversarial_loss(fakes, 0.0)}
            if self.identity_weight:
                logits = self.classifier(self.f1(views[0])[0])
                terms["identity"] = self.identity_weight * losses.identification(logits, identities)
        self.minimize(tape, terms, "discriminators")
        return terms

    def adversarial_loss(self, views, target: float) -> tf.Tensor:
        """Cross-entropy of f1 on images of the first view and of f2 on those of the second: a sum over the views.

        Args:
            views: two tensors float32 [P, H, W, 3]. target: 1.0 for "real", 0.0 for "fake".
        """
        logits = [f(images)[1][:, 0] for f, images in zip((self.f1, self.f2), views, strict=True)]
        return tf.add_n([losses.verification(each, tf.fill(tf.shape(each), target)) for each in logits])

    def encoders(self):
        """The last hidden layer of the discriminators, which both share."""
        return {role: keras.Model(f.input, f.output[0]) for role, f in {"probe": self.f1, "gallery": self.f2}.items()}
