"""Scores of validation identities choose the weights that are kept, learning rates and a stage's end; resumed alike."""

import json
import os
import signal

import keras
import numpy as np
import pytest
from conftest import stage_configs
from test_validation import RECORDS, Plain, curve

from tf_reid import config as configuration
from tf_reid.command_line import Terminated
from tf_reid.config import ConfigError
from tf_reid.evaluation import during_training
from tf_reid.methods import METHODS
from tf_reid.methods.representation import Representation
from tf_reid.networks.applications import averaged
from tf_reid.networks.backbones import BACKBONES
from tf_reid.runs import reproducibility, run_folder, splits, training, validation
from tf_reid.settings import Config, Data, EarlyStop, RatePlateau, Run

RATES = ("rank1", "rank5", "rank10", "mAP", "mINP")
FALLING = {2: 10.0, 4: 20.0, 6: 20.0, 8: 5.0, 10: 5.0, 12: 5.0}  # mAP by step: no higher one after 4


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setitem(METHODS, "plain", Plain)
    stages = stage_configs(Plain, steps=12, optimizer="adam", ema_momentum={"encoder": 0.5})
    stages["second"].steps = 0
    run = Run(checkpoint_every=3, log_every=1, pictures_every=0, validate_every=2)
    data = Data(source="a", image_size=[32, 16], validation=4)
    return Config(data=data, method={"name": "plain"}, stages=stages, run=run)


def weights_of(model):
    """Of the networks of all players."""
    networks = [network for of_player in model.players().values() for network in of_player]
    return [value for network in networks for value in network.get_weights()]


def train(folder, config, scores, evaluate=lambda model: {}, watch=lambda model: None):
    """The trained model; and step -> the networks' weights when they were scored.

    Args:
        evaluate: what the evaluations every few steps return. watch: is called before the training.
    """
    reproducibility.make_deterministic(config)
    records = splits.training_records(config, {"source": RECORDS})
    model, scored = run_folder.build_model(config, records["source"].identities), {}

    def validate():
        scored[int(model.step)] = weights_of(model)
        return {"raw": dict.fromkeys(RATES, scores.get(int(model.step), 0.0))}

    run_folder.open_run(folder, config, records)
    watch(model)
    training.train(model, config, records, folder, lambda: evaluate(model), validate=validate)
    return model, scored


def is_equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def killed_after(place):
    save = training.Progress.save

    def killed(self):
        save(self)
        if self._place() == place:
            raise RuntimeError("killed")

    return killed


def killed_before_networks(model, folder):
    raise RuntimeError("killed")


@pytest.mark.parametrize(
    ("every", "scores", "best", "kills"),
    [(4, {4: 10.0, 6: 40.0}, 6, [(0, 6)]), (2, {2: 30.0, 4: 40.0, 6: 40.0}, 4, [(0, 3), "networks"])],
)
def test_the_weights_of_the_highest_score_are_kept_also_by_a_run_that_is_killed_anywhere(
    every, scores, best, kills, tmp_path, config, monkeypatch, capsys
):
    """The scored weights are their running mean; the last step is scored before its checkpoint.

    Killed after the checkpoint of a step, or before the networks are saved.
    """
    config.stages["first"].steps, config.run.keep, config.run.validate_every = 6, "best", every
    whole, scored = train(tmp_path / "whole", config, scores)
    assert list(scored) == list(scores)
    kept = whole.encoder.get_weights()
    assert is_equal(kept, scored[best])
    assert (
        f"Stage first: the weights after step {best} of 6 are kept; mAP on validation 40.0." in capsys.readouterr().out
    )
    assert json.loads((tmp_path / "whole" / "validation.json").read_text()) == {"first": {"step": best, "mAP": 40.0}}
    whole.encoder.load_weights(tmp_path / "whole" / "networks" / "encoder.weights.h5")
    assert is_equal(whole.encoder.get_weights(), kept)
    opened, _ = run_folder.restored(tmp_path / "whole", config)
    assert is_equal(opened.encoder.get_weights(), kept)
    assert set(curve(tmp_path / "whole", "first/validation/raw/mAP")) == set(scores)

    for place in kills:
        with monkeypatch.context() as patch:
            if place == "networks":
                patch.setattr(training, "_save_networks", killed_before_networks)
            else:
                patch.setattr(training.Progress, "save", killed_after(place))
            with pytest.raises(RuntimeError, match="killed"):
                train(tmp_path / "killed", config, scores)
    resumed, _ = train(tmp_path / "killed", config, scores)
    assert is_equal([v.numpy() for v in whole.variables], [v.numpy() for v in resumed.variables])


def test_what_is_scored_at_a_step_counts_where_the_evaluation_of_that_step_is_stopped(tmp_path, config):
    config.stages["first"].steps, config.run.keep, config.run.evaluate_every = 6, "best", 2

    def stopped(model):
        if int(model.step) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with pytest.raises(Terminated, match="143"):
        train(tmp_path, config, {4: 40.0}, stopped)
    _, scored = train(tmp_path, config, {4: 40.0})
    assert list(scored) == [6]
    assert json.loads((tmp_path / "validation.json").read_text()) == {"first": {"step": 4, "mAP": 40.0}}


def without_batch_norm(image_size, weights=None, last_stride=2):
    images = keras.Input((*image_size, 3))
    return averaged(images, keras.layers.Conv2D(4, 8, 8)(images))


def test_each_optimizer_of_a_stage_keeps_the_running_mean_of_its_own_weights(tmp_path, config, monkeypatch):
    """Heads, backbone and centers of `strong` have one each. The means are scored and kept, also by a resumed run."""
    monkeypatch.setitem(BACKBONES, "plain", without_batch_norm)
    momentum = {"classifier": 0.5, "centers": 0.8}
    method = configuration.schema_of(METHODS["strong"])(backbone="plain", weights=None, last_stride=2, bnneck=False)
    config.method = {"name": "strong", **method.model_dump()}
    config.stages = stage_configs(METHODS["strong"], steps=6, optimizer="adam", ema_momentum=momentum)
    config.stages["classifier"].images_per_identity = 2
    config.stages["classifier"].optimizers["classifier"].backbone_rate = 0.5
    config.run.keep, config.run.validate_every = "best", 1
    own, scores = [], {3: 10.0, 5: 30.0}

    def watch(model):
        advance = model.advance

        def noted(*arguments):
            done = advance(*arguments)
            own.append(weights_of(model))
            return done

        model.advance = noted

    def everything(model):
        optimizers = model.optimizers_of["classifier"].values()
        return [v.numpy() for v in [*model.variables, *(v for one in optimizers for v in one.variables)]]

    whole, scored = train(tmp_path / "whole", config, scores, watch=watch)
    assert list(whole.optimizers_of["classifier"]) == ["classifier", "classifier_backbone", "centers"]
    factors = [momentum["classifier"]] * (len(own[0]) - 1) + [momentum["centers"]]
    means = own[0]
    for step, weights in enumerate(own, 1):
        means = [m * mean + (1 - m) * one for m, mean, one in zip(factors, means, weights, strict=True)]
        for mean, found in zip(means, scored[step], strict=True):
            np.testing.assert_allclose(found, mean, atol=1e-6)
    assert not any(np.array_equal(mean, one) for mean, one in zip(scored[6], own[5], strict=True))
    assert is_equal(weights_of(whole), scored[5])

    with monkeypatch.context() as patch:
        patch.setattr(training.Progress, "save", killed_after((0, 3)))
        with pytest.raises(RuntimeError, match="killed"):
            train(tmp_path / "killed", config, scores)
    resumed, again = train(tmp_path / "killed", config, scores)
    assert list(again) == [4, 5, 6] and is_equal(everything(whole), everything(resumed))


def test_learning_rates_fall_where_the_score_no_longer_rises_also_in_a_resumed_run(tmp_path, config, monkeypatch):
    config.stages["first"].plateau = RatePlateau(watch="mAP", patience=2, factor=0.5)
    config.stages["second"].steps = 1
    with monkeypatch.context() as patch:
        patch.setattr(training.Progress, "save", killed_after((0, 6)))  # after one of two checks
        with pytest.raises(RuntimeError, match="killed"):
            train(tmp_path, config, FALLING)
    train(tmp_path, config, FALLING)
    rates = curve(tmp_path, "first/encoder/learning_rate")
    assert [round(rates[step] / rates[1], 6) for step in (8, 9, 12)] == [1.0, 0.5, 0.5]
    assert curve(tmp_path, "second/encoder/learning_rate") == {1: rates[1]}


def test_a_stage_ends_where_the_score_no_longer_rises(tmp_path, config, capsys):
    config.stages["first"].early_stop = EarlyStop(watch="mAP", patience=2)
    config.stages["first"].steps, config.run.keep = 40, "best"
    _, scored = train(tmp_path, config, FALLING)
    assert list(scored) == [2, 4, 6, 8]
    printed = capsys.readouterr().out
    assert "Stage first ends early, at step 8: in 2 checks its validation mAP rose no higher than 20." in printed
    assert "the weights after step 4 of 8 are kept" in printed


def test_a_loss_that_ends_a_stage_is_followed_by_a_score_of_its_last_weights(tmp_path, config):
    config.stages["first"].early_stop = EarlyStop(check_every=3, patience=1)
    config.run.keep, config.run.validate_every = "best", 5
    held_out = splits.validation_records(config, {"source": RECORDS})
    records = splits.training_records(config, {"source": RECORDS})
    model, scored = run_folder.build_model(config, records["source"].identities), []

    def validate():
        scored.append(int(model.step))
        return {"raw": dict.fromkeys(RATES, 1.0)}

    training.train(model, config, records, tmp_path, dict, held_out=held_out, validate=validate)
    assert scored == [5, 6]  # the loss, a mean of the images, stays as it is


def test_settings_that_wait_for_what_no_step_computes_are_refused(config):
    config.run.validate_every, config.run.keep = 0, "best"
    with pytest.raises(ConfigError, match=r"run\.keep=best needs scores on validation identities: set run\.validate_"):
        validation.records(config, {"source": RECORDS})
    config.run.keep, config.stages["first"].plateau = "last", RatePlateau(watch="loss")
    with pytest.raises(ConfigError, match=r"stages\.first\.plateau watches the loss .*: set run\.validate_every"):
        validation.records(config, {"source": RECORDS})
    config.stages["first"].early_stop = EarlyStop(check_every=3)  # which computes it
    assert len(validation.records(config, {"source": RECORDS})) == 16
    config.data.target = "b"
    with pytest.raises(ConfigError, match=r"with data\.target the validation identities are of the target: watch rank"):
        validation.records(config, {"source": RECORDS, "target": RECORDS})
    with pytest.raises(ConfigError, match=r"early_stop: mAP is computed every run\.validate_every steps, and check_ev"):
        configuration.load("identity", ["stages.classifier.early_stop={watch: mAP, check_every: 2}"], METHODS)


def test_a_stage_that_changes_nothing_that_is_scored_cannot_watch_a_score(config):
    config.stages["first"].early_stop = EarlyStop(watch="rank1")
    model = run_folder.build_model(config, 5)
    during_training.check_watched(model, config, {"raw": Representation({"image": model.encoder})})
    with pytest.raises(ConfigError, match=r"stages\.first\.early_stop watches the rank1 .* set it to null"):
        during_training.check_watched(model, config, {})
