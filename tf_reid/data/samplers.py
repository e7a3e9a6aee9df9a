"""How images become batches: a sampler is made of the records that it draws from and its stage's settings.

`stage.batch_size` counts the images of a domain. A sampler keeps no state between epochs: it draws an epoch from the
generator that it is given.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from tf_reid.data.pipeline import Sampler
from tf_reid.data.records import Records


class BatchSettings(Protocol):
    """A stage's settings, as far as samplers read them; see `tf_reid.settings.StageSettings`."""

    batch_size: int
    positive_fraction: float
    images_per_view: int
    images_per_identity: int


def pairs(source: Records, stage: BatchSettings) -> Sampler:
    """Labelled pairs: `batch_size // 2` a step, `positive_fraction` of which (exact over an epoch) show one identity.

    A positive pair is an image and another of the same identity, from another camera wherever there is one. An image
    without such a partner is never drawn for it. A negative pair is an image and one of another identity.

    Raises:
        ValueError: no identity has two images, or there is only one identity.
    """
    draw = _pair_drawer(source, stage.positive_fraction)
    count = stage.batch_size // 2

    def epoch(rng):
        chosen = draw(rng, _steps(len(source), count) * count)
        return {"source": chosen.reshape(-1, count, 2)}

    return epoch


def pairs_of_two_domains(source: Records, stage: BatchSettings, target: Records) -> Sampler:
    """`pairs` of the source beside random pairs of the target, whose identities are not read (SimPGAN, section 4.3)."""
    draw = _pair_drawer(source, stage.positive_fraction)
    count = stage.batch_size // 2

    def epoch(rng):
        steps = _steps(max(len(source), len(target)), stage.batch_size)
        images = steps * stage.batch_size
        repeats = -(-images // len(target))
        order = np.concatenate([rng.permutation(len(target)) for _ in range(repeats)])[:images]
        chosen = draw(rng, steps * count)
        return {"source": chosen.reshape(steps, count, 2), "target": order.reshape(steps, count, 2)}

    return epoch


def modalities(source: Records, stage: BatchSettings) -> Sampler:
    """`batch_size // 2` identities a step, each with an RGB image, then an infrared image (cmGAN, Alg. 1).

    An epoch is one pass over the identities. An identity of a single modality is never drawn.

    Raises:
        ValueError: fewer identities than a batch has are seen in both modalities.
    """
    infrared = source.modality == "infrared"
    return _two_sides(source, np.flatnonzero(~infrared), np.flatnonzero(infrared), stage, 1, "both modalities")


def views(source: Records, stage: BatchSettings) -> Sampler:
    """Identities, each with `images_per_view` pairs of a probe and a gallery image (view adaptation's SP batches).

    If a data set has two cameras, the one with the lower number is the probe view; if it has more, two of each
    identity's cameras are drawn, once for the whole run. An epoch is one pass over the identities of both views.

    Raises:
        ValueError: fewer identities than a batch has are seen in two views.
    """
    probe, gallery = _two_views(source)
    return _two_sides(source, probe, gallery, stage, stage.images_per_view, "two views")


def unmatched_views(source: Records, stage: BatchSettings) -> Sampler:
    """`batch_size // 2` probe images beside as many gallery images, drawn independently of their identities.

    For methods that learn the identities of the probe view alone: a batch does not show the same ones in both views.
    The two views are those of `views`, so labels decide which images they have. An epoch is one pass over the larger
    view.

    Raises:
        ValueError: no identity is seen in two views.
    """
    sides = _two_views(source)
    if not len(sides[0]):
        raise ValueError(f"{source.name}: no training identity is seen in two views; choose another data set.")
    return _independent(sides, stage)


def swaps(source: Records, stage: BatchSettings) -> Sampler:
    """Rows of four images: one of two identities each, and another image of either (DG-Net's batches and positives).

    `batch_size // 4` rows a step. An image whose identity has no other image is never drawn.

    Raises:
        ValueError: the batch is no multiple of 4, or fewer than two identities have two images.
    """
    if stage.batch_size % 4:
        raise ValueError(f"A batch_size of {stage.batch_size} holds no whole rows of 4 images; use a multiple of 4.")
    count, identity = stage.batch_size // 4, source.identity
    others = {p: np.flatnonzero(identity == p) for p in np.unique(identity)}
    images = np.array([i for i in range(len(source)) if len(others[identity[i]]) > 1], dtype=np.int64)
    if len(np.unique(identity[images])) < 2:
        raise ValueError(f"{source.name}: fewer than two identities have two training images, so none can be swapped.")

    def epoch(rng):
        steps = _steps(len(images), count)
        first, second = (_cycled(rng, images, steps * count) for _ in range(2))
        while (clash := identity[first] == identity[second]).any():
            second[clash] = rng.choice(images, size=clash.sum())
        both = [first, second]
        positives = [
            np.array([rng.choice(others[identity[i]][others[identity[i]] != i]) for i in side]) for side in both
        ]
        return {"source": np.stack([*both, *positives], axis=1).reshape(steps, count, 4)}

    return epoch


def single_images(source: Records, stage: BatchSettings) -> Sampler:
    """Images of all identities, shuffled, `batch_size` a step (DG-Net's teacher). An epoch is one pass over them."""
    every_image, count = np.arange(len(source)), stage.batch_size

    def epoch(rng):
        steps = _steps(len(source), count)
        return {"source": _cycled(rng, every_image, steps * count).reshape(steps, count)}

    return epoch


def identities(source: Records, stage: BatchSettings) -> Sampler:
    """Rows of `images_per_identity` images of one identity, rows of a batch of different ones (batch-hard triplets).

    P identities a step with K images each (Hermans et al., 2017, https://arxiv.org/abs/1703.07737). An epoch is one
    pass over the identities. The images of an identity that has fewer than K are repeated; see `repetition`.

    Raises:
        ValueError: the batch is no multiple of K, has one identity, or more than there are.
    """
    each = stage.images_per_identity
    if stage.batch_size % each:
        raise ValueError(
            f"A batch_size of {stage.batch_size} holds no whole rows of {each} images of an identity; use a multiple "
            f"of {each}, or set images_per_identity."
        )
    images_of = [np.flatnonzero(source.identity == identity) for identity in np.unique(source.identity)]
    count = stage.batch_size // each
    _check_identities(source, stage, count, len(images_of), f"of {each} images each")

    def epoch(rng):
        steps = len(images_of) // count
        order = rng.permutation(len(images_of))[: steps * count]
        drawn = [_cycled(rng, images_of[number], each) for number in order]
        return {"source": np.stack(drawn).reshape(steps, count, each)}

    return epoch


def repetition(kind, stage: BatchSettings, source: Records) -> str | None:
    """One sentence if the sampler `identities` has to repeat images, because an identity has fewer than a row.

    Args:
        kind: the method's own `Stage`. stage: its settings. source: its records.
    """
    _, images = np.unique(source.identity, return_counts=True)
    few = int((images < stage.images_per_identity).sum())
    if kind.sampler != "identities" or not few:
        return None
    return (
        f"{source.name}: {few} of {len(images)} identities have fewer than images_per_identity="
        f"{stage.images_per_identity} images; a batch repeats theirs."
    )


def unpaired_views(source: Records, stage: BatchSettings) -> Sampler:
    """`batch_size // 2` images of a view beside as many of the other, drawn independently: identities are not read.

    Two cameras are the two views, the one with the lower number the first. The images of more cameras are halved at
    random, always in the same way, so that either view has seen them all. Of several data sets each is divided on its
    own. An epoch is a pass over the larger view.

    Raises:
        ValueError: all images of a data set are of one camera.
    """
    first = np.zeros(len(source), bool)
    for name, own in source.parts:
        cameras = np.unique(source.camera[own])
        if len(cameras) == 1:
            raise ValueError(f"{name}: all training images are of camera {cameras[0]}; two views need two cameras.")
        if len(cameras) == 2:
            first[own] = source.camera[own] == cameras[0]
        else:
            first[own] = np.random.default_rng(0).permutation(len(own)) < len(own) // 2
    return _independent([np.flatnonzero(first), np.flatnonzero(~first)], stage)


SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "pairs": pairs,
    "pairs_of_two_domains": pairs_of_two_domains,
    "modalities": modalities,
    "views": views,
    "unmatched_views": unmatched_views,
    "swaps": swaps,
    "single_images": single_images,
    "identities": identities,
    "unpaired_views": unpaired_views,
}


def images_in_a_row(sampler: str, stage: BatchSettings) -> int:
    """How many images of a domain a sampler draws to stay together, also when replicas share a batch."""
    rows = {"swaps": 4, "single_images": 1, "identities": stage.images_per_identity}
    return rows.get(sampler, 2)


def of_stage(kind, stage: BatchSettings, records: dict[str, Records]) -> Sampler:
    """The sampler of a method's stage.

    Args:
        kind: the method's own `Stage`. stage: its settings. records: of `source`, and of `target` where it takes both.
    """
    target = [records["target"]] if kind.domains == 2 else []
    return SAMPLERS[kind.sampler](records["source"], stage, *target)


def _two_sides(records, first, second, stage, each, what) -> Sampler:
    """Batches of different identities, each with `each` pairs: an image of `first`, one of `second` (indices)."""
    sides = [
        {p: side[records.identity[side] == p] for p in np.unique(records.identity[side])} for side in (first, second)
    ]
    both = np.array(sorted(sides[0].keys() & sides[1].keys()), dtype=np.int64)
    count = stage.batch_size // (2 * each)
    _check_identities(records, stage, count, len(both), f"seen in {what}")

    def epoch(rng):
        steps = len(both) // count
        order = np.repeat(rng.permutation(both)[: steps * count], each)
        drawn = [np.concatenate([_cycled(rng, side[p], each) for p in order[::each]]) for side in sides]
        return {"source": np.stack(drawn, axis=1).reshape(steps, count * each, 2)}

    return epoch


def _check_identities(records, stage, count, known, what):
    """A batch has `count` identities: two or more, and no more than are known."""
    if count < 2:
        raise ValueError(f"A batch_size of {stage.batch_size} holds {count} identities; the stage needs two or more.")
    if known < count:
        raise ValueError(
            f"{records.name}: a batch of {stage.batch_size} images needs {count} identities {what}, but there "
            f"are {known}; choose another data set or a smaller batch_size of the stage."
        )


def _independent(sides, stage) -> Sampler:
    """Rows of an image of either side (indices), drawn independently; an epoch is one pass over the larger side."""
    count = stage.batch_size // 2

    def epoch(rng):
        steps = _steps(max(map(len, sides)), count)
        drawn = [_cycled(rng, side, steps * count) for side in sides]
        return {"source": np.stack(drawn, axis=1).reshape(steps, count, 2)}

    return epoch


def _two_views(records):
    """-> indices of the probe view's images and of the gallery view's, chosen in each data set on its own."""
    rng = np.random.default_rng(0)
    probe, gallery = [], []
    for _, images in records.parts:
        cameras = np.unique(records.camera[images])
        for identity in np.unique(records.identity[images]):
            own = images[records.identity[images] == identity]
            seen_by = np.unique(records.camera[own])
            if len(seen_by) < 2:
                continue
            first, second = cameras if len(cameras) == 2 else rng.permutation(seen_by)[:2]
            probe.append(own[records.camera[own] == first])
            gallery.append(own[records.camera[own] == second])
    none = np.empty(0, np.int64)
    return np.concatenate([none, *probe]), np.concatenate([none, *gallery])


def _steps(images, batch):
    return max(1, images // batch)


def _pair_drawer(records: Records, positive_fraction: float):
    """-> draw(rng, n): int [n, 2] indices of n pairs in random order, round(n · fraction) of them of one identity."""
    identity, camera = records.identity, records.camera
    images_of = {p: np.flatnonzero(identity == p) for p in np.unique(identity)}
    partners = [_partners(i, images_of[identity[i]], camera) for i in range(len(records))]
    leaders = np.array([i for i, others in enumerate(partners) if len(others)], dtype=np.int64)
    if positive_fraction > 0 and not len(leaders):
        raise ValueError(
            f"{records.name}: no identity has two training images, so no pair of one identity can be drawn."
        )
    if positive_fraction < 1 and len(images_of) < 2:
        raise ValueError(f"{records.name}: the training images show only one identity, so no pair of two can be drawn.")

    def draw(rng, count):
        positives = round(count * positive_fraction)
        first = _cycled(rng, leaders, positives)
        second = np.array([rng.choice(partners[i]) for i in first], dtype=np.int64)
        others = _cycled(rng, np.arange(len(records)), count - positives)
        negatives = rng.integers(len(records), size=count - positives)
        while (clash := identity[others] == identity[negatives]).any():
            negatives[clash] = rng.integers(len(records), size=clash.sum())
        drawn = np.concatenate([np.stack([first, second], 1), np.stack([others, negatives], 1)])
        return drawn[rng.permutation(count)]

    return draw


def _partners(image, same_identity, camera):
    """Other images of the identity, those of other cameras if there are any."""
    elsewhere = same_identity[camera[same_identity] != camera[image]]
    return elsewhere if len(elsewhere) else same_identity[same_identity != image]


def _cycled(rng, values, count):
    """`count` of the values in random order, each used equally often but for one."""
    if not count:
        return np.empty(0, np.int64)
    repeats = -(-count // len(values))
    return np.concatenate([rng.permutation(values) for _ in range(repeats)])[:count]
