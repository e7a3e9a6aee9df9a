"""What the header of an encoded image says, by walking its segments or chunks; nothing is decoded.

The walks pass over what they do not know and end where the bytes end, so that they take any bytes.
"""

import io
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from PIL import TiffImagePlugin

FORMATS = ("JPEG", "PNG", "BMP", "WebP", "TIFF", "GIF")
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")  # of a JPEG, but restart markers, which stand within its data
END, SCAN, APP1 = 0xD9, 0xDA, 0xE1
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # segments that say the size
MOST_SEGMENTS = 10_000


class Header(NamedTuple):
    """One of `FORMATS`, the image's size, and how many scans a JPEG has (else 0)."""

    format: str
    width: int
    height: int
    scans: int = 0

    @property
    def pixels(self) -> int:
        return self.width * self.height


def read(content: bytes) -> Header:
    """The header of an encoded image, of whatever size it says it is.

    Raises:
        ValueError: the rest of a sentence about the image.
    """
    if not content:
        raise ValueError("is empty")
    try:
        if content.startswith(b"\xff\xd8\xff"):
            return _jpeg(content)
        if content.startswith(b"\x89PNG\r\n\x1a\n"):
            return Header("PNG", *struct.unpack_from(">II", content, 16))
        if content.startswith(b"BM"):
            size = "<HH" if content[14:18] == b"\x0c\0\0\0" else "<ii"
            width, height = struct.unpack_from(size, content, 18)
            return Header("BMP", width, abs(height))  # negative: the top row is the first
        if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            return Header("WebP", *_webp_size(content))
        if content.startswith(TIFF_STARTS):
            return Header("TIFF", *_tiff_size(content))
        if content.startswith((b"GIF87a", b"GIF89a")):
            return Header("GIF", *struct.unpack_from("<HH", content, 6))
    except struct.error:
        raise damaged("it is cut off within its header") from None
    raise ValueError(f"is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image")


def damaged(why: str) -> ValueError:
    """The error of an image that is not sound."""
    return ValueError(f"is damaged: {why}")


def _jpeg(content):
    size, scans = None, 0
    for marker, data in segments(content):
        if marker in FRAMES and size is None:
            size = struct.unpack_from(">HH", data, 1)
        scans += marker == SCAN
    if size is None or not scans:
        raise damaged("it is cut off within its header")
    return Header("JPEG", size[1], size[0], scans)


def _webp_size(content):
    kind = content[12:16]
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", content, 24)
        return 1 + low_width + (high_width << 16), 1 + low_height + (high_height << 16)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", content, 26)
    return width & 0x3FFF, height & 0x3FFF


def _tiff_size(content):
    try:
        return TiffImagePlugin.TiffImageFile(io.BytesIO(content)).size
    except Exception:  # of hostile bytes, Pillow raises nearly any
        raise damaged("its header cannot be read") from None


def segments(jpeg: bytes) -> Iterator[tuple[int, bytes]]:
    """The segments of a JPEG's first image: marker and content. What stands between them is passed over."""
    position = 2
    for _ in range(MOST_SEGMENTS):
        found = MARKER.search(jpeg, position)
        if not found or found[1][0] == END:
            return
        start = found.end()
        length = max(2, int.from_bytes(jpeg[start : start + 2], "big"))
        yield found[1][0], jpeg[start + 2 : start + length]
        position = start + length
    raise damaged(f"it has more than {MOST_SEGMENTS} segments")


def png_chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a PNG to its end: name, and where it starts and ends.

    Raises:
        ValueError: the end is not there.
    """
    start, name = 8, b""
    while name != b"IEND":
        end = start + 12 + int.from_bytes(png[start : start + 4], "big")
        name = png[start + 4 : start + 8]
        if end > len(png):
            raise damaged("it is cut off")
        yield name, start, end
        start = end


def webp_chunks(webp: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a WebP: name and content."""
    start, end = 12, min(len(webp), 8 + int.from_bytes(webp[4:8], "little"))
    while start + 8 <= end:
        size = int.from_bytes(webp[start + 4 : start + 8], "little")
        yield webp[start : start + 4], webp[start + 8 : start + 8 + size]
        start += 8 + size + size % 2


def orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, in EXIF data, with or without `Exif` before it; 1 where it holds none."""
    exif = exif.removeprefix(b"Exif\0\0")
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    order = "<" if exif.startswith(b"II") else ">"
    (start,) = struct.unpack(f"{order}I", exif[4:8].ljust(4, b"\0"))
    (count,) = struct.unpack(f"{order}H", exif[start : start + 2].ljust(2, b"\0"))
    for entry in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, _, value = struct.unpack(f"{order}HHIH", exif[entry : entry + 10])
        if tag == 274:
            return value if kind == 3 and 1 <= value <= 8 else 1
    return 1
