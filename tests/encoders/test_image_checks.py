"""Which bytes and arrays are let in; the formats are tried in tests/test_images.py."""

import cv2
import numpy as np
import pytest

from tf_reid.encoders import image_checks
from tfds_builders import images


def encoded(kind, height=20, width=10):
    return cv2.imencode(kind, np.zeros((height, width, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize("kind", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
def test_images_are_let_in(kind):
    assert images.check(encoded(kind)).pixels == 200


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"text", "is not a JPEG, PNG, BMP, WebP, TIFF or GIF image"),
        (encoded(".png")[:10], "is damaged: it is cut off within its header"),
        (encoded(".png", 200, 200), "has 200 x 200 pixels; 10000 are allowed"),
        (bytes(5001), "has 5001 bytes; 5000 are allowed"),
    ],
)
def test_what_is_no_image_or_too_large_is_not(content, said):
    with pytest.raises(ValueError, match=said):
        images.check(content, 5000, 10_000)


def test_a_picture_that_unpacks_to_gigabytes_is_not_unpacked():
    with pytest.raises(ValueError, match=r"has 30000 x 30000 pixels; 25000000 are allowed"):
        header = encoded(".png")
        images.check(header[:16] + (30000).to_bytes(4, "big") * 2 + header[24:])


FRAME = np.random.default_rng(0).integers(256, size=(6, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize("frame", [FRAME, FRAME[::-1, ::2], FRAME[..., ::-1], np.asfortranarray(FRAME), FRAME[:1, :1]])
def test_an_array_in_rgb_is_let_in_however_it_lies_in_memory(frame):
    image_checks.check_array("Frame 0", frame)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ("a.png", r"Frame 3 is a str, not an array uint8 \[H, W, 3\] in RGB"),
        (FRAME / 255.0, r"Frame 3 is an array float64 \[6, 4, 3\]; .* converted by np.round\(255 \* image\)"),
        (FRAME.astype(np.int64), r"int64 \[6, 4, 3\]; .* Convert the values to 0..255"),
        (FRAME[..., 0], r"uint8 \[6, 4\]; .* Grey is converted by np.repeat\(image\[..., None\], 3, axis=2\)"),
        (FRAME[..., :1], r"uint8 \[6, 4, 1\]; .* Grey is converted by np.repeat\(image, 3, axis=2\)"),
        (np.dstack([FRAME, FRAME[..., :1]]), r"uint8 \[6, 4, 4\]; .* RGBA without its transparency, image\[..., :3\]"),
        (FRAME[:0], r"uint8 \[0, 4, 3\]; .* It has no pixel"),
        (FRAME[None], r"uint8 \[1, 6, 4, 3\]; .* one image at a time"),
        (np.zeros((3, 6, 5), np.uint8), r"uint8 \[3, 6, 5\]; .* channels last"),
        (np.zeros((1, 65_536, 3), np.uint8), "Frame 3 is 65536 x 1 pixels; a side may have 65535"),
        (np.zeros((1_000_001, 1, 3), np.uint8), "Frame 3 is 1 x 1000001 pixels; a side may have 65535"),
    ],
)
def test_any_other_array_gets_a_sentence_that_says_how_to_convert_it(frame, said):
    with pytest.raises(ValueError, match=said) as error:
        image_checks.check_array("Frame 3", frame)
    assert "\n" not in str(error.value)


def test_the_advice_gives_arrays_that_are_let_in():
    grey, floats = FRAME[..., 0], FRAME / 255.0
    for converted in (
        np.repeat(grey[..., None], 3, axis=2),
        np.repeat(FRAME[..., :1], 3, axis=2),
        np.round(255 * floats).astype(np.uint8),
    ):
        image_checks.check_array("Frame 0", converted)
    np.testing.assert_array_equal(np.round(255 * floats).astype(np.uint8), FRAME)
