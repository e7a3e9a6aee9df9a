"""Weights to start from: written whole with their card, after a training that is scored on validation identities."""

import hashlib

import numpy as np
import pytest
import yaml
from conftest import small_settings

from tf_reid import config as configuration
from tf_reid import pretrain
from tf_reid.config import ConfigError
from tf_reid.methods import METHODS
from tf_reid.networks.backbones import BACKBONES
from tf_reid.runs import initial_weights, run_folder, splits
from tf_reid.train import train
from tfds_builders.synthetic_pedestrians.synthetic_pedestrians_dataset_builder import Builder

TERMS = "free for research; cite the paper"


@pytest.fixture
def few(tmp_path, monkeypatch):
    """Overrides for a training of two steps on four of six rendered people."""
    monkeypatch.setattr(Builder, "TRAIN_IDENTITIES", 6)
    monkeypatch.setattr(Builder, "TEST_IDENTITIES", 4)
    method = [f"method.{key}={'null' if value is None else value}" for key, value in small_settings("strong").items()]
    stage = [f"stages.classifier.{setting}" for setting in ("steps=2", "batch_size=4", "images_per_identity=2")]
    data = ["data.source=synthetic_pedestrians/street", f"data.data_dir={tmp_path / 'data'}", "data.image_size=[32,16]"]
    return [*method, *stage, *data, "data.validation=2", "data.augment.pad=2"]


def test_weights_and_card_of_a_training_and_a_backbone_that_starts_from_them(tmp_path, few, capsys):
    to = tmp_path / "made" / "person.weights.h5"
    arguments = ["--to", str(to), "--run", str(tmp_path / "run"), "--set", *few]
    card = pretrain.main(arguments)
    assert yaml.safe_load((tmp_path / "made" / "person.card.yaml").read_text()) == card
    assert sorted(path.name for path in to.parent.iterdir()) == ["person.card.yaml", "person.weights.h5"]
    assert card["weights"]["sha256"] == hashlib.sha256(to.read_bytes()).hexdigest()
    assert card["data"]["sets"] == [{"name": "synthetic_pedestrians/street", "terms": Builder.TERMS}]
    assert (
        card["data"]["initial_weights"] == []
        and card["data"]["identities"] == 4
        and card["data"]["do_not_pass_on"] == []
    )
    assert card["known_identities"] == {"synthetic_pedestrians/city": [1, 2, 3, 4]}
    assert initial_weights.history(str(to))["known"] == card["known_identities"]
    assert card["validation"]["queries"] > 0 and card["settings"]["evaluate"]["identities"] == "validation"
    assert card["revision"] and str(to) in capsys.readouterr().out

    on_known = [*few, f"method.weights={to}", "data.validation=4"]  # which holds 3 and 4 out, too
    with pytest.raises(ConfigError, match="holds identities that its initial weights were trained on, as their card"):
        train("pretrain", on_known, tmp_path / "refused")
    assert not (tmp_path / "refused" / "config.yaml").exists()
    with_card = configuration.load("pretrain", on_known, METHODS)
    seen = splits.training_records(with_card, splits.load_data(with_card))
    run_folder.open_run(tmp_path / "resumed", with_card, seen)
    initial_weights.card_file(to).rename(tmp_path / "elsewhere.yaml")
    with pytest.raises(ConfigError, match="holds identities that its initial weights were trained on, as their card"):
        train("pretrain", on_known, tmp_path / "resumed")
    settings = configuration.load("pretrain", [*few, "run.keep=best", "run.validate_every=1"], METHODS)
    assert pretrain.identities_of(settings) == {"synthetic_pedestrians/city": [1, 2, 3, 4, 5, 6]}  # chosen by 5 and 6

    started, fresh = BACKBONES["small"]((32, 16), str(to)), BACKBONES["small"]((32, 16))
    again = BACKBONES["small"]((32, 16), str(tmp_path / "run" / "networks" / "backbone.weights.h5"))
    for a, b in zip(started.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(started.get_weights(), fresh.get_weights(), strict=True))


def test_data_that_are_bound_to_terms_are_named():
    assert pretrain.terms("viper") == TERMS
    assert pretrain.note([]).startswith("Trained on rendered people alone")
    assert "terms of viper, grid bind whoever uses these weights. Do not pass them on" in pretrain.note(
        ["viper", "grid"]
    )


@pytest.mark.parametrize(
    ("to", "override", "sentence"),
    [
        ("a.h5", "run.seed=0", r"--to a\.h5: name a file that ends in \.weights\.h5"),
        ("a.weights.h5", "stages.classifier.steps=0", "there are no weights to write"),
        ("a.weights.h5", "evaluate.identities=test", "evaluate.identities must be validation"),
    ],
)
def test_what_could_not_be_written_or_measured_is_refused_before_the_training(to, override, sentence, few, tmp_path):
    with pytest.raises(ConfigError, match=sentence):
        pretrain.pretrain(to, overrides=[*few, override], run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_batches_that_cannot_be_drawn_leave_no_run_behind(few, tmp_path):
    with pytest.raises(ValueError, match="A batch_size of 6 holds no whole rows of 4 images"):
        stage = ["stages.classifier.batch_size=6", "stages.classifier.images_per_identity=4"]
        train("pretrain", [*few, *stage], tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_folder_is_refused_in_place_of_a_file(few, tmp_path):
    folder = tmp_path / "a.weights.h5"
    folder.mkdir()
    with pytest.raises(ConfigError, match="this is a folder; name a file"):
        pretrain.pretrain(folder, overrides=few, run=tmp_path / "run")
