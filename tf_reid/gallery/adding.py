"""From images to a gallery or to files of embeddings, so that a command that was stopped goes on where it was."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from tf_reid.encoders.encoder import Encoder
from tf_reid.encoders.workers import Workers
from tf_reid.gallery import embedding
from tf_reid.gallery.base import Gallery
from tf_reid.gallery.crops import Crop
from tf_reid.gallery.embedding_files import EmbeddingFiles
from tf_reid.gallery.records import Record


class Keeper(Protocol):
    """A gallery, or files of embeddings."""

    def contained(self, paths: Sequence[str]) -> set[str]: ...

    def add(self, records: Sequence[Record], embeddings: np.ndarray) -> int: ...


class Added(NamedTuple):
    """How many images are new, how many were there before, and of those that cannot be read path -> reason."""

    added: int
    contained: int
    unreadable: dict[str, str]


def add_crops(
    keeper: Keeper, encoder: Encoder, crops: Sequence[Crop], batch_size: int, by: Workers | None = None
) -> Added:
    """Embed and add the images that are not there yet, some at a time, each part as a whole.

    Args:
        batch_size: images that go through a network at once.
        by: the processes that embed; None: this one.
    """
    contained = keeper.contained([crop.record.path for crop in crops])
    new = list({crop.record.path: crop for crop in crops if crop.record.path not in contained}.values())
    unreadable: dict[str, str] = {}
    with tqdm(total=len(new), unit="image", disable=not new) as progress:
        for records, embeddings, reasons in embedding.embed_crops(encoder, new, batch_size, by):
            if records:
                keeper.add(records, embeddings)
            unreadable |= reasons
            progress.update(len(records) + len(reasons))
    return Added(len(new) - len(unreadable), len(contained), unreadable)


def add_files(gallery: Gallery, files: EmbeddingFiles) -> Added:
    """Add what files of embeddings hold; of an image that several files hold, the first."""
    added = total = 0
    with tqdm(total=len(files), unit="image") as progress:
        for records, embeddings in files.rows():
            first = {record.path: row for row, record in reversed(list(enumerate(records)))}
            rows = sorted(first.values())
            added += gallery.add([records[row] for row in rows], embeddings[rows])
            total += len(records)
            progress.update(len(records))
    return Added(added, total - added, {})
