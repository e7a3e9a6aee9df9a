"""What is asked of exported models: found, checked, answered together; what is wrong takes nobody else's answer."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, make_records
from PIL import Image

from export import deployment
from export.served import Limits, Refused, Served
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
    (folder / "serving" / "models.config").write_text(
        deployment.files({"reid": [1, 2]}, {"reid": {"stable": 1}})["models.config"]
    )
    return Served(folder, LIMITS)


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
    ("place", "said"),
    [
        ({"name": "other"}, "no model 'other', but reid"),
        ({"version": 7}, "no version 7 here, but 1, 2"),
        ({"label": "old"}, "no label 'old', but "),
    ],
)
def test_what_is_not_there_is_named(served, place, said):
    with pytest.raises(Refused, match=said) as refused:
        served.find(**{"name": "reid", **place})
    assert refused.value.code == "NOT_FOUND"


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"bytes": GOOD}, "takes 'image_bytes', not 'bytes'"),
        ({}, "not nothing"),
        ({"image_bytes": GOOD, "k": GOOD}, "takes 'image_bytes', not 'image_bytes', 'k'"),
        ({"image_bytes": GOOD}, "1 to 3 images, not 4"),
        ({"image_bytes": []}, "1 to 3 images, not 0"),
        ({"image_bytes": np.zeros((2, 3))}, "must be a list of bytes"),
        ({"image_bytes": ["text"]}, "must be a list of bytes"),
        ({"image_bytes": [b""]}, "Image 0 is not a JPEG, PNG, BMP, WEBP image"),
        ({"image_bytes": [GOOD[0], b"GIF89a" + bytes(20)]}, "Image 1 is not a"),
        ({"image_bytes": [bytes(20_001)]}, "Image 0 has 20001 bytes; 20000 are allowed"),
        ({"image_bytes": [image(101, 100, "JPEG")]}, "Image 0 has 101 x 100 pixels; 10000 are allowed"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(served, inputs, said):
    with pytest.raises(Refused, match=said) as refused:
        served.check(served.find("reid"), "", inputs)
    assert refused.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("images", [np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, *SIZE, 3), np.float32), [b"bytes"]])
def test_pixels_must_be_of_the_models_size_and_type(served, images):
    with pytest.raises(Refused, match=r"images must be uint8 of shape \[None, 32, 16, 3\]"):
        served.check(served.find("reid"), "tensor", {"images": images})
    with pytest.raises(Refused, match="no endpoint 'other', but"):
        served.check(served.find("reid"), "other", {"images": images})


def test_requests_are_answered_together_each_with_its_own(served):
    one, two = served.find("reid", 1), served.find("reid", 2)
    pixels = np.zeros((2, *SIZE, 3), np.uint8)
    asked = [
        (one, "", {"image_bytes": GOOD[:1]}),
        (two, "", {"image_bytes": GOOD[:2]}),
        (one, "serving_default", {"image_bytes": GOOD[1:4]}),
        (one, "tensor", {"images": pixels}),
    ]
    answers = served.answer(asked)
    assert [len(answer["embedding"]) for answer in answers] == [1, 2, 3, 2]
    for (model, endpoint, values), answer in zip(asked, answers, strict=True):
        (alone,) = served.answer([(model, endpoint, values)])
        np.testing.assert_allclose(answer["embedding"], alone["embedding"], atol=1e-5)
    assert np.linalg.norm(answers[0]["embedding"]) == pytest.approx(1.0) != np.linalg.norm(answers[1]["embedding"][0])


def test_a_bad_image_takes_nobody_elses_answer(served):
    model = served.find("reid")
    truncated = image(90, 90, "JPEG")[:-2000]
    asked = [
        (model, "", served.check(model, "", {"image_bytes": [values]})) for values in (GOOD[0], truncated, GOOD[1])
    ]
    good, bad, other = served.answer(asked)
    assert isinstance(bad, Refused) and bad.code == "INVALID_ARGUMENT" and "cannot be decoded: jpeg" in str(bad)
    for answer, values in ((good, GOOD[0]), (other, GOOD[1])):
        np.testing.assert_allclose(
            answer["embedding"], served.answer([(model, "", {"image_bytes": [values]})])[0]["embedding"], atol=1e-5
        )


def test_images_are_made_of_several(tmp_path):
    servable = ImageServable(("first", "second"), lambda first, second: 0.5 * (first + second), SIZE)
    tf.saved_model.save(servable, str(tmp_path / "mean" / "1"), signatures=servable.signatures())
    deployment.write(tmp_path)
    served = Served(tmp_path)
    model = served.find("mean")
    dark, light = (np.full((1, *SIZE, 3), value, np.uint8) for value in (10, 30))
    asked = served.check(model, "tensor", {"first": dark, "second": light})
    assert (served.answer([(model, "tensor", asked)])[0]["images"] == 20).all()
    asked = served.check(model, "", {"first_bytes": GOOD[:2], "second_bytes": GOOD[1:3]})
    made = served.answer([(model, "", asked), (model, "", asked)])[1]["image_bytes"]
    truth = [np.asarray(tf.io.decode_image(image), np.float32) for image in GOOD[:3]]
    found = tf.io.decode_png(made[1]).numpy()
    expected = [tf.image.resize(image, SIZE, antialias=True).numpy().round() for image in truth]
    np.testing.assert_allclose(found, (expected[1] + expected[2]) / 2, atol=1.01)
    for inputs, said in (
        ({"first_bytes": GOOD[:2]}, "takes 'first_bytes' and 'second_bytes', not 'first_bytes'"),
        ({"first_bytes": GOOD[:2], "second_bytes": GOOD[:1]}, "must hold as many images each"),
    ):
        with pytest.raises(Refused, match=said):
            served.check(model, "", inputs)


def test_a_folder_without_models_or_with_one_missing_is_told(tmp_path, folder):
    with pytest.raises(ConfigError, match=r"has no exported model; make one with python -m export"):
        Served(Path(__file__).parent)
    (folder / "reid" / "2" / "saved_model.pb").unlink()
    with pytest.raises(ConfigError, match=r"models.config names .*reid/2, which is not there"):
        Served(folder)
