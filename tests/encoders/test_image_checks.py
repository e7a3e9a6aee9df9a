"""Which bytes are let in, by their header."""

import cv2
import numpy as np
import pytest

from tf_reid.encoders import image_checks


def encoded(kind, height=20, width=10):
    return cv2.imencode(kind, np.zeros((height, width, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize("kind", [".jpg", ".png", ".bmp", ".webp"])
def test_images_are_let_in(kind):
    image_checks.check(encoded(kind))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a JPEG, PNG, BMP, WEBP image"),
        (encoded(".png")[:10], "is not a JPEG"),
        (encoded(".tiff"), "is not a JPEG"),
        (encoded(".png", 200, 200), "has 200 x 200 pixels; 10000 are allowed"),
        (bytes(5001), "has 5001 bytes; 5000 are allowed"),
    ],
)
def test_what_is_no_image_or_too_large_is_not(content, said):
    with pytest.raises(ValueError, match=said):
        image_checks.check(content, 5000, 10_000)


def test_a_picture_that_unpacks_to_gigabytes_is_not_unpacked():
    with pytest.raises(ValueError, match=r"30000 x 30000 pixels|is not a JPEG"):
        header = encoded(".png")
        image_checks.check(header[:16] + (30000).to_bytes(4, "big") * 2 + header[24:])
