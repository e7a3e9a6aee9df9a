"""Encoders and records -> scores. Sees a method only through its encoders."""

import functools

import numpy as np
import tensorflow as tf

from tf_reid.data import pipeline
from tf_reid.data.records import Records
from tf_reid.metrics import ranking, similarity
from tf_reid.metrics.reranking import k_reciprocal
from tf_reid.metrics.similarity import Similarity


def extract(encoder, records: Records, image_size, *, batch_size=64, flip=False) -> np.ndarray:
    """Features of all records in order, float32 [N, D]; with `flip`, the mean over an image and its mirror image.

    Args:
        encoder: callable from float32 [B, H, W, 3] in [-1, 1] to float32 [B, D].
    """
    return np.concatenate(list(feature_batches(encoder, records, image_size, batch_size, flip)))


def feature_batches(encoder, records: Records, image_size, batch_size, flip):
    """As `extract`, batch by batch."""
    features = _compiled(encoder, flip)
    for batch in pipeline.image_batches(records, image_size, batch_size):
        yield features(batch).numpy()


@functools.lru_cache(maxsize=4)
def _compiled(encoder, flip):
    """One traced function an encoder, however often it is evaluated."""

    @tf.function(reduce_retracing=True)
    def features(images):
        straight = encoder(images)
        return 0.5 * (straight + encoder(images[:, :, ::-1])) if flip else straight

    return features


def extract_roles(encoders: dict, records: Records, trials, image_size, *, batch_size=64, flip=False, store=None):
    """Features of the records that the trials need, as queries and as gallery images.

    Args:
        encoders: role -> Keras model, see `Representation`.
        store: a `feature_store.Store` to take features from and to put new ones in, or None.

    Returns:
        two arrays float32 [N, D] by the records' indices, or one twice; rows that no trial needs are undefined.
    """

    def batches(parts):
        for encoder, indices in parts:
            done = 0
            for features in feature_batches(encoder, records.take(indices), image_size, batch_size, flip):
                yield indices[done : done + len(features)], features
                done += len(features)

    found = {}
    for role, parts in roles(encoders, records, trials).items():
        parts = [(encoder, indices) for encoder, indices in parts if len(indices)]
        if store is None:
            found[role] = filled(batches(parts), len(records))
        else:
            found[role] = store.get(role, parts, records, {"image_size": list(image_size), "flip": flip}, batches)
    return query_and_gallery(found)


def query_and_gallery(by_role: dict) -> tuple:
    """Of what there is for `probe` and `gallery`, or for `image` alone: the queries' and the gallery's."""
    return (by_role["probe"], by_role["gallery"]) if "probe" in by_role else (by_role["image"], by_role["image"])


def filled(batches, count, make=np.zeros) -> np.ndarray:
    """An array [count, D] with the rows of all batches (of indices and features) filled in; `make` takes its shape.

    Rows that are not filled take no memory: the system gives it page by page, when it is written to.
    """
    array = None
    for indices, features in batches:
        if array is None:
            array = make((count, features.shape[1]), dtype=np.float32)
        array[indices] = features
    return array


def roles(encoders, records, trials):
    """Role -> [(encoder, the indices of the records it has to see)]; only the names of the encoders matter."""
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


class Comparison:
    """How features are compared.

    Args:
        query, gallery: float32 [N, D] by the records' indices.
        distance: "cosine" or "euclidean".
        rerank: whether the distance is re-ranked by k-reciprocal neighbours.
        learned: a method's own similarity in place of the distance, of TensorFlow's operations, or None; see
            `similarity.learned`.

    Raises:
        ValueError: a learned similarity is to be re-ranked, which needs a distance.
    """

    def __init__(self, query, gallery, distance: str, rerank=False, learned=None):
        if learned is not None and rerank:
            raise ValueError("evaluate.rerank needs a distance, and this method compares by a similarity it learned.")
        self.query, self.gallery = query, gallery
        self.distance, self.rerank = distance, rerank
        self.learned = None if learned is None else tf.function(learned, reduce_retracing=True)
        # The last trial's: re-ranking is dear, and the rank list asks for what was just scored.
        self._reranked = functools.lru_cache(maxsize=1)(lambda trial: k_reciprocal(*self.sides(trial), distance))

    def sides(self, trial) -> tuple[np.ndarray, np.ndarray]:
        """The features of a trial's queries [Q, D] and gallery images [G, D]."""
        if trial.averaged is None:
            query = similarity.rows(self.query, trial.query)
        else:
            query = np.stack([self.query[images].mean(axis=0) for images in trial.averaged])
        return query, similarity.rows(self.gallery, trial.gallery)

    def similarity(self, trial) -> Similarity:
        """What a trial's gallery is ranked by."""
        if self.learned is not None:
            return similarity.learned(self.learned, *self.sides(trial))
        return self._reranked(trial) if self.rerank else similarity.ordering(*self.sides(trial), self.distance)

    def distances(self, trial) -> Similarity:
        """The same as a distance in its own units, lower is more alike; of a learned similarity its negative."""
        if self.learned is None and not self.rerank:
            return similarity.distances(*self.sides(trial), self.distance)
        found = self.similarity(trial)
        return lambda block: -found(block)


def score(comparison: Comparison, records: Records, trials) -> dict:
    """Metrics (per cent) averaged over trials; see `ranking.average`."""
    return ranking.average(
        [ranking.score(comparison.similarity(trial), *_asked(records, trial), trial.cmc) for trial in trials]
    )


def check_matches(records: Records, trials) -> None:
    """Raise a ValueError if a trial could not be scored, since none of its queries has a match."""
    for trial in trials:
        ranking.matched(*_asked(records, trial))


def _asked(records, trial):
    """What `metrics` asks of a trial."""
    return *labels(records, trial.query, trial.gallery), trial.same_camera_ignored, trial.ignored_cameras


def labels(records: Records, query, gallery) -> list:
    """Persons and cameras of the queries, then of the gallery, by their indices, in the order that scores ask for."""
    return [part for indices in (query, gallery) for part in (records.identity[indices], records.camera[indices])]
