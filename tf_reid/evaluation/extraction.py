"""Encoders and records -> features. Sees a method only through its encoders.

Encoders that begin with the same input tensor are ends of one Keras graph. They are called together, so that what they
share, such as DG-Net's appearance encoder under its two heads, is computed once for an image.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from tf_reid.data import pipeline
from tf_reid.data.records import Records
from tf_reid.metrics.protocols import Trial

Encoder = Callable[[tf.Tensor], tf.Tensor]  # float32 [B, H, W, 3] in [-1, 1] -> float32 [B, D]
Part = tuple[Any, np.ndarray]  # an encoder, and the indices of the records that it has to see: int [N]
Parts = Sequence[Part]  # the encoders of one role
Sides = tuple[np.ndarray, np.ndarray]  # features of queries and of gallery images
# For each of several sets of encoders, its parts -> indices, and the features of each set: float32 [B, D].
Batches = Callable[[Sequence[Parts]], Iterable[tuple[np.ndarray, Sequence[np.ndarray]]]]


class KeptFeatures(Protocol):
    """Where features are kept between evaluations; see `feature_store.Store`."""

    def get(
        self,
        role: str,
        together: Sequence[Parts],
        records: Records,
        settings: Mapping[str, Any],
        batches: Batches,
    ) -> list[np.ndarray]: ...


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


def extract_together(
    sets: Mapping[str, Mapping[str, Encoder]],
    records: Records,
    trials: Sequence[Trial],
    image_size: Sequence[int],
    *,
    batch_size: int = 64,
    flip: bool = False,
    store: KeptFeatures | None = None,
) -> dict[str, Sides]:
    """Features of the records that the trials need, by several sets of encoders of the same inputs.

    Each image is read once, and goes once through what the encoders share.

    Args:
        sets: name -> encoders by role, see `Representation`; all of one `trunk`.
        store: where features are read, and where new ones are written; None: nowhere.

    Returns:
        name -> two arrays float32 [N, D] by the records' indices, or one twice; rows that no trial needs are undefined.
    """

    def batches(together: Sequence[Parts]) -> Iterator[tuple[np.ndarray, Sequence[np.ndarray]]]:
        for parts in zip(*together, strict=True):  # of the same records, an encoder of each set
            indices, done = parts[0][1], 0
            joint, ends = joined(tuple(encoder for encoder, _ in parts))
            for features in feature_batches(joint, records.take(indices), image_size, batch_size, flip):
                yield indices[done : done + len(features)], np.split(features, ends, axis=1)
                done += len(features)

    settings = {"image_size": list(image_size), "flip": flip}
    different = {_key(encoders): encoders for encoders in sets.values()}
    needed = [roles(encoders, records, trials) for encoders in different.values()]
    by_role = {}
    for role in needed[0]:
        together = [[part for part in of_set[role] if len(part[1])] for of_set in needed]
        if store is None:
            by_role[role] = filled_together(batches(together), len(records), [np.zeros] * len(together))
        else:
            by_role[role] = store.get(role, together, records, settings, batches)
    sides = {
        key: query_and_gallery({role: features[place] for role, features in by_role.items()})
        for place, key in enumerate(different)
    }
    return {name: sides[_key(encoders)] for name, encoders in sets.items()}


def trunk(encoders: Mapping[str, Encoder]) -> tuple[tuple[str, int], ...]:
    """What is alike of sets of encoders that can be extracted together: their roles, and each role's input tensor."""
    return tuple((role, id(_input_of(encoder))) for role, encoder in encoders.items())


def _input_of(encoder):
    """A Keras model's input tensor; an encoder of another kind itself."""
    inputs = getattr(encoder, "inputs", None)
    return inputs[0] if inputs else encoder


def _key(encoders):
    return tuple((role, id(encoder)) for role, encoder in encoders.items())


@functools.lru_cache(maxsize=4)
def joined(encoders: tuple[Any, ...]) -> tuple[Any, np.ndarray]:
    """Encoders of the same input tensor -> one whose features are theirs side by side, and where to split them."""
    if len(encoders) == 1:
        return encoders[0], np.zeros(0, np.int64)
    outputs = [encoder.output for encoder in encoders]
    widths = [output.shape[-1] for output in outputs]
    return keras.Model(encoders[0].inputs, keras.ops.concatenate(outputs, axis=-1)), np.cumsum(widths)[:-1]


def query_and_gallery(by_role: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The features of queries and of gallery images: those of `probe` and `gallery`, or those of `image` twice."""
    return (by_role["probe"], by_role["gallery"]) if "probe" in by_role else (by_role["image"], by_role["image"])


def filled(batches: Iterable[tuple[np.ndarray, np.ndarray]], count: int) -> np.ndarray:
    """An array [count, D] whose rows are filled from batches of (indices, features)."""
    return filled_together(((indices, [features]) for indices, features in batches), count, [np.zeros])[0]


def filled_together(
    batches: Iterable[tuple[np.ndarray, Sequence[np.ndarray]]], count: int, make: Sequence[Callable[..., np.ndarray]]
) -> list[np.ndarray]:
    """Arrays [count, D] whose rows are filled from batches of (indices, the features of each array).

    Rows that are not filled take no memory: the system gives it page by page, when it is written to.

    Args:
        make: for each array (shape, type) -> the array to fill.
    """
    arrays: list[np.ndarray] = []
    for indices, features in batches:
        if not arrays:
            arrays = [new((count, one.shape[1]), np.float32) for new, one in zip(make, features, strict=True)]
        for array, of_array in zip(arrays, features, strict=True):
            array[indices] = of_array
    if not arrays:
        raise ValueError("There is no record to extract features of.")
    return arrays


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
