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
    coupled_discriminators,
    coupled_generators,
    discriminators_loss,
    generators_loss,
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
    One z makes an image of either view. No loss reads the labels of gallery images. f1 and f2 share their last hidden
    layer, so what it learns of the identities of probe images holds for gallery images too. It is the feature.

    Args:
        latent_width: of z, which is uniform in [-1, 1].
        width: channels of a generator's first maps.
        generator_shared: first units that g1 and g2 share; discriminator_shared: last ones that f1 and f2 share.
        identity_weight: of the classifier's loss, beside the discriminators'.
    """

    STAGES: ClassVar = {"joint": Stage(players=("discriminators", "generators"), sampler="unmatched_views")}

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
        self.g1, self.g2, g_units = coupled_generators(image_size, width, latent_width, generator_shared)
        self.f1, self.f2, f_units = coupled_discriminators(image_size, discriminator_shared)
        self.classifier = feed_forward(self.f1.output_shape[0][-1], [], identities, "classifier")
        self.networks_of_players = {
            "discriminators": [*f_units, self.classifier],
            "generators": g_units,
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
            judged = [f(images)[1] for f, images in zip((self.f1, self.f2), fakes, strict=True)]
            generator_losses = {"adversarial": generators_loss(judged)}
        self.minimize(tape, generator_losses, "generators")
        return self.report(discriminators=judging, generators=generator_losses)

    def _update_discriminators(self, views, fakes, identities):
        fakes = [tf.stop_gradient(images) for images in fakes]
        with tf.GradientTape() as tape:
            terms = {"adversarial": discriminators_loss((self.f1, self.f2), views, fakes)}
            if self.identity_weight:
                logits = self.classifier(self.f1(views[0])[0])
                terms["identity"] = self.identity_weight * losses.identification(logits, identities)
        self.minimize(tape, terms, "discriminators")
        return terms

    def encoders(self):
        """The last hidden layer of the discriminators, which both share."""
        return {role: keras.Model(f.input, f.output[0]) for role, f in {"probe": self.f1, "gallery": self.f2}.items()}
