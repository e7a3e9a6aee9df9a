"""A stage ends where its validation loss no longer falls; a resumed run ends at the same step, bit by bit."""

import contextlib
from types import SimpleNamespace
from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import build, make_records, stage_configs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tf_reid.config import ConfigError
from tf_reid.methods import METHODS
from tf_reid.methods.base import ReIDModel, Stage
from tf_reid.methods.view_adaptation import ViewAdaptation
from tf_reid.runs import reproducibility, run_folder, splits, training, validation
from tf_reid.runs.plateau import Plateau
from tf_reid.settings import Config, Data, EarlyStop, Run

IDENTITY, CAMERA = np.repeat(np.arange(1, 10), 4), np.tile([1, 1, 2, 2], 9)
RECORDS = make_records(IDENTITY, CAMERA)
LOSSES = {2: 5.0, 4: 4.0, 6: 4.5, 8: 3.0, 10: 3.0, 12: 3.5}  # by step: no lower one at 10 and 12
ENDING = "Stage first ends early, at step 12: in 2 checks its validation loss fell no lower than 3."


class Plain(ReIDModel):
    """One dense layer that two stages train, so that a training takes no time."""

    STAGES: ClassVar = {
        name: Stage(players=("encoder",), sampler="views", validated=validated)
        for name, validated in (("first", True), ("second", False))
    }

    def __init__(self, image_size, identities, seed):
        super().__init__(image_size, identities, seed)
        images = keras.Input((*image_size, 3))
        self.encoder = keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(images)))

    def players(self):
        return {"encoder": [self.encoder]}

    def networks(self):
        return {"encoder": self.encoder}

    def encoders(self):
        return {"image": self.encoder}

    def first_step(self, batch):
        with tf.GradientTape() as tape:
            losses = {"square": tf.reduce_mean(tf.square(self.encoder(batch["source"][:, 0])))}
        self.minimize(tape, losses, "encoder")
        return self.report(encoder=losses)

    second_step = first_step

    def validation_loss(self, batch):
        return tf.reduce_mean(batch["source"])


@pytest.fixture
def config(monkeypatch):
    """The first stage may end early; its checkpoints do not fall together with its checks."""
    monkeypatch.setitem(METHODS, "plain", Plain)
    stages = stage_configs(Plain, steps=40, optimizer="adam")
    stages["first"].early_stop = EarlyStop(check_every=2, patience=2)
    stages["second"].steps = 2
    return Config(
        data=Data(source="a", image_size=[32, 16], validation=4),
        method={"name": "plain"},
        stages=stages,
        run=Run(checkpoint_every=3, log_every=1, pictures_every=0),
    )


@pytest.fixture(autouse=True)
def losses(monkeypatch):
    """The plateau gets `LOSSES` in place of the losses that are computed, which are returned."""
    add, computed = Plateau.add, []

    def by_step(self, loss):
        computed.append(loss)
        add(self, LOSSES[2 * (len(computed) % 6 or 6)])

    monkeypatch.setattr(Plateau, "add", by_step)
    return computed


def train(folder, config):
    domains = {"source": RECORDS}
    reproducibility.make_deterministic(config)
    records, held_out = splits.training_records(config, domains), splits.validation_records(config, domains)
    model = run_folder.build_model(config, records["source"].identities)
    run_folder.open_run(folder, config, records)
    training.train(model, config, records, folder, dict, held_out=held_out)
    return model


def curve(folder, tag):
    """Step -> value of a curve; a resumed run writes some points twice."""
    log = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0})
    log.Reload()
    return {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in log.Tensors(tag)}


def test_a_stage_ends_after_so_many_checks_without_a_lower_loss(tmp_path, config, losses, capsys):
    train(tmp_path / "run", config)
    assert len(losses) == 6
    assert ENDING in capsys.readouterr().out
    assert max(curve(tmp_path / "run", "first/encoder/square")) == 12
    assert list(curve(tmp_path / "run", "first/validation/loss")) == [2, 4, 6, 8, 10, 12]
    assert max(curve(tmp_path / "run", "second/encoder/square")) == 2


def test_a_resumed_run_counts_on_and_is_bit_identical(tmp_path, config, losses, monkeypatch, capsys):
    """Killed between two checks, then after the last check."""
    whole = train(tmp_path / "whole", config)
    save = training.Progress.save

    def killed_after(place):
        def killed(self):
            save(self)
            if self._place() == place:
                raise RuntimeError("killed")

        return killed

    for place in ((0, 9), (0, 12)):
        with monkeypatch.context() as patch:
            patch.setattr(training.Progress, "save", killed_after(place))
            with pytest.raises(RuntimeError, match="killed"):
                train(tmp_path / "killed", config)
    capsys.readouterr()
    resumed = train(tmp_path / "killed", config)
    assert ENDING in capsys.readouterr().out
    assert len(losses) == 12  # none is computed twice
    assert max(curve(tmp_path / "killed", "first/encoder/square")) == 12
    for a, b in zip(whole.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_plateau_at_the_last_step_is_no_early_end(tmp_path, config, losses, capsys):
    config.stages["first"].steps, config.stages["second"].steps = 12, 0
    train(tmp_path / "run", config)
    assert len(losses) == 6 and "ends early" not in capsys.readouterr().out


def test_a_stage_of_no_steps_saves_no_networks_and_has_no_early_end(tmp_path, config):
    for stage in config.stages.values():
        stage.steps, stage.early_stop = 0, config.stages["first"].early_stop
    assert validation.records(config, {"source": RECORDS}) is None
    train(tmp_path / "run", config)
    assert not (tmp_path / "run" / "networks").exists()


def test_a_loss_that_stays_is_never_lower(monkeypatch):
    """A mean of decimals lies below its own float32."""
    monkeypatch.undo()
    plateau, loss = Plateau(), float(np.mean([0.1, 0.23, 0.5]))
    for _ in range(6):
        plateau.add(loss)
    assert loss < float(np.float32(loss)) and int(plateau.waited) == 5


def test_a_plateau_counts_from_the_lowest_loss(monkeypatch):
    monkeypatch.undo()
    plateau, stage = Plateau(), stage_configs(Plain)["first"]
    for loss in (2.0, 1.0, 1.5, 1.0):
        plateau.add(loss)
    assert (float(plateau.lowest), int(plateau.waited)) == (1.0, 2)
    assert not plateau.ends(stage.early_stop)  # which does not stop early
    assert plateau.ends(EarlyStop(check_every=1, patience=2)) and not plateau.ends(EarlyStop(check_every=1))
    plateau.clear()
    plateau.add(7.0)
    assert (float(plateau.lowest), int(plateau.waited)) == (7.0, 0)


def test_view_adaptation_is_checked_on_held_out_identities_without_an_update(config):
    config.method["name"] = "view_adaptation"
    stage = stage_configs(ViewAdaptation)["similarity"].model_copy(update={"images_per_view": 2})
    config.stages = {"similarity": stage}
    held_out = splits.validation_records(config, {"source": RECORDS})
    model = build("view_adaptation")
    model.begin("similarity")
    before = [v.numpy() for v in model.variables]
    checked = validation.batches(model, config, 0, held_out)
    first, again = ([batch["source"].numpy() for batch in checked] for _ in range(2))
    assert [batch.shape for batch in first] == [(4, 2, 32, 16, 3)] * 2  # four identities, two a batch
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    image = np.round((np.concatenate(first)[..., 0].mean(axis=(2, 3)) + 1) * 127.5).astype(int)
    assert set(IDENTITY[image.ravel()]) == set(held_out.identity) == {6, 7, 8, 9}
    for batch in checked:
        probe, gallery = model.M_s(batch["source"][:, 0]), model.M_t(batch["source"][:, 1])
        expected = sum(model.matching_losses(probe, gallery, batch["source_identity"][:, 0]).values())
        np.testing.assert_allclose(model.validation_loss(batch), expected, rtol=1e-5)
    for a, b in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(a, b.numpy())


def test_a_validation_loss_is_the_mean_over_its_batches(tmp_path):
    model = SimpleNamespace(
        stage="first",
        averaged=contextlib.nullcontext,
        distribute_strategy=tf.distribute.get_strategy(),
        validation_loss=lambda batch: batch["source"],
    )
    checked, chosen = [{"source": tf.constant(value)} for value in (1.0, 2.0, 6.0)], []
    writer = tf.summary.create_noop_writer()
    validation.ValidationLoss(model, 2, checked, lambda *found: chosen.append(found), writer, tmp_path).act(4)
    assert chosen == [({"loss": 3.0}, 4)]


def test_a_validation_batch_has_two_identities_at_least(config):
    """Three identities do not fill two batches: one is left out."""
    config.data.validation = 3
    config.stages["first"].batch_size = 4
    held_out = validation.records(config, {"source": RECORDS})
    model = run_folder.build_model(config, 5)
    (batch,) = validation.batches_of_stages(model, config, held_out)["first"]
    assert len(set(batch["source_identity"].numpy().ravel())) == 2
    with pytest.raises(ValueError, match="needs `held_out`"):
        validation.batches_of_stages(model, config, None)


def test_too_few_validation_identities_of_two_cameras_are_refused_before_the_run_begins(config):
    one_camera = RECORDS.take(np.isin(IDENTITY, range(1, 7)) | (CAMERA == 1))
    with pytest.raises(ConfigError, match=r"data\.validation: 1 of the 4 validation identities of test are"):
        validation.records(config, {"source": one_camera})


@pytest.mark.parametrize(("every", "identities"), [(5, "test"), (0, "validation")])
def test_a_single_validation_identity_is_not_scored(every, identities, config):
    config.stages["first"].early_stop, config.run.validate_every = None, every
    config.data.validation, config.evaluate.identities = 1, identities
    with pytest.raises(ConfigError, match=r"One validation identity of test is held out\..* hold out two or more"):
        validation.records(config, {"source": RECORDS})
    config.data.validation = 2
    assert (validation.records(config, {"source": RECORDS}) is None) == (not every)


def test_a_stage_whose_loss_needs_its_classes_cannot_stop_early(config):
    config.stages["second"].early_stop = config.stages["first"].early_stop
    with pytest.raises(ConfigError, match=r"stages\.second\.early_stop: the loss of stage second needs identities"):
        run_folder.build_model(config, 5)
