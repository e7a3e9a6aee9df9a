"""The scores of embeddings that are made anew, as evaluation takes them."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from tf_reid.evaluation import comparison, extraction
from tf_reid.evaluation.scoring import Trained
from tf_reid.runs import splits

Embedder = TypeVar("Embedder")


def scores(
    run: Trained, embedders: Mapping[str, Embedder], embed: Callable[[Embedder, np.ndarray], np.ndarray]
) -> dict[str, Any]:
    """Embed every image of a run's protocol and score the embeddings.

    Args:
        embedders: role -> what embeds its images.
        embed: (one of them, the encoded images [N]) -> float32 [N, D].

    Returns:
        see `ranking.average`.
    """
    records = run.domains[splits.scored_domain(run.config)]
    trials = splits.fair_trials(run.config, records, run.seen)
    features = {}
    for role, parts in extraction.roles(embedders, records, trials).items():
        embedded = [(indices, embed(one, records.images[indices])) for one, indices in parts if len(indices)]
        features[role] = extraction.filled(embedded, len(records))
    settings = run.config.evaluate
    query, gallery = extraction.query_and_gallery(features)
    compared = comparison.Comparison(query, gallery, settings.distance, settings.rerank)
    return comparison.score(compared, records, trials)
