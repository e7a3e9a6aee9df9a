"""Cross-GAN: two camera views meet in the latent space of two VAEs whose decoders are coupled GANs; no labels.

"Cross-View Person Re-identification: Crossing Generative Adversarial Networks", 2018, https://arxiv.org/abs/1801.01760.
"""

import warnings
from typing import Annotated, ClassVar, Literal

import keras
import tensorflow as tf
from keras import layers
from pydantic import Field

from tf_reid.config import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Weights
from tf_reid.methods.base import ReIDModel, Stage
from tf_reid.methods.representation import Representation
from tf_reid.networks import losses
from tf_reid.networks.backbones import Backbone
from tf_reid.networks.crossgan import (
    DISCRIMINATOR_UNITS,
    GENERATOR_UNITS,
    build_encoder,
    chained,
    coupled,
    discriminator_units,
    distinct,
    generator_units,
    what_is_seen,
)
from tf_reid.pictures.page import PARTS, Page


class CrossGAN(ReIDModel):
    """A VAE a view, an alignment of their latents, and two GANs that share weights; Eq. 1-12 of the paper.

    ```
    x ── E1 ── z ─────────────────┐          ┌── g1 ── x again ── f1: real?
                                  │ (Eq. 7)  │  (first k of 5 units shared)  (last l of 5 units shared)
    x̄ ── E2 ── z̄ ── Align ── as z ┘          └── g2 ── x̄ again ── f2: real?
    ```
    x and x̄ are images of two views, of whoever: no person is read. The images of more than two cameras are halved at
    random instead, as section 5.1 has it, and queries then count as of the first view.

    The paper prints the divergence of Eq. 5 and, for all players but f, the adversary of Eq. 12 with the wrong sign.
    Its Table 1 cannot be built (a generator of stride 1 that ends in 20 channels). Here a generator is a dense unit,
    three deconvolutions that halve the channels and one to the image; a discriminator is three convolutions with
    pooling and two dense units.

    Args:
        latent_width: of z.
        encoder: what E1 and E2, perceptrons, are given: "pixels", or a backbone's features, whose weights stay.
        encoder_weights: of that backbone. Were it trained on persons, the method would no longer be unsupervised.
        encoder_width: hidden units.
        width: channels of a generator's first maps.
        generator_shared: k, units that g1 and g2 share; discriminator_shared: l, those that f1 and f2 share.
        reconstruction_weight: of the squared error of a VAE's image, in Eq. 5 beside the divergence.
        alignment_weight: of Eq. 7; 0: without alignment, latents are compared as they are.
        threshold: tau of Eq. 7.
        clip: "whole": the larger of the squared distance and tau, as printed; "dimension": a dimension's squared
            distance is tau at most.
        adversarial_weight: of Eq. 10; 0: without GANs.
        matching_weight: of the distance of real and generated images' mean features (Salimans et al., 2016).
        search_steps, search_rate: of the gradient search for z* in the paper's transform of a view.
    """

    STAGES: ClassVar = {
        "vae": Stage(players=("encoders", "generators"), sampler="unpaired_views"),
        "alignment": Stage(players=("alignment",), sampler="unpaired_views", weight="alignment_weight"),
        "joint": Stage(players=("encoders", "generators", "alignment", "discriminators"), sampler="unpaired_views"),
    }

    def __init__(
        self,
        image_size,
        identities,
        seed,
        *,
        latent_width: PositiveInt = 100,
        encoder: Literal["pixels"] | Backbone = "pixels",
        encoder_weights: Weights = None,
        encoder_width: PositiveInt = 512,
        width: Annotated[int, Field(ge=8, multiple_of=8)] = 512,
        generator_shared: Annotated[int, Field(ge=0, le=GENERATOR_UNITS - 1)] = 4,
        discriminator_shared: Annotated[int, Field(ge=0, le=DISCRIMINATOR_UNITS)] = 1,
        reconstruction_weight: PositiveFloat = 1.0,
        alignment_weight: NonNegativeFloat = 1.0,
        threshold: NonNegativeFloat = 1.0,
        clip: Literal["whole", "dimension"] = "whole",
        adversarial_weight: NonNegativeFloat = 1.0,
        matching_weight: NonNegativeFloat = 1.0,
        search_steps: NonNegativeInt = 100,
        search_rate: PositiveFloat = 0.1,
    ):
        super().__init__(image_size, identities, seed)
        if image_size[0] % 16 or image_size[1] % 16:
            raise ValueError(
                f"data.image_size is {list(image_size)}, but a generator doubles four times: use multiples of 16."
            )
        if encoder != "pixels" and encoder_weights not in (None, "imagenet"):
            warnings.warn(
                f"method.encoder_weights={encoder_weights}: if these were learned from persons, so was this run, and "
                "it is no longer unsupervised.",
                stacklevel=2,
            )
        see = what_is_seen(image_size, encoder, encoder_weights)
        self.E1, self.E2 = (build_encoder(see, encoder_width, latent_width, name) for name in ("E1", "E2"))
        g_units = coupled(generator_units(image_size, width, latent_width), range(generator_shared))
        last = range(DISCRIMINATOR_UNITS - discriminator_shared, DISCRIMINATOR_UNITS)
        f_units = coupled(discriminator_units(image_size), last)
        self.g1, self.g2 = (chained(units, name) for units, name in zip(g_units, ("g1", "g2"), strict=True))
        self.f1, self.f2 = (chained(units, name) for units, name in zip(f_units, ("f1", "f2"), strict=True))
        self.align = keras.Sequential(
            [keras.Input((latent_width,)), layers.Dense(latent_width, activation="tanh")], name="align"
        )
        self.moved = {
            "encoders": [self.E1, self.E2],
            "generators": distinct(g_units),
            "alignment": [self.align],
            "discriminators": distinct(f_units),
        }
        self.latent_width = latent_width
        self.reconstruction_weight, self.alignment_weight = reconstruction_weight, alignment_weight
        self.threshold, self.clip = threshold, clip
        self.adversarial_weight, self.matching_weight = adversarial_weight, matching_weight
        self.search_steps, self.search_rate = search_steps, search_rate

    def players(self):
        return self.moved

    def networks(self):
        coupled_networks = (self.g1, self.g2, self.f1, self.f2)
        return {network.name: network for network in (self.E1, self.E2, self.align, *coupled_networks)}

    def vae_step(self, batch):
        views = _views(batch)
        with tf.GradientTape() as tape:
            codes = self.codes(views)
            elbo = self.vae_losses(views, codes, self.again(codes))
        self.minimize(tape, elbo, "encoders", "generators")
        return self.report(encoders=elbo, generators=elbo)

    def alignment_step(self, batch):
        codes = self.codes(_views(batch))
        with tf.GradientTape() as tape:
            aligned = self.alignment_losses(codes)
        self.minimize(tape, aligned, "alignment")
        return self.report(alignment=aligned)

    def joint_step(self, batch):
        views = _views(batch)
        with tf.GradientTape() as tape:
            codes = self.codes(views)
            again = self.again(codes)
            # 1. f1 and f2 tell a view's images from what its generator makes of their latents (Eq. 10, ascending).
            with tape.stop_recording():
                tells_apart = self._minimize_discriminators(views, [tf.stop_gradient(images) for images in again])
            # 2. The VAEs make their images again, their latents meet, and f1 and f2, as they now stand, are fooled.
            elbo = self.vae_losses(views, codes, again)
            aligned = self.alignment_losses(codes)
            adversarial = self.adversarial_losses(views, again)
        # The alignment reaches no generator, and nothing else reaches Align: each descends its own losses' sum.
        of_generators = elbo | adversarial
        moved = ("encoders", "generators", "alignment") if aligned else ("encoders", "generators")
        self.minimize(tape, of_generators | aligned, *moved)
        return self.report(
            encoders=of_generators | aligned, generators=of_generators, alignment=aligned, discriminators=tells_apart
        )

    def codes(self, views):
        """Of either view: mean, log variance and a sample z of q(z|x), float32 [P, latent_width] each (Eq. 4)."""
        found = []
        for number, (encoder, images) in enumerate(zip((self.E1, self.E2), views, strict=True)):
            mean, log_variance = encoder(images)
            noise = self.drawn(tf.random.stateless_normal, images.shape[0], (self.latent_width,), number)
            found.append((mean, log_variance, mean + tf.exp(0.5 * log_variance) * noise))
        return found

    def again(self, codes):
        """g1 of the first view's samples and g2 of the second's."""
        return [g(z, training=True) for g, (_, _, z) in zip((self.g1, self.g2), codes, strict=True)]

    def vae_losses(self, views, codes, again) -> dict:
        """Eq. 5 and 6 with the divergence's sign put right: a sum over the views, mean over images."""
        return {
            "divergence": tf.add_n([losses.normal_divergence(mean, log_variance) for mean, log_variance, _ in codes]),
            "reconstruction": self.reconstruction_weight
            * tf.add_n([0.5 * losses.squared_error(a, b) for a, b in zip(again, views, strict=True)]),
        }

    def alignment_losses(self, codes) -> dict:
        """Eq. 7 and 11, weighted."""
        if not self.alignment_weight:
            return {}
        square = tf.square(codes[0][2] - self.align(codes[1][2]))
        if self.clip == "whole":
            apart = tf.maximum(tf.reduce_sum(square, axis=1), self.threshold)
        else:
            apart = tf.reduce_sum(tf.minimum(square, self.threshold), axis=1)
        return {"alignment": self.alignment_weight * tf.reduce_mean(apart)}

    def adversarial_losses(self, views, again) -> dict:
        """The generators' side of Eq. 10, not saturating, and feature matching; sums over the views."""
        terms = {}
        if self.adversarial_weight or self.matching_weight:
            judged = [(f(real), f(made)) for f, real, made in zip((self.f1, self.f2), views, again, strict=True)]
        if self.adversarial_weight:
            fooled = [losses.verification(made[1][:, 0], tf.ones_like(made[1][:, 0])) for _, made in judged]
            terms["fools"] = self.adversarial_weight * tf.add_n(fooled)
        if self.matching_weight:
            means = [[tf.reduce_mean(self.global_batch(features), axis=0) for features, _ in pair] for pair in judged]
            apart = [tf.reduce_sum(tf.square(tf.stop_gradient(real) - made)) for real, made in means]
            terms["matching"] = self.matching_weight * tf.add_n(apart)
        return terms

    def _minimize_discriminators(self, views, again):
        """Eq. 10 for f1 and f2: the negative of its sum of logarithms."""
        if not self.adversarial_weight and not self.matching_weight:
            return {}
        with tf.GradientTape() as tape:
            told = []
            for f, real, made in zip((self.f1, self.f2), views, again, strict=True):
                of_real, of_made = f(real)[1][:, 0], f(made)[1][:, 0]
                told += [losses.verification(of_real, tf.ones_like(of_real))]
                told += [losses.verification(of_made, tf.zeros_like(of_made))]
            loss = {"tells_apart": tf.add_n(told)}
        self.minimize(tape, loss, "discriminators")
        return loss

    def encoders(self):
        """Where the latents' means lie, the second view's after the alignment."""
        second = self.E2.output[0]
        aligned = self.align(second) if self.alignment_weight else second
        return {"probe": keras.Model(self.E1.input, self.E1.output[0]), "gallery": keras.Model(self.E2.input, aligned)}

    def representations(self):
        found = {"raw": Representation(self.encoders())}
        if self.adversarial_weight or self.matching_weight:
            seen = [keras.Model(f.input, f.output[0]) for f in (self.f1, self.f2)]
            found["discriminator"] = Representation(dict(zip(("probe", "gallery"), seen, strict=True)))
        if self.search_steps:
            pixels = keras.Input((*self.image_size, 3))
            searched = self.across()["searched"]
            found["transformed"] = Representation(
                {
                    "probe": keras.Model(pixels, layers.Flatten()(searched(pixels))),
                    "gallery": keras.Model(pixels, layers.Flatten()(pixels)),
                }
            )
        return found

    def across(self):
        pixels = keras.Input((*self.image_size, 3))
        found = {"encoded": keras.Model(pixels, self.g2(self.E1(pixels)[0]))}
        if self.search_steps:
            found["searched"] = keras.Model(pixels, Transform(self, self.search_steps, self.search_rate)(pixels))
        return found

    def image_maker(self):
        return ("view_1",), self.across()["encoded"]

    def generated(self, batch):
        first, second = _views(batch)
        free = self._of_prior(first)
        return {
            "g1(z)": (self.g1(free), first, None),
            "g2(z)": (self.g2(free), second, None),
            "view 1 in view 2": (self.g2(self.E1(first)[0]), second, None),
        }

    def pictures(self, batch):
        first, second = _views(batch)
        free = self._of_prior(first)
        return {
            "views": self.in_both_views(first, second),
            "of the prior": (["g1(z)", "g2(z)"], [self.g1(free), self.g2(free)]),
        }

    def _of_prior(self, images):
        """As many z of the prior as there are images."""
        return self.drawn(tf.random.stateless_normal, images.shape[0], (self.latent_width,), 2)

    def in_both_views(self, first, second):
        """Images of either view as they are, made again, and made in the other view: titles, columns."""
        z, other = self.E1(first)[0], self.E2(second)[0]
        met = self.align(other) if self.alignment_weight else other
        titles = ["view 1", "view 1 again", "in view 2", "view 2", "view 2 again", "in view 1"]
        return titles, [first, self.g1(z), self.g2(z), second, self.g2(other), self.g1(met)]

    def pages(self):
        return {
            "cross_view": self.cross_view_page,
            "interpolation": self.interpolation_page,
            "prior": self.prior_page,
        }

    def cross_view_page(self, first, second):
        """Images of either view, made again, and made in the other view."""
        titles, columns = self.in_both_views(first.images, second.images)
        if self.search_steps:
            titles.insert(3, "in view 2, searched")
            columns.insert(3, self.across()["searched"](first.images))
        rows = [f"{a}\n{b}" for a, b in zip(first.captions, second.captions, strict=True)]
        return Page.of_columns(titles, columns, rows)

    def interpolation_page(self, first, _second):
        """From one image's latent to the next one's, in either view."""
        z = self.E1(first.images)[0]
        following = tf.roll(first.images, -1, axis=0)
        latents = [(1.0 - part) * z + part * tf.roll(z, -1, axis=0) for part in PARTS]
        made = {view: tf.stack([g(latent) for latent in latents]) for view, g in (("1", self.g1), ("2", self.g2))}
        rows, titles = [], []
        for number, caption in enumerate(first.captions):
            for view, images in made.items():
                rows.append(tf.concat([first.images[number, None], images[:, number], following[number, None]], axis=0))
                titles.append(f"from {caption}\nin view {view}")
        return Page(rows, ["from", *(f"{part:.0%}" for part in PARTS), "to"], titles)

    def prior_page(self, first, _second):
        """What no image was read for: the same z of the prior in either view."""
        count = 2 * len(first.images)
        z = tf.random.stateless_normal((count, self.latent_width), (self.seed, 0))
        return Page([self.g1(z), self.g2(z)], [f"z {number + 1}" for number in range(count)], ["g1(z)", "g2(z)"])


class Transform(layers.Layer):
    """An image of the first view in the second: g2(z*) with z* = argmin ||g1(z) - x||^2 (section 5.2).

    float32 [B, H, W, 3] -> the same. The search is Adam's, from E1's mean.
    """

    def __init__(self, method, steps, rate):
        super().__init__()
        self.E1, self.g1, self.g2, self.steps, self.rate = method.E1, method.g1, method.g2, steps, rate

    def call(self, images):
        return self.g2(self.nearest(images))

    def nearest(self, images):
        """z*, float32 [B, latent_width]."""
        z = self.E1(images)[0]

        def step(number, z, mean, square):
            with tf.GradientTape() as tape:
                tape.watch(z)
                apart = tf.reduce_sum(tf.square(self.g1(z) - images))
            gradient = tape.gradient(apart, z)
            mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient * gradient
            done = tf.cast(number + 1, tf.float32)
            moved = mean / (1.0 - 0.9**done) / (tf.sqrt(square / (1.0 - 0.999**done)) + 1e-8)
            return number + 1, z - self.rate * moved, mean, square

        start = (0, z, tf.zeros_like(z), tf.zeros_like(z))
        return tf.while_loop(lambda number, *_: number < self.steps, step, start)[1]

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        """All that its images depend on but weights: features of them are kept by this."""
        networks = {network.name: network.get_config() for network in (self.E1, self.g1, self.g2)}
        return super().get_config() | {"steps": self.steps, "rate": self.rate, "networks": networks}


def _views(batch):
    """-> images of the first view and of the second, [P, H, W, 3] each."""
    return batch["source"][:, 0], batch["source"][:, 1]
