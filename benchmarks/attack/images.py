"""Images that are malformed in many ways, and sound ones of unusual modes, which have to be read rightly."""

import functools
import io
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, PngImagePlugin

from benchmarks.attack.cases import ANSWER, EITHER, REFUSE, Case, choose, damaged, splice

HEIGHT, WIDTH = 48, 24  # of the pictures
SOUND = 0.25  # the fraction of sound images
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "WEBP": ".webp", "TIFF": ".tif", "GIF": ".gif"}
ORIENTATION = 0x0112
UNTURNED = {  # EXIF orientation -> how an upright picture has to be stored
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}


def case(rng: np.random.Generator) -> Case:
    """One image: a sound one, or in three of four cases a malformed one. Its content is bytes."""
    return sound(rng) if rng.random() < SOUND else malformed(rng)


def sound(rng: np.random.Generator) -> Case:
    """A sound image; bytes behind its end, which many cameras and phones write, do not matter."""
    one = choose(rng, catalogue())
    if rng.random() < 0.2:
        content = one.content + rng.bytes(int(rng.integers(1, 5000)))
        return Case(f"{one.kind}, bytes behind its end", content, ANSWER, one.picture, one.is_exact)
    return one


def malformed(rng: np.random.Generator) -> Case:
    if rng.random() < 0.25:
        kind = choose(rng, list(SPECIAL))
        content, demand = SPECIAL[kind](rng)
        return Case(kind, content, demand)
    one = choose(rng, catalogue())
    if rng.random() < 0.1:
        return Case(f"{one.kind}, spliced", splice(rng, one.content, choose(rng, catalogue()).content))
    done, content = damaged(rng, one.content)
    # Of a file with several frames the first may be whole.
    demand = REFUSE if done == "cut off" and not one.kind.startswith(("animated", "TIFF")) else EITHER
    return Case(f"{one.kind}, {done}", content, demand)


# ------------------------------------------------------------------ sound images


@functools.cache
def pictures() -> dict[str, np.ndarray]:
    """Name -> picture uint8 [H, W, 3] in RGB: smooth, so that JPEG changes little; each with colours of its own."""
    rows = np.linspace(0, 1, HEIGHT)[:, None]
    columns = np.linspace(0, 1, WIDTH)[None, :]

    def picture(red, green, blue):
        channels = [np.broadcast_to(channel, (HEIGHT, WIDTH)) for channel in (red, green, blue)]
        return np.stack(channels, axis=2).round().astype(np.uint8)

    rgb = picture(40 + 200 * rows, 230 - 180 * columns, 20 + 100 * rows * columns)
    grey = picture(*[250 - 240 * rows * (1 - columns)] * 3)
    few = picture(85 * (rows * 3).round(), 255 * (columns > 0.5), 128 * (rows > 0.3))  # colours, as a palette holds
    black_and_white = picture(*[255.0 * ((rows > 0.4) ^ (columns > 0.6))] * 3)
    return {"rgb": rgb, "grey": grey, "few": few, "black and white": black_and_white, "on white": _on_white(rgb)}


ALPHA = np.linspace(0, 255, HEIGHT).round().astype(np.uint8)[:, None].repeat(WIDTH, axis=1)


def _on_white(rgb):
    """Composited on white with integer rounding."""
    alpha = ALPHA[..., None].astype(np.int64)
    return ((rgb.astype(np.int64) * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


@functools.cache
def catalogue() -> tuple[Case, ...]:
    """Sound images of all formats, modes and orientations."""
    return tuple(Case(kind, content, ANSWER, name, exact) for kind, content, name, exact in _catalogue())


def _catalogue() -> Iterator[tuple[str, bytes, str, bool]]:
    """Yield (kind, bytes, name of the picture, whether it is stored without loss)."""
    rgb, grey = Image.fromarray(pictures()["rgb"]), Image.fromarray(pictures()["grey"]).convert("L")
    few, bilevel = Image.fromarray(pictures()["few"]), Image.fromarray(pictures()["black and white"]).convert("1")
    palette = few.quantize(16, dither=Image.Dither.NONE)
    with_alpha = rgb.copy()
    with_alpha.putalpha(Image.fromarray(ALPHA))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)

    yield "JPEG", _file(rgb, "JPEG", quality=95, subsampling=0), "rgb", False
    yield "JPEG, grey", _file(grey, "JPEG", quality=95), "grey", False
    yield "JPEG, progressive", _file(rgb, "JPEG", quality=95, subsampling=0, progressive=True), "rgb", False
    yield "JPEG, restarts", _file(rgb, "JPEG", quality=95, subsampling=0, restart_marker_blocks=1), "rgb", False
    for name in ("PNG", "BMP", "TIFF"):
        yield f"{name}, RGB", _file(rgb, name), "rgb", True
        yield f"{name}, grey", _file(grey, name), "grey", True
        yield f"{name}, palette", _file(palette, name), "few", True
        yield f"{name}, 1 bit", _file(bilevel, name), "black and white", True
    for name in ("PNG", "TIFF"):
        yield f"{name}, RGBA", _file(with_alpha, name), "on white", True
        yield f"{name}, 16 bits", _file(deep, name), "grey", True
    yield "PNG, 8 bits, transparent colours", _file(_with_clear_white(palette), "PNG", transparency=0), "few", True
    yield "BMP, 32 bits", _file(rgb.convert("RGBA"), "BMP"), "rgb", True
    yield "TIFF, LZW", _file(rgb, "TIFF", compression="tiff_lzw"), "rgb", True
    yield "TIFF, deflate", _file(rgb, "TIFF", compression="tiff_adobe_deflate"), "rgb", True
    yield "WebP", _file(rgb, "WEBP", lossless=True), "rgb", True
    yield "WebP, lossy", _file(rgb, "WEBP", quality=95), "rgb", False
    yield "WebP, alpha", _file(with_alpha, "WEBP", lossless=True, exact=True), "on white", True
    yield "GIF", _file(palette, "GIF"), "few", True
    for orientation, unturned in UNTURNED.items():
        stored = Image.fromarray(np.ascontiguousarray(unturned(pictures()["rgb"])))
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
        for name in ("JPEG", "PNG", "WEBP", "TIFF"):
            content = _file(stored, name, exif=exif, **options.get(name, {}))
            yield f"{name}, orientation {orientation}", content, "rgb", name != "JPEG"
    others = [few.point(lambda value, shift=shift: (value + shift) % 256) for shift in range(1, 250)]
    frames = [frame.quantize(16, dither=Image.Dither.NONE) for frame in others]
    yield "animated GIF", _file(palette, "GIF", save_all=True, append_images=frames), "few", True
    yield "animated PNG", _file(few, "PNG", save_all=True, append_images=others[:50]), "few", True
    yield "animated WebP", _file(few, "WEBP", save_all=True, append_images=others[:50], lossless=True), "few", True
    yield "TIFF, pages", _file(few, "TIFF", save_all=True, append_images=others[:50]), "few", True


@functools.cache
def plain(picture: str) -> bytes:
    """A picture as an RGB PNG, of which there is no doubt."""
    return _file(Image.fromarray(pictures()[picture]), "PNG")


def _with_clear_white(palette):
    """The same palette picture, of which a first colour, in no pixel, is transparent."""
    shifted = Image.fromarray(np.asarray(palette) + 1)
    colours = palette.getpalette()
    shifted.putpalette([0, 0, 0, *colours])
    return shifted


def _file(image, form, **options):
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


# ------------------------------------------------------------------ images made to do harm


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width, height, bits, colour, data, before=b"") -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


@functools.cache
def _zeros(megabytes: int) -> bytes:
    return zlib.compress(bytes(megabytes * 2**20), 9)


@functools.cache
def _rows() -> bytes:
    """The pixels of a small grey PNG."""
    return zlib.compress((b"\x00" + bytes(range(WIDTH))) * HEIGHT)


def too_many_pixels(rng: np.random.Generator) -> bytes:
    """A header alone that promises up to 2^32 pixels; of PNG also with a few kilobytes that unpack to them.

    Or a sound BMP that has fewer pixels than are allowed, but a longer side than PNG libraries write.
    """
    width, height = choose(rng, ((14_000, 14_000), (2**31 - 1, 2**31 - 1), (65_535, 65_535), (60_000, 1000)))
    form = choose(rng, ("PNG", "PNG that unpacks", "JPEG", "BMP", "long BMP", "GIF", "WEBP"))
    small = Image.fromarray(pictures()["rgb"])
    if form == "PNG":
        return _png(width, height, 8, 2, _rows())
    if form == "PNG that unpacks":
        return _png(14_000, 14_000, 1, 0, _zeros(24))
    if form == "JPEG":  # the frame header: marker, length, bits, height, width
        content = bytearray(_file(small, "JPEG"))
        place = content.index(b"\xff\xc0")
        content[place + 5 : place + 9] = struct.pack(">HH", min(height, 65_500), min(width, 65_500))
        return bytes(content)
    if form == "BMP":
        content = bytearray(_file(small, "BMP"))
        content[18:26] = struct.pack("<ii", min(width, 2**31 - 1), min(height, 2**31 - 1))
        return bytes(content)
    if form == "long BMP":
        return _file(Image.new("RGB", (1_000_001, 1)), "BMP")
    if form == "GIF":
        content = bytearray(_file(small, "GIF"))
        content[6:10] = struct.pack("<HH", min(width, 65_535), min(height, 65_535))
        return bytes(content)
    canvas = struct.pack("<I", 16_383)[:3] * 2
    body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + canvas + _file(small, "WEBP", lossless=True)[12:]
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def hidden_bomb(rng: np.random.Generator) -> bytes:
    """A small PNG with a text, a colour profile or spare pixels that unpack to 64 MB."""
    place = choose(rng, ("zTXt", "iTXt", "iCCP", "IDAT"))
    if place == "IDAT":
        return _png(WIDTH, HEIGHT, 8, 0, _zeros(64))
    head = {"zTXt": b"key\x00\x00", "iTXt": b"key\x00\x01\x00\x00\x00", "iCCP": b"name\x00\x00"}[place]
    return _png(WIDTH, HEIGHT, 8, 0, _rows(), before=_chunk(place.encode(), head + _zeros(64)))


@functools.cache
def many_scans(side: int = 2048, scans: int = 1500) -> bytes:
    """A progressive JPEG whose last scan is repeated: small to send, long to decode."""
    content = _file(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    start, end = content.rindex(b"\xff\xda"), content.rindex(b"\xff\xd9")
    return content[:end] + content[start:end] * scans + content[end:]


def random_exif(rng: np.random.Generator) -> bytes:
    """A JPEG whose EXIF data are noise or wild entries, of which some lead back to themselves."""
    content = _file(Image.fromarray(pictures()["rgb"]), "JPEG")
    order = choose(rng, ("<", ">"))
    entries = b"".join(
        struct.pack(
            f"{order}HHII",
            choose(rng, (ORIENTATION, 0x8769, 0x8825, int(rng.integers(65536)))),
            int(rng.integers(15)),
            choose(rng, (1, 2, 2**31, 2**32 - 1)),
            int(rng.integers(2**32)) if rng.random() < 0.5 else 8,
        )
        for _ in range(int(rng.integers(1, 20)))
    )
    directory = struct.pack(f"{order}H", len(entries) // 12) + entries + struct.pack(f"{order}I", choose(rng, (0, 8)))
    tiff = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(f"{order}I", 8) + directory
    exif = b"Exif\x00\x00" + (tiff if rng.random() < 0.8 else rng.bytes(300))
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:]


def random_tiff(rng: np.random.Generator) -> bytes:
    """A TIFF directory with the usual tags and wild values; some lead back to themselves."""
    tags = (256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 320, 322, 324)
    entries = b"".join(
        struct.pack("<HHII", tag, int(rng.integers(1, 13)), choose(rng, (1, 3, 2**32 - 1)), _small_or_any(rng))
        for tag in tags
        if rng.random() < 0.9
    )
    pages = struct.pack("<H", len(entries) // 12) + entries + struct.pack("<I", choose(rng, (0, 8, 2**31)))
    return b"II*\x00" + struct.pack("<I", 8) + pages + rng.bytes(500)


def _small_or_any(rng):
    return int(rng.integers(300)) if rng.random() < 0.7 else int(rng.integers(2**32))


def wild_png(rng: np.random.Generator) -> bytes:
    """A PNG with right checksums and a header, palette or pixels that do not fit together."""
    bits, colour = choose(rng, (1, 2, 3, 4, 8, 16, 32)), int(rng.integers(8))
    palette = _chunk(b"PLTE", rng.bytes(int(rng.integers(800)))) + _chunk(b"tRNS", rng.bytes(int(rng.integers(300))))
    width, height = (choose(rng, (0, 1, WIDTH, 300, 2**31 - 1)) for _ in range(2))
    return _png(width, height, bits, colour, zlib.compress(rng.bytes(3000)), palette)


def no_image(rng: np.random.Generator) -> bytes:
    beginnings = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF\xff\xff\xff\xffWEBP", b"II*\x00")
    others = (
        b"",
        b"<svg onload=alert(1)></svg>",
        b"%PDF-1.7\n",
        b"PK\x03\x04",
        b"just a text\n" * 40,
        b"{}",
        b"%!PS\n",
    )
    return choose(rng, (*beginnings, *others, rng.bytes(int(rng.integers(1, 5000))), bytes(3000)))


def long_text(rng: np.random.Generator) -> bytes:
    """A sound PNG with hundreds of texts of odd characters."""
    info = PngImagePlugin.PngInfo()
    for number in range(int(rng.integers(1, 300))):
        info.add_text(f"key{number}", "\x1b[31m\u202e" * 20)
    return _file(Image.fromarray(pictures()["rgb"]), "PNG", pnginfo=info)


SPECIAL: dict[str, Callable[[np.random.Generator], tuple[bytes, str]]] = {
    "too many pixels": lambda rng: (too_many_pixels(rng), EITHER),
    "196 megapixels in 24 KB": lambda rng: (_png(14_000, 14_000, 1, 0, _zeros(24)), REFUSE),
    "a text, profile or pixels that unpack to 64 MB": lambda rng: (hidden_bomb(rng), EITHER),
    "1,500 scans": lambda rng: (many_scans(), REFUSE),
    "random EXIF": lambda rng: (random_exif(rng), EITHER),
    "random TIFF": lambda rng: (random_tiff(rng), EITHER),
    "wild PNG": lambda rng: (wild_png(rng), EITHER),
    "no image": lambda rng: (no_image(rng), REFUSE),
    "PNG with long texts": lambda rng: (long_text(rng), EITHER),
}
