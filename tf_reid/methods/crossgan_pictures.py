"""What Cross-GAN shows: reconstructions, images in the other view, interpolations, samples of the prior."""

import keras
import tensorflow as tf

from tf_reid.methods.presentation import Columns, Generated, ImageMaker, Presentation
from tf_reid.networks.compiled import normal
from tf_reid.pictures.page import INTERPOLATION, Page


class CrossGANPictures(Presentation):
    """Images of two views and what both generators make of their latents."""

    def pictures(self, batch):
        first, second = self.model.views(batch)
        z = self._of_prior(first)
        return {
            "views": self.in_both_views(first, second),
            "of the prior": Columns(["g1(z)", "g2(z)"], [self.model.g1(z), self.model.g2(z)]),
        }

    def in_both_views(self, first, second) -> Columns:
        """Images of each view as they are, reconstructed, and generated in the other view."""
        model = self.model
        z, z_second = model.E1(first)[0], model.E2(second)[0]
        aligned = model.align(z_second) if model.alignment_weight else z_second
        titles = ["view 1", "view 1 reconstructed", "in view 2", "view 2", "view 2 reconstructed", "in view 1"]
        return Columns(titles, [first, model.g1(z), model.g2(z), second, model.g2(z_second), model.g1(aligned)])

    def _of_prior(self, images):
        """As many z of the prior as there are images."""
        return self.model.drawn(normal, images.shape[0], (self.model.latent_width,), 2)

    def pages(self):
        return {
            "cross_view": self.cross_view_page,
            "interpolation": self.interpolation_page,
            "prior": self.prior_page,
        }

    def cross_view_page(self, first, second):
        """Images of each view, reconstructed, and generated in the other view."""
        titles, columns = self.in_both_views(first.images, second.images)
        if self.model.search_steps:
            titles.insert(3, "in view 2, searched")
            columns.insert(3, self.model.transform()(first.images))
        row_titles = [f"{a}\n{b}" for a, b in zip(first.captions, second.captions, strict=True)]
        return Page.of_columns(titles, columns, row_titles)

    def interpolation_page(self, first, _second):
        """From one image's latent to the next image's, generated in each view."""
        z = self.model.E1(first.images)[0]
        next_images, next_z = tf.roll(first.images, -1, axis=0), tf.roll(z, -1, axis=0)
        latents = [(1.0 - part) * z + part * next_z for part in INTERPOLATION]
        generated = {"1": [self.model.g1(latent) for latent in latents]}
        generated["2"] = [self.model.g2(latent) for latent in latents]
        rows, row_titles = [], []
        for number, caption in enumerate(first.captions):
            for view, images in generated.items():
                between = [of_part[number] for of_part in images]
                rows.append(tf.stack([first.images[number], *between, next_images[number]]))
                row_titles.append(f"from {caption}\nin view {view}")
        return Page(rows, ["from", *(f"{part:.0%}" for part in INTERPOLATION), "to"], row_titles)

    def prior_page(self, first, _second):
        """Samples of the prior, each generated in both views; the given images only set how many."""
        count = 2 * len(first.images)
        z = normal((count, self.model.latent_width), (self.model.seed, 0))
        rows = [self.model.g1(z), self.model.g2(z)]
        return Page(rows, [f"z {number + 1}" for number in range(count)], ["g1(z)", "g2(z)"])

    def generated(self, batch):
        first, second = self.model.views(batch)
        z = self._of_prior(first)
        return {
            "g1(z)": Generated(self.model.g1(z), first, None),
            "g2(z)": Generated(self.model.g2(z), second, None),
            "view 1 in view 2": Generated(self.model.g2(self.model.E1(first)[0]), second, None),
        }

    def across(self):
        pixels = keras.Input((*self.model.image_size, 3))
        models = {"encoded": keras.Model(pixels, self.model.g2(self.model.E1(pixels)[0]))}
        if self.model.search_steps:
            models["searched"] = self.model.transform()
        return models

    def image_maker(self):
        return ImageMaker(("view_1",), self.across()["encoded"])
