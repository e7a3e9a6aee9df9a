"""What people can look at of a method: pictures during training, pages, generated images, attention maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import keras
import tensorflow as tf

from tf_reid.methods.staged_model import StagedModel
from tf_reid.pictures.page import CaptionedImages, Page


class Columns(NamedTuple):
    """A picture of a batch: titles, and for each a column of images float32 [n, H, W, 3] in [-1, 1]."""

    titles: list[str]
    images: list[tf.Tensor]


class Generated(NamedTuple):
    """Generated images, to be judged.

    Attributes:
        images: float32 [n, H, W, 3] in [-1, 1].
        real: the images that they should resemble, [m, H, W, 3].
        identities: int [n], of the generated images; None where they show no certain identity.
    """

    images: tf.Tensor
    real: tf.Tensor
    identities: tf.Tensor | None


class ImageMaker(NamedTuple):
    """A function that makes an image of others, such as DG-Net's of an appearance and a structure.

    Attributes:
        inputs: what each input image is called.
        make: as many batches float32 [B, H, W, 3] in [-1, 1] -> one such batch.
    """

    inputs: tuple[str, ...]
    make: Callable[..., tf.Tensor]


class Presentation:
    """What people can look at of a model; each part is empty until a method's subclass overrides it.

    `ReIDModel.presentation` returns it. Nothing here takes part in training or evaluation.

    Args:
        model: the method's model.
        maps: what `maps` returns; enough for a method that makes no images.
    """

    def __init__(self, model: StagedModel, maps: Mapping[str, keras.Model] | None = None):
        self.model = model
        self._maps = dict(maps or {})

    @property
    def has_pictures(self) -> bool:
        """Whether this class draws pictures of a batch."""
        return type(self).pictures is not Presentation.pictures

    def pictures(self, batch: Mapping[str, tf.Tensor]) -> dict[str, Columns]:
        """Title -> a picture of a batch of the current stage, drawn while it trains."""
        return {}

    def pages(self) -> dict[str, Callable[[CaptionedImages, CaptionedImages], Page]]:
        """Name -> a function that makes a page of two sets of images, as many of each.

        The first set is of the source and the second of the target, in a method of two data sets; else the first are
        queries and the second gallery images, of the same identities where the encoders are of two views.
        """
        return {}

    def generated(self, batch: Mapping[str, tf.Tensor]) -> dict[str, Generated]:
        """Title -> images that the model generates from a batch of its last stage."""
        return {}

    def maps(self) -> dict[str, keras.Model]:
        """Role, as in `ReIDModel.encoders` -> model from images to the encoder's last maps [B, h, w, C]."""
        return self._maps

    def across(self) -> dict[str, keras.Model]:
        """Name -> model from images of the probe's view to their like in the gallery's view."""
        return {}

    def image_maker(self) -> ImageMaker | None:
        """What is exported as a model that makes images; None: nothing is."""
        return None
