"""Encoded images -> plain ones. Every surface reads by this; tests/test_image_matrix.py holds them together."""

import io
import os
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from odd_images import bmp, chunk, exif, picture, png, saved, stored, with_exif
from PIL import Image

from tfds_builders import images

PICTURE = picture()
HEIGHT, WIDTH = PICTURE.shape[:2]
JPEG, PNG = saved(PICTURE, "JPEG", quality=90), saved(PICTURE, "PNG")
GREY = np.asarray(Image.fromarray(PICTURE).convert("L"))
ALPHA = np.linspace(0, 255, HEIGHT * WIDTH).astype(np.uint8).reshape(HEIGHT, WIDTH, 1)
RGBA = np.concatenate([PICTURE, ALPHA], axis=2)
ON_WHITE = np.floor((PICTURE * (ALPHA / 255.0)) + 255 * (1 - ALPHA / 255.0) + 0.5).astype(np.uint8)


def decoded(content):
    """A plain image as any decoder reads it, in RGB."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def grey3(image):
    return np.repeat(image[..., None], 3, axis=2)


@pytest.mark.parametrize(
    "content",
    [
        JPEG,
        JPEG + b"bytes behind the end" + JPEG,
        saved(GREY, "JPEG"),
        saved(PICTURE, "JPEG", progressive=True),
        saved(PICTURE, "JPEG", mode="CMYK"),
        saved(PICTURE, "JPEG", mode="CMYK", subsampling=0),
        with_exif(JPEG, exif(1)),
        with_exif(JPEG, exif(9)),
        with_exif(JPEG, b"II*\0\xff\xff\xff\xff\xff\xff"),
        with_exif(JPEG, exif(6)[:-10]),
        with_exif(JPEG, exif(6, kind=2)),
        JPEG[:-2] + bytes(7) + JPEG[-2:],
        PNG,
        PNG + b"bytes behind the end",
        saved(GREY, "PNG"),
        with_exif(PNG, exif(0)),
        saved(PICTURE, "PNG", icc_profile=b"a profile"),
    ],
)
def test_sound_and_plain_images_are_left_as_they_are(content):
    assert images.plain(content) is content
    assert np.abs(images.pixels(content).astype(int) - decoded(content)).max() <= 12


ADAM7 = cv2.imencode(".png", PICTURE[..., ::-1])[1].tobytes()
SIXTEEN = PICTURE.astype(">u2") * 257
KEY = tuple(int(value) for value in PICTURE[3, 5])
KEYED = np.where((PICTURE[3, 5] == PICTURE).all(axis=2, keepdims=True), 255, PICTURE).astype(np.uint8)
PALETTE = saved(Image.fromarray(PICTURE).quantize(200), "PNG")
INDICES = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
COLOURS = np.random.default_rng(1).integers(256, size=(256, 3), dtype=np.uint8)
BGR0 = np.concatenate([COLOURS[:, ::-1], np.zeros((256, 1), np.uint8)], axis=1)
LITTLE = INDICES.astype(np.uint8) % 16
BITS = LITTLE % 2
NIBBLES = [bytes((row[::2] << 4 | row[1::2]).tolist()) for row in LITTLE]
FIVES = (PICTURE[..., 0] >> 3).astype("<u2") << 11 | (PICTURE[..., 1] >> 2).astype("<u2") << 5 | PICTURE[..., 2] >> 3


def rows(array):
    return [row.tobytes() for row in array]


BGRA = RGBA[..., [2, 1, 0, 3]]
LOSSLESS = {
    "PNG, RGBA": (saved(RGBA, "PNG"), ON_WHITE),
    "PNG, grey and alpha": (
        saved(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA[..., 0])]), "PNG"),
        np.floor(grey3(GREY) * (ALPHA / 255.0) + 255 * (1 - ALPHA / 255.0) + 0.5).astype(np.uint8),
    ),
    "PNG, 16 bits": (png(rows(SIXTEEN), WIDTH, 16, 2), PICTURE),
    "PNG, 16 bits, high byte": (png([struct.pack(">3H", 0x12FF, 0x3400, 0x56A0)], 1, 16, 2), [[[0x12, 0x34, 0x56]]]),
    "PNG, 16 bits and alpha": (png([struct.pack(">4H", 0x12FF, 0, 0xFFFF, 0x80FF)], 1, 16, 6), [[[136, 127, 255]]]),
    "PNG, grey of 16 bits": (saved(Image.fromarray(GREY.astype(np.uint16) * 256 + 255), "PNG"), grey3(GREY)),
    "PNG, grey of 4 bits": (png(NIBBLES, WIDTH, 4, 0), grey3(LITTLE * 17)),
    "PNG, 1 bit": (saved(Image.fromarray(BITS * 255).convert("1"), "PNG"), grey3(BITS * 255)),
    "PNG, palette": (PALETTE, decoded(PALETTE)),
    "PNG, palette with transparency": (
        png(NIBBLES, WIDTH, 4, 3, chunk(b"PLTE", COLOURS[:16].tobytes()) + chunk(b"tRNS", bytes(3))),
        np.where((LITTLE < 3)[..., None], 255, COLOURS[LITTLE]).astype(np.uint8),
    ),
    "PNG, transparent colour": (
        png(rows(PICTURE), WIDTH, 8, 2, chunk(b"tRNS", struct.pack(">3H", *KEY))),
        KEYED,
    ),
    "PNG, transparent colour of 16 bits": (
        png([struct.pack(">6H", 1, 2, 3, 1, 2, 4)], 2, 16, 2, chunk(b"tRNS", struct.pack(">3H", 1, 2, 4))),
        [[[0, 0, 0], [255, 255, 255]]],
    ),
    "PNG, transparent grey of 4 bits": (
        png(NIBBLES, WIDTH, 4, 0, chunk(b"tRNS", struct.pack(">H", 5))),
        grey3(np.where(LITTLE == 5, 255, LITTLE * 17).astype(np.uint8)),
    ),
    "PNG, animated": (
        saved(PICTURE, "PNG", save_all=True, append_images=[Image.fromarray(255 - PICTURE)]),
        PICTURE,
    ),
    "BMP, 24 bits": (saved(PICTURE, "BMP"), PICTURE),
    "BMP, top down, with bytes behind": (
        bmp(rows(PICTURE[..., ::-1]), WIDTH, 24, top_down=True, behind=b"padding"),
        PICTURE,
    ),
    "BMP, 8 bits": (bmp(rows(INDICES.astype(np.uint8)), WIDTH, 8, BGR0.tobytes()), COLOURS[INDICES % 256]),
    "BMP, 4 bits": (bmp(NIBBLES, WIDTH, 4, BGR0[:16].tobytes()), COLOURS[LITTLE]),
    "BMP, 1 bit": (bmp(rows(np.packbits(BITS, axis=1)), WIDTH, 1, BGR0[:2].tobytes()), COLOURS[BITS]),
    "BMP, 16 bits": (
        bmp(rows(FIVES), WIDTH, 16, masks=(0xF800, 0x7E0, 0x1F, 0)),
        np.stack([(FIVES >> 11) * 255 // 31, (FIVES >> 5 & 63) * 255 // 63, (FIVES & 31) * 255 // 31], axis=2),
    ),
    "BMP, 32 bits": (bmp(rows(BGRA), WIDTH, 32), PICTURE),
    "BMP, alpha": (bmp(rows(BGRA), WIDTH, 32, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000)), ON_WHITE),
    "BMP, no mask of alpha": (bmp(rows(BGRA), WIDTH, 32, masks=(0xFF0000, 0xFF00, 0xFF, 0)), PICTURE),
    "WebP": (saved(PICTURE, "WEBP", lossless=True), PICTURE),
    "WebP, alpha": (saved(RGBA, "WEBP", lossless=True, exact=True), ON_WHITE),
    "WebP, animated": (
        saved(PICTURE, "WEBP", lossless=True, save_all=True, append_images=[Image.fromarray(255 - PICTURE)]),
        PICTURE,
    ),
    "TIFF": (saved(PICTURE, "TIFF"), PICTURE),
    "TIFF, several pages": (
        saved(PICTURE, "TIFF", compression="tiff_lzw", save_all=True, append_images=[Image.fromarray(GREY)]),
        PICTURE,
    ),
    "TIFF, alpha": (saved(RGBA, "TIFF"), ON_WHITE),
    "TIFF, grey": (saved(GREY, "TIFF"), grey3(GREY)),
    "TIFF, grey of 16 bits": (saved(Image.fromarray(GREY.astype(np.uint16) * 256 + 255), "TIFF"), grey3(GREY)),
    "TIFF, 1 bit": (saved(Image.fromarray(BITS * 255).convert("1"), "TIFF"), grey3(BITS * 255)),
    "TIFF, palette": (saved(Image.open(io.BytesIO(PALETTE)), "TIFF"), decoded(PALETTE)),
    "TIFF, CMYK": (
        saved(PICTURE, "TIFF", mode="CMYK"),
        np.asarray(Image.fromarray(PICTURE).convert("CMYK").convert("RGB")),
    ),
    "GIF": (saved(Image.open(io.BytesIO(PALETTE)), "GIF"), decoded(PALETTE)),
    "GIF, animated": (
        saved(Image.open(io.BytesIO(PALETTE)), "GIF", save_all=True, append_images=[Image.fromarray(GREY)]),
        decoded(PALETTE),
    ),
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_an_image_of_any_kind_becomes_the_png_that_everybody_reads_alike(kind):
    content, expected = LOSSLESS[kind]
    found = images.plain(content)
    assert found.startswith(b"\x89PNG") and found is not content
    np.testing.assert_array_equal(decoded(found), expected)
    np.testing.assert_array_equal(images.pixels(content), expected)
    assert images.plain(found) is found


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WebP", "TIFF"])
def test_every_orientation_is_set_upright(format, order, orientation):
    tall = stored(PICTURE, orientation)
    if format == "TIFF":
        content = saved(tall, "TIFF", tiffinfo={274: orientation})
    else:
        content = with_exif(saved(tall, format, quality=95, lossless=True), exif(orientation, order))
    found = decoded(images.plain(content))
    assert found.shape == PICTURE.shape
    assert np.abs(found.astype(int) - PICTURE).mean() <= (5 if format == "JPEG" else 0)


def test_the_longest_side_is_written_as_a_png():
    assert images.check(images.plain(saved(Image.new("L", (1, images.MOST_SIDE)), "TIFF")))[:3] == ("PNG", 1, 65_535)


def test_exif_of_an_image_behind_the_end_is_not_this_images():
    assert images.plain(behind := JPEG + with_exif(JPEG, exif(6))) is behind
    assert images.plain(behind := PNG + with_exif(PNG, exif(6))) is behind


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "WebP", "TIFF", "GIF"])
def test_a_cut_image_is_damaged(format):
    content = saved(picture(120, 80), format)
    for length in (12, 40, len(content) // 2, len(content) - 40):
        with pytest.raises(ValueError, match=r"^is damaged: |^is not a JPEG"):
            images.plain(content[:length])


def holed(content):
    """Zeros in the middle of the data, of which decoders make grey."""
    middle = len(content) // 2
    return content[:middle] + bytes(200) + content[middle + 200 :]


LARGE = saved(picture(200, 100), "JPEG", quality=95)
PROGRESSIVE = saved(picture(200, 100), "JPEG", quality=95, progressive=True)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"text", "is not a JPEG, PNG, BMP, WebP, TIFF or GIF image"),
        (b"<html>", "is not a JPEG, PNG, BMP, WebP, TIFF or GIF image"),
        (holed(LARGE), "is damaged: (premature end|[0-9]+ extraneous bytes)"),
        (LARGE[: len(LARGE) // 2] + b"\xff\xd9", "is damaged: premature end of data segment"),
        (LARGE[:-2], "is damaged: Premature end of JPEG file"),
        (LARGE[:-2] + bytes(200) + LARGE[-2:], "is damaged: 19[0-9] extraneous bytes before marker 0xd9"),
        (PROGRESSIVE[:-2] + bytes(7) + PROGRESSIVE[-2:], "is damaged: 7 extraneous bytes before marker 0xd9"),
        (png([bytes(3)], 1, 8, 2, data=b"no data"), "is damaged: its data cannot be decoded"),
        (PNG[:-20] + b"zz" + PNG[-18:], "is damaged: its data cannot be decoded"),
        (PNG[:-12], "is damaged: it is cut off"),
        (saved(Image.fromarray(PICTURE[..., 0].astype(np.float32)), "TIFF"), r"has pixels of another kind \(F\)"),
        (png([bytes(3)] * 5001, 5000, 8, 2), "has 5000 x 5001 pixels; 25000000 are allowed"),
        (png([bytes(3)], 196_000_000, 8, 2), "has 196000000 x 1 pixels; 25000000 are allowed"),
        (png([bytes(3)], 0, 8, 2), "is damaged: it has no pixel"),
        (bmp([bytes(3 * 1_000_001)], 1_000_001, 24), "is 1000001 x 1 pixels; a side may have 65535"),
        (saved(Image.new("L", (1, 65_536)), "TIFF"), "is 1 x 65536 pixels; a side may have 65535"),
    ],
)
def test_what_is_no_sound_image_is_refused_with_a_reason(content, reason):
    with pytest.raises(ValueError, match=f"^{reason}"):
        images.plain(content)


def test_the_limits_of_a_check():
    assert images.check(JPEG) == ("JPEG", WIDTH, HEIGHT, 1) and images.check(JPEG).pixels == WIDTH * HEIGHT
    assert images.check(saved(PICTURE, "JPEG", progressive=True)).scans == 10
    for format in images.FORMATS[1:]:
        assert images.check(saved(PICTURE, format)) == (format, WIDTH, HEIGHT, 0)
    with pytest.raises(ValueError, match="has 5001 bytes; 5000 are allowed"):
        images.check(bytes(5001), most_bytes=5000)
    with pytest.raises(ValueError, match=f"has {WIDTH} x {HEIGHT} pixels; 100 are allowed"):
        images.check(PNG, most_pixels=100)


def many_scans(count):
    """A progressive JPEG whose last scan is repeated."""
    content = saved(picture(64, 64), "JPEG", mode="L", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * count + content[-2:]


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(images.simplejpeg, "decode_jpeg", lambda *_: pytest.fail("it was decoded"))
    for read in (images.check, images.plain):
        with pytest.raises(ValueError, match="is a JPEG of 1506 scans; 32 are allowed"):
            read(many_scans(1500))
    with pytest.raises(ValueError, match="has more than 10000 segments"):
        images.check(many_scans(20_000))


def test_texts_that_unpack_to_gigabytes_are_left_out():
    bomb = chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(7_000_000)))
    content = png(rows(PICTURE), WIDTH, 8, 2, bomb * 30)
    tracemalloc.start()
    found = images.plain(content)
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()
    assert b"zTXt" not in found and len(found) < 3000
    np.testing.assert_array_equal(decoded(found), PICTURE)


def test_a_gifs_frame_lies_on_its_white_canvas():
    content = bytearray(saved(Image.fromarray(GREY), "GIF"))
    content[6:10] = struct.pack("<HH", WIDTH + 5, HEIGHT + 3)
    place = content.index(b",", 13 + 3 * 2 ** ((content[10] & 7) + 1))  # behind the palette
    content[place + 1 : place + 5] = struct.pack("<HH", 4, 2)
    found = images.pixels(bytes(content))
    expected = np.full((HEIGHT + 3, WIDTH + 5, 3), 255, np.uint8)
    expected[2 : 2 + HEIGHT, 4 : 4 + WIDTH] = grey3(GREY)
    np.testing.assert_array_equal(found, expected)


def test_a_jpegs_pixels_are_those_that_tensorflow_decodes():
    import tensorflow as tf

    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"quality": 40}):
        content = saved(picture(61, 37), "JPEG", **options)
        np.testing.assert_array_equal(images.pixels(content), tf.io.decode_image(content, channels=3))


def test_every_number_of_bytes_of_a_header_gives_a_sentence_and_no_other_error():
    kinds = [JPEG, with_exif(PNG, exif(6)), *(saved(PICTURE, format) for format in ("BMP", "WEBP", "TIFF", "GIF"))]
    rng = np.random.default_rng(0)
    for content in kinds:
        for trial in range(150):
            wrong = bytearray(content)
            for place in rng.integers(min(len(content), 400), size=1 + trial % 4):
                wrong[place] = rng.integers(256)
            try:
                images.plain(bytes(wrong))
            except ValueError as error:
                assert re.match(r"(is|has) \S", str(error)) and "\n" not in str(error)


def test_an_image_file_is_sized_before_it_is_read(tmp_path, monkeypatch):
    image = tmp_path / "a.jpg"
    image.write_bytes(b"content")
    assert images.read_image(image) == b"content"
    with image.open("r+b") as file:
        file.truncate(3 * 2**30)  # takes no room on the disk
    tracemalloc.start()
    with pytest.raises(ValueError, match="has 3221225472 bytes; 268435456 are allowed"):
        images.read_image(image)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", "/dev/zero"):
        with pytest.raises(ValueError, match="is not a file"):
            images.read_image(path)
    with pytest.raises(OSError):
        images.read_image(tmp_path)


def test_a_damaged_tiff_gives_its_sentence_and_no_warning(tmp_path):
    """In a process of its own, for pytest sets other filters of warnings."""
    bits, size = struct.pack("<HHI", 258, 3, 3), struct.pack("<HHI", 258, 3, 10**6)  # a tag, its type, its count
    sound = saved(picture(), "TIFF")
    assert bits in sound
    (tmp_path / "damaged.tiff").write_bytes(sound.replace(bits, size))
    code = "import sys; from tfds_builders import images; images.plain(open(sys.argv[1], 'rb').read())"
    line = [sys.executable, "-c", code, str(tmp_path / "damaged.tiff")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert "ValueError: " in done.stderr and "Warning" not in done.stderr
