"""How well a ranking finds the person: distances, CMC, mAP and mINP. NumPy in, NumPy out.

Everything is computed from the ranks of the right gallery images alone, so `ranks_of_matches` is the one
place that knows how a ranking is made. Person id −1 (any negative id) is junk and ignored; 0 is a distractor:
it stays in the gallery, is never a query and never right.
"""

import cv2
import numpy as np

CMC_RANKS = 50
BLOCK_ENTRIES = 2**23  # distances held at once; with their sorting order about 150 MB, whatever the gallery's size
RATES = ("rank1", "rank5", "rank10", "rank20", "mAP", "mAP_trapezoid", "mINP")
COUNTS = ("queries", "dropped", "gallery")


def normalise(features):
    """Rows of unit L2 length, float32 [N, D]; a row of zeros stays zero."""
    features = np.asarray(features, np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def pairwise_distance(query, gallery, metric="cosine"):
    """Distance of every query to every gallery feature.

    Args:
        query: [Q, D]. gallery: [G, D].
        metric: "cosine" (1 − cosine similarity, 0 to 2) or "euclidean" (not squared).

    Returns:
        float32 [Q, G].

    Raises:
        ValueError: unknown metric.
    """
    if metric == "cosine":
        return 1 - normalise(query) @ normalise(gallery).T
    if metric == "euclidean":
        query, gallery = np.asarray(query, np.float32), np.asarray(gallery, np.float32)
        squares = np.sum(query**2, axis=1)[:, None] + np.sum(gallery**2, axis=1) - 2 * (query @ gallery.T)
        return np.sqrt(np.maximum(squares, 0))  # rounding can leave a small negative square
    raise ValueError(f"Unknown metric '{metric}': it must be 'cosine' or 'euclidean'.")


def ranks_of_matches(distances, matches, ignored):
    """Where the right images stand in each query's ranking, once the ignored images are taken out.

    Equal distances keep the order of the gallery, so a result does not change from run to run.

    Args:
        distances: finite float [Q, G]. matches: bool [Q, G], right images. ignored: bool [Q, G].

    Returns:
        rows, ranks: int64 [M] each, the query's row and the rank (1 is best) of every match that is not
        ignored, by row, then by rank.
    """
    order = np.argsort(np.where(ignored, np.inf, distances), axis=1, kind="stable")
    rows, columns = np.nonzero(np.take_along_axis(matches & ~ignored, order, axis=1))
    return rows, columns + 1


def ranking_quality(rows, ranks):
    """What one query after the other scores, from `ranks_of_matches`; queries without a match do not appear.

    With h hits among the first r images at the h-th right image's rank r, and M right images:
    *AP step* is the mean of h/r; *AP trapezoid*, Market-1501's original, the mean of
    ((h−1)/(r−1) + h/r) / 2, where the first term is 1 at rank 1; *INP* is M over the last right image's rank.

    Returns:
        dict of first_rank (int64), ap_step, ap_trapezoid, inp (float64, 0 to 1), each [queries with a match].
    """
    _, start, count = np.unique(rows, return_index=True, return_counts=True)
    if not len(start):
        none = np.zeros(0)
        return {"first_rank": none.astype(np.int64), "ap_step": none, "ap_trapezoid": none, "inp": none}
    hits = np.arange(len(rows)) - np.repeat(start, count) + 1
    precision = hits / ranks
    precision_before = np.where(ranks == 1, 1.0, (hits - 1) / np.maximum(ranks - 1, 1))
    return {
        "first_rank": ranks[start],
        "ap_step": np.add.reduceat(precision, start) / count,
        "ap_trapezoid": np.add.reduceat((precision_before + precision) / 2, start) / count,
        "inp": count / ranks[start + count - 1],
    }


def score(
    query_features,
    gallery_features,
    query_person,
    query_camera,
    gallery_person,
    gallery_camera,
    same_camera_ignored,
    metric="cosine",
):
    """Rank the gallery for every query and measure the rankings.

    Args:
        query_features: [Q, D]. gallery_features: [G, D], finite.
        query_person, query_camera: int [Q]. gallery_person, gallery_camera: int [G].
        same_camera_ignored: leave out gallery images of the query's own person and camera (Market's rule).
        metric: see `pairwise_distance`.

    Returns:
        dict of rank1, rank5, rank10, rank20, mAP (step), mAP_trapezoid, mINP (floats, per cent); cmc (float
        [50], per cent at ranks 1 to 50); queries (int, those with a match: all is averaged over them);
        dropped (int, those without); gallery (int, images that are not junk).

    Raises:
        ValueError: shapes that do not fit, features that are not finite, or no query with a match (and why).
    """
    query_features, gallery_features = np.asarray(query_features), np.asarray(gallery_features)
    query_person, query_camera = _checked("query", query_features, query_person, query_camera)
    gallery_person, gallery_camera = _checked("gallery", gallery_features, gallery_person, gallery_camera)
    if query_features.shape[1] != gallery_features.shape[1]:
        raise ValueError(
            f"The query features have {query_features.shape[1]} dimensions and the gallery features "
            f"{gallery_features.shape[1]}: both must come from encoders of the same output size."
        )

    junk, is_query = gallery_person < 0, query_person > 0
    blocks = []
    size = max(1, BLOCK_ENTRIES // len(gallery_person))
    for start in range(0, len(query_person), size):
        block = slice(start, start + size)
        same_person = query_person[block, None] == gallery_person
        ignored = np.broadcast_to(junk, same_person.shape)
        if same_camera_ignored:
            ignored = ignored | (same_person & (query_camera[block, None] == gallery_camera))
        matches = same_person & is_query[block, None]
        distances = pairwise_distance(query_features[block], gallery_features, metric)
        blocks.append(ranking_quality(*ranks_of_matches(distances, matches, ignored)))

    quality = {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}
    queries = len(quality["first_rank"])
    if not queries:
        raise ValueError(f"No query has a match: {_why_no_match(query_person, gallery_person)}.")
    cmc = 100.0 * np.mean(quality["first_rank"][:, None] <= np.arange(1, CMC_RANKS + 1), axis=0)
    return {
        **{f"rank{k}": float(cmc[k - 1]) for k in (1, 5, 10, 20)},
        "mAP": 100.0 * float(np.mean(quality["ap_step"])),
        "mAP_trapezoid": 100.0 * float(np.mean(quality["ap_trapezoid"])),
        "mINP": 100.0 * float(np.mean(quality["inp"])),
        "queries": queries,
        "dropped": len(query_person) - queries,
        "gallery": int(np.sum(~junk)),
        "cmc": cmc,
    }


def average(results):
    """The mean over trials of what `score` returns.

    Returns:
        The same keys; counts stay ints where the trials agree. Also `trials` (int) and `spread`, a dict of
        each rate's standard deviation over the trials (ddof 0, so 0.0 for one trial).

    Raises:
        ValueError: no results.
    """
    if not results:
        raise ValueError("There is no result to average: the protocol gave no trial.")
    mean = {key: float(np.mean([result[key] for result in results])) for key in RATES}
    for key in COUNTS:
        counts = [result[key] for result in results]
        mean[key] = counts[0] if len(set(counts)) == 1 else float(np.mean(counts))
    mean["cmc"] = np.mean([result["cmc"] for result in results], axis=0)
    mean["spread"] = {key: float(np.std([result[key] for result in results])) for key in RATES}
    mean["trials"] = len(results)
    return mean


def colour_histogram(images, stripes=6):
    """A feature that learns nothing, to compare with: where on the body which colours are worn.

    Each horizontal stripe gives a joint histogram of hue, saturation and value (16 × 4 × 4 bins). The square
    root (Hellinger's map) makes the cosine of two features the Bhattacharyya coefficient of their histograms.

    Args:
        images: uint8 [N, H, W, 3], RGB.

    Returns:
        float32 [N, stripes × 256], rows of unit length.

    Raises:
        ValueError: images of another type or shape.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"Images must be uint8 [N, H, W, 3], not {images.dtype} {list(images.shape)}.")
    stripe = np.arange(images.shape[1]) * stripes // images.shape[1]
    counts = np.zeros((len(images), stripes * 256), np.float32)
    for row, image in enumerate(images):
        hue, saturation, value = np.moveaxis(cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int64), -1, 0)
        bins = (hue * 16 // 180) * 16 + (saturation // 64) * 4 + value // 64  # OpenCV's hue runs from 0 to 179
        counts[row] = np.bincount((stripe[:, None] * 256 + bins).ravel(), minlength=stripes * 256)
    return np.sqrt(counts / (images.shape[1] * images.shape[2]))


def _checked(name, features, person, camera):
    """Person and camera as arrays, after one look at everything that comes with these features."""
    person, camera = np.asarray(person), np.asarray(camera)
    if not len(features) == len(person) == len(camera):
        raise ValueError(
            f"There are {len(features)} {name} features for {len(person)} person ids and {len(camera)} "
            "cameras: the three must have the same length."
        )
    if not len(features):
        raise ValueError(f"No query has a match: the {name} has no image.")
    if features.ndim != 2:
        raise ValueError(f"The {name} features must be [N, D], not {list(features.shape)}.")
    if not np.all(np.isfinite(features)):
        raise ValueError(f"The {name} features hold NaN or infinite values: the encoder that made them is broken.")
    return person, camera


def _why_no_match(query_person, gallery_person):
    for name, person in (("query", query_person), ("gallery", gallery_person)):
        if np.all(person <= 0):
            return f"every {name} image is junk or a distractor (person id -1 or 0)"
    if not np.any(np.isin(query_person[query_person > 0], gallery_person)):
        return "the persons of the query and the persons of the gallery have no id in common"
    return (
        "every gallery image of a query's person was taken by the query's own camera, and those are ignored; "
        "check the camera numbers"
    )
