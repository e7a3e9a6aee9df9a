"""Encoded images as people have them -> what is read in the same way everywhere. Loads no TensorFlow.

`check` reads a header. `plain` gives the bytes of a JPEG or PNG that TensorFlow, and every other reader, decodes to the
right picture. The format is that of the content; a file's name plays no part. The rules:

- *Orientation.* EXIF orientations 2 to 8 are applied, of a JPEG's first Exif segment before its image data, of a
  PNG's eXIf chunk, of a WebP's EXIF chunk and of a TIFF's own tag. EXIF that cannot be read counts as upright.
- *Transparency.* It is composited on white: (colour * alpha + 255 * (255 - alpha) + 127) // 255. The 32 bits of a BMP
  hold alpha only where its header has a mask for it.
- *16 bits* become 8 by their high byte. Palettes are looked up; grey of 1, 2 and 4 bits is scaled to 0..255.
- *CMYK.* A JPEG is left as it is, for TensorFlow reads it. A TIFF is converted as Pillow does it.
- *Several pictures.* The first frame of a GIF or WebP on its canvas, white where it does not reach; the picture that
  an APNG shows to readers of PNG; the first page of a TIFF; the first image of a phone's multi-picture JPEG.
- *Damage.* What is cut off or cannot be decoded is refused. A JPEG with a hole is refused where the JPEG library warns
  of it; a hole that decodes without a warning cannot be seen. Accepted are up to `EXTRANEOUS` bytes before a marker of
  a baseline JPEG, as some cameras write, and any bytes behind the image's end. In a progressive JPEG such bytes count
  as damage, for they are often all that the library says of a hole.

`tf_reid/data/decoding.py` follows the same rules for JPEG, PNG, BMP and WebP within TensorFlow's graph.
"""

import io
import os
import re
import stat
import warnings
from collections.abc import Callable

import cv2
import numpy as np
import simplejpeg
from PIL import BmpImagePlugin, GifImagePlugin, ImageFile, JpegImagePlugin, TiffImagePlugin, WebPImagePlugin

from tfds_builders import image_headers
from tfds_builders.image_headers import FORMATS, Header, damaged

__all__ = [
    "FORMATS",
    "Header",
    "LimitError",
    "check",
    "looks_plain",
    "pixels",
    "plain",
    "plain_or_pixels",
    "read_image",
    "rendered",
]

MOST_BYTES = 8 * 2**20  # of an image that somebody sends to a server
MOST_FILE_BYTES = 256 * 2**20  # of an image file of one's own
MOST_PIXELS = 25_000_000
MOST_SIDE = 65_535  # as a JPEG; PNG libraries refuse to write sides of more than a million pixels
MOST_SCANS = 32  # of a JPEG: encoders write up to 18, and each costs about as much as decoding a baseline JPEG
EXTRANEOUS = 16
BESIDE = 2**16  # bytes of a PNG's compressed texts and profiles, which may unpack to a thousand times as much

# Opened by these and not by Image.open, whose own limit of pixels is not ours. They read no frame but the first.
PLUGINS = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}
NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # for a writer, when a pipe is opened; Windows has no such pipes
SPECIAL = (b"Exif\0\0", b"eXIf", b"tRNS", b"acTL")
BASELINE = 0xC0  # a JPEG's frame
READ_BY_ALL = {BASELINE, 0xC1, 0xC2}  # also extended and progressive
# Pillow warns of every tag of a damaged TIFF that it skips. Where the picture needs the tag, it is refused below.
# Set once: `warnings.catch_warnings` is not safe where several threads decode.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")
READ_BY_PILLOW = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "I;16", "I;16L", "I;16B"}


class LimitError(ValueError):
    """An image is too large: it has too many bytes, pixels or scans, or too long a side."""


def read_image(path: str | os.PathLike[str]) -> bytes:
    """An image file's bytes. Its kind and size are looked at before anything is read.

    Raises:
        ValueError: the rest of a sentence about the file: it is too large, or a folder, a pipe or a device.
        OSError: it cannot be opened or read.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | NO_WAIT)) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("is not a file")
        if about.st_size > MOST_FILE_BYTES:
            raise LimitError(f"has {about.st_size} bytes; {MOST_FILE_BYTES} are allowed")
        return file.read(MOST_FILE_BYTES + 1)


def check(
    content: bytes,
    most_bytes: int | None = MOST_BYTES,
    most_pixels: int = MOST_PIXELS,
    most_scans: int = MOST_SCANS,
) -> Header:
    """Check an encoded image without decoding it.

    Args:
        most_bytes: how many bytes it may have; None: any number.

    Raises:
        ValueError: the rest of a sentence about the image: it is too large, or it is no image of `FORMATS`.
    """
    if most_bytes is not None and len(content) > most_bytes:
        raise LimitError(f"has {len(content)} bytes; {most_bytes} are allowed")
    header = image_headers.read(content)
    _check_size(header.width, header.height, most_pixels)
    if header.scans > most_scans:
        raise LimitError(f"is a JPEG of {header.scans} scans; {most_scans} are allowed")
    return header


def plain(content: bytes, most_pixels: int = MOST_PIXELS, most_scans: int = MOST_SCANS) -> bytes:
    """A JPEG or PNG of the same picture, upright and without transparency, which every decoder reads alike.

    Returns:
        `content` itself, the same object, where it is a sound upright JPEG, or a sound PNG of 8 bits in grey or RGB.
        Otherwise an RGB PNG.

    Raises:
        ValueError: the rest of a sentence about the image: it is damaged, too large, or no image of `FORMATS`.
    """
    found = plain_or_pixels(content, most_pixels, most_scans)
    return found if isinstance(found, bytes) else cv2.imencode(".png", found[..., ::-1])[1].tobytes()


def plain_or_pixels(content: bytes, most_pixels: int = MOST_PIXELS, most_scans: int = MOST_SCANS) -> bytes | np.ndarray:
    """As `plain`, but pixels uint8 [H, W, 3] in RGB in place of an RGB PNG of them, which costs less."""
    header = check(content, None, most_pixels, most_scans)
    if header.format == "JPEG":
        return _jpeg(content)
    if header.format == "PNG":
        return _png(content)
    image = _opened(header.format, content)
    _check_size(*image.size, most_pixels)  # a GIF's frame may be larger than its canvas
    if header.format == "GIF":
        return _on_its_canvas(image)
    if header.format == "WebP":
        exif = next((data for name, data in image_headers.webp_chunks(content) if name == b"EXIF"), b"")
        return upright(_flat(image), image_headers.orientation(exif))
    if header.format == "TIFF":
        return _flat_tiff(image)
    return _flat(image)


def pixels(content: bytes, most_pixels: int = MOST_PIXELS, most_scans: int = MOST_SCANS) -> np.ndarray:
    """As `plain`, decoded: uint8 [H, W, 3] in RGB."""
    found = plain_or_pixels(content, most_pixels, most_scans)
    if isinstance(found, np.ndarray):
        return found
    if found.startswith(b"\xff\xd8"):
        return _jpeg_pixels(found)
    return cv2.imdecode(np.frombuffer(found, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def looks_plain(content: bytes) -> bool:
    """Whether the bytes of a sound JPEG or PNG need no change: a quick look, without decoding. When in doubt, no."""
    is_plain_png = content.startswith(b"\x89PNG") and content[24:26] in (b"\x08\x00", b"\x08\x02")
    return (is_plain_png or content.startswith(b"\xff\xd8")) and not any(mark in content for mark in SPECIAL)


def rendered(image: Callable[[], np.ndarray], file: str) -> bytes:
    """An image that a function makes, uint8 RGB, in the format that the end of `file` names; JPEG of quality 95."""
    return cv2.imencode(os.path.splitext(file)[1], image()[..., ::-1])[1].tobytes()


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels [H, W, 3] as they were stored, turned as an orientation of EXIF says."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def on_white(rgba: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 4] -> uint8 [H, W, 3], composited on white."""
    flat = np.empty((*rgba.shape[:2], 3), np.uint8)
    for row in range(0, len(rgba), 256):  # bounds the memory that the wider numbers take
        part = rgba[row : row + 256].astype(np.uint16)
        alpha = part[..., 3:]
        flat[row : row + 256] = (part[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return flat


def _check_size(width, height, most_pixels):
    if width < 1 or height < 1:
        raise damaged("it has no pixel")
    if width * height > most_pixels:
        raise LimitError(f"has {width} x {height} pixels; {most_pixels} are allowed")
    if max(width, height) > MOST_SIDE:
        raise LimitError(f"is {width} x {height} pixels; a side may have {MOST_SIDE}")


# ------------------------------------------------------------------------------------------------------------ JPEG


def _jpeg(content):
    frame, exif = None, b""
    for marker, data in image_headers.segments(content):
        if marker == image_headers.SCAN:
            break
        if marker in image_headers.FRAMES:
            frame = marker
        if marker == image_headers.APP1 and data.startswith(b"Exif\0\0") and not exif:
            exif = data
    try:
        simplejpeg.decode_jpeg(content, "gray")  # strict: warnings are errors
    except ValueError as error:
        extraneous = re.search(r"(\d+) extraneous bytes before marker", str(error))
        if "subsampling" in str(error) or "CMYK" in str(error):
            _loaded(_opened("JPEG", content))
        elif not extraneous or int(extraneous[1]) > EXTRANEOUS or frame != BASELINE:
            raise damaged(str(error).removeprefix("Corrupt JPEG data: ")) from None
    turned = image_headers.orientation(exif)
    if turned == 1 and frame in READ_BY_ALL:
        return content
    return upright(_jpeg_pixels(content), turned)


def _jpeg_pixels(content):
    """The very pixels that TensorFlow decodes, but for CMYK."""
    try:
        return simplejpeg.decode_jpeg(content, "rgb", fastdct=True, strict=False)
    except ValueError:  # CMYK, or subsampled in a rare way
        image = _loaded(_opened("JPEG", content))
    if image.mode != "CMYK":
        return _flat(image)
    ink = np.asarray(image).astype(np.uint16)
    return ((255 - ink[..., :3]) * (255 - ink[..., 3:]) // 255).astype(np.uint8)  # as TensorFlow does it


# ------------------------------------------------------------------------------------------------------------- PNG


def _png(content):
    kept, texts, exif, key, animated = [content[:8]], 0, b"", None, False
    for name, start, end in image_headers.png_chunks(content):
        if name in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(content[start:end])
        texts += end - start if name in (b"zTXt", b"iTXt", b"iCCP") else 0
        animated |= name == b"acTL"
        if name == b"eXIf":
            exif = exif or content[start + 8 : end - 4]
        if name == b"tRNS":
            key = content[start + 8 : end - 4]
    # Only what the picture needs: no text that unpacks to gigabytes, no second frame.
    bare = b"".join(kept)
    try:
        decoded = cv2.imdecode(np.frombuffer(bare, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise damaged("its data cannot be decoded")
    depth, colour, turned = content[24], content[25], image_headers.orientation(exif)
    if depth == 8 and colour in (0, 2) and key is None and turned == 1:
        return bare if animated or texts > BESIDE else content
    if colour == 0:
        image = _grey_with_key(decoded, depth, key)
    else:
        image = _eight_bits(decoded)
        image = image[..., ::-1] if image.shape[2] == 3 else on_white(image[..., [2, 1, 0, 3]])
    return upright(image, turned)


def _grey_with_key(grey, depth, key):
    """Grey [H, W] -> uint8 [H, W, 3]; `key` is the grey that is transparent, which OpenCV passes over."""
    image = np.repeat(_eight_bits(grey)[..., None], 3, axis=2)
    if key is not None:
        scale = 255 // (2**depth - 1) if depth < 8 else 1
        image[grey == int.from_bytes(key[:2], "big") * scale] = 255
    return image


def _eight_bits(decoded):
    return (decoded >> 8).astype(np.uint8) if decoded.dtype == np.uint16 else decoded


# ---------------------------------------------------------------------------------------------------------- others


def _opened(format: str, content: bytes) -> ImageFile.ImageFile:
    """The image by Pillow, of which only the header has been read."""
    try:
        return PLUGINS[format](io.BytesIO(content))
    except Exception as error:  # of hostile bytes, Pillow raises nearly any
        raise damaged(_sentence(error)) from None


def _loaded(image: ImageFile.ImageFile) -> ImageFile.ImageFile:
    try:
        image.load()
    except Exception as error:
        raise damaged(_sentence(error)) from None
    return image


def _sentence(error):
    return str(error).splitlines()[0][:100] if str(error) else type(error).__name__


def _flat(image: ImageFile.ImageFile) -> np.ndarray:
    """uint8 [H, W, 3] of an image of any mode that Pillow has, but those of more than 16 bits."""
    if image.mode not in READ_BY_PILLOW:
        raise ValueError(f"has pixels of another kind ({image.mode}); save it in RGB with 8 bits a channel")
    image = _loaded(image)
    if image.mode.startswith("I;16"):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        return on_white(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def _flat_tiff(image):
    flat = _flat(image)
    # Most releases of Pillow turn a TIFF as they load it, and then remove its tag.
    return upright(flat, image.tag_v2[274]) if image.tag_v2.get(274) in range(2, 9) else flat


def _on_its_canvas(gif):
    left, top, right, bottom = gif.tile[0][1]  # of the first frame
    flat = _flat(gif)
    canvas = np.full_like(flat, 255)
    canvas[top:bottom, left:right] = flat[top:bottom, left:right]
    return canvas
