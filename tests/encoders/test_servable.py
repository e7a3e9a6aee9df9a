"""What is served gives what evaluation gives, from bytes as from pixels."""

import cv2
import numpy as np
import pytest
import tensorflow as tf
from conftest import METHODS, SIZE, build, make_records

from tf_reid import config as configuration
from tf_reid.data import decoding
from tf_reid.encoders.servable import Servable, digest, servables
from tf_reid.evaluation import extraction

RECORDS = make_records([1, 1, 2, 2], [1, 2, 1, 2], size=(40, 30))


def settings(name, **evaluate):
    changes = ["data.image_size=[32, 16]", *(f"evaluate.{key}={value}" for key, value in evaluate.items())]
    return configuration.load(f"configs/{name}.yaml", changes, METHODS)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("flip", [False, True])
def test_embeddings_are_those_that_are_evaluated(encoder, flip, distance):
    servable = Servable(encoder, SIZE, flip, unit=distance == "cosine")
    expected = extraction.extract(encoder, RECORDS, SIZE, flip=flip)
    if distance == "cosine":
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = servable.from_bytes(tf.constant(RECORDS.images.tolist()))["embedding"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    pixels = np.stack([decoding.decoder(SIZE)(image) for image in RECORDS.images])
    np.testing.assert_allclose(servable.from_pixels(pixels)["embedding"], expected, atol=1e-5)


@pytest.mark.parametrize("kind", [".jpg", ".png", ".bmp", ".webp"])
def test_images_of_every_kind_and_size_are_read(encoder, kind):
    servable = Servable(encoder, SIZE, False, True)
    grey = [cv2.imencode(kind, np.full((h, w, 3), 128, np.uint8))[1].tobytes() for h, w in ((1, 1), (300, 20))]
    found = servable.from_bytes(tf.constant(grey))["embedding"].numpy()
    assert found.shape == (2, 5)
    np.testing.assert_allclose(found[0], found[1], atol=0.02)


@pytest.mark.parametrize(
    "bad", [b"", b"text", cv2.imencode(".jpg", np.zeros((40, 40, 3), np.uint8))[1].tobytes()[:200]]
)
def test_bytes_that_are_no_image_are_an_invalid_argument(encoder, bad):
    servable = Servable(encoder, SIZE, False, True)
    with pytest.raises(tf.errors.InvalidArgumentError):
        servable.from_bytes(tf.constant([RECORDS.images[0], bad]))
    assert servable.from_bytes(tf.constant([RECORDS.images[0]]))["embedding"].shape == (1, 5)


def test_an_empty_batch_gives_no_row(encoder):
    assert Servable(encoder, SIZE, False, True).from_bytes(tf.constant([], tf.string))["embedding"].shape == (0, 5)


@pytest.mark.parametrize("name", METHODS)
def test_every_role_of_every_method_is_served_by_constants_alone(name):
    encoders = build(name).encoders()
    made = servables(encoders, settings(name))
    assert made.keys() == encoders.keys()
    for servable in made.values():
        assert not servable.variables and not servable.from_pixels.get_concrete_function().variables


def test_a_digest_tells_weights_and_settings_apart(encoder):
    encoders = {"image": encoder}
    first = digest(encoders, settings("identity"))
    assert first == digest(encoders, settings("identity"))
    assert first != digest(encoders, settings("identity", distance="euclidean"))
    assert first != digest(encoders, settings("identity", flip="true"))
    encoder.weights[0].assign_add(tf.ones_like(encoder.weights[0]))
    assert first != digest(encoders, settings("identity"))


@pytest.mark.parametrize("unit", [True, False])
def test_a_gallery_inside_the_graph_is_searched_exactly(encoder, unit):
    servable = Servable(encoder, SIZE, False, unit)
    own = servable.from_bytes(tf.constant(RECORDS.images.tolist()))["embedding"].numpy()
    servable.search_in([f"image {number}" for number in range(4)], own, top=3)
    found = servable.signatures()["search"](tf.constant(RECORDS.images[:2].tolist()))
    for number in range(2):
        scores = own @ own[number] if unit else -np.linalg.norm(own - own[number], axis=1)
        order = np.argsort(-scores)[:3]
        assert found["ids"][number].numpy().tolist() == [f"image {place}".encode() for place in order]
        np.testing.assert_allclose(found["scores"][number], scores[order], atol=1e-2 if not unit else 1e-5)


@pytest.mark.parametrize("count", [0, 2])
def test_a_gallery_must_fit_into_a_graph(encoder, monkeypatch, count):
    monkeypatch.setattr("tf_reid.encoders.servable.GALLERY_BYTES", 30)
    with pytest.raises(ValueError, match=f"A gallery of {count} images .* cannot be part of a graph"):
        Servable(encoder, SIZE, False, True).search_in(["a"] * count, np.zeros((count, 5), np.float32), 3)
