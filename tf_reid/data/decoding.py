"""Encoded images -> pixels within TensorFlow's graph.

Training, evaluation and the Python API make every image plain by `tfds_builders/images.py` first, so that
`plain_decoder` is all they need. An exported model may run on a server without Python. There `decoder` follows that
module's rules (orientation, transparency, palettes, the first frame) by operations of the graph alone, and decodes what
is plain in the same short way. It does not read TIFF and GIF; clients convert them.
"""

from collections.abc import Callable, Sequence
from functools import partial

import tensorflow as tf

# In these expressions `\C` is any byte. What may need more than decoding: EXIF, or transparency of a PNG.
SPECIAL = r"\C*(?:Exif\x00\x00|eXIf|tRNS)\C*"
GREY_OR_RGB_PNG = r"\CPNG\r\n\x1a\n\C{17}[\x00\x02]"
EXIF_DATA = r"(?:Exif\x00\x00)?(?:II\*\x00|MM\x00\*)\C*"
MOST_STEPS = 256  # through the segments or chunks before the one that is looked for
BYTES = [bytes([value]) for value in range(256)]


def decoder(image_size: Sequence[int]) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function of the graph: bytes of a JPEG, PNG, BMP or WebP image -> uint8 [H, W, 3], upright, on white.

    It raises tf.errors.InvalidArgumentError where the bytes are no such image, or a damaged one.
    """

    return lambda encoded: resized(upright_rgb(encoded), image_size)


def plain_decoder(image_size: Sequence[int]) -> Callable[[tf.Tensor], tf.Tensor]:
    """As `decoder`, of images that `tfds_builders.images.plain` gave; faster, and of the same bits."""
    return lambda encoded: resized(_decoded(encoded), image_size)


def upright_rgb(encoded: tf.Tensor) -> tf.Tensor:
    """As a `decoder` does it, of the size that the image has: uint8 [h, w, 3]."""
    is_jpeg = tf.strings.substr(encoded, 0, 3) == b"\xff\xd8\xff"
    is_png = tf.strings.regex_full_match(tf.strings.substr(encoded, 0, 26), GREY_OR_RGB_PNG)
    is_plain = (is_jpeg | is_png) & ~tf.strings.regex_full_match(encoded, SPECIAL)
    return tf.ensure_shape(tf.cond(is_plain, lambda: _decoded(encoded), lambda: _any(encoded)), (None, None, 3))


def resized(image: tf.Tensor, image_size: Sequence[int]) -> tf.Tensor:
    """uint8 [h, w, 3] of any size -> uint8 [H, W, 3]. An image that has this size already stays as it is."""
    height, width = image_size

    def smaller_or_larger():
        pixels = tf.image.resize(image, (height, width), antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)

    same = tf.reduce_all(tf.shape(image)[:2] == (height, width))
    return tf.ensure_shape(tf.cond(same, lambda: image, smaller_or_larger), (height, width, 3))


def _decoded(encoded):
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


# A function of its own in the graph: traced once, and of no cost where it is not called. (What stands in a branch
# directly is visited for every image.)
TEXT = tf.TensorSpec((), tf.string)
_called = partial(tf.function, input_signature=[TEXT], autograph=False, experimental_attributes={"_noinline": True})


@_called
def _any(encoded):
    """uint8 [h, w, 3] of an image of any format; of bytes that are none, an InvalidArgumentError."""
    start = tf.strings.substr(encoded, 0, 2)
    readers = {b"\xff\xd8": _jpeg, b"\x89P": _png, b"BM": _bmp, b"RI": _webp}
    is_it = tf.cast(start == tf.constant(list(readers)), tf.int32)
    chosen = tf.where(tf.reduce_max(is_it) == 1, tf.argmax(is_it, output_type=tf.int32), len(readers))
    return tf.switch_case(chosen, [lambda read=read: read(encoded) for read in (*readers.values(), _no_image)])


def _no_image(encoded):
    """TensorFlow's own error of unknown bytes. It would read a GIF, but without its transparency."""
    return _decoded(tf.strings.substr(encoded, 0, 1))


# ------------------------------------------------------------------------------------ numbers, colours and EXIF


def _part(encoded, start, count):
    """Bytes `start` to `start + count`, fewer where there are not so many.

    The error of `substr` itself would quote the bytes, which then are no text that a server can send.
    """
    length = tf.strings.length(encoded)
    return tf.strings.substr(encoded, tf.clip_by_value(start, 0, length), tf.clip_by_value(count, 0, length))


def _bytes(encoded, start, count):
    """uint8 [count]; an InvalidArgumentError where there are fewer."""
    return tf.reshape(tf.io.decode_raw(_part(encoded, start, count), tf.uint8), (count,))


def _number(encoded, start, size=4, big=False):
    """int32 of 2 to 4 bytes, the lowest first or, if big, the highest."""
    shifts = tf.range(size) * 8
    shifts = tf.where(big, shifts[::-1], shifts)
    return tf.reduce_sum(tf.bitwise.left_shift(tf.cast(_bytes(encoded, start, size), tf.int32), shifts))


def _on_white(rgba):
    """uint8 [h, w, 4] -> uint8 [h, w, 3]."""
    wide = tf.cast(rgba, tf.int32)
    alpha = wide[..., 3:]
    return tf.cast((wide[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)


def _upright(image, exif):
    """Pixels turned as EXIF data, from its TIFF header on, says."""
    orientation = _orientation(exif)

    def is_one_of(*orientations):
        return tf.reduce_any(orientation == tf.constant(orientations))

    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    image = tf.cond(is_one_of(2, 3, 6, 7), lambda: image[:, ::-1], lambda: image)
    return tf.cond(is_one_of(3, 4, 7, 8), lambda: image[::-1], lambda: image)


@_called
def _orientation(exif):
    """int32, 1 to 8; 1 where there is none."""
    prefix = tf.where(_part(exif, 0, 6) == b"Exif\0\0", 6, 0)
    exif = _part(exif, prefix, tf.strings.length(exif))
    length = tf.strings.length(exif)
    big = _part(exif, 0, 2) == b"MM"

    def in_its_table():
        start = _number(exif, 4, 4, big)
        is_inside = (start >= 0) & (start <= length - 14)
        count = tf.cond(
            is_inside, lambda: tf.minimum(_number(exif, start, 2, big), (length - start - 2) // 12), lambda: 0
        )
        return tf.cond(count > 0, lambda: in_entries(start + 2, count), lambda: 1)

    def in_entries(start, count):
        table = tf.cast(tf.reshape(_bytes(exif, start, count * 12), (count, 12)), tf.int32)
        low, high = tf.where(big, 1, 0), tf.where(big, 0, 1)
        tags, kinds, values = (table[:, at + low] + 256 * table[:, at + high] for at in (0, 2, 8))
        is_it = tags == 274
        first = tf.argmax(tf.cast(is_it, tf.int32))
        is_right = tf.reduce_any(is_it) & (kinds[first] == 3) & (values[first] >= 1) & (values[first] <= 8)
        return tf.where(is_right, values[first], 1)

    is_sound = tf.strings.regex_full_match(exif, EXIF_DATA) & (length >= 8)
    return tf.cond(is_sound, in_its_table, lambda: 1)


# ----------------------------------------------------------------------------------------------------- JPEG and PNG


@_called
def _jpeg(encoded):
    return _upright(_decoded(encoded), _exif_of_jpeg(encoded))


def _exif_of_jpeg(encoded):
    """The first Exif segment before the image data, or no bytes."""
    end = tf.strings.length(encoded) - 10

    def goes_on(position, exif):
        return (position <= end) & (exif == b"")

    def step(position, exif):
        first, marker = tf.unstack(tf.cast(_bytes(encoded, position, 2), tf.int32))
        is_marker = (first == 0xFF) & (marker > 1) & (marker < 0xFF) & ((marker < 0xD0) | (marker > 0xD7))
        is_last = is_marker & ((marker == 0xD9) | (marker == 0xDA))
        size = tf.maximum(_number(encoded, position + 2, 2, big=True), 2)
        is_exif = is_marker & (marker == 0xE1) & (_part(encoded, position + 4, 6) == b"Exif\0\0")
        exif = tf.cond(is_exif, lambda: _part(encoded, position + 4, size - 2), lambda: exif)
        return tf.where(is_last, end + 1, position + tf.where(is_marker, 2 + size, 1)), exif

    return tf.while_loop(goes_on, step, (tf.constant(2), tf.constant(b"")), maximum_iterations=MOST_STEPS)[1]


@_called
def _png(encoded):
    colour = _bytes(encoded, 25, 1)[0]
    has_alpha = (colour >= 4) | tf.strings.regex_full_match(encoded, r"\C*tRNS\C*")
    image = tf.cond(has_alpha, lambda: _on_white(tf.io.decode_png(encoded, channels=4)), lambda: _decoded(encoded))
    return _upright(image, _exif_of_png(encoded))


def _exif_of_png(encoded):
    """The first eXIf chunk, or no bytes."""
    parts = tf.strings.split(tf.strings.split(encoded, b"IEND\xaeB`\x82", maxsplit=1)[0], b"eXIf")
    starts = tf.strings.regex_full_match(parts, EXIF_DATA)

    def first():
        place = tf.argmax(tf.cast(starts, tf.int32))
        size = _number(parts[place - 1], tf.strings.length(parts[place - 1]) - 4, 4, big=True)
        return _part(parts[place], 0, size)

    return tf.cond(tf.reduce_any(starts), first, lambda: b"")


# ------------------------------------------------------------------------------------------------------------- BMP


@_called
def _bmp(encoded):
    """TensorFlow's own reader takes palette numbers for grey, and refuses bytes behind the last pixel."""
    header, width, height = (_number(encoded, place) for place in (14, 18, 22))
    bits, compression = _number(encoded, 28, 2), _number(encoded, 30)
    is_known = tf.reduce_any(bits == (1, 4, 8, 24, 32)) & ((compression == 0) | ((compression == 3) & (bits == 32)))
    is_sound = is_known & (header >= 40) & (width > 0) & (width < 2**24) & (height != 0)
    return tf.cond(is_sound, lambda: _sound_bmp(encoded), lambda: _no_image(encoded))


@_called
def _sound_bmp(encoded):
    start, header, width, height = (_number(encoded, place) for place in (10, 14, 18, 22))
    bits, compression, colours = _number(encoded, 28, 2), _number(encoded, 30), _number(encoded, 46)
    stride = (width * bits + 31) // 32 * 4
    rows = tf.reshape(_bytes(encoded, start, stride * tf.abs(height)), (tf.abs(height), stride))
    rows = tf.cond(height > 0, lambda: rows[::-1], lambda: rows)

    def by_palette():
        count = 8 // bits  # of pixels in a byte
        shifts = tf.range(count - 1, -1, -1) * bits
        values = tf.bitwise.right_shift(tf.cast(rows, tf.int32)[..., None], shifts) % tf.bitwise.left_shift(1, bits)
        entries = tf.minimum(tf.where(colours > 0, colours, tf.bitwise.left_shift(1, bits)), 256)
        palette = tf.reshape(_bytes(encoded, 14 + header, 4 * entries), (entries, 4))[:, 2::-1]
        return tf.gather(palette, tf.reshape(values, (-1, stride * count))[:, :width])

    def of_24_bits():
        return tf.reshape(rows[:, : 3 * width], (-1, width, 3))[..., ::-1]

    def of_32_bits():
        pixels = tf.reshape(rows, (-1, width, 4))
        return tf.cond(compression == 3, lambda: by_masks(pixels), lambda: pixels[..., 2::-1])

    def by_masks(pixels):
        masks = tf.cast(tf.reshape(_bytes(encoded, 54, 16), (4, 4)), tf.int32)  # of red, green, blue and alpha
        has_alpha = (header >= 56) & tf.reduce_any(masks[3] > 0)
        is_a_byte = (tf.reduce_sum(masks, axis=1) == 255) & (tf.reduce_max(masks, axis=1) == 255)
        is_sound = tf.reduce_all(is_a_byte[:3]) & (is_a_byte[3] | ~has_alpha)
        rgba = tf.gather(pixels, tf.where(is_sound, tf.argmax(masks, axis=1), -1), axis=2)  # -1: an error
        return tf.cond(has_alpha, lambda: _on_white(rgba), lambda: rgba[..., :3])

    kind = tf.where(bits == 24, 0, tf.where(bits == 32, 1, 2))
    return tf.switch_case(kind, [of_24_bits, of_32_bits, by_palette])


# ------------------------------------------------------------------------------------------------------------ WebP


@_called
def _webp(encoded):
    """TensorFlow's own reader is given a still image made of the first frame's chunks.

    Of an animation it would decode all frames, and corrupts memory where it takes them for RGB.
    """
    is_extended = _part(encoded, 12, 4) == b"VP8X"
    return tf.cond(is_extended, lambda: _extended_webp(encoded), lambda: _still(encoded, 12, b""))


def _extended_webp(encoded):
    canvas = _part(encoded, 24, 6)  # width - 1 and height - 1
    first = _find(encoded, 12, (b"ANMF", b"ALPH", b"VP8 ", b"VP8L"))
    is_animated = _part(encoded, first, 4) == b"ANMF"

    def frame():
        left, top = (2 * _number(encoded, first + place, 3) for place in (8, 11))
        width, height = (1 + _number(canvas, place, 3) for place in (0, 3))
        image = _still(encoded, first + 24, _part(encoded, first + 14, 6))
        right, bottom = width - left - tf.shape(image)[1], height - top - tf.shape(image)[0]
        return tf.pad(image, [(top, bottom), (left, right), (0, 0)], constant_values=255)

    image = tf.cond(is_animated, frame, lambda: _still(encoded, first, canvas))
    has_exif = tf.strings.regex_full_match(encoded, r"\C*EXIF\C*")
    return tf.cond(has_exif, lambda: _upright(image, _chunk(encoded, _find(encoded, 12, (b"EXIF",)))), lambda: image)


@_called(input_signature=[TEXT, tf.TensorSpec((), tf.int32), TEXT])
def _still(encoded, start, size):
    """uint8 [h, w, 3] of the image whose chunks begin at `start`; `size`: as in the header, where it has alpha."""
    start = _find(encoded, start, (b"ALPH", b"VP8 ", b"VP8L"))
    name = _part(encoded, start, 4)
    image = _whole_chunk(encoded, start)

    def lossy_with_alpha():
        color = _whole_chunk(encoded, _find(encoded, start, (b"VP8 ",)))
        return tf.strings.join([b"VP8X\x0a\0\0\0\x10\0\0\0", size, image, color]), True

    def alone():
        has_alpha = (name == b"VP8L") & (_bytes(image, 12, 1)[0] // 16 % 2 == 1)
        return image, has_alpha

    chunks, has_alpha = tf.cond(name == b"ALPH", lossy_with_alpha, alone)
    length = tf.bitcast(4 + tf.strings.length(chunks), tf.uint8)
    length = tf.strings.reduce_join(tf.gather(tf.constant(BYTES), tf.cast(length, tf.int32)))
    still = tf.strings.join([b"RIFF", length, b"WEBP", chunks])
    return tf.cond(
        has_alpha,
        lambda: _on_white(tf.io.decode_webp(still, channels=4)[0]),
        lambda: tf.io.decode_webp(still, channels=3)[0],
    )


def _find(encoded, start, names):
    """int32, where the first chunk of these names starts; if there is none, the bytes' end."""
    end = tf.strings.length(encoded)

    def goes_on(position):
        return (position <= end - 8) & ~tf.reduce_any(_part(encoded, position, 4) == tf.constant(names))

    def step(position):
        size = _number(encoded, position + 4)
        return (tf.where((size < 0) | (size > end - position - 8), end, position + 8 + size + size % 2),)

    (position,) = tf.while_loop(goes_on, step, (tf.convert_to_tensor(start),), maximum_iterations=MOST_STEPS)
    return tf.minimum(position, end)


def _chunk(encoded, start):
    """A chunk's content; no bytes where `start` is the end."""
    size = tf.cond(start <= tf.strings.length(encoded) - 8, lambda: _number(encoded, start + 4), lambda: 0)
    return _part(encoded, start + 8, size)


def _whole_chunk(encoded, start):
    size = _number(encoded, start + 4)
    return _part(encoded, start, 8 + size + size % 2)
