"""Bytes that somebody sent: are they an image, of a size one can afford? Told by the header; nothing is decoded."""

import io

from PIL import Image, UnidentifiedImageError

KINDS = ("JPEG", "PNG", "BMP", "WEBP")
MOST_BYTES = 8 * 2**20
MOST_PIXELS = 25_000_000


def check(content: bytes, most_bytes=MOST_BYTES, most_pixels=MOST_PIXELS) -> int:
    """How many pixels it has.

    Raises:
        ValueError: says of the image what is wrong with it.
    """
    if len(content) > most_bytes:
        raise ValueError(f"has {len(content)} bytes; {most_bytes} are allowed")
    try:
        with Image.open(io.BytesIO(content), formats=KINDS) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise ValueError(f"is not a {', '.join(KINDS)} image") from None
    if width * height > most_pixels:
        raise ValueError(f"has {width} x {height} pixels; {most_pixels} are allowed")
    return width * height
