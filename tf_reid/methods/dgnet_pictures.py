"""What DG-Net shows: images composed of one image's appearance and another's structure."""

import tensorflow as tf

from tf_reid.methods.base import ReIDModel
from tf_reid.methods.dgnet_swaps import SwapBatch, exchanged
from tf_reid.methods.presentation import Columns, Generated, ImageMaker, Presentation
from tf_reid.networks.dgnet import from_imagenet, to_imagenet
from tf_reid.pictures.page import INTERPOLATION, Page


class DGNetPictures(Presentation):
    """Swaps, and interpolations between two appearances."""

    def composed(self, of_appearance, of_structure):
        """Images in [-1, 1] with the appearance of the first and the structure of the second, [B, H, W, 3] each."""
        return self._decoded(self.model.E_a(of_appearance)[0], self.model.E_s(to_imagenet(of_structure)))

    def _decoded(self, appearance, structure):
        """Codes -> images in [-1, 1]."""
        return tf.clip_by_value(from_imagenet(self.model.G([appearance, structure])), -1.0, 1.0)

    def pictures(self, batch):
        if self.model.stage != "joint":
            return {}
        pair = SwapBatch.of(batch).pair
        kinds = pair, self.composed(pair, pair), self.composed(pair, exchanged(pair))
        columns = [half for images in kinds for half in tf.split(images, 2)]
        titles = ["a", "b", "a reconstructed", "b reconstructed", "a's clothes, b's pose", "b's clothes, a's pose"]
        return {"swaps": Columns(titles, columns)}

    def pages(self):
        return {"swaps": self.swaps_page, "interpolation": self.interpolation_page}

    def swaps_page(self, appearance, structure):
        """A row for each appearance, a column for each structure (the paper's Fig. 1)."""
        nothing = tf.ones_like(structure.images[:1])
        rows = [tf.concat([nothing, structure.images], axis=0)]
        for image in appearance.images:
            repeated = tf.repeat(image[None], len(structure.images), axis=0)
            rows.append(tf.concat([image[None], self.composed(repeated, structure.images)], axis=0))
        column_titles = ["", *(f"structure of {caption}" for caption in structure.captions)]
        return Page(rows, column_titles, ["", *(f"appearance of\n{caption}" for caption in appearance.captions)])

    def interpolation_page(self, first, second):
        """From the appearance of the first to that of the second, in the first's structure (the paper's Fig. 5)."""
        start, end = self.model.E_a(first.images)[0], self.model.E_a(second.images)[0]
        structure = self.model.E_s(to_imagenet(first.images))
        between = [self._decoded((1.0 - part) * start + part * end, structure) for part in INTERPOLATION]
        titles = ["pose and first clothes", *(f"{part:.0%}" for part in INTERPOLATION), "second clothes"]
        row_titles = [f"from {a}\nto {b}" for a, b in zip(first.captions, second.captions, strict=True)]
        return Page.of_columns(titles, [first.images, *between, second.images], row_titles)

    def generated(self, batch):
        batch = SwapBatch.of(batch)
        swaps = self.composed(batch.pair, exchanged(batch.pair))
        return {"swaps": Generated(swaps, batch.pair, batch.pair_identities)}

    def maps(self):
        return {"image": self.model.last_maps}

    def image_maker(self):
        return ImageMaker(("appearance", "structure"), self.composed)


def presentation_of(model: ReIDModel) -> Presentation:
    """A run that trains no generator, such as one with feed="offline", has no swaps to show: its own would be noise."""
    if model.steps_of_stage["joint"]:
        return DGNetPictures(model)
    return Presentation(model, {"image": model.last_maps})
