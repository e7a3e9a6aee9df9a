"""The rejection threshold: the distance beyond which a query is answered with "unknown"."""

from typing import Any

import numpy as np

from tf_reid.gallery.base import Gallery

MOST_QUERIES = 1000
FIRST_TOP, WIDER = 64, 8  # matches asked for first, and by how much more where all were of the query's own identity
BATCH = 100


def calibrate(gallery: Gallery, false_accept_rate: float) -> dict[str, Any] | None:
    """Measure and keep the threshold at which this part of the unknown people would be accepted.

    Images of the gallery whose identity is known serve as queries, without the images of their own identity: so each
    is a person whom the gallery does not know. The threshold is the quantile of the distances to their nearest images.
    It holds for unknown people like those in the gallery, and for a gallery of this size.

    Returns:
        {"threshold", "false_accept_rate", "images" (of the gallery), "queries" (that were measured)}, or None, and
        nothing is kept, where too few images have an identity.
    """
    identities, embeddings = gallery.identified(MOST_QUERIES)
    if len(set(identities)) < 2 or len(identities) * false_accept_rate < 1:
        return None
    distances = _distances_to_others(gallery, identities, embeddings)
    rejection = {
        "threshold": float(np.quantile(distances, false_accept_rate)),
        "false_accept_rate": false_accept_rate,
        "images": len(gallery),
        "queries": len(distances),
    }
    gallery.write_about({"rejection": rejection})
    return rejection


def _distances_to_others(gallery, identities, embeddings):
    """Of each embedding, the distance to the nearest image that is known to be of another identity."""
    distances, top, size = [], FIRST_TOP, len(gallery)
    waiting = np.arange(len(identities))
    # An identity with many images fills the first places: those queries are asked again, for more matches.
    while len(waiting):
        unanswered = []
        for part in np.array_split(waiting, -(-len(waiting) // BATCH)):
            for number, matches in zip(part, gallery.search(embeddings[part], top), strict=True):
                own_or_none = (identities[number], None)
                others = [match.distance for match in matches if match.record.identity not in own_or_none]
                if others:
                    distances.append(others[0])
                elif top < size:
                    unanswered.append(number)
        waiting, top = np.array(unanswered, int), WIDER * top
    return distances
