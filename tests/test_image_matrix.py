"""One image, one embedding: formats x modes x orientations x sizes, by every way into the package.

`pytest -n 0 -s tests/test_image_matrix.py` prints how many pairs were compared, and the largest difference.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import METHODS, SIZE
from odd_images import INVERSE, bmp, chunk, exif, picture, png, saved, stored, with_exif
from PIL import Image

import tfds_builders
from export import deployment
from export.client import Client
from export.limits import Limits
from export.served_models import ServedModels
from tf_reid import config as configuration
from tf_reid.data.records import load_records
from tf_reid.encoders import loading
from tf_reid.encoders.servable import Servable
from tf_reid.evaluation import extraction
from tf_reid.gallery import embedding
from tf_reid.web.bounded_decoding import Decoder
from tfds_builders import images

SIZES = [(1, 1), (33, 17), (80, 50), SIZE]
SUFFIXES = (".jpg", ".png", ".webp", ".tif", ".bmp", ".gif")  # they say nothing: each file has one by turns
ORIENTATIONS = range(1, 9)


def files_of(image):
    """Yield (kind, file, the RGB picture that it shows, whether it is without loss)."""
    height, width = image.shape[:2]
    rows = [row.tobytes() for row in image]
    alpha = np.linspace(0, 255, height * width).astype(np.uint8).reshape(height, width, 1)
    rgba = np.concatenate([image, alpha], axis=2)
    seen = np.floor(image * (alpha / 255.0) + 255 * (1 - alpha / 255.0) + 0.5).astype(np.uint8)
    grey = np.asarray(Image.fromarray(image).convert("L"))
    grey3 = np.repeat(grey[..., None], 3, axis=2)
    bits = (grey > 128).astype(np.uint8) * 255
    bits3 = np.repeat(bits[..., None], 3, axis=2)
    colours = Image.fromarray(image).quantize(16)
    of_palette = np.asarray(colours.convert("RGB"))
    index = np.asarray(colours)
    holes = np.where((index == index[0, 0])[..., None], 255, of_palette).astype(np.uint8)
    palette = (colours.getpalette() + 768 * [0])[:48]
    bgr0 = np.concatenate([np.reshape(palette, (16, 3))[:, ::-1], np.zeros((16, 1), int)], axis=1).astype(np.uint8)
    bgra = rgba[..., [2, 1, 0, 3]]
    other = Image.fromarray(255 - image)

    for options in ({"subsampling": 0}, {"subsampling": 0, "progressive": True}):
        yield f"JPEG {options}", saved(image, "JPEG", quality=98, **options), image, False
    yield "JPEG, grey", saved(grey, "JPEG", quality=98), grey3, False
    cmyk = Image.fromarray(image).convert("CMYK")
    yield "JPEG, CMYK", saved(cmyk, "JPEG", quality=98, subsampling=0), np.asarray(cmyk.convert("RGB")), False
    for orientation in ORIENTATIONS:
        for order in "<>":
            turned = saved(stored(image, orientation), "JPEG", quality=98, subsampling=0)
            yield f"JPEG, {orientation} {order}", with_exif(turned, exif(orientation, order)), image, False

    yield "PNG", saved(image, "PNG"), image, True
    yield "PNG, bytes behind", saved(image, "PNG") + b"bytes", image, True
    yield "PNG, RGBA", saved(rgba, "PNG"), seen, True
    yield "PNG, grey", saved(grey, "PNG"), grey3, True
    yield "PNG, grey of 16 bits", saved(Image.fromarray(grey.astype(np.uint16) * 256 + 77), "PNG"), grey3, True
    sixteen = (image.astype(np.uint16) * 256 + 99).astype(">u2")
    yield "PNG, 16 bits", png([row.tobytes() for row in sixteen], width, 16, 2), image, True
    yield "PNG, 1 bit", saved(Image.fromarray(bits).convert("1"), "PNG"), bits3, True
    yield "PNG, palette", saved(colours, "PNG"), of_palette, True
    yield "PNG, palette and holes", saved(colours, "PNG", transparency=int(index[0, 0])), holes, True
    key = chunk(b"tRNS", np.array([999, 999, 999], ">u2").tobytes())
    yield "PNG, a colour that is not there", png(rows, width, 8, 2, key), image, True
    yield "PNG, animated", saved(image, "PNG", save_all=True, append_images=[other]), image, True
    for orientation in ORIENTATIONS:
        yield f"PNG, {orientation}", with_exif(saved(stored(image, orientation), "PNG"), exif(orientation)), image, True
        data = exif(orientation, ">")
        yield f"PNG, RGBA, {orientation}", with_exif(saved(stored(rgba, orientation), "PNG"), data), seen, True

    yield "BMP", saved(image, "BMP"), image, True
    yield "BMP, from the top", bmp([row.tobytes() for row in image[..., ::-1]], width, 24, top_down=True), image, True
    yield "BMP, 8 bits", bmp([row.tobytes() for row in index], width, 8, bgr0.tobytes()), of_palette, True
    yield "BMP, 1 bit", saved(Image.fromarray(bits).convert("1"), "BMP"), bits3, True
    yield "BMP, grey", saved(grey, "BMP"), grey3, True
    yield "BMP, 32 bits", bmp([row.tobytes() for row in bgra], width, 32), image, True
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    yield "BMP, alpha", bmp([row.tobytes() for row in bgra], width, 32, masks=masks), seen, True

    yield "WebP, lossy", saved(image, "WEBP", quality=100), image, False
    yield "WebP", saved(image, "WEBP", lossless=True), image, True
    yield "WebP, RGBA", saved(rgba, "WEBP", lossless=True, exact=True), seen, True
    more = {"lossless": True, "save_all": True, "append_images": [other]}
    yield "WebP, animated", saved(image, "WEBP", **more), image, True
    for orientation in ORIENTATIONS:
        content = saved(stored(image, orientation), "WEBP", lossless=True, exif=exif(orientation))
        yield f"WebP, {orientation}", content, image, True

    yield "TIFF, RGBA", saved(rgba, "TIFF"), seen, True
    yield "TIFF, grey", saved(grey, "TIFF"), grey3, True
    yield "TIFF, palette", saved(colours, "TIFF"), of_palette, True
    yield "TIFF, CMYK", saved(cmyk, "TIFF"), np.asarray(cmyk.convert("RGB")), True
    yield "TIFF, two pages", saved(image, "TIFF", save_all=True, append_images=[other]), image, True
    for orientation in ORIENTATIONS:
        content = saved(stored(image, orientation), "TIFF", compression="tiff_lzw", tiffinfo={274: orientation})
        yield f"TIFF, {orientation}", content, image, True

    yield "GIF", saved(colours, "GIF"), of_palette, True
    yield "GIF, animated", saved(colours, "GIF", save_all=True, append_images=[other]), of_palette, True
    yield "GIF, holes", saved(colours, "GIF", transparency=int(index[0, 0])), holes, True


CASES = [
    (f"{kind}, {size[1]} x {size[0]}", *rest)
    for size in SIZES
    for kind, *rest in files_of(picture(*size, seed=5))
]  # fmt: skip
KINDS, FILES, PICTURES, LOSSLESS = (list(column) for column in zip(*CASES, strict=True))
PLAIN = [saved(image, "PNG") for image in PICTURES]
IN_GRAPH = [number for number, kind in enumerate(KINDS) if not kind.startswith(("TIFF", "GIF"))]


@pytest.fixture(scope="module")
def network():
    """Its random weights see colour and place: a turned picture, or one in other colours, has another embedding."""
    keras.utils.set_random_seed(3)
    seen = keras.Input((*SIZE, 3))
    small = keras.layers.AveragePooling2D(4)(seen)
    return keras.Model(seen, keras.layers.Dense(16, use_bias=False)(keras.layers.Flatten()(small)))


@pytest.fixture(scope="module")
def encoder(network, tmp_path_factory):
    config = configuration.load(
        "configs/identity.yaml", [f"data.image_size={list(SIZE)}", "evaluate.flip=false"], METHODS
    )
    return loading.of_networks({"image": network}, config, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def served(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    servable = Servable(network, SIZE, False, unit=True)
    tf.saved_model.save(servable, str(folder / "reid" / "1"), signatures=servable.signatures())
    deployment.write(folder)
    return ServedModels(folder, Limits(images=len(FILES)))


@pytest.fixture(scope="module")
def in_folders(tmp_path_factory):
    """Paths of the files, each with a suffix that says nothing, and of the plain ones."""

    def write(contents, suffix_of):
        folder = tmp_path_factory.mktemp("files")
        paths = []
        for number, content in enumerate(contents):
            name = f"{number % 8 + 1:04d}_c{number // 8 % 2 + 1}_{number:04d}{suffix_of(number)}"
            paths.append(folder / name)
            paths[-1].write_bytes(content)
        return paths

    return write(FILES, lambda number: SUFFIXES[number % len(SUFFIXES)]), write(PLAIN, lambda _: ".png")


def compared(surface, found, expected, numbers):
    """Assert that two arrays of embeddings are equal, and print how many and how far they are apart."""
    found, expected = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (found, expected))
    lossless = np.array([LOSSLESS[number] for number in numbers])
    apart = np.abs(found - expected).max(axis=1)
    cosine = (found.astype(np.float64) * expected).sum(axis=1)
    print(
        f"The embedding matrix, {surface}: {lossless.sum()} lossless pairs, largest difference "
        f"{apart[lossless].max():g}; {(~lossless).sum()} lossy pairs, least cosine {cosine[~lossless].min():.5f}"
    )
    assert [KINDS[number] for number, far in zip(numbers, apart, strict=True) if LOSSLESS[number] and far > 0] == []
    assert [KINDS[number] for number, near in zip(numbers, cosine, strict=True) if near <= 0.999] == []


def test_by_the_data_set_and_evaluation(in_folders, network, tmp_path):
    found = []
    for paths in in_folders:
        spec = {"name": "folder", "root": paths[0].parent, "pattern": r"(?P<person>\d+)_c(?P<camera>\d)_.*"}
        builder = tfds_builders.prepare(tfds_builders.builder(spec, data_dir=tmp_path / "data"))
        records = load_records(builder)
        number = [int(name.rsplit("_", 1)[1].split(".")[0]) for name in records.file]
        assert sorted(number) == list(range(len(FILES)))
        found.append(extraction.extract(network, records.take(np.argsort(number)), SIZE))
    compared("data set and evaluation", *found, range(len(FILES)))


def test_by_the_python_api_and_search(in_folders, encoder):
    odd, plain = in_folders
    expected = encoder.embed(plain)
    np.testing.assert_array_equal(encoder.embed(PICTURES), expected)
    compared("Encoder.embed of files", encoder.embed(odd), expected, range(len(FILES)))
    compared("Encoder.embed of bytes", encoder.embed(FILES), expected, range(len(FILES)))
    found, errors = embedding.embed(encoder, odd, "image")
    assert not errors
    compared("search", found, expected, range(len(FILES)))


def test_by_the_exported_graph(served):
    graph = served.find("reid").endpoints["serving_default"]
    expected = graph(image_bytes=tf.constant([PLAIN[number] for number in IN_GRAPH]))["embedding"].numpy()
    found = graph(image_bytes=tf.constant([FILES[number] for number in IN_GRAPH]))["embedding"].numpy()
    compared("exported graph", found, expected, IN_GRAPH)


def test_by_the_server_and_by_the_client(served, in_folders):
    model, decoder = served.find("reid"), Decoder()

    def answer(contents):
        plain = [decoder.plain(content) for content in contents]
        (answered,) = served.answer([served.check(model, "", {"image_bytes": plain})])
        return answered["embedding"]

    expected = answer(PLAIN)
    compared("server", answer(FILES), expected, range(len(FILES)))
    client = Client("localhost:1", "reid", batch_size=len(FILES))
    client._ask = answer
    compared("client, of files", np.stack(list(client.embed(in_folders[0]))), expected, range(len(FILES)))
    np.testing.assert_array_equal(np.stack(list(client.embed_frames(PICTURES))), expected)
    in_bgr = (image[..., ::-1] for image in PICTURES)
    np.testing.assert_array_equal(np.stack(list(client.embed_frames(in_bgr, bgr=True))), expected)
    # As a server without Python gets them: what the client prepares, by the graph alone.
    graph = model.endpoints["serving_default"]
    client._ask = lambda contents: graph(image_bytes=tf.constant(contents))["embedding"].numpy()
    compared("client and graph", np.stack(list(client.embed(in_folders[0]))), expected, range(len(FILES)))


def test_a_picture_that_is_turned_or_in_other_colours_has_another_embedding(encoder):
    image = picture(*SIZES[2], seed=5)
    others = [images.upright(image, orientation) for orientation in ORIENTATIONS[1:]]
    others += [image[..., ::-1], 255 - image, np.asarray(Image.fromarray(image).convert("L").convert("RGB"))]
    distances = encoder.distances([image], others)
    assert distances.min() > 0.01 and set(INVERSE) <= set(ORIENTATIONS)
