"""Pictures of a trained model for people to look at: rank lists, attention, maps of features, a method's own pages."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_reid.data import pipeline
from tf_reid.data.records import Records
from tf_reid.evaluation.comparison import Comparison, labels
from tf_reid.metrics import ranking
from tf_reid.metrics.protocols import Trial
from tf_reid.pictures import curves, grids
from tf_reid.pictures.page import CaptionedImages, Page

POINTS = 2000  # images in the projector, at most
WIDEST = 1024  # features in the projector, at most
IDENTITIES_COLOURED = 10  # in a map of features


def rank_list(
    comparison: Comparison,
    records: Records,
    trial: Trial,
    image_size: Sequence[int],
    seed: int,
    identities: Sequence[int] = (),
    queries: int = 8,
    ranks: int = 10,
) -> np.ndarray:
    """The nearest gallery images of some queries of a trial, uint8 [H', W', 3]; see `grids.rank_list`.

    Args:
        comparison: the features of the records, and how they are compared.
        identities: a query of each of these is shown; by default, of random ones that have a match.

    Raises:
        ValueError: an identity has no query in the trial.
    """
    places = _query_places(records, trial, identities, queries, seed)
    query, gallery = trial.query[places], trial.gallery
    distances_of = comparison.distances(trial)
    distances = np.concatenate([distances_of(slice(place, place + 1)) for place in places.tolist()])

    # Images that the protocol leaves out are infinitely far.
    of_both = labels(records, query, gallery)
    labels_and_rule = [*of_both, trial.same_camera_ignored, trial.ignored_cameras]
    matches, left_out, _ = ranking.matched(*labels_and_rule)
    for row, images in zip(distances, left_out, strict=True):
        row[np.concatenate(images)] = np.inf
    ranks = min(ranks, int(np.isfinite(distances).sum(axis=1).min()))
    order = np.argsort(distances, axis=1, kind="stable")[:, :ranks]

    captions, correct = [], []
    for row, nearest, own in zip(distances, order, matches, strict=True):
        correct.append(np.isin(nearest, own))
        captions.append([_caption(records, gallery[place], "\n") + f"\n{row[place]:.3f}" for place in nearest])
    drawn = np.unique(order)
    return grids.rank_list(
        _pixels(records, query, image_size),
        _pixels(records, gallery[drawn], image_size),
        np.searchsorted(drawn, order),
        np.array(correct),
        [_caption(records, image, "\n") for image in query],
        captions,
    )


def write_projector(
    folder: Path,
    name: str,
    comparison: Comparison,
    records: Records,
    trial: Trial,
    image_size: Sequence[int],
    seed: int,
):
    """Write a log for TensorBoard's Embedding Projector into a run's folder: queries and gallery images of a trial.

    Features wider than `WIDEST`, such as those of images compared pixel by pixel, are replaced by their first 100
    principal components.
    """
    images, is_query = sample(trial, seed)
    features = features_of(comparison, images, is_query)
    if features.shape[1] > WIDEST:
        from sklearn.decomposition import PCA

        features = PCA(min(100, *features.shape), svd_solver="randomized", random_state=seed).fit_transform(features)
    labels = {
        "identity": records.identity[images],
        "camera": records.camera[images],
        "role": np.where(is_query, "query", "gallery"),
        "file": records.file[images],
    }
    log_dir = folder / "tensorboard" / "embeddings" / name
    grids.write_projector(log_dir, features, labels, _pixels(records, images, image_size))


def queries_and_gallery_images(
    records: Records,
    trial: Trial,
    image_size: Sequence[int],
    seed: int,
    identities: Sequence[int] = (),
    count: int = 6,
    same_identities: bool = False,
) -> tuple[CaptionedImages, CaptionedImages]:
    """Queries of different identities, and as many gallery images.

    Args:
        identities: of the queries; by default, random ones.
        same_identities: the gallery images are of the queries' identities; else of others, which repeat where there
            are fewer.

    Raises:
        ValueError: an identity has no query in the trial, or no gallery image, or no other identity is in the gallery.
    """
    queries = trial.query[_query_places(records, trial, identities, count, seed)]
    of_queries = records.identity[queries]
    gallery = np.random.default_rng(seed).permutation(trial.gallery)
    if same_identities:
        gallery = gallery[np.isin(records.identity[gallery], of_queries)]
        first_of = dict(zip(records.identity[gallery][::-1].tolist(), gallery[::-1].tolist(), strict=True))
        if missing := sorted(set(of_queries.tolist()) - set(first_of)):
            raise ValueError(f"Identity {missing[0]} has no gallery image; choose others with --identities.")
        chosen = np.array([first_of[identity] for identity in of_queries.tolist()])
    else:
        gallery = gallery[~np.isin(records.identity[gallery], of_queries) & (records.identity[gallery] > 0)]
        if not len(gallery):
            raise ValueError("The gallery has no other identity; choose a smaller --count.")
        chosen = np.resize(_one_of_each(records.identity, gallery), len(queries))
    return _captioned(records, queries, image_size), _captioned(records, chosen, image_size)


def random_images(records: Records, image_size: Sequence[int], seed: int, count: int) -> CaptionedImages:
    """Random images of different identities; identities repeat only where there are fewer than `count`."""
    order = np.random.default_rng(seed).permutation(len(records))
    return _captioned(records, np.resize(_one_of_each(records.identity, order), count), image_size)


def draw_page(page: Page) -> np.ndarray:
    """A method's page as a picture, uint8 [H', W', 3]."""
    return grids.grid([pipeline.to_uint8(row) for row in page.rows], page.column_titles, page.row_titles)


def attention(maps: Mapping[str, keras.Model], queries: CaptionedImages, gallery: CaptionedImages) -> np.ndarray:
    """Where the encoders' last maps are strong, drawn over the images: uint8 [H', W', 3].

    Strength is the root of the sum over channels of the squared maps (Zagoruyko and Komodakis, 2017,
    https://arxiv.org/abs/1612.03928). In each image, colours go from blue (weakest) to red (strongest).

    Args:
        maps: see `Presentation.maps`.
    """
    any_maps = next(iter(maps.values()))
    rows = []
    for network, images in ((maps.get("probe", any_maps), queries), (maps.get("gallery", any_maps), gallery)):
        pixels = pipeline.to_uint8(images.images)
        strength = tf.sqrt(tf.reduce_sum(tf.square(network(images.images)), axis=-1)).numpy()
        rows += [pixels, np.stack([_heat(image, of_image) for image, of_image in zip(pixels, strength, strict=True)])]
    titles = [f"{a}; {b}" for a, b in zip(queries.captions, gallery.captions, strict=True)]
    return grids.grid(rows, titles, ["query", "attention", "gallery", "attention"])


def _heat(image, strength):
    """uint8 [H, W, 3] under the colours of float [h, w]."""
    height, width = image.shape[:2]
    strength = cv2.resize(strength, (width, height), interpolation=cv2.INTER_CUBIC)
    low, high = strength.min(), strength.max()
    scaled = np.uint8(255 * (strength - low) / max(high - low, 1e-12))
    colours = cv2.cvtColor(cv2.applyColorMap(scaled, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    return cv2.addWeighted(image, 0.5, colours, 0.5, 0)


def feature_map(
    panels: Mapping[str, np.ndarray], groups: np.ndarray, identities: np.ndarray, method: str, seed: int
) -> np.ndarray:
    """Features as points of a plane, a column for each panel: coloured by group above, by identity below.

    Args:
        panels: title -> features float32 [N, D] of the same images.
        groups: strings [N], such as the image's camera.
        identities: int [N]; some identities (above 0, with several images) get a colour, the others are grey.
        method: "tsne" (of the first 50 principal components) or "pca".

    Returns:
        uint8 [2 H', panels W', 3].
    """
    known, counts = np.unique(identities[identities > 0], return_counts=True)
    coloured = np.random.default_rng(seed).permutation(known[counts > 1])[:IDENTITIES_COLOURED]
    names = np.where(np.isin(identities, coloured), np.char.add("identity ", identities.astype(str)), "others")
    axis = "t-SNE" if method == "tsne" else "component"
    panels_drawn = tqdm(panels.items(), f"{axis} of {len(identities)} images", unit="panel", disable=method == "pca")
    planes = {title: _plane(features, method, seed) for title, features in panels_drawn}
    rows = []
    for colours in (groups, names):
        row = [curves.scatter(points, colours, title, axis) for title, points in planes.items()]
        rows.append(np.concatenate(row, axis=1))
    return np.concatenate(rows)


def _plane(features, method, seed):
    """[N, D] -> [N, 2]."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    features = np.asarray(features, np.float64)
    most = min(50, *features.shape)
    components = PCA(2 if method == "pca" else most, random_state=seed).fit_transform(features)
    if method == "pca":
        return components
    perplexity = min(30.0, (len(features) - 1) / 3.0)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(components)


def sample(trial: Trial, seed: int, count: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Random images of a trial, half of them queries: indices int [N], and bool [N], whether each is a query."""
    rng = np.random.default_rng(seed)
    query, gallery = rng.permutation(trial.query)[: count // 2], rng.permutation(trial.gallery)[: count // 2]
    return np.concatenate([query, gallery]), np.repeat([True, False], [len(query), len(gallery)])


def features_of(comparison: Comparison, images: np.ndarray, is_query: np.ndarray) -> np.ndarray:
    """Features [N, D] of images, as queries or as gallery images."""
    return np.where(is_query[:, None], comparison.query[images], comparison.gallery[images])


def pixels_in_rows(records: Records, image_size: Sequence[int]) -> np.ndarray:
    """All images, each as one row: float32 [N, H * W * 3] in [-1, 1]."""
    return pipeline.all_images(records, image_size).reshape(len(records), -1)


def _query_places(records, trial, identities, count, seed):
    """Places in `trial.query`: one of each of these identities; else of random ones that have a match, each once."""
    rng = np.random.default_rng(seed)
    of_queries = records.identity[trial.query]
    if identities:
        if missing := set(identities) - set(of_queries.tolist()):
            raise ValueError(f"--identities: identity {min(missing)} has no query in the protocol's first trial.")
        return np.array([rng.choice(np.flatnonzero(of_queries == identity)) for identity in identities])
    of_both = labels(records, trial.query, trial.gallery)
    matches, _, _ = ranking.matched(*of_both, trial.same_camera_ignored, trial.ignored_cameras)
    order = rng.permutation(len(of_queries))
    order = order[[len(matches[place]) > 0 for place in order]]
    return np.sort(_one_of_each(of_queries, order)[:count])


def _one_of_each(identity, order):
    """The first place of each identity in `order`, in that order."""
    return order[np.sort(np.unique(identity[order], return_index=True)[1])]


def _captioned(records, indices, image_size):
    images = pipeline.all_images(records.take(indices), image_size)
    return CaptionedImages(tf.constant(images), [_caption(records, image, ", ") for image in indices])


def _caption(records, index, between):
    return f"identity {records.identity[index]}{between}camera {records.camera[index]}"


def _pixels(records, indices, image_size):
    return pipeline.to_uint8(pipeline.all_images(records.take(indices), image_size))
