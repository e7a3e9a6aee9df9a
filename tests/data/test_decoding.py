"""The graph's decoder gives the pixels that tfds_builders/images.py gives, by operations of the graph alone."""

import struct

import numpy as np
import pytest
import tensorflow as tf
from odd_images import bmp, exif, picture, saved, stored, with_exif
from PIL import Image
from test_images import BGRA, JPEG, LOSSLESS, PICTURE, PNG, RGBA, WIDTH, rows

from tf_reid.data import decoding
from tfds_builders import images

IN_GRAPH = [kind for kind in LOSSLESS if not kind.startswith(("TIFF", "GIF")) and kind != "BMP, 16 bits"]


@pytest.fixture(scope="module")
def decode():
    """A function from bytes to pixels of the size that the image has."""
    in_graph = tf.function(decoding.upright_rgb, input_signature=[tf.TensorSpec((), tf.string)])
    return lambda content: in_graph(content).numpy()


@pytest.mark.parametrize("kind", IN_GRAPH)
def test_every_kind_is_read_as_by_the_reader_in_python(decode, kind):
    content, expected = LOSSLESS[kind]
    np.testing.assert_array_equal(decode(content), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WebP"])
def test_every_orientation_is_set_upright(decode, format, order, orientation):
    content = saved(stored(PICTURE, orientation), format, lossless=True)
    content = with_exif(content, exif(orientation, order, tags=3))
    np.testing.assert_array_equal(decode(content), images.pixels(content))


def test_exif_that_is_broken_or_of_another_image_leaves_an_image_as_it_is(decode):
    upside = exif(3)
    broken = [b"", b"II*\0", upside[:-10], exif(9), exif(0), exif(6, kind=2), b"II*\0\xff\xff\xff\xff\x01\0"]
    broken += [b"MM\0*\x80\0\0\0\x01\0", b"II*\0\x08\0\0\0\xff\xff", b"II*\0\0\0\0\0", b"XX*\0" + upside[4:]]
    for content in (JPEG, PNG):
        for data in broken:
            wrong = with_exif(content, data)
            assert images.plain(wrong) is wrong
            np.testing.assert_array_equal(decode(wrong), images.pixels(content))
        behind = content + with_exif(content, upside)
        np.testing.assert_array_equal(decode(behind), images.pixels(content))
    np.testing.assert_array_equal(decode(with_exif(PNG, b"Exif\0\0" + upside)), PICTURE[::-1, ::-1])


def test_of_several_exif_segments_the_first_counts(decode):
    twice = with_exif(with_exif(JPEG, exif(3)), exif(6))
    np.testing.assert_array_equal(decode(twice), images.pixels(with_exif(JPEG, exif(6))))
    np.testing.assert_array_equal(decode(twice), images.pixels(twice))


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("alpha", [True, False])
@pytest.mark.parametrize("several", [True, False])
def test_a_webp_of_every_form(decode, lossless, alpha, several):
    image = RGBA if alpha else PICTURE
    more = {"save_all": True, "append_images": [Image.fromarray(255 - image)]} if several else {}
    for data in (b"", exif(6)):
        content = saved(image, "WEBP", lossless=lossless, exact=True, exif=data, **more)
        np.testing.assert_array_equal(decode(content), images.pixels(content))


def test_a_webps_frame_lies_on_its_white_canvas(decode):
    content = bytearray(saved(RGBA, "WEBP", lossless=True, save_all=True, append_images=[Image.fromarray(255 - RGBA)]))
    content[24:30] = struct.pack("<HBHB", WIDTH + 6, 0, len(PICTURE) + 8, 0)
    place = content.index(b"ANMF") + 8
    content[place] = content[place + 3] = 2  # in units of two pixels
    found = decode(bytes(content))
    assert found.shape == (len(PICTURE) + 9, WIDTH + 7, 3)
    np.testing.assert_array_equal(found, images.pixels(bytes(content)))


@pytest.mark.parametrize(
    ("order", "masks"),
    [((3, 0, 1, 2), (0xFF000000, 0xFF0000, 0xFF00, 0xFF)), ((2, 1, 0, 3), (0xFF, 0xFF00, 0xFF0000, 0xFF000000))],
)
def test_a_bmp_says_in_its_header_which_byte_is_which_colour(decode, order, masks):
    content = bmp(rows(BGRA[..., list(order)]), WIDTH, 32, masks=masks)
    np.testing.assert_array_equal(decode(content), LOSSLESS["PNG, RGBA"][1])
    np.testing.assert_array_equal(images.pixels(content), LOSSLESS["PNG, RGBA"][1])


WEBP = saved(RGBA, "WEBP", save_all=True, append_images=[Image.fromarray(RGBA)], exif=exif(6))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff", b"text", b"a longer text, that is not an image of any kind", JPEG[:100], PNG[:100], WEBP[:100],
        WEBP[:30], saved(PICTURE, "BMP")[:30], saved(PICTURE, "BMP")[:-1], saved(PICTURE, "GIF"),
        saved(PICTURE, "TIFF"), bmp([bytes(WIDTH)], WIDTH, 8, bytes(4)), LOSSLESS["BMP, 16 bits"][0],
    ],
)  # fmt: skip
def test_what_is_no_image_is_an_invalid_argument(decode, content):
    if content.startswith(b"BM") and b"\x08\0" in content[28:30]:
        content = content[:-4] + b"\xff\xff\xff\xff"  # numbers beyond the palette
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(content)


def test_changed_bytes_give_an_image_or_an_invalid_argument(decode):
    rng = np.random.default_rng(0)
    for content in (with_exif(JPEG, exif(6)), with_exif(PNG, exif(6)), WEBP, LOSSLESS["BMP, alpha"][0]):
        for trial in range(100):
            wrong = bytearray(content)
            for place in rng.integers(min(len(content), 200), size=1 + trial % 4):
                wrong[place] = rng.integers(256)
            try:
                found = decode(bytes(wrong))
            except (tf.errors.InvalidArgumentError, tf.errors.ResourceExhaustedError):
                continue
            assert found.ndim == 3 and found.shape[2] == 3


def test_an_image_of_the_size_stays_as_it_is_and_another_is_resized():
    same = decoding.decoder(PICTURE.shape[:2])(tf.constant(PNG))
    np.testing.assert_array_equal(same, PICTURE)
    other = decoding.decoder((12, 8))(tf.constant(PNG))
    np.testing.assert_array_equal(other, decoding.resized(tf.constant(PICTURE), (12, 8)))
    assert other.shape == (12, 8, 3) and other.dtype == tf.uint8
    np.testing.assert_array_equal(decoding.decoder((12, 8))(tf.constant(saved(picture(), "BMP"))), other)
