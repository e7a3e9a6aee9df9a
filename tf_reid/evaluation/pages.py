"""Pages about a trained model for people's eyes: whom it finds, where it looks, how its features lie, what it makes."""

import cv2
import numpy as np
import tensorflow as tf

from tf_reid.data import pipeline
from tf_reid.data.records import Records
from tf_reid.evaluation.comparison import labels
from tf_reid.metrics import ranking
from tf_reid.pictures import curves, grids
from tf_reid.pictures.page import Page, Shown

POINTS = 2000  # of the projector and of maps of features, at most
WIDEST = 1024  # of the projector's features
IDENTITIES_COLOURED = 10


def rank_list(comparison, records: Records, trial, image_size, seed, identities=(), queries=8, ranks=10):
    """The first of a trial's gallery for some of its queries; see `grids.rank_list`.

    Args:
        comparison: a `Comparison` whose features the records and the trial have.
        persons: whose queries are shown; by default, random ones.

    Raises:
        ValueError: a person is no query of the trial.
    """
    places = _queries(records, trial, identities, queries, seed)
    chosen = trial.query[places]
    found = comparison.distances(trial)
    distances = np.concatenate([found(slice(place, place + 1)) for place in places.tolist()])
    of_both = labels(records, chosen, trial.gallery)
    matches, hidden, _ = ranking.matched(*of_both, trial.same_camera_ignored, trial.ignored_cameras)
    for row, left_out in zip(distances, hidden, strict=True):
        row[np.concatenate(left_out)] = np.inf
    ranks = min(ranks, int(np.isfinite(distances).sum(axis=1).min()))
    order = np.argsort(distances, axis=1, kind="stable")[:, :ranks]
    right = np.array([np.isin(found, own) for found, own in zip(order, matches, strict=True)])
    shown = np.unique(order)
    return grids.rank_list(
        _pixels(records, chosen, image_size),
        _pixels(records, trial.gallery[shown], image_size),
        np.searchsorted(shown, order),
        right,
        [_caption(records, i, "\n") for i in chosen],
        [
            [_caption(records, trial.gallery[g], "\n") + f"\n{row[g]:.3f}" for g in found]
            for row, found in zip(distances, order, strict=True)
        ],
    )


def write_projector(folder, name, comparison, records: Records, trial, image_size, seed):
    """The log of TensorBoard's Embedding Projector: queries and gallery images of a trial, in the run's folder.

    Features wider than `WIDEST`, such as images compared pixel by pixel, are shown by 100 principal components.
    """
    images, of_query = some_images(trial, seed)
    embedded = features_of(comparison, images, of_query)
    if embedded.shape[1] > WIDEST:
        from sklearn.decomposition import PCA

        embedded = PCA(min(100, *embedded.shape), svd_solver="randomized", random_state=seed).fit_transform(embedded)
    labels = {
        "identity": records.identity[images],
        "camera": records.camera[images],
        "role": np.where(of_query, "query", "gallery"),
        "file": records.file[images],
    }
    where = folder / "tensorboard" / "embeddings" / name
    grids.write_projector(where, embedded, labels, _pixels(records, images, image_size))


def shown(records: Records, trial, image_size, seed, identities=(), count=6, matches=False) -> tuple[Shown, Shown]:
    """Queries of different persons, and as many gallery images: of the same persons, or of others.

    Args:
        matches: whether the gallery images are to show the queries' persons.

    Raises:
        ValueError: a person is no query of the trial, or too few persons are in its gallery.
    """
    first = trial.query[_queries(records, trial, identities, count, seed)]
    rng = np.random.default_rng(seed)
    whom = records.identity[first]
    gallery = rng.permutation(trial.gallery)
    if matches:
        theirs = [gallery[records.identity[gallery] == identity] for identity in whom]
        if not all(map(len, theirs)):
            raise ValueError("A person of the queries is not in the gallery; name others by --identities.")
        second = np.array([found[0] for found in theirs])
    else:
        gallery = gallery[~np.isin(records.identity[gallery], whom) & (records.identity[gallery] > 0)]
        second = _one_of_each(records.identity, gallery)[: len(first)]
        if len(second) < len(first):
            raise ValueError(f"The gallery shows {len(second)} other persons; name fewer by --count.")
    return _shown(records, first, image_size), _shown(records, second, image_size)


def random_images(records: Records, image_size, seed, count) -> Shown:
    """Images of training records, of different persons as far as there are."""
    order = np.random.default_rng(seed).permutation(len(records))
    return _shown(records, np.resize(_one_of_each(records.identity, order), count), image_size)


def drawn(page: Page) -> np.ndarray:
    """A method's page as one picture, uint8 [H', W', 3]."""
    return grids.grid([pipeline.to_uint8(row) for row in page.rows], page.column_titles, page.row_titles)


def attention(maps: dict, first: Shown, second: Shown) -> np.ndarray:
    """Where the encoders' last maps are strong: the root of their squares' sum over channels, over the images.

    (Zagoruyko and Komodakis, 2017, https://arxiv.org/abs/1612.03928.) Each image's colours go from its weakest place,
    blue, to its strongest, red.

    Args:
        maps: see `ReIDModel.maps`. first, second: queries and gallery images.
    """
    of_query, of_gallery = (maps.get(role) or next(iter(maps.values())) for role in ("probe", "gallery"))
    rows = []
    for network, images in ((of_query, first.images), (of_gallery, second.images)):
        pixels = pipeline.to_uint8(images)
        strength = tf.sqrt(tf.reduce_sum(tf.square(network(images)), axis=-1)).numpy()
        rows += [pixels, np.stack([_heat(image, where) for image, where in zip(pixels, strength, strict=True)])]
    titles = [f"{a}; {b}" for a, b in zip(first.captions, second.captions, strict=True)]
    return grids.grid(rows, titles, ["query", "where it looks", "gallery", "where it looks"])


def _heat(image, strength):
    height, width = image.shape[:2]
    strength = cv2.resize(strength, (width, height), interpolation=cv2.INTER_CUBIC)
    low, high = strength.min(), strength.max()
    scaled = np.uint8(255 * (strength - low) / max(high - low, 1e-12))
    colours = cv2.cvtColor(cv2.applyColorMap(scaled, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    return cv2.addWeighted(image, 0.5, colours, 0.5, 0)


def feature_map(panels: dict, groups, identities, method: str, seed) -> np.ndarray:
    """Features in the plane, a column a panel: coloured by group above, some persons below.

    Args:
        panels: title -> features float32 [N, D], of the same images.
        groups: what a point is coloured by above, such as its camera: [N] strings.
        persons: int [N]; of those above 0 that have several images, some are coloured below.
        method: "tsne" (of the first 50 principal components) or "pca".
    """
    known, counts = np.unique(identities[identities > 0], return_counts=True)
    often = np.random.default_rng(seed).permutation(known[counts > 1])[:IDENTITIES_COLOURED]
    whom = np.where(np.isin(identities, often), np.char.add("person ", identities.astype(str)), "others")
    axis = "t-SNE" if method == "tsne" else "component"
    planes = {title: _plane(features, method, seed) for title, features in panels.items()}
    rows = [
        [curves.scatter(plane, colours, title, axis) for title, plane in planes.items()] for colours in (groups, whom)
    ]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


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


def some_images(trial, seed, count=POINTS):
    """Queries and gallery images of a trial, half of each: their indices, and which are queries."""
    rng = np.random.default_rng(seed)
    query, gallery = (part[: count // 2] for part in (rng.permutation(trial.query), rng.permutation(trial.gallery)))
    return np.concatenate([query, gallery]), np.repeat([True, False], [len(query), len(gallery)])


def features_of(comparison, images, of_query):
    """Features of images [N, D], some of which are queries and the others gallery images."""
    return np.where(of_query[:, None], comparison.query[images], comparison.gallery[images])


def pixels_in_rows(records: Records, image_size):
    """float32 [N, H * W * 3]."""
    return pipeline.all_images(records, image_size).reshape(len(records), -1)


def _queries(records, trial, identities, count, seed):
    """Places in `trial.query`: one query of each named person, else of random ones, as different as there are."""
    rng = np.random.default_rng(seed)
    asked = records.identity[trial.query]
    if identities:
        if missing := set(identities) - set(asked.tolist()):
            raise ValueError(f"--identities: {min(missing)} is no query of this protocol's first trial.")
        return np.array([rng.choice(np.flatnonzero(asked == identity)) for identity in identities])
    return np.sort(_one_of_each(asked, rng.permutation(len(asked)))[:count])


def _one_of_each(identity, order):
    """The first of each person's places in `order`, in that order."""
    return order[np.sort(np.unique(identity[order], return_index=True)[1])]


def _shown(records, indices, image_size):
    images = pipeline.all_images(records.take(indices), image_size)
    return Shown(tf.constant(images), [_caption(records, i, ", ") for i in indices])


def _caption(records, index, between):
    return f"person {records.identity[index]}{between}camera {records.camera[index]}"


def _pixels(records, indices, image_size):
    return pipeline.to_uint8(pipeline.all_images(records.take(indices), image_size))
