"""Requests to exported models: versions are found, requests checked and answered in batches, alone where one is bad."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, make_records
from PIL import Image

from export import deployment
from export.deployment import Served
from export.limits import Limits, RequestError
from export.served_models import Request, ServedModels
from tf_reid.config import ConfigError
from tf_reid.encoders.servable import ImageServable, Servable

GOOD = make_records([1, 1, 2, 2], [1, 2, 1, 2], size=(40, 30)).images.tolist()
LIMITS = Limits(image_bytes=20_000, pixels=10_000, images=3)


@pytest.fixture
def folder(tmp_path, encoder):
    """Two versions of one model."""
    for version in (1, 2):
        servable = Servable(encoder, SIZE, False, unit=version == 1)
        tf.saved_model.save(servable, str(tmp_path / "reid" / str(version)), signatures=servable.signatures())
    deployment.write(tmp_path)
    return tmp_path


@pytest.fixture
def served(folder):
    (folder / "serving" / "models.config").write_text(deployment.models_config({"reid": {"stable": 1, "canary": 2}}))
    return ServedModels(folder, LIMITS)


def image(width, height, kind="PNG"):
    written = io.BytesIO()
    noise = np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(written, kind)
    return written.getvalue()


def test_versions_are_found_by_number_label_and_age(served):
    assert served.find("reid").version == 2
    assert served.find("reid", version=1).version == served.find("reid", label="stable").version == 1
    assert served.find("reid", label="canary").version == 2


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"name": "other"}, "no model 'other'; the models are reid"),
        ({"version": 7}, "no version 7 here; its versions are 1, 2"),
        ({"label": "old"}, "no label 'old'; its labels are "),
    ],
)
def test_a_missing_model_version_or_label_is_not_found(served, named, message):
    with pytest.raises(RequestError, match=message) as error:
        served.find(**{"name": "reid", **named})
    assert error.value.code == "NOT_FOUND"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"bytes": GOOD}, "takes 'image_bytes', not 'bytes'"),
        ({}, "not nothing"),
        ({"image_bytes": GOOD, "k": GOOD}, "takes 'image_bytes', not 'image_bytes', 'k'"),
        ({"image_bytes": GOOD}, "1 to 3 images, not 4"),
        ({"image_bytes": []}, "1 to 3 images, not 0"),
        ({"image_bytes": np.zeros((2, 3))}, "must be a list of bytes"),
        ({"image_bytes": ["text"]}, "must be a list of bytes"),
        ({"image_bytes": [b""]}, "Image 0 is empty"),
        ({"image_bytes": [GOOD[0], b"no image"]}, "Image 1 is not a JPEG, PNG, BMP, WebP, TIFF or GIF image"),
        ({"image_bytes": [bytes(20_001)]}, "Image 0 has 20001 bytes; 20000 are allowed"),
        ({"image_bytes": [image(101, 100, "JPEG")]}, "Image 0 has 101 x 100 pixels; 10000 are allowed"),
    ],
)
def test_a_bad_request_is_refused_with_the_reason(served, inputs, message):
    with pytest.raises(RequestError, match=message) as error:
        served.check(served.find("reid"), "", inputs)
    assert error.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("images", [np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, *SIZE, 3), np.float32), [b"bytes"]])
def test_pixels_must_be_of_the_models_size_and_type(served, images):
    with pytest.raises(RequestError, match=r"images must be uint8 of shape \[None, 32, 16, 3\]"):
        served.check(served.find("reid"), "tensor", {"images": images})
    with pytest.raises(RequestError, match="no endpoint 'other'; the endpoints are"):
        served.check(served.find("reid"), "other", {"images": images})


def test_requests_are_answered_in_batches_each_with_its_own(served):
    one, two = served.find("reid", 1), served.find("reid", 2)
    pixels = np.zeros((2, *SIZE, 3), np.uint8)
    requests = [
        Request(one, "serving_default", {"image_bytes": GOOD[:1]}),
        Request(two, "serving_default", {"image_bytes": GOOD[:2]}),
        Request(one, "serving_default", {"image_bytes": GOOD[1:4]}),
        Request(one, "tensor", {"images": pixels}),
    ]
    answers = served.answer(requests)
    assert [len(answer["embedding"]) for answer in answers] == [1, 2, 3, 2]
    for request, answer in zip(requests, answers, strict=True):
        (alone,) = served.answer([request])
        np.testing.assert_allclose(answer["embedding"], alone["embedding"], atol=1e-5)
    assert np.linalg.norm(answers[0]["embedding"]) == pytest.approx(1.0) != np.linalg.norm(answers[1]["embedding"][0])


def test_a_bad_image_fails_its_own_request_only(served):
    model = served.find("reid")
    truncated = image(90, 90, "JPEG")[:-2000]
    requests = [served.check(model, "", {"image_bytes": [content]}) for content in (GOOD[0], truncated, GOOD[1])]
    good, bad, other = served.answer(requests)
    assert isinstance(bad, RequestError) and bad.code == "INVALID_ARGUMENT"
    assert "cannot be decoded: jpeg" in str(bad)
    for answer, request in ((good, requests[0]), (other, requests[2])):
        (alone,) = served.answer([request])
        np.testing.assert_allclose(answer["embedding"], alone["embedding"], atol=1e-5)


def test_images_are_made_of_several(tmp_path):
    servable = ImageServable(("first", "second"), lambda first, second: 0.5 * (first + second), SIZE)
    tf.saved_model.save(servable, str(tmp_path / "mean" / "1"), signatures=servable.signatures())
    deployment.write(tmp_path)
    served = ServedModels(tmp_path)
    model = served.find("mean")
    dark, light = (np.full((1, *SIZE, 3), value, np.uint8) for value in (10, 30))
    request = served.check(model, "tensor", {"first": dark, "second": light})
    assert (served.answer([request])[0]["images"] == 20).all()
    request = served.check(model, "", {"first_bytes": GOOD[:2], "second_bytes": GOOD[1:3]})
    encoded = served.answer([request, request])[1]["image_bytes"]
    sources = [np.asarray(tf.io.decode_image(image), np.float32) for image in GOOD[:3]]
    resized = [tf.image.resize(image, SIZE, antialias=True).numpy().round() for image in sources]
    np.testing.assert_allclose(tf.io.decode_png(encoded[1]).numpy(), (resized[1] + resized[2]) / 2, atol=1.01)
    for inputs, message in (
        ({"first_bytes": GOOD[:2]}, "takes 'first_bytes' and 'second_bytes', not 'first_bytes'"),
        ({"first_bytes": GOOD[:2], "second_bytes": GOOD[:1]}, "must hold equally many images"),
    ):
        with pytest.raises(RequestError, match=message):
            served.check(model, "", inputs)


def test_a_folder_without_models_or_with_one_missing_is_refused(tmp_path, folder):
    with pytest.raises(ConfigError, match=r"has no exported model; make one with python -m export"):
        ServedModels(Path(__file__).parent)
    (folder / "reid" / "2" / "saved_model.pb").unlink()
    with pytest.raises(ConfigError, match=r"models.config names .*reid/2, which is not there"):
        ServedModels(folder)


def test_labels_that_move_load_only_what_is_new(served):
    second = served.find("reid", 2)
    moved = served.moved({"reid": Served([2], {"stable": 2})})
    assert moved.find("reid", label="stable") is second and moved.versions_of("reid") == [2]
    with pytest.raises(RequestError, match="no version 1 here") as error:
        moved.find("reid", version=1)
    assert error.value.reason == "unknown_version"
    moved.warm_up(4, served)
    assert served.find("reid", label="stable").version == 1  # what was served before answers as before
    both = moved.moved(served.served)
    assert both.find("reid", label="canary") is second and both.find("reid", label="stable").version == 1


def test_a_broken_models_config_is_refused(folder):
    config = folder / "serving" / "models.config"
    for text in ("model_config_list {", deployment.models_config({"reid": {"stable": 7}})):
        config.write_text(text)
        with pytest.raises(ConfigError, match=r"cannot be read|reid/7, which is not there"):
            deployment.served_models(folder)
