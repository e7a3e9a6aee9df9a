"""From built data sets to batches: records (encoded, in memory or in files) and a tf.data pipeline.

Which images form the next batch (see `samplers`) and how each is flipped and cropped is drawn in NumPy from the
run's seed; the graph only decodes. So every batch is a function of (seed, step), whatever the number of threads, and a
resumed run continues with the batch that was next.
"""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from tf_reid.data.decoding import plain_decoder
from tf_reid.data.plain_images import ImagesOfFiles, PlainImages, plain_images
from tf_reid.data.records import Records, relabelled

# A sampler draws one epoch: domain -> indices into that domain's records, int [steps, ...batch].
Epoch = dict[str, np.ndarray]
Sampler = Callable[[np.random.Generator], Epoch]

DECODED_BYTES = 2**28  # as many bytes of decoded training images are kept in memory; where there are more, none
READ_AT_ONCE = 32  # images that one call reads from files
IMAGENET_MEAN = (-0.03, -0.088, -0.188)  # of red, green and blue, in [-1, 1]: the colour of what is erased


def all_images(records: Records, image_size) -> np.ndarray:
    """Decoded, float32 [N, H, W, 3] in [-1, 1]; of a whole data set this takes much memory."""
    return np.concatenate([np.asarray(batch) for batch in image_batches(records, image_size, 64)])


def training_batches(
    domains: dict[str, Records],
    sampler: Sampler,
    *,
    seed,
    stage,
    start,
    steps,
    image_size,
    flip,
    pad,
    grey=0.0,
    erase=0.0,
):
    """A tf.data pipeline of the batches `start`..`steps - 1` of a stage.

    Args:
        domains: "source" (whose identities become labels 0..K-1) and, where the sampler draws from it, "target".
        sampler: see above; its epochs follow one another, each shuffled anew.
        seed, stage: the run's seed and the stage's number; with a step's number they determine its batch.
        flip, pad, grey, erase: the augmentation: mirrored or not; padded by `pad` pixels that repeat the border and
            cropped back; without colour, or with a rectangle erased, in this fraction of the images.

    Returns:
        tf.data.Dataset of {"source": float32 [P, 2, H, W, 3] in [-1, 1], "source_identity": int64 [P, 2], "target": …}.
    """
    an_epoch = sampler(np.random.default_rng(0))
    length = len(next(iter(an_epoch.values())))  # steps an epoch
    layout = {name: drawn.shape[1:] for name, drawn in an_epoch.items()}
    sizes = [int(np.prod(shape)) for shape in layout.values()]
    encoded = plain_images(*(domains[name] for name in layout))
    offsets = dict(zip(layout, np.cumsum([0] + [len(domains[name]) for name in layout])[:-1], strict=True))
    label = tf.constant(relabelled(domains["source"].identity))  # the source comes first in every layout
    read = _reader(encoded, image_size, reads=sum(sizes) * (steps - start))

    of_erasing = 4 if grey else 3  # the first of an image's draws that decide what is erased
    draws_an_image = of_erasing + 5 if erase else of_erasing

    def batches() -> Iterator:
        for indices, draws in _drawn(sampler, length, seed, stage, start, steps, draws_an_image):
            yield np.concatenate([indices[name].ravel() + offsets[name] for name in layout]), draws

    def shaped(indices, draws):
        images = as_seen(_augmented(read(indices), draws, flip, pad, grey))
        if erase:
            images = erased(images, draws[:, of_erasing:], erase, tf.constant(IMAGENET_MEAN))
        parts = dict(zip(layout, tf.split(images, sizes), strict=True))
        batch = {name: tf.reshape(part, (*layout[name], *image_size, 3)) for name, part in parts.items()}
        return batch | {"source_identity": tf.reshape(tf.gather(label, indices[: sizes[0]]), layout["source"])}

    signature = (tf.TensorSpec((sum(sizes),), tf.int64), tf.TensorSpec((sum(sizes), draws_an_image), tf.float32))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    dataset = dataset.map(shaped, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(max(0, steps - start)))
    return dataset.prefetch(tf.data.AUTOTUNE)


def _drawn(sampler, length, seed, stage, start, steps, draws_an_image):
    """Yield (domain -> indices, float32 [images, draws_an_image] draws in [0, 1)) of the steps start..steps - 1."""
    for epoch in range(start // length, -(-steps // length)):
        rng = np.random.default_rng([seed, stage, epoch])
        drawn = sampler(rng)
        images = sum(rows[0].size for rows in drawn.values())
        draws = rng.random((length, images, draws_an_image), dtype=np.float32)
        for step in range(max(start - epoch * length, 0), min(steps - epoch * length, length)):
            yield {name: rows[step] for name, rows in drawn.items()}, draws[step]


def image_batches(records: Records, image_size, batch_size) -> tf.data.Dataset:
    """All images in order, float32 [B, H, W, 3] in [-1, 1], unaugmented."""
    dataset = _decoded(plain_images(records), image_size).batch(batch_size)
    return dataset.map(as_seen).prefetch(tf.data.AUTOTUNE)


def erased(images, draws, fraction, fill):
    """Random erasing: a rectangle of 2 to 40 % of the area, 0.3 to 3.3 times as high as wide, in some of the images.

    (Zhong et al., 2017, https://arxiv.org/abs/1708.04896. What would not fit is cut to the image, not drawn anew.)

    Args:
        images: float32 [B, H, W, 3]. draws: float32 [B, 5] in [0, 1). fraction: of images with a rectangle.
        fill: float32 [3], the rectangle's colour.
    """
    height, width = images.shape[1:3]
    area = (0.02 + 0.38 * draws[:, 1]) * height * width
    ratio = 0.3 + (1 / 0.3 - 0.3) * draws[:, 2]
    sides = [tf.minimum(tf.round(tf.sqrt(s)), most) for s, most in ((area * ratio, height), (area / ratio, width))]
    inside = []
    for length, side, draw in ((height, sides[0], draws[:, 3]), (width, sides[1], draws[:, 4])):
        first = tf.floor(draw * (length - side + 1.0))[:, None]
        place = tf.range(length, dtype=tf.float32)
        inside.append((place >= first) & (place < first + side[:, None]))
    mask = inside[0][:, :, None] & inside[1][:, None, :] & (draws[:, 0] < fraction)[:, None, None]
    return tf.where(mask[..., None], fill, images)


def as_seen(images):
    """uint8 -> float32 in [-1, 1], as every network sees images."""
    return tf.cast(images, tf.float32) / 127.5 - 1.0


def to_uint8(images) -> np.ndarray:
    """float [-1, 1] -> uint8, for people's eyes."""
    return np.clip(np.round((np.asarray(images) + 1.0) * 127.5), 0, 255).astype(np.uint8)


def _reader(encoded: PlainImages, image_size, reads):
    """Plain images -> int [B] -> uint8 [B, H, W, 3]. Few that are read often are decoded and resized once for all."""
    if reads <= len(encoded) or len(encoded) * 3 * image_size[0] * image_size[1] > DECODED_BYTES:
        blobs = _blobs(encoded)
        decode, image = plain_decoder(image_size), tf.TensorSpec((*image_size, 3), tf.uint8)
        return lambda indices: tf.map_fn(decode, blobs(indices), fn_output_signature=image)
    decoded = _decoded(encoded, image_size).batch(len(encoded)).get_single_element()
    return lambda indices: tf.gather(decoded, indices)


def _blobs(encoded: PlainImages):
    """Plain images -> a function of the graph: int [B] -> string [B]. It holds all bytes, or reads them from files."""
    if isinstance(encoded, ImagesOfFiles):
        # The same indices give the same bytes: not "stateful", which would have them read one batch after the other.
        return lambda indices: tf.ensure_shape(
            tf.numpy_function(encoded.read, [indices], tf.string, stateful=False), indices.shape
        )
    constant = tf.constant(encoded)
    return lambda indices: tf.gather(constant, indices)


def _decoded(encoded: PlainImages, image_size) -> tf.data.Dataset:
    """All of these plain images in order, uint8 [H, W, 3]."""
    if isinstance(encoded, ImagesOfFiles):
        dataset = tf.data.Dataset.range(len(encoded)).batch(READ_AT_ONCE)
        dataset = dataset.map(_blobs(encoded), num_parallel_calls=tf.data.AUTOTUNE).unbatch()
    else:
        # A list would pass through an array that pads each image to the longest: five times the memory.
        dataset = tf.data.Dataset.from_tensor_slices(tf.constant(encoded))
    return dataset.map(plain_decoder(image_size), num_parallel_calls=tf.data.AUTOTUNE)


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
