"""Embeddings of a gallery's images and of queries, by the encoder of their role."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tf_reid.encoders import encoder as encoders

GALLERY_ROLES, QUERY_ROLES = encoders.SEARCHED, encoders.SEARCHING  # the first that the encoder has


def load(source: Path) -> encoders.Embedder:
    """The encoder of a finished run or of an exported model."""
    return encoders.opened(source)


def about(encoder: encoders.Embedder) -> dict[str, Any]:
    """What a gallery keeps of the encoder that embeds its images."""
    return {
        "digest": encoder.digest,
        "distance": encoder.distance,
        "width": encoder.width,
        "source": str(encoder.source.resolve()),
    }


def embed(
    encoder: encoders.Embedder, images: Sequence[bytes], roles: Sequence[str]
) -> tuple[np.ndarray, dict[int, str]]:
    """Embeddings float32 [N, D] of the images that can be read, and what is wrong with each other one, by its number.

    Raises:
        ConfigError: the encoder embeds images of none of these roles.
    """
    return encoder.embed(list(images), roles)
