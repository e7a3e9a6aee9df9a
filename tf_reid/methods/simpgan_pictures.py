"""What SimPGAN shows: images of both domains, translated and reconstructed."""

import keras
import tensorflow as tf

from tf_reid.methods.presentation import Columns, Generated, ImageMaker, Presentation
from tf_reid.networks.backbones import maps_of
from tf_reid.pictures.page import Page


class SimPGANPictures(Presentation):
    """Translations in both directions; nothing is translated in a run of direct transfer."""

    def translations(self, source, target) -> Columns:
        """Images of each domain as they are, translated, and reconstructed."""
        G, F = self.model.G, self.model.F
        titles = ["source", "G(source)", "F(G(source))", "target", "F(target)", "G(F(target))"]
        fake_target, fake_source = G(source), F(target)
        return Columns(titles, [source, fake_target, F(fake_target), target, fake_source, G(fake_source)])

    def pictures(self, batch):
        if self.model.stage == "classifier":
            return {}
        titles, images = self.translations(*self.model.domains(batch))
        return {
            "source to target": Columns(titles[:3], images[:3]),
            "target to source": Columns(titles[3:], images[3:]),
        }

    def pages(self):
        return {"translation": self.translation_page} if self.model.translates else {}

    def translation_page(self, source, target):
        row_titles = [f"{a}\n{b}" for a, b in zip(source.captions, target.captions, strict=True)]
        return Page.of_columns(*self.translations(source.images, target.images), row_titles)

    def generated(self, batch):
        source, target = self.model.domains(batch)
        identities = tf.reshape(batch["source_identity"], [-1])
        return {
            "G(source)": Generated(self.model.G(source), target, identities),
            "F(target)": Generated(self.model.F(target), source, None),
        }

    def maps(self):
        maps = maps_of(self.model.classifier.backbone)
        if not self.model.translates:
            return {"image": maps}
        images = keras.Input((*self.model.image_size, 3))
        return {"image": keras.Model(images, maps(self.model.F(images)))}

    def image_maker(self):
        return ImageMaker(("target",), self.model.F) if self.model.translates else None
