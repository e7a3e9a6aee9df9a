"""Encoded images of unusual kinds, for tests; written by hand where no library writes them."""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

from tfds_builders import images

INVERSE = {6: 8, 8: 6}  # the other orientations of EXIF undo themselves


def picture(height=24, width=16, seed=0):
    """A smooth picture that looks different in every orientation, uint8 [H, W, 3] in RGB."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(256, size=(4, 3, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def stored(image, orientation):
    """The pixels that a file with this orientation holds, so that it shows `image`."""
    return images.upright(image, INVERSE.get(orientation, orientation))


def saved(image, format, mode=None, **options):
    """An array, or an image of Pillow, as a file of Pillow's."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, format, **options)
    return file.getvalue()


def exif(orientation, order="<", kind=3, tags=2):
    """EXIF data, from its TIFF header on; the orientation is the last of its tags."""
    first = b"".join(struct.pack(f"{order}HHII", 256 + number, 4, 1, 7) for number in range(tags - 1))
    own = struct.pack(f"{order}HHIHH", 274, kind, 1, orientation, 0)
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(f"{order}IH", 8, tags) + first + own + bytes(4)


def with_exif(content, data):
    """A JPEG (behind its first segment), PNG (before its end) or WebP with EXIF data."""
    if content.startswith(b"\xff\xd8"):
        place = 4 + int.from_bytes(content[4:6], "big")
        segment = b"Exif\0\0" + data
        return content[:place] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[place:]
    if content.startswith(b"\x89PNG"):
        return content[:-12] + chunk(b"eXIf", data) + content[-12:]
    file = io.BytesIO()
    Image.open(io.BytesIO(content)).save(file, "WEBP", lossless=True, exif=data, exact=True)
    return file.getvalue()


def chunk(name, data):
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(rows, width, depth, colour, between=b"", data=None):
    """A PNG of packed rows; `between`: chunks before its data."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows)) if data is None else data
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + between + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bmp(rows, width, bits, palette=b"", top_down=False, masks=None, behind=b""):
    """A BMP of packed rows, from the top one on; `masks`: of red, green, blue and alpha."""
    rows = [row + bytes(-len(row) % 4) for row in rows]
    height, size = len(rows), 56 if masks else 40
    start = 14 + size + len(palette)
    header = struct.pack(
        "<IiiHHIIiiII", size, width, -height if top_down else height, 1, bits, 3 if masks else 0, 0, 0, 0,
        len(palette) // 4, 0,
    )  # fmt: skip
    pixels = b"".join(rows if top_down else rows[::-1])
    file = b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start)
    return file + header + (struct.pack("<4I", *masks) if masks else b"") + palette + pixels + behind
