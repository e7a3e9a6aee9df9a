"""Embeddings of a gallery's images and of queries, and what a gallery keeps of their encoder."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_reid.encoders import workers
from tf_reid.encoders.encoder import Encoder
from tf_reid.encoders.image_checks import ImageError
from tf_reid.encoders.image_reader import Image
from tf_reid.encoders.workers import Workers
from tf_reid.gallery import crops as named_crops
from tf_reid.gallery.crops import Crop
from tf_reid.gallery.records import Record


class EmbeddedCrops(NamedTuple):
    """Some images: those that can be read with their embeddings float32 [N, D], and of the others path -> reason."""

    records: list[Record]
    embeddings: np.ndarray
    unreadable: dict[str, str]


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


def embed_crops(
    encoder: Encoder, crops: Sequence[Crop], batch_size: int, by: Workers | None = None
) -> Iterator[EmbeddedCrops]:
    """Embed a gallery's images, some at a time.

    Args:
        batch_size: images that go through a network at once.
        by: the processes that embed, in any order; None: this one, in order.
    """
    if by is not None:
        yield from _embed_by_workers(encoder, crops, batch_size, by)
        return
    for start in range(0, len(crops), batch_size):
        batch = crops[start : start + batch_size]
        embeddings, reasons = embed(encoder, named_crops.contents(batch), encoder.gallery_role)
        yield _of(batch, embeddings, reasons)


def _embed_by_workers(encoder, crops, batch_size, by):
    images = [named_crops.sent_to_workers(crop) for crop in crops]
    blocks = workers.embed(
        images,
        source=encoder.source,
        digest=encoder.digest,
        role=encoder.gallery_role,
        width=encoder.width,
        workers=by,
        batch_size=batch_size,
    )
    for numbers, embeddings, reasons in blocks:
        rows = {row: reasons[number] for row, number in enumerate(numbers.tolist()) if number in reasons}
        yield _of([crops[number] for number in numbers], embeddings, rows)


def _of(crops, embeddings, reasons):
    """Args: reasons: by the index among these crops."""
    records = [crop.record for index, crop in enumerate(crops) if index not in reasons]
    return EmbeddedCrops(records, embeddings, {crops[index].record.path: reason for index, reason in reasons.items()})
