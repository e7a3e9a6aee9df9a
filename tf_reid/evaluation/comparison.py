"""Features of queries and gallery images -> their similarities, distances and scores."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from tf_reid.data.records import Records
from tf_reid.metrics import ranking, similarity
from tf_reid.metrics.protocols import Trial
from tf_reid.metrics.reranking import k_reciprocal
from tf_reid.metrics.similarity import Similarity

Labels: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Comparison:
    """How the features of a data set's records are compared.

    Args:
        query, gallery: float32 [N, D] by the records' indices.
        distance: "cosine" or "euclidean".
        rerank: whether the distance is re-ranked by k-reciprocal neighbours.
        learned: a method's own similarity in place of the distance, of TensorFlow's operations, or None; see
            `similarity.learned`.

    Raises:
        ValueError: a learned similarity is to be re-ranked, which needs a distance.
    """

    def __init__(
        self,
        query: np.ndarray,
        gallery: np.ndarray,
        distance: str,
        rerank: bool = False,
        learned: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
    ) -> None:
        if learned is not None and rerank:
            raise ValueError("evaluate.rerank needs a distance, and this method compares by a similarity it learned.")
        self.query, self.gallery = query, gallery
        self.distance, self.rerank = distance, rerank
        self.learned = None if learned is None else tf.function(learned, reduce_retracing=True)
        # The last trial's is kept: re-ranking is slow, and the rank list needs what was just scored.
        self._reranked = functools.lru_cache(maxsize=1)(lambda trial: k_reciprocal(*self.sides(trial), distance))

    def sides(self, trial: Trial) -> tuple[np.ndarray, np.ndarray]:
        """The features of a trial's queries [Q, D] and gallery images [G, D]."""
        if trial.averaged is None:
            query = similarity.rows(self.query, trial.query)
        else:
            query = np.stack([self.query[images].mean(axis=0) for images in trial.averaged])
        return query, similarity.rows(self.gallery, trial.gallery)

    def similarity(self, trial: Trial) -> Similarity:
        """What a trial's gallery is ranked by."""
        if self.learned is not None:
            return similarity.learned(self.learned, *self.sides(trial))
        return self._reranked(trial) if self.rerank else similarity.ordering(*self.sides(trial), self.distance)

    def distances(self, trial: Trial) -> Similarity:
        """The distances in their own units, lower is more alike; of a learned similarity its negative."""
        if self.learned is None and not self.rerank:
            return similarity.distances(*self.sides(trial), self.distance)
        alike = self.similarity(trial)
        return lambda block: -alike(block)


def score(comparison: Comparison, records: Records, trials: Sequence[Trial]) -> dict[str, Any]:
    """Metrics (per cent) averaged over trials; see `ranking.score` and `ranking.average`."""
    by_trial = []
    for trial in trials:
        alike, of_both = comparison.similarity(trial), labels(records, trial.query, trial.gallery)
        rules = trial.same_camera_ignored, trial.ignored_cameras, trial.cmc
        by_trial.append(ranking.score(alike, *of_both, *rules))
    return ranking.average(by_trial)


def check_matches(records: Records, trials: Sequence[Trial], chosen_by: str = "evaluate.protocol=") -> None:
    """Make sure that every trial can be scored.

    Args:
        chosen_by: stands before the name of another protocol in the message.

    Raises:
        ValueError: none of a trial's queries has a match in the gallery; the message says why.
    """
    for trial in trials:
        of_both = labels(records, trial.query, trial.gallery)
        try:
            ranking.matched(*of_both, trial.same_camera_ignored, trial.ignored_cameras)
        except ValueError as error:
            raise ValueError(f"{error}{_way_out(records, trial, of_both, chosen_by)}") from None


def _way_out(records: Records, trial: Trial, of_both: Labels, chosen_by: str) -> str:
    """A protocol of the data set by which queries have matches, where only their own cameras took those."""
    names = [name for name, protocol in records.protocols.items() if protocol.get("same_camera")]
    try:
        ranking.matched(*of_both, False, trial.ignored_cameras)
    except ValueError:
        return ""
    return f" {chosen_by}{names[0]} also counts images of the query's own camera." if names else ""


def labels(records: Records, query: np.ndarray, gallery: np.ndarray) -> Labels:
    """Identities and cameras of the queries, then of the gallery, by their indices, in the order that metrics take."""
    return records.identity[query], records.camera[query], records.identity[gallery], records.camera[gallery]
