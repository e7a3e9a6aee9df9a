"""What an evaluation leaves behind: metrics.json, rank lists, the projector's log, the table."""

import json
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, make_records, stage_configs

from tf_reid import evaluation, splits
from tf_reid.config import Config, Data
from tf_reid.methods import METHODS
from tf_reid.pictures import QUERY_FRAME, RIGHT_FRAME, WRONG_FRAME

PERSON, CAMERA = np.repeat(np.arange(1, 7), 4), np.tile([1, 1, 2, 2], 6)
SPLIT = np.where(PERSON <= 3, "train", np.tile(["query", "gallery", "gallery", "gallery"], 6))
RATES = {"rank1", "rank5", "rank10", "rank20", "mAP", "mAP_trapezoid", "mINP"}
KEYS = RATES | {"queries", "dropped", "gallery", "cmc", "spread", "trials", "protocol", "description"}


def perfect(images):
    """Knows the person by the record's number, which `make_records` paints in red."""
    index = tf.cast(tf.round((images[:, 0, 0, 0] + 1.0) * 127.5), tf.int32)
    return tf.one_hot(tf.gather(tf.constant(PERSON, tf.int32), index), 8)


def blind(images):
    return tf.ones((tf.shape(images)[0], 8))


def model(**encoders):
    """A method, as evaluation sees it."""
    return SimpleNamespace(representations=lambda: {name: {"image": encoder} for name, encoder in encoders.items()})


@pytest.fixture
def config():
    return Config(
        data=Data(source="a", target="b", image_size=list(SIZE)),
        method={"name": "simpgan"},
        stages=stage_configs(METHODS["simpgan"]),
    )


@pytest.fixture(scope="module")
def domains():
    return {domain: make_records(PERSON, CAMERA, SPLIT, name=domain) for domain in ("source", "target")}


def seen(config, domains):
    return splits.training_records(config, domains)


def test_metrics_are_written_by_representation_in_per_cent(tmp_path, config, domains, capsys):
    returned = evaluation.evaluate(
        model(raw=blind, translated=perfect), config, domains, seen(config, domains), tmp_path
    )
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert list(written) == list(returned) == ["raw", "translated"]
    for result in written.values():
        assert set(result) == KEYS
        assert (result["queries"], result["gallery"], result["trials"], result["protocol"]) == (3, 9, 1, "market")
        assert len(result["cmc"]) == 50 and set(result["spread"]) == RATES
    assert all(written["translated"][key] == 100 for key in RATES)
    # Without a difference between images the gallery keeps its order: with its two right images (the third is the
    # query's own camera's, and left out), the first, second and third person's stand at 1 and 2 | 4 and 5 | 7 and 8 ...
    first = np.array([1, 4, 7])  # ... of those 8 images that are not left out
    assert written["raw"]["rank1"] == pytest.approx(100 / 3)
    assert written["raw"]["rank5"] == pytest.approx(200 / 3)
    assert written["raw"]["rank10"] == 100
    assert written["raw"]["mAP"] == pytest.approx(np.mean(100 * (1 / first + 2 / (first + 1)) / 2))
    assert written["raw"]["mINP"] == pytest.approx(np.mean(100 * 2 / (first + 1)))

    printed = capsys.readouterr().out
    assert "target, protocol market, 1 trial(s): 3 queries, 9 gallery images" in printed
    row = next(line for line in printed.splitlines() if line.startswith("translated"))
    assert row.split()[1:] == ["100.0"] * 7
    assert f"tensorboard --logdir {tmp_path}" in printed


def test_every_representation_has_a_rank_list_and_a_projector_log(tmp_path, config, domains):
    evaluation.evaluate(model(raw=blind, translated=perfect), config, domains, seen(config, domains), tmp_path)
    for name in ("raw", "translated"):
        picture = cv2.imread(str(tmp_path / "evaluation" / f"rank_list_{name}.png"))[..., ::-1]
        colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
        assert {RIGHT_FRAME, WRONG_FRAME, QUERY_FRAME} <= colours  # 8 images are shown, of which 2 are right
        folder = tmp_path / "tensorboard" / "embeddings" / name
        assert {path.name for path in folder.iterdir()} > {"features.tsv", "sprite.png", "projector_config.pbtxt"}
        header, *rows = [line.split("\t") for line in (folder / "metadata.tsv").read_text().splitlines()]
        assert header == ["person", "camera", "role", "file"]
        assert [row[2] for row in rows] == ["query"] * 3 + ["gallery"] * 9
        assert len(np.loadtxt(folder / "features.tsv")) == 12
    persons = np.loadtxt(folder / "features.tsv").argmax(axis=1)  # the perfect encoder's
    np.testing.assert_array_equal(persons, [int(row[0]) for row in rows])


def test_the_rank_list_leaves_out_what_the_score_leaves_out(tmp_path, config, domains, monkeypatch):
    shown = {}
    monkeypatch.setattr(
        evaluation.pictures,
        "rank_list",
        lambda query, gallery, order, correct, captions, found: (
            shown.update(correct=correct, captions=captions, found=found) or np.zeros((8, 8, 3), np.uint8)
        ),
    )
    evaluation.evaluate(model(raw=perfect), config, domains, seen(config, domains), tmp_path)
    for caption, found, correct in zip(shown["captions"], shown["found"], shown["correct"], strict=True):
        person, camera = caption.split("\n")
        assert correct[:2].all() and not correct[2:8].any()
        assert all(
            text.startswith(f"{person}\n") and camera not in text and text.endswith("0.000") for text in found[:2]
        )


def test_metrics_over_several_trials_come_with_their_spread(config):
    first = {**dict.fromkeys(RATES, 50.0), "trials": 10, "queries": 3, "gallery": 9, "dropped": 2}
    first |= {"protocol": "folds", "description": "Over ten seeded folds."}
    text = evaluation.table({"raw": first | {"spread": dict.fromkeys(RATES, 2.5)}}, "grid")
    assert "Over ten seeded folds." in text
    assert "grid, protocol folds, 10 trial(s)" in text
    assert text.splitlines()[3].split() == ["raw"] + ["50.0", "±", "2.5"] * 7
    assert "2 queries have no match in the gallery" in text


def test_baselines_are_scored_beside(tmp_path, config, domains):
    keras.utils.set_random_seed(0)
    images = keras.Input((*SIZE, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(images))
    encoder = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    found = evaluation.evaluate(model(raw=encoder), config, domains, seen(config, domains), tmp_path, baselines=True)
    assert list(found) == ["raw", "colour_histogram", "colour_covariance", "adaptive_batch_norm"]
    assert all(set(result) == KEYS for result in json.loads((tmp_path / "metrics.json").read_text()).values())

    alone = config.model_copy(update={"data": Data(source="a", image_size=list(SIZE))})
    source = {"source": domains["source"]}
    found = evaluation.evaluate(
        model(raw=encoder), alone, source, splits.training_records(alone, source), tmp_path, baselines=True
    )
    assert list(found) == ["raw", "colour_histogram"]  # the others bring two domains together


def test_scores_are_those_of_an_evaluation_without_files(tmp_path, config, domains):
    found = evaluation.scores(model(raw=perfect), config, domains, seen(config, domains))
    assert found["raw"]["rank1"] == 100 and set(found["raw"]) == KEYS
    assert not list(tmp_path.iterdir())
