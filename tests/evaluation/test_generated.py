"""Judging what a run makes: which images are compared with which, and what is written."""

import csv
import dataclasses
import json
from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, build, make_records

from tf_reid import config as configuration
from tf_reid.config import ConfigError
from tf_reid.data import pipeline
from tf_reid.evaluation import generated
from tf_reid.methods import METHODS
from tf_reid.methods.base import ReIDModel, Stage
from tf_reid.methods.presentation import Generated, Presentation
from tf_reid.metrics.protocols import trials

RECORDS = make_records([1, 1, 2, 2, 3, 3, 4, 4] * 2, [1, 2] * 8)
IDENTITIES = 4


class DarkImages(Presentation):
    """Every image, darker; `across` may be set."""

    def __init__(self, model):
        super().__init__(model)
        self.translators = {}

    def generated(self, batch):
        images = tf.reshape(batch["source"], (-1, *SIZE, 3))
        identities = tf.reshape(batch["source_identity"], (-1,)) if self.model.labelled else None
        return {"darker": Generated(images - self.model.darker, images, identities)}

    def across(self):
        return self.translators


class Darkening(ReIDModel):
    """Makes every image darker; its features are the images' mean colours."""

    STAGES: ClassVar = {"joint": Stage(players=(), sampler="pairs")}

    def __init__(self, darker, labelled=True):
        super().__init__(SIZE, IDENTITIES, 0)
        self.darker, self.labelled = darker, labelled
        self.shown = DarkImages

    def presentation(self):
        return self.shown(self)

    def encoders(self):
        images = keras.Input((*SIZE, 3))
        return {"image": keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))}


@pytest.fixture
def config(tmp_path):
    (tmp_path / "identity.yaml").write_text(
        "data: {source: synthetic_pedestrians/street, image_size: [32, 16]}\n"
        "method: {name: identity, backbone: small, weights: null}\n"
        "stages: {classifier: {steps: 1, batch_size: 8, optimizers: {classifier: {name: sgd, learning_rate: 0.1}}}}\n"
    )
    found = configuration.load(str(tmp_path / "identity.yaml"), [], METHODS)
    found.stages = {"joint": found.stages["classifier"]}
    return found


def test_images_are_judged_against_those_they_are_made_of(tmp_path, config, capsys):
    judged = [generated.judge(Darkening(by), config, {"source": RECORDS}, tmp_path, subsets=3) for by in (0.0, 0.5)]
    same, darker = (results["darker"] for results in judged)
    name = f"encoder of {tmp_path.name}"
    assert same[f"FID ({name})"] == pytest.approx(0.0, abs=1e-5)
    assert darker[f"FID ({name})"] > 0.2 and darker[f"KID x 1000 ({name})"] > same[f"KID x 1000 ({name})"]
    assert 0.0 < same["SSIM within an identity"] < 1.0 and same["images"] == 32  # an epoch of pairs
    real = judged[1]["real"]
    assert min(one["KID spread x 1000"] for one in (same, darker, real)) > 1e-6  # the subsets differ
    assert json.loads((tmp_path / "images.json").read_text()) == {"darker": darker, "real": real}
    assert "darker: FID (encoder of" in capsys.readouterr().out


def test_real_images_stand_beside_in_two_halves_without_an_image_in_common(tmp_path, config, monkeypatch, capsys):
    compared = []
    monkeypatch.setattr(generated.image_quality, "frechet_distance", lambda *sides: compared.append(sides) or 1.0)
    real = generated.judge(Darkening(0.0), config, {"source": RECORDS}, tmp_path, subsets=2)["real"]
    halves = [set(map(tuple, side)) for side in compared[-1]]
    assert [len(half) for half in halves] == [8, 8] and not halves[0] & halves[1]
    assert real["images"] == 8 and 0.0 < real["SSIM within an identity"] < 1.0
    assert "The rows are of different numbers of images" in capsys.readouterr().out  # 8 and 32


def test_real_images_are_as_many_as_the_generated_ones_where_there_are_enough(tmp_path, config, monkeypatch, capsys):
    monkeypatch.setattr(generated, "MOST", 2)  # whole batches are judged, of 8 images
    found = generated.judge(Darkening(0.0), config, {"source": RECORDS}, tmp_path, subsets=2)
    assert found["darker"]["images"] == found["real"]["images"] == 8
    assert "different numbers" not in capsys.readouterr().out


def test_generated_images_are_written_as_a_data_set(tmp_path, config):
    records = make_records([7, 7, 8, 8, 9, 9], [1, 2] * 3)
    count = generated.write_images(Darkening(0.0), config, {"source": records}, tmp_path / "made")
    table = (tmp_path / "made" / "labels.csv").read_text().splitlines()
    assert table[0] == "path,person,camera,split" and len(table) == count + 1 > 6
    images = pipeline.to_uint8(pipeline.all_images(records, SIZE))
    known = {image.tobytes(): person for image, person in zip(images, records.identity, strict=True)}
    for row in table[1:]:
        path, person, camera, split = row.split(",")
        pixels = tf.io.decode_png((tmp_path / "made" / path).read_bytes()).numpy()
        assert known[pixels.tobytes()] == int(person) and (camera, split) == ("generated", "train")
    with pytest.raises(ConfigError, match=r"--write-images: .*made exists already"):
        generated.write_images(Darkening(0.0), config, {"source": records}, tmp_path / "made")


def test_written_images_have_the_users_own_labels(tmp_path, config):
    labels = {1: "Anna, of mine", 2: "Ben, of mine", 3: "Cem, of mine"}
    records = dataclasses.replace(make_records([1, 1, 2, 2, 3, 3], [1, 2] * 3), identity_labels=labels)
    generated.write_images(Darkening(0.0), config, {"source": records}, tmp_path / "made")
    with (tmp_path / "made" / "labels.csv").open(newline="") as table:
        assert set() < {row["person"] for row in csv.DictReader(table)} <= set(labels.values())


def test_a_command_that_was_killed_leaves_nothing_that_the_next_one_refuses(tmp_path, config, monkeypatch):
    def write():
        return generated.write_images(Darkening(0.0), config, {"source": RECORDS}, tmp_path / "made")

    def killed(*_given):
        assert not (tmp_path / "made").exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(generated, "write_text", killed)
        context.setattr(generated.shutil, "rmtree", lambda *_given, **_named: None)  # as if by SIGKILL
        with pytest.raises(KeyboardInterrupt):
            write()
    assert next(tmp_path.glob(".made*")) and write() == len(list((tmp_path / "made").rglob("*.png")))
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["made"]


def test_images_of_nobody_have_no_likeness_within_an_identity(tmp_path, config):
    found = generated.judge(Darkening(0.0, labelled=False), config, {"source": RECORDS}, tmp_path, subsets=2)
    assert "SSIM within an identity" not in found["darker"]


def test_a_method_that_makes_no_image_is_refused(tmp_path, config):
    model = Darkening(0.0)
    model.shown = Presentation
    with pytest.raises(ConfigError, match="generates no images"):
        generated.judge(model, config, {"source": RECORDS}, tmp_path)
    with pytest.raises(ConfigError, match="translates no image to another view"):
        generated.across_views(model, config, RECORDS, None, tmp_path)


def test_features_of_two_views_judge_no_image(tmp_path, config):
    model = Darkening(0.0)
    model.encoders = lambda: {"probe": None, "gallery": None}
    with pytest.raises(ConfigError, match="an encoder for each view or modality"):
        generated.judge(model, config, {"source": RECORDS}, tmp_path)


def test_every_image_of_the_prior_is_another(config):
    found = generated._generate(build("crossgan"), config, {"source": RECORDS})
    for title in ("g1(z)", "g2(z)"):
        assert len(np.unique(found[title][0].reshape(8, -1), axis=0)) == 8


def test_features_of_another_size_judge_no_image(tmp_path, config, monkeypatch):
    other = build("identity")
    other.image_size = (64, 32)
    monkeypatch.setattr(generated.run_folder, "load_run", lambda folder: None)
    monkeypatch.setattr(generated.run_folder, "restored", lambda folder, settings: (other, None))
    with pytest.raises(ConfigError, match=r"takes images of \(64, 32\).*makes images of \(32, 16\)"):
        generated.judge(Darkening(0.0), config, {"source": RECORDS}, tmp_path, extractor=str(tmp_path))


def test_queries_in_the_gallerys_view_are_compared_with_their_identities(tmp_path, config, capsys):
    """A method that knows each query's truth agrees with it, the query itself and others do not."""
    # The first gallery image of a query's identity is of the query's own camera, and is passed over.
    records = make_records([1, 1, 1, 2, 2, 3, 3], [1] + [1, 2] * 3, ["gallery"] + ["query", "gallery"] * 3)
    (trial,) = trials(records.identity, records.camera, records.split, {"kind": "market"}, file=records.file)
    images = pipeline.all_images(records, SIZE)
    truth = {
        round((float(query[0, 0, 0]) + 1) * 127.5): gallery
        for query, gallery in zip(images[1::2], images[2::2], strict=True)
    }

    def looked_up(queries):
        return np.stack([truth[round((float(query[0, 0, 0]) + 1) * 127.5)] for query in queries])

    def knows(queries):
        return tf.numpy_function(looked_up, [queries], tf.float32)

    model = Darkening(0.0)
    shown = DarkImages(model)
    shown.translators = {"known": knows, "nearly": lambda queries: knows(queries) - 4.0 / 127.5}
    model.shown = lambda model: shown
    found = generated.across_views(model, config, records, trial, tmp_path)
    assert found["known"] == {"distance": 0.0, "agree exactly, %": 100.0, "agree within 8, %": 100.0}
    nearly = found["nearly"]
    assert nearly["agree exactly, %"] == 0.0 and nearly["agree within 8, %"] == 100.0
    pixels = np.prod((*SIZE, 3))
    assert nearly["distance"] == pytest.approx(4.0 / 255 * pixels**0.5, rel=1e-3)
    expected = np.linalg.norm((images[1::2] - images[2::2]).reshape(3, -1) / 2.0, axis=1).mean()
    assert found["the query itself"]["distance"] == pytest.approx(expected, rel=1e-4)
    from_mean = np.linalg.norm((images[2::2] - images[2::2].mean(axis=0)).reshape(3, -1) / 2.0, axis=1).mean()
    assert found["mean of the gallery"]["distance"] == pytest.approx(from_mean, rel=1e-4)
    assert found["another identity of the gallery"]["agree within 8, %"] < 1.0
    assert json.loads((tmp_path / "across.json").read_text()) == found
    assert "3 queries in the gallery's view" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no query has a gallery image of its identity by another camera"):
        generated.across_views(model, config, dataclasses.replace(records, camera=np.ones(7, int)), trial, tmp_path)
