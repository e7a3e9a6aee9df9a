"""Whether bytes are an image of a size that one can afford. Only the header is read; nothing is decoded.

Importing this module loads no TensorFlow.
"""

import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
MOST_BYTES = 8 * 2**20  # of an image that somebody sends to a server
MOST_PIXELS = 25_000_000


class ImageError(ValueError):
    """An image that cannot be read.

    Attributes:
        index: its place among the images that were given, from 0.
        path: its file, or None where it was given as bytes or pixels.
        reason: what is wrong, as the rest of a sentence about the image: "is not a JPEG, PNG, BMP, WEBP image".
    """

    def __init__(self, index: int, path: Path | None, reason: str):
        place = f" ({path})" if path is not None else ""
        super().__init__(f"Image {index}{place} {reason}.")
        self.index, self.path, self.reason = index, path, reason

    def __reduce__(self):
        return type(self), (self.index, self.path, self.reason)


def check(content: bytes, most_bytes: int | None = MOST_BYTES, most_pixels: int = MOST_PIXELS) -> int:
    """Check an encoded image by its header.

    Args:
        most_bytes: how many bytes it may have; None: any number.

    Returns:
        How many pixels it has.

    Raises:
        ValueError: the rest of a sentence about the image: it is too large, or it is no image of `FORMATS`.
    """
    if most_bytes is not None and len(content) > most_bytes:
        raise ValueError(f"has {len(content)} bytes; {most_bytes} are allowed")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise ValueError(f"is not a {', '.join(FORMATS)} image") from None
    if width * height > most_pixels:
        raise ValueError(f"has {width} x {height} pixels; {most_pixels} are allowed")
    return width * height
