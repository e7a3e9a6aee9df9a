"""A page for people: rows of images with titles, and the images that one is made of."""

from typing import NamedTuple

import tensorflow as tf

PARTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the way between two codes, on pages of interpolations


class Shown(NamedTuple):
    """Images for a page: float32 [n, H, W, 3] in [-1, 1], and a caption for each, such as "identity 7, camera 2"."""

    images: tf.Tensor
    captions: list[str]


class Page(NamedTuple):
    """Rows of images float32 [C, H, W, 3] in [-1, 1], with a title a column and a title a row."""

    rows: list
    column_titles: list[str]
    row_titles: list[str]

    @classmethod
    def of_columns(cls, titles, columns, row_titles):
        """Of columns of images [n, H, W, 3], with their titles, and n titles of rows."""
        return cls(tf.unstack(tf.stack(columns, axis=1)), titles, row_titles)
