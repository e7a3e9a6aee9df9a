"""Embeddings of a gallery's images and of queries, and what a gallery keeps of their encoder."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from tf_reid.encoders.encoder import Encoder
from tf_reid.encoders.image_checks import ImageError
from tf_reid.encoders.image_reader import Image


def about(encoder: Encoder) -> dict[str, Any]:
    """What a gallery keeps of the encoder that embeds its images."""
    return {
        "digest": encoder.digest,
        "distance": encoder.metric,
        "width": encoder.width,
        "source": str(encoder.source.resolve()),
    }


def embed(encoder: Encoder, images: Iterable[Image], role: str) -> tuple[np.ndarray, dict[int, str]]:
    """Embeddings float32 [N, D] of the images that can be read; and what is wrong with each other one, by its index."""
    errors: list[ImageError] = []
    embeddings, _ = encoder.embed(images, role, errors=errors.append)
    return embeddings, {error.index: error.reason for error in errors}
