"""A page for people to look at: rows of images with titles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

INTERPOLATION = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # weights of the second of two codes, on pages that interpolate


class CaptionedImages(NamedTuple):
    """Images for a page: float32 [n, H, W, 3] in [-1, 1], with a caption each, such as "identity 7, camera 2"."""

    images: tf.Tensor
    captions: list[str]


class Page(NamedTuple):
    """Rows of images float32 [C, H, W, 3] in [-1, 1], with a title for each column and each row."""

    rows: list[tf.Tensor]
    column_titles: list[str]
    row_titles: list[str]

    @classmethod
    def of_columns(cls, titles: list[str], columns: Sequence[tf.Tensor], row_titles: list[str]) -> Page:
        """A page from columns of images [n, H, W, 3], with a title each, and n titles of rows."""
        return cls(tf.unstack(tf.stack(columns, axis=1)), titles, row_titles)
