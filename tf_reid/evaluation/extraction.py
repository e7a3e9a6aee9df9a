"""Encoders and records -> features. Sees a method only through its encoders."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tf_reid.data import pipeline
from tf_reid.data.records import Records
from tf_reid.metrics.protocols import Trial

Encoder = Callable[[tf.Tensor], tf.Tensor]  # float32 [B, H, W, 3] in [-1, 1] -> float32 [B, D]
Part = tuple[Any, np.ndarray]  # an encoder, and the indices of the records that it has to see: int [N]


class KeptFeatures(Protocol):
    """Where features are kept between evaluations; see `feature_store.Store`."""

    def get(
        self,
        role: str,
        parts: Sequence[Part],
        records: Records,
        settings: Mapping[str, Any],
        batches: Callable[[Sequence[Part]], Iterable[tuple[np.ndarray, np.ndarray]]],
    ) -> np.ndarray: ...


def extract(
    encoder: Encoder, records: Records, image_size: Sequence[int], *, batch_size: int = 64, flip: bool = False
) -> np.ndarray:
    """Features of all records in order, float32 [N, D]; with `flip`, the mean over an image and its mirror image."""
    return np.concatenate(list(feature_batches(encoder, records, image_size, batch_size, flip)))


def feature_batches(
    encoder: Encoder, records: Records, image_size: Sequence[int], batch_size: int, flip: bool
) -> Iterator[np.ndarray]:
    """As `extract`, batch by batch."""
    features = compiled(encoder, flip)
    for batch in pipeline.image_batches(records, image_size, batch_size):
        yield features(batch).numpy()


@functools.lru_cache(maxsize=4)
def compiled(encoder, flip):
    """One traced function an encoder, however often it is evaluated."""

    @tf.function(reduce_retracing=True)
    def features(images):
        straight = encoder(images)
        return 0.5 * (straight + encoder(images[:, :, ::-1])) if flip else straight

    return features


def extract_roles(
    encoders: Mapping[str, Encoder],
    records: Records,
    trials: Sequence[Trial],
    image_size: Sequence[int],
    *,
    batch_size: int = 64,
    flip: bool = False,
    store: KeptFeatures | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Features of the records that the trials need, as queries and as gallery images.

    Args:
        encoders: role -> encoder, see `Representation`.
        store: where features are read, and where new ones are written; None: nowhere.

    Returns:
        two arrays float32 [N, D] by the records' indices, or one twice; rows that no trial needs are undefined.
    """

    def batches(parts: Sequence[Part]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for encoder, indices in parts:
            done = 0
            for features in feature_batches(encoder, records.take(indices), image_size, batch_size, flip):
                yield indices[done : done + len(features)], features
                done += len(features)

    by_role = {}
    for role, parts in roles(encoders, records, trials).items():
        needed = [(encoder, indices) for encoder, indices in parts if len(indices)]
        if store is None:
            by_role[role] = filled(batches(needed), len(records))
        else:
            by_role[role] = store.get(role, needed, records, {"image_size": list(image_size), "flip": flip}, batches)
    return query_and_gallery(by_role)


def query_and_gallery(by_role: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The features of queries and of gallery images: those of `probe` and `gallery`, or those of `image` twice."""
    return (by_role["probe"], by_role["gallery"]) if "probe" in by_role else (by_role["image"], by_role["image"])


def filled(
    batches: Iterable[tuple[np.ndarray, np.ndarray]], count: int, make: Callable[..., np.ndarray] = np.zeros
) -> np.ndarray:
    """An array [count, D] whose rows are filled from batches of (indices, features).

    Rows that are not filled take no memory: the system gives it page by page, when it is written to.

    Args:
        make: shape -> the array to fill.
    """
    array = None
    for indices, features in batches:
        if array is None:
            array = make((count, features.shape[1]), dtype=np.float32)
        array[indices] = features
    if array is None:
        raise ValueError("There is no record to extract features of.")
    return array


def roles(encoders: Mapping[str, Any], records: Records, trials: Sequence[Trial]) -> dict[str, list[Part]]:
    """Role -> the encoders of this role with the records that each has to see.

    The roles are `probe` and `gallery`, or `image` for both; the encoders `rgb` and `ir` share the role `image`.
    """
    query = np.unique(np.concatenate([trial.query_images for trial in trials]))
    gallery = np.unique(np.concatenate([trial.gallery for trial in trials]))
    names = set(encoders)
    if names == {"probe", "gallery"}:
        return {"probe": [(encoders["probe"], query)], "gallery": [(encoders["gallery"], gallery)]}
    both = np.union1d(query, gallery)
    if names == {"image"}:
        return {"image": [(encoders["image"], both)]}
    infrared = records.modality[both] == "infrared"
    return {"image": [(encoders["rgb"], both[~infrared]), (encoders["ir"], both[infrared])]}
