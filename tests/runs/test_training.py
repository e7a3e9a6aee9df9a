"""The training loop: checkpoints, kill and resume, NaN, what it shows."""

import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import yaml
from conftest import make_records, small_settings

from tf_reid import config as configuration
from tf_reid.command_line import Terminated
from tf_reid.methods import METHODS
from tf_reid.methods.simpgan_pictures import SimPGANPictures
from tf_reid.runs import checkpoints, reproducibility, run_folder, splits, training
from tf_reid.runs.progress import Progress

IDENTITY, CAMERA = np.repeat(np.arange(1, 6), 4), np.tile([1, 1, 2, 2], 5)
SPLIT = np.tile(["train", "query", "train", "gallery"], 5)
# What two processes can be compared on: no dropout, and plain descent, which does not enlarge rounding as Adam does.
ONE_STAGE = ("data.target=null", "method.dropout=0.0", "stages.classifier.optimizers.classifier.name=sgd")

AVERAGED = ("stages.translation.optimizers.generators.ema_momentum=0.5", "run.evaluate_every=6")


def settings(tmp_path, *overrides, name="simpgan"):
    values = {
        "data": {
            "source": "a",
            "target": "b",
            "image_size": [32, 16],
            "augment": {"pad": 2},
            "source_split": "all",
        },
        "method": {"name": name, **small_settings(name), "dropout": 0.5},
        "stages": {
            stage: {
                "steps": 6,
                "batch_size": 4,
                "optimizers": {p: {"name": "adam", "learning_rate": 1.0e-3} for p in about.players},
            }
            for stage, about in METHODS[name].STAGES.items()
        },
        "run": {"checkpoint_every": 2, "log_every": 1, "pictures_every": 3},
    }
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(values))
    return configuration.load(str(path), list(overrides), METHODS)


def domains():
    return {
        "source": make_records(IDENTITY, CAMERA, SPLIT),
        "target": make_records(IDENTITY, CAMERA, SPLIT, name="b"),
    }


def built(config):
    reproducibility.make_deterministic(config)
    return run_folder.build_model(config, splits.training_records(config, domains())["source"].identities)


def train(folder, config, model=None, evaluate=dict):
    model, records = model or built(config), splits.training_records(config, domains())
    run_folder.open_run(folder, config, records)
    training.train(model, config, records, folder, evaluate)
    return model


def weights(model):
    """Everything that training changes: networks, optimizers, random states, pools."""
    raw = [model.source_pool.images, model.target_pool.images] if hasattr(model, "source_pool") else []
    by_player = [optimizer for players in model.optimizers_of.values() for optimizer in players.values()]
    optimizers = [v for optimizer in by_player for v in optimizer.variables]
    return [v.numpy() for v in [*model.variables, *optimizers, *raw]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run, what tests compare with it, and the weights that were scored and drawn.

    Its generators keep a running mean of their weights.
    """
    place = tmp_path_factory.mktemp("finished")
    run = SimpleNamespace(folder=place / "run", config=settings(place, *AVERAGED), drawn=[], scored=[], pictures=[])
    save, pictures = checkpoints.save, SimPGANPictures.pictures

    def noted(checkpoint, folder, damaged):
        save(checkpoint, folder, damaged)
        run.pictures.append({path.name[-10:-4] for path in folder.parent.glob("pictures/translation*")})

    def drawn(self, batch):
        run.drawn.append(model.F.get_weights())
        return pictures(self, batch)

    model = built(run.config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "save", noted)
        patch.setattr(SimPGANPictures, "pictures", drawn)
        train(run.folder, run.config, model, lambda: run.scored.append(model.F.get_weights()) or {})
    run.weights, run.kept = weights(model), model.F.get_weights()
    return run


def test_a_run_killed_and_resumed_twice_is_bit_identical_to_an_uninterrupted_one(finished, tmp_path):
    """Killed at the end of the first stage, and in the middle of the second."""
    script = (
        "import sys, pathlib; sys.path[:0] = ['tests', 'tests/runs']; import test_training as t\n"
        "tmp = pathlib.Path(sys.argv[1]); t.train(tmp / 'killed', t.settings(tmp, *t.AVERAGED))"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    for number in (3, 5):  # killed some time after the n-th checkpoint
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=environment)
        marker = tmp_path / "killed" / "checkpoints" / f"ckpt-{number}.index"
        while process.poll() is None and not marker.exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    found = weights(train(tmp_path / "killed", settings(tmp_path, *AVERAGED)))
    for a, b in zip(finished.weights, found, strict=True):
        np.testing.assert_array_equal(a, b)


IDENTITY_ALONE = ("data.target=null", "run.pictures_every=0", "run.checkpoint_every=4")


OF_OPTIMIZER = "stages.classifier.optimizers.classifier"
RESTING = [f"{OF_OPTIMIZER}.{setting}" for setting in ("freeze_steps=4", "backbone_rate=0.5", "warmup=0.5")]


@pytest.mark.parametrize("changes", [["run.precision=float32"], ["run.precision=bfloat16", *RESTING]])
def test_a_stopped_run_is_saved_after_the_step_and_goes_on_bit_identically(tmp_path, monkeypatch, changes):
    """The second one stops while its backbone rests, which it does for one step more after that."""
    config = settings(tmp_path, *IDENTITY_ALONE, *changes, name="identity")
    expected = weights(train(tmp_path / "whole", config))
    really = training.Losses.act

    def stopped(self, step):
        if step == 3 and self.waiting:  # once
            os.kill(os.getpid(), signal.SIGTERM)
        really(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(training.Losses, "act", stopped)
        with pytest.raises(Terminated) as ending:
            train(tmp_path / "run [1]", config)
    assert ending.value.code == 143 and "stage classifier at step 3 of 6 is saved" in ending.value.sentence
    assert not (tmp_path / "run [1]" / "networks").exists()
    found = weights(train(tmp_path / "run [1]", config))
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)


IN_CALLS = (*IDENTITY_ALONE, "run.log_every=3")


def scalars(folder):
    """(tag, step, value) of every point of the curves, in order."""
    points = []
    for file in (folder / "tensorboard").glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                if value.tag != "configuration":
                    points.append((value.tag, event.step, float(tf.make_ndarray(value.tensor))))
    return sorted(points)


def test_several_steps_a_call_change_nothing_and_resume_after_a_stop(tmp_path, monkeypatch):
    """Six steps, logged every three, saved every four: calls of 3, 1 and 2 steps where five are asked for."""
    alone = settings(tmp_path, *IN_CALLS, name="identity")
    expected = weights(train(tmp_path / "alone", alone))
    config = settings(tmp_path, *IN_CALLS, "run.steps_per_call=5", name="identity")
    model, calls = built(config), []
    advance, show = model.advance, training.Losses.act
    model.advance = lambda *arguments: calls.append(advance(*arguments)) or calls[-1]

    def stopped(self, step):
        if self.waiting:  # once: a second signal would stop the process
            os.kill(os.getpid(), signal.SIGTERM)
        show(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(training.Losses, "act", stopped)
        with pytest.raises(Terminated):
            train(tmp_path / "calls", config, model)
    assert [steps for steps, _ in calls] == [3]
    found = weights(train(tmp_path / "calls", config))
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)
    assert scalars(tmp_path / "calls") == scalars(tmp_path / "alone")


@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_no_value_is_read_back_between_two_logs(tmp_path, monkeypatch, steps_per_call):
    """A value that is read makes Python wait for the device."""
    config = settings(tmp_path, *IN_CALLS, f"run.steps_per_call={steps_per_call}", name="identity")
    model, events = built(config), []
    eager = next(kind for kind in type(tf.constant(0)).__mro__ if "_numpy" in vars(kind))
    read, advance = eager._numpy, model.advance

    def noted(tensor):
        if threading.current_thread() is threading.main_thread():  # the pipeline has threads of its own
            events.append("read")
        return read(tensor)

    def called(*arguments):
        done = advance(*arguments)
        events.extend(["step"] * done[0])
        return done

    monkeypatch.setattr(eager, "_numpy", noted)
    model.advance = called
    train(tmp_path / "run", config, model)
    steps = [place for place, event in enumerate(events) if event == "step"]
    reads = [events[start:end].count("read") for start, end in itertools.pairwise(steps)]
    assert reads[0] == reads[1] == reads[4] == 0  # after steps 1, 2 and 5
    assert reads[2] > 0 and reads[3] > 0  # after step 3, of which losses are shown, and step 4, which is saved


@pytest.mark.parametrize("what", ["a checkpoint", "the curves", "the weights", "something else"])
def test_a_file_that_is_too_large_does_not_end_a_stage_as_if_the_data_had_ended(tmp_path, what, monkeypatch):
    """TensorFlow calls this error "out of range", and Keras takes that for the end of the data."""
    config = settings(tmp_path, *IDENTITY_ALONE, name="identity")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(really, size):
        def within(*arguments, **options):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
            try:
                return really(*arguments, **options)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)

        return within

    def out_of_range(*_):
        raise tf.errors.OutOfRangeError(None, None, "File too large")

    saving, error = training.NotSaved, r"(too large|Errno 27|errno = 27).*last checkpoint|too large.*before it stands"
    if what == "a checkpoint":
        monkeypatch.setattr(checkpoints, "save", limited(checkpoints.save, 20_000))
    elif what == "the curves":
        monkeypatch.setattr(tf.summary, "scalar", out_of_range)
    elif what == "the weights":
        monkeypatch.setattr(training, "_save_networks", limited(training._save_networks, 20_000))
    else:
        monkeypatch.setattr("tf_reid.runs.callbacks.check_weights", out_of_range)
        saving, error = training.Unfinished, r"classifier ended at step 4 of 6 \(File too large\)\. No weights are"
    with pytest.raises(saving, match=error):
        train(tmp_path / "run", config)
    assert not list((tmp_path / "run" / "networks").glob("*"))
    assert checkpoints.newest(tmp_path / "run" / "checkpoints") == ((1, {}) if what == "the weights" else None)


def test_the_running_mean_of_the_weights_is_scored_drawn_and_kept(finished):
    """At the last step all three see the mean, which differs from the weights that went on training."""
    model = built(finished.config)
    model.F.load_weights(finished.folder / "networks" / "F.weights.h5")
    for mean in (finished.scored[-1], finished.drawn[-1], model.F.get_weights()):
        assert all(np.array_equal(a, b) for a, b in zip(finished.kept, mean, strict=True))
    of_last_step = str(finished.folder / "checkpoints" / "ckpt-7")
    Progress(finished.folder, model).checkpoint.restore(of_last_step)
    assert any(np.any(a != b) for a, b in zip(finished.kept, model.F.get_weights(), strict=True))


def test_a_checkpoint_comes_after_the_pictures_of_its_step(finished):  # else a kill between the two would lose them
    at_2_4_6_and_the_end = [set(), {"000003"}, {"000003", "000006"}, {"000003", "000006"}]
    assert finished.pictures[-4:] == at_2_4_6_and_the_end


def test_a_finished_run_is_not_trained_again(finished):
    found = weights(train(finished.folder, finished.config))
    for a, b in zip(finished.weights, found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_loss_that_is_nan_stops_the_run_and_is_in_no_checkpoint(tmp_path):
    config = settings(tmp_path, "run.checkpoint_every=1", "stages.classifier.steps=1", "run.pictures_every=0")
    model = built(config)
    real = model.similarity_loss

    def broken(back_source, identities):
        return real(back_source, identities) * tf.where(model.step >= 3, np.nan, 1.0)

    model.similarity_loss = broken
    with pytest.raises(training.NotFinite, match=r"generators/similarity of stage translation is nan at step 4"):
        train(tmp_path / "run", config, model)
    again = built(config)
    assert Progress(tmp_path / "run", again).restore()
    assert int(again.step) == 3
    assert all(np.isfinite(value).all() for value in weights(again))


@pytest.mark.parametrize("at", [3, 6])
def test_weights_that_are_nan_are_in_no_checkpoint_also_after_a_last_step(tmp_path, at):
    """The losses of a step are taken before its update: they do not show what it broke."""
    config = settings(tmp_path, "run.checkpoint_every=1", "data.target=null", name="identity")
    model = built(config)
    real = model.minimize

    def broken(tape, losses, player):
        real(tape, losses, player)
        variable = model.variables_of(player)[0]
        variable.assign(tf.where(model.step + 1 >= at, np.nan, variable))

    model.minimize = broken
    with pytest.raises(training.NotFinite, match=f"weights of classifier are no longer finite after step {at} of"):
        train(tmp_path / "run", config, model)
    assert not (tmp_path / "run" / "networks").exists()
    again = built(config)
    assert Progress(tmp_path / "run", again).restore()
    assert int(again.step) == at - 1
    assert all(np.isfinite(value).all() for value in weights(again))


def test_a_run_leaves_pictures_curves_settings_and_networks(finished):
    folder = finished.folder
    names = sorted(path.name for path in (folder / "pictures").iterdir())
    assert names == [f"translation_{d}_{s:06d}.png" for d in ("source_to_target", "target_to_source") for s in (3, 6)]
    assert {path.name for path in (folder / "networks").iterdir()} == {
        f"{n}.weights.h5" for n in ("classifier", "G", "F")
    }
    tags = set()
    for file in (folder / "tensorboard").glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            tags |= {value.tag for value in event.summary.value}
    assert {
        "configuration",
        "classifier/classifier/identity",
        "translation/generators/cycle",
        "translation/discriminators/adversarial_D_S",
        "translation/discriminators/learning_rate",
        "translation/target to source",
    } <= tags


def test_a_broken_checkpoint_says_what_to_do(tmp_path):
    config = settings(tmp_path, name="identity")
    train(tmp_path / "run", config)
    for file in (tmp_path / "run" / "checkpoints").glob("*.index"):
        file.write_bytes(b"half")
    with pytest.raises(ValueError, match="cannot be read"):
        train(tmp_path / "run", config)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(ValueError, match=r"There is no checkpoint in .*, though .* holds trained networks"):
        train(tmp_path / "run", config)  # which would begin from nothing


def test_the_environment_is_written_down():
    found = reproducibility.environment()
    assert found["packages"]["tensorflow"] == tf.__version__
    assert found["revision"] and found["devices"]


@pytest.mark.parametrize("split", ["train", "all"])
def test_the_training_images_are_those_of_the_split(tmp_path, split):
    config = settings(tmp_path, f"data.source_split={split}")
    found = splits.training_records(config, domains())["source"]
    assert len(found) == (10 if split == "train" else 20)
