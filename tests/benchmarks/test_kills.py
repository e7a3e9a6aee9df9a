"""The script that stops trainings: what it plans, what it damages, and that it sees every kind of difference."""

import shutil
import signal
import sys

import h5py
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import kills, run_files
from tf_reid import config as configuration
from tf_reid.methods import METHODS
from tf_reid.runs import checkpoints


class Step(tf.Module):
    def __init__(self):
        self.step, self.kernel = tf.Variable(0, dtype=tf.int64), tf.Variable([1.0, 2.0, 3.0])


def write_run(folder, saves=3):
    """What a training of a single stage leaves, with two of its checkpoints."""
    model = Step()
    checkpoint = tf.train.Checkpoint(model=model, stage=tf.Variable(0, dtype=tf.int64))
    for save in range(saves):
        model.step.assign(2 * save)
        checkpoints.save(checkpoint, folder / "checkpoints", {})
    (folder / "networks").mkdir()
    with h5py.File(folder / "networks" / "encoder.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = np.arange(6, dtype=np.float32)
    (folder / "evaluation").mkdir()
    np.save(folder / "evaluation" / "image_1234_0123abcd.npy", np.ones(3, np.float32))
    (folder / "metrics.json").write_text("{}")


@pytest.fixture
def runs(tmp_path):
    """A reference, and a run with the same results and more checkpoints behind it."""
    write_run(tmp_path / "reference")
    write_run(tmp_path / "run")
    for path in list((tmp_path / "run" / "checkpoints").iterdir()):
        path.rename(path.with_name(path.name.replace("ckpt-3", "ckpt-10").replace("ckpt-2", "ckpt-9")))
    (feature,) = (tmp_path / "run" / "evaluation").iterdir()
    feature.rename(feature.with_name("image_1234_4567abcd.npy"))
    return tmp_path / "reference", tmp_path / "run"


def change_weight(run):
    with h5py.File(run / "networks" / "encoder.weights.h5", "a") as file:
        file["layers/dense/vars/0"][2] = np.nextafter(np.float32(2), np.float32(3))


def change_checkpoint(run):
    shutil.rmtree(run / "checkpoints")
    model = Step()
    model.kernel.assign([1.0, -0.0, 3.0])
    model.step.assign(4)
    checkpoint = tf.train.Checkpoint(model=model, stage=tf.Variable(0, dtype=tf.int64))
    checkpoints.save(checkpoint, run / "checkpoints", {})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda run: None, []),
        (change_weight, ["networks/encoder.weights.h5: 1 of 1 arrays differ, such as layers/dense/vars/0"]),
        (
            change_checkpoint,
            ["the last checkpoint: 1 of 3 arrays differ, such as model/kernel/.ATTRIBUTES/VARIABLE_VALUE"],
        ),
        (lambda run: (run / "metrics.json").write_text("{} "), ["metrics.json differs"]),
        (lambda run: (run / "metrics.json").unlink(), ["metrics.json is missing"]),
        (lambda run: (run / "networks/unfinished_x").touch(), ["networks/unfinished_x was left"]),
        (lambda run: (run / "checkpoints/ckpt-11_temp").mkdir(), ["checkpoints/ckpt-N_temp was left"]),
        (
            lambda run: np.save(run / "evaluation/image_1234_4567abcd.npy", np.float32([1, 1, 2])),
            ["evaluation/image_1234.npy differs"],
        ),
    ],
)
def test_a_changed_bit_and_a_file_too_many_are_differences(change, expected, runs):
    reference, run = runs
    change(run)
    assert list(run_files.differences(reference, run)) == expected


@pytest.mark.parametrize("name", run_files.DAMAGES)
def test_a_damage_leaves_the_checkpoint_before_as_it_was(name, runs):
    _, run = runs
    folder = run / "checkpoints"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    run_files.DAMAGES[name](folder)
    after = {path.name: path.is_file() and path.read_bytes() for path in folder.iterdir()}
    assert after != before
    assert {name: after.get(name) for name in before if "ckpt-9" in name}.items() <= before.items()
    touches_the_newest = name in ("data cut off", "index removed", "bit flipped")
    assert checkpoints.newest(folder).number == (9 if touches_the_newest else 10)


def test_how_far_a_run_is_and_whether_it_writes(runs):
    _, run = runs
    assert run_files.reached(run) == (0, 4) and not run_files.is_writing(run)
    run_files.DAMAGES["index removed"](run / "checkpoints")
    assert run_files.reached(run) == (0, 2)
    assert run_files.reached(run / "nowhere") is None
    (run / "networks" / "unfinished_encoder.weights.h5").touch()
    assert run_files.is_writing(run)


def test_the_plan_has_every_stage_and_every_damage_and_follows_the_seed():
    stops = list(kills.plan(list(METHODS), 20, 5, 5, seed=0))
    assert (
        stops == list(kills.plan(list(METHODS), 20, 5, 5, seed=0)) != list(kills.plan(list(METHODS), 20, 5, 5, seed=1))
    )
    assert sum(one.by == signal.SIGTERM for one in stops) == 5 and len(stops) == 30
    killed = [one for one in stops if one.by == signal.SIGKILL and not one.damage]
    assert len(killed) == 20 and {one.moment for one in killed} == {"start", "steps", "save", "networks"}
    stages = {(name, number) for name, method in METHODS.items() for number in range(len(method.STAGES))}
    assert {(one.method, one.stage) for one in killed} == stages
    assert {one.damage for one in stops} == {"", *run_files.DAMAGES}
    assert all(one.step >= 4 or one.stage for one in stops if one.damage)


@pytest.mark.parametrize("method", METHODS)
def test_the_small_settings_are_ones(method, tmp_path):
    config = configuration.load(method, kills.settings(tmp_path, method), METHODS)
    assert {stage.steps for stage in config.stages.values()} == {kills.STEPS}


def test_a_run_that_differs_or_does_not_go_on_is_counted(tmp_path, runs, monkeypatch, capsys):
    """With a program in the place of the training: it saves for as long as it is let, and is resumed once."""
    reference, _ = runs
    program = """if True:
        import pathlib, shutil, sys, time
        reference, run = map(pathlib.Path, sys.argv[1:])
        if run.exists():
            print("Resuming stage classifier at step 4 of 8.")
            sys.exit()
        shutil.copytree(reference, run)
        (run / "data.json").touch()
        time.sleep(60)
    """

    def started(folder, method, run):
        run.parent.mkdir(parents=True, exist_ok=True)
        with kills.log_of(run).open("ab") as log:
            return kills.subprocess.Popen([sys.executable, "-c", program, str(reference), str(run)], stdout=log)

    monkeypatch.setattr(kills, "started", started)
    (tmp_path / "identity").mkdir()
    shutil.copytree(reference, tmp_path / "identity" / "reference")
    (tmp_path / "identity" / "reference" / "data.json").touch()
    stop = kills.Stop("identity", 0, step=4, moment="steps", seconds=0.0)
    equal = kills.stopped(tmp_path, 0, stop)
    assert (equal.differences, equal.reached, equal.resumed_from) == ([], (0, 4), "classifier 4")
    change_weight(tmp_path / "identity" / "reference")
    other = kills.stopped(tmp_path, 1, stop)
    assert len(other.differences) == 1
    assert kills.summary([equal, other], 1.0) == 1 and kills.summary([equal], 1.0) == 0
    assert "1 are equal" in capsys.readouterr().out and "equal" in kills.row(equal)
    assert "encoder.weights.h5: 1 of 1 arrays differ" in kills.row(other)
