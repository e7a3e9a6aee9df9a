"""From built data sets to batches: records in memory (encoded), samplers that draw indices, a tf.data pipeline.

A sampler decides in NumPy, from the run's seed, which images form the next batch and how each is flipped and cropped;
the graph only decodes. So every batch is a function of (seed, step), whatever the number of threads, and a resumed
run goes on with the very batch that was next.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

DECODED_BYTES = 2**28  # as many bytes of decoded training images are kept in memory; where there are more, none


@dataclass(frozen=True)
class Records:
    """The images of one data set, still encoded, and what is known of each.

    Attributes:
        name: the data set, for messages.
        images: object [N], JPEG or PNG bytes.
        person, camera: int64 [N]; person 0 is a distractor, -1 junk.
        modality: str [N], "rgb" or "infrared".
        file: str [N].
        split: str [N], "train", "query" or "gallery", in some data sets "multi_query".
        protocols: name -> protocol, see `tf_reid.protocols`.
        default_protocol: the one that is used where none is asked for.
        population: whose persons the ids are; in two data sets of one population, one number is one person.
    """

    name: str
    images: np.ndarray
    person: np.ndarray
    camera: np.ndarray
    modality: np.ndarray
    file: np.ndarray
    split: np.ndarray
    protocols: dict
    default_protocol: str
    population: str

    def __len__(self):
        return len(self.images)

    def take(self, chosen) -> "Records":
        """The records at these indices, or where this mask is true."""
        columns = ("images", "person", "camera", "modality", "file", "split")
        return replace(self, **{column: getattr(self, column)[chosen] for column in columns})


def load_records(builder) -> Records:
    """Read an `images` data set that a builder of `tfds_builders` has prepared; the images stay encoded."""
    import tensorflow_datasets as tfds

    columns = {name: [] for name in ("images", "person", "camera", "modality", "file", "split")}
    modalities = builder.info.features["modality"].names
    for split in builder.info.splits:
        dataset = builder.as_dataset(split, decoders={"image": tfds.decode.SkipDecoding()})
        for record in dataset.as_numpy_iterator():
            columns["images"].append(record["image"])
            columns["person"].append(record["person"])
            columns["camera"].append(record["camera"])
            columns["modality"].append(modalities[record["modality"]])
            columns["file"].append(record["file"].decode())
            columns["split"].append(split)
    arrays = {name: np.array(values, dtype=object if name == "images" else None) for name, values in columns.items()}
    metadata = builder.info.metadata
    return Records(
        builder.info.full_name,
        **arrays,
        protocols=metadata["protocols"],
        default_protocol=metadata["default_protocol"],
        population=builder.population,
    )


def relabelled(person: np.ndarray) -> np.ndarray:
    """Person ids -> 0..K-1 in ascending order, as a K-way classifier wants them."""
    return np.unique(person, return_inverse=True)[1]


# --------------------------------------------------------------------- samplers

# A sampler is made of the records it draws from and its stage's settings (`batch_size` counts images a domain).
# Its epoch: domain -> indices into that domain's records, int [steps, ...batch].
Epoch = dict[str, np.ndarray]
Sampler = Callable[[np.random.Generator], Epoch]


def pairs(source: Records, stage) -> Sampler:
    """Labelled pairs: `batch_size // 2` a step, `positive_share` of which (exact over an epoch) show one person.

    A positive pair is an image and another of the same person, from another camera wherever the person has one; an
    image whose person has no other image is never drawn for it. A negative is an image and one of another person.

    Raises:
        ValueError: no person has two images, or there is only one person.
    """
    draw = _pair_drawer(source, stage.positive_share)
    count = stage.batch_size // 2

    def epoch(rng):
        chosen = draw(rng, _steps(len(source), count) * count)
        return {"source": chosen.reshape(-1, count, 2)}

    return epoch


def pairs_of_two_domains(source: Records, stage, target: Records) -> Sampler:
    """`pairs` of the source beside random pairs of the target, whose ids are not read (SimPGAN, section 4.3)."""
    draw = _pair_drawer(source, stage.positive_share)
    count = stage.batch_size // 2

    def epoch(rng):
        steps = _steps(max(len(source), len(target)), stage.batch_size)
        images = steps * stage.batch_size
        repeats = -(-images // len(target))
        order = np.concatenate([rng.permutation(len(target)) for _ in range(repeats)])[:images]
        chosen = draw(rng, steps * count)
        return {"source": chosen.reshape(steps, count, 2), "target": order.reshape(steps, count, 2)}

    return epoch


def modalities(source: Records, stage) -> Sampler:
    """`batch_size // 2` persons a step, each with one RGB image and one infrared image, in this order (cmGAN, Alg. 1).

    An epoch is one pass over the persons; one that is seen in a single modality is never drawn.

    Raises:
        ValueError: fewer persons than a batch has are seen in both modalities.
    """
    infrared = source.modality == "infrared"
    return _two_sides(source, np.flatnonzero(~infrared), np.flatnonzero(infrared), stage, 1, "both modalities")


def views(source: Records, stage) -> Sampler:
    """Persons, each with `images_per_view` pairs of a probe and a gallery image (view adaptation's SP batches).

    Where the images are of two cameras, the one with the lower number is the probe view; where they are of more, two of
    each person's cameras are drawn, once and for all. An epoch is one pass over the persons seen in both views.

    Raises:
        ValueError: fewer persons than a batch has are seen in two views.
    """
    probe, gallery = _two_views(source)
    return _two_sides(source, probe, gallery, stage, stage.images_per_view, "two views")


SAMPLERS = {"pairs": pairs, "pairs_of_two_domains": pairs_of_two_domains, "modalities": modalities, "views": views}


def _two_sides(records, first, second, stage, each, what) -> Sampler:
    """Batches of different persons, each with `each` pairs of an image from `first` and one from `second` (indices)."""
    sides = [{p: side[records.person[side] == p] for p in np.unique(records.person[side])} for side in (first, second)]
    persons = np.array(sorted(sides[0].keys() & sides[1].keys()), dtype=np.int64)
    count = stage.batch_size // (2 * each)
    if count < 2:
        raise ValueError(f"A batch_size of {stage.batch_size} holds {count} persons; the stage needs two or more.")
    if len(persons) < count:
        raise ValueError(
            f"{records.name}: a batch of {stage.batch_size} images takes {count} persons seen in {what}, but there are "
            f"{len(persons)}; choose another data set or a smaller batch_size of the stage."
        )

    def epoch(rng):
        steps = len(persons) // count
        order = np.repeat(rng.permutation(persons)[: steps * count], each)
        drawn = [np.concatenate([_cycled(rng, side[p], each) for p in order[::each]]) for side in sides]
        return {"source": np.stack(drawn, axis=1).reshape(steps, count * each, 2)}

    return epoch


def _two_views(records):
    """-> indices of the probe view's images and of the gallery view's."""
    cameras = np.unique(records.camera)
    rng = np.random.default_rng(0)
    probe, gallery = [], []
    for person in np.unique(records.person):
        own = np.flatnonzero(records.person == person)
        seen_by = np.unique(records.camera[own])
        if len(seen_by) < 2:
            continue
        first, second = cameras if len(cameras) == 2 else rng.permutation(seen_by)[:2]
        probe.append(own[records.camera[own] == first])
        gallery.append(own[records.camera[own] == second])
    nobody = np.empty(0, np.int64)
    return np.concatenate([nobody, *probe]), np.concatenate([nobody, *gallery])


def _steps(images, batch):
    return max(1, images // batch)


def _pair_drawer(records: Records, positive_share: float):
    """-> draw(rng, n): int [n, 2] indices of n pairs in random order, round(n · share) of them of one person."""
    person, camera = records.person, records.camera
    images_of = {p: np.flatnonzero(person == p) for p in np.unique(person)}
    partners = [_partners(i, images_of[person[i]], camera) for i in range(len(records))]
    leaders = np.array([i for i, others in enumerate(partners) if len(others)], dtype=np.int64)
    if positive_share > 0 and not len(leaders):
        raise ValueError(f"{records.name}: no person has two training images, so no pair of one person can be drawn.")
    if positive_share < 1 and len(images_of) < 2:
        raise ValueError(f"{records.name}: only one person among the training images, so no pair of two can be drawn.")

    def draw(rng, count):
        positives = round(count * positive_share)
        first = _cycled(rng, leaders, positives)
        second = np.array([rng.choice(partners[i]) for i in first], dtype=np.int64)
        others = _cycled(rng, np.arange(len(records)), count - positives)
        strangers = rng.integers(len(records), size=count - positives)
        while (clash := person[others] == person[strangers]).any():
            strangers[clash] = rng.integers(len(records), size=clash.sum())
        drawn = np.concatenate([np.stack([first, second], 1), np.stack([others, strangers], 1)])
        return drawn[rng.permutation(count)]

    return draw


def _partners(image, same_person, camera):
    """Other images of the person, those of other cameras if there are any."""
    elsewhere = same_person[camera[same_person] != camera[image]]
    return elsewhere if len(elsewhere) else same_person[same_person != image]


def _cycled(rng, values, count):
    """`count` of the values in random order, each used equally often but for one."""
    if not count:
        return np.empty(0, np.int64)
    repeats = -(-count // len(values))
    return np.concatenate([rng.permutation(values) for _ in range(repeats)])[:count]


# --------------------------------------------------------------------- pipelines


def training_batches(
    domains: dict[str, Records], sampler: Sampler, *, seed, stage, start, steps, image_size, flip, pad, grey=0.0
):
    """A tf.data pipeline of the batches `start`..`steps - 1` of a stage.

    Args:
        domains: "source" (whose persons become labels 0..K-1) and, where the sampler draws from it, "target".
        sampler: see above; its epochs follow one another, each shuffled anew.
        seed, stage: the run's seed and the stage's number; with a step's number they determine its batch.
        flip, pad, grey: the augmentation: mirrored or not; padded by `pad` pixels that repeat the border and cropped
            back; without colour in this share of the images.

    Returns:
        tf.data.Dataset of {"source": float32 [P, 2, H, W, 3] in [-1, 1], "source_person": int64 [P, 2], "target": …}.
    """
    layout = {name: drawn.shape[1:] for name, drawn in sampler(np.random.default_rng(0)).items()}
    sizes = [int(np.prod(shape)) for shape in layout.values()]
    encoded = np.concatenate([domains[name].images for name in layout])
    offsets = dict(zip(layout, np.cumsum([0] + [len(domains[name]) for name in layout])[:-1], strict=True))
    label = tf.constant(relabelled(domains["source"].person))  # the source comes first in every layout
    read = _reader(encoded, image_size, reads=sum(sizes) * (steps - start))

    draws_an_image = 4 if grey else 3

    def batches() -> Iterator:
        for indices, draws in _drawn(sampler, seed, stage, start, steps, draws_an_image):
            yield np.concatenate([indices[name].ravel() + offsets[name] for name in layout]), draws

    def shaped(indices, draws):
        images = tf.cast(_augmented(read(indices), draws, flip, pad, grey), tf.float32) / 127.5 - 1.0
        parts = dict(zip(layout, tf.split(images, sizes), strict=True))
        batch = {name: tf.reshape(part, (*layout[name], *image_size, 3)) for name, part in parts.items()}
        return batch | {"source_person": tf.reshape(tf.gather(label, indices[: sizes[0]]), layout["source"])}

    signature = (tf.TensorSpec((sum(sizes),), tf.int64), tf.TensorSpec((sum(sizes), draws_an_image), tf.float32))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    dataset = dataset.map(shaped, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(max(0, steps - start)))
    return dataset.prefetch(tf.data.AUTOTUNE)


def _drawn(sampler, seed, stage, start, steps, draws_an_image):
    """Yield (domain -> indices, float32 [images, draws_an_image] draws in [0, 1)) of the steps start..steps - 1."""
    length = len(next(iter(sampler(np.random.default_rng(0)).values())))  # steps an epoch
    for epoch in range(start // length, -(-steps // length)):
        rng = np.random.default_rng([seed, stage, epoch])
        drawn = sampler(rng)
        images = sum(rows[0].size for rows in drawn.values())
        draws = rng.random((length, images, draws_an_image), dtype=np.float32)
        for step in range(max(start - epoch * length, 0), min(steps - epoch * length, length)):
            yield {name: rows[step] for name, rows in drawn.items()}, draws[step]


def image_batches(records: Records, image_size, batch_size) -> tf.data.Dataset:
    """All images in order, float32 [B, H, W, 3] in [-1, 1], unaugmented."""
    dataset = _decoded(records.images, image_size).batch(batch_size)
    return dataset.map(lambda images: tf.cast(images, tf.float32) / 127.5 - 1.0).prefetch(tf.data.AUTOTUNE)


def to_uint8(images) -> np.ndarray:
    """float [-1, 1] -> uint8, for people's eyes."""
    return np.clip(np.round((np.asarray(images) + 1.0) * 127.5), 0, 255).astype(np.uint8)


def _reader(encoded, image_size, reads):
    """-> int [B] -> uint8 [B, H, W, 3]. Few images that are read often are decoded (and resized) once for all."""
    if reads <= len(encoded) or len(encoded) * 3 * image_size[0] * image_size[1] > DECODED_BYTES:
        blobs = tf.constant(encoded.tolist())
        decode, image = _decoder(image_size), tf.TensorSpec((*image_size, 3), tf.uint8)
        return lambda indices: tf.map_fn(decode, tf.gather(blobs, indices), fn_output_signature=image)
    images = _decoded(encoded, image_size).batch(len(encoded)).get_single_element()
    return lambda indices: tf.gather(images, indices)


def _decoded(encoded, image_size) -> tf.data.Dataset:
    """All images in order, uint8 [H, W, 3]."""
    dataset = tf.data.Dataset.from_tensor_slices(encoded.tolist())
    return dataset.map(_decoder(image_size), num_parallel_calls=tf.data.AUTOTUNE)


def _decoder(image_size):
    height, width = image_size

    def decode(encoded):
        """bytes -> uint8 [H, W, 3]."""
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        image.set_shape((None, None, 3))

        def resized():
            smaller = tf.image.resize(image, (height, width), antialias=True)
            return tf.cast(tf.clip_by_value(tf.round(smaller), 0, 255), tf.uint8)

        same = tf.reduce_all(tf.shape(image)[:2] == (height, width))
        return tf.ensure_shape(tf.cond(same, lambda: image, resized), (height, width, 3))

    return decode


def _augmented(images, draws, flip, pad, grey):
    """uint8 [B, H, W, 3] -> the same; draws in [0, 1) an image: is it mirrored, where is it cropped, is it grey?"""
    count, height, width, _ = images.shape
    if grey:
        images = tf.where(draws[:, 3, None, None, None] < grey, tf.image.rgb_to_grayscale(images), images)
    if not flip and not pad:
        return images
    # Mirroring, padding and cropping in one: where each pixel is taken from. Beyond the border, that is the border.
    place = tf.cast(draws[:, 1:3] * (2 * pad + 1), tf.int32) - pad
    rows = tf.clip_by_value(tf.range(height) + place[:, :1], 0, height - 1)
    columns = tf.clip_by_value(tf.range(width) + place[:, 1:], 0, width - 1)
    if flip:
        columns = tf.where(draws[:, :1] < 0.5, width - 1 - columns, columns)
    taken = tf.reshape(rows[:, :, None] * width + columns[:, None, :], (count, height * width))
    pixels = tf.gather(tf.reshape(images, (count, height * width, 3)), taken, batch_dims=1)
    return tf.reshape(pixels, images.shape)
