"""The commands as a user runs them, in a few steps on a few rendered identities."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import small_settings

import tf_reid.evaluate
import tf_reid.train
import tf_reid.visualize
from tf_reid import config as configuration
from tf_reid.command_line import run_command
from tf_reid.config import ConfigError
from tf_reid.evaluation import during_training, scoring
from tf_reid.methods import METHODS
from tf_reid.runs import training
from tfds_builders.folder import folder_dataset_builder
from tfds_builders.synthetic_pedestrians.synthetic_pedestrians_dataset_builder import Builder

ROOT = Path(__file__).parent.parent
CONFIGS = {path.stem: str(path) for path in sorted((ROOT / "configs").glob("*.yaml"))}
LOADED = {name: configuration.load(path, [], METHODS) for name, path in CONFIGS.items()}
RATES = {"rank1", "rank5", "rank10", "rank20", "mAP", "mAP_trapezoid", "mINP"}


def is_rendered(config):
    specs = [spec for spec in (config.data.source, config.data.target) if spec]
    return all(str(spec).startswith("synthetic_pedestrians/") for spec in specs)


RENDERED = [name for name, config in LOADED.items() if is_rendered(config)]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Where rendered data sets of 8 identities are built, once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Builder, "TRAIN_IDENTITIES", 4)
        patch.setattr(Builder, "MANY_TRAIN_IDENTITIES", 8)
        patch.setattr(Builder, "MORE_IDENTITIES", 2)
        patch.setattr(Builder, "TEST_IDENTITIES", 4)
        yield tmp_path_factory.mktemp("data")


def command(config, run, data_dir, *overrides, steps=2):
    """Arguments of `tf_reid.train`: the configuration with networks, images and stages made small."""
    name = LOADED[config].method["name"]
    values = {f"method.{key}": value for key, value in small_settings(name).items()}
    short = {"steps": steps, "batch_size": 4, "images_per_view": 1, "images_per_identity": 2}
    for stage in METHODS[name].STAGES:
        values |= {f"stages.{stage}.{key}": value for key, value in short.items()}
    values |= {"data.image_size": [32, 16], "data.augment.pad": 2, "data.data_dir": str(data_dir)}
    if LOADED[config].data.validation:
        values["data.validation"] = 4  # of the identities that `data_dir` has
    values |= {"run.checkpoint_every": 1, "run.log_every": 1, "run.pictures_every": 2}
    settings = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    return ["--config", CONFIGS[config], "--run", str(run), "--set", *settings, *overrides]


# --------------------------------------------------------------------- every configuration


@pytest.mark.parametrize("name", RENDERED)
def test_every_configuration_trains_and_is_scored(name, tmp_path, data_dir, capsys):
    run = tmp_path / "[1]* 50%? é#"  # of a name that is a pattern
    found = tf_reid.train.main(command(name, run, data_dir, "run.evaluate_every=2"))
    written = json.loads((run / "metrics.json").read_text())
    assert written.keys() == found.keys() and "raw" in written
    for result in written.values():
        assert all(0 <= result[rate] <= 100 for rate in RATES) and result["queries"] > 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ["rank1", "mINP", "metrics.json", *written])
    tags = set()
    for file in (run / "tensorboard").glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            tags |= {value.tag for value in event.summary.value}
    model = scoring.open_trained(run, []).model
    for stage, settings in LOADED[name].stages.items():
        changed = during_training.changed(model, model.representations(), stage) if settings.steps else {}
        scored = {tag.split("/")[2] for tag in tags if tag.startswith(f"{stage}/evaluation/")}
        assert scored == set(changed) <= set(written)
    assert {tag.split("/")[2] for tag in tags if "/evaluation/" in tag} == set(written)
    assert {path.name for path in (run / "networks").iterdir()} == {f"{n}.weights.h5" for n in model.networks()}

    pages = tf_reid.visualize.main(["--run", str(run), "--count", "2", "--plane", "pca"])
    assert {path.stem for path in pages} >= {"map", *(f"ranks_{representation}" for representation in written)}
    assert all(cv2.imread(str(path)).std() > 0 for path in pages)


def test_every_method_can_be_tried_without_a_download():
    assert {LOADED[name].method["name"] for name in RENDERED} == set(METHODS)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_dry_run_prints_a_configuration_that_loads_back(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tf_reid.train.main(["--config", CONFIGS[name], "--dry-run", "--set", "run.seed=5"]) == {}
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    expected = configuration.load(CONFIGS[name], ["run.seed=5"], METHODS)
    assert configuration.load("printed.yaml", [], METHODS) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["printed.yaml"]  # nothing was trained


# --------------------------------------------------------------------- one run's life


def test_a_run_is_stopped_goes_on_and_is_scored_again(tmp_path, data_dir, capsys, monkeypatch):
    run, arguments = tmp_path / "run", command("identity", tmp_path / "run", data_dir, steps=3)

    def stopped(self, step):
        self.progress.save()
        if step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Checkpoints, "act", stopped)
        with pytest.raises(SystemExit, match=r"resumes a training from its last checkpoint"):
            run_command(lambda: tf_reid.train.main(arguments))
    assert not (run / "metrics.json").exists()

    capsys.readouterr()
    first = tf_reid.train.main(arguments)
    assert "Resuming stage classifier at step 2 of 3." in capsys.readouterr().out

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("a finished run was trained again"))
        again = tf_reid.train.main(arguments)
        scored = tf_reid.evaluate.main(["--run", str(run), "--baselines"])
    for rate in RATES:
        assert first["raw"][rate] == again["raw"][rate] == scored["raw"][rate]
    assert "colour_histogram" in json.loads((run / "metrics.json").read_text())
    (kept,) = (run / "evaluation" / "features").glob("*.npy")
    written = kept.stat().st_mtime_ns
    verified = tf_reid.evaluate.main(["--run", str(run), "--threshold", "0.2", "--set", "evaluate.rerank=false"])
    assert [one["set_at"] for one in verified["raw"]["verification"]["thresholds"]] == [20, "equal"]
    assert (run / "evaluation" / "roc.png").exists() and kept.stat().st_mtime_ns == written
    with pytest.raises(SystemExit, match=r"Error: A false-match rate of 0\.001 needs at least 1000 pairs"):
        run_command(lambda: tf_reid.evaluate.main(["--run", str(run), "--threshold"]))

    flipped = tf_reid.evaluate.main(["--run", str(run), "--set", "evaluate.flip=true", "evaluate.distance=euclidean"])
    assert flipped["raw"]["mAP"] != scored["raw"]["mAP"]
    assert configuration.load(str(run / "config.yaml"), [], METHODS).evaluate.flip is False

    with pytest.raises(SystemExit, match=r"Error: .* holds a run with other settings \(run\.seed was 0 and is now 1\)"):
        run_command(lambda: tf_reid.train.main([*arguments, "run.seed=1"]))


def test_a_run_of_two_sources_is_scored_on_the_first_and_elsewhere(tmp_path, data_dir, capsys):
    street, station = (f"synthetic_pedestrians/{place}" for place in ("street", "station"))
    settings = [f"data.source=[{street}, {station}]", "data.balance=equal", "run.pictures_every=0"]
    arguments = command("identity", tmp_path / "run", data_dir, *settings)
    found = tf_reid.train.main(arguments)
    printed = capsys.readouterr().out
    assert "labelled images of 8 identities" in printed and f"\n{street}/2" in printed  # the data set that is scored
    assert found["raw"]["queries"] == 16
    assert tf_reid.evaluate.main(["--run", str(tmp_path / "run")])["raw"]["mAP"] == found["raw"]["mAP"]
    elsewhere = tf_reid.evaluate.main(["--run", str(tmp_path / "run"), "--on", station, f"{street}:two_cameras"])
    assert [one["raw"]["queries"] for one in elsewhere.values()] == [16, 8]
    with pytest.raises(ConfigError, match="--on goes with --set alone"):
        tf_reid.evaluate.main(["--run", str(tmp_path / "run"), "--on", station, "--baselines"])


def test_a_run_that_builds_its_data_set_equals_one_that_finds_it(tmp_path):
    """Building draws random numbers: the weights that a run starts from do not depend on them."""
    with pytest.MonkeyPatch.context() as patch:
        for part in ("TRAIN", "MORE", "TEST"):
            patch.setattr(Builder, f"{part}_IDENTITIES", 4)
        tf_reid.train.main(command("identity", tmp_path / "builds", tmp_path / "data", steps=1))
        _, config, _, run, _, *settings = command("identity", tmp_path / "finds", tmp_path / "data", steps=1)
        returned = tf_reid.train.train(config, settings, run)  # as the command, from Python
    built, found = (json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("builds", "finds"))
    assert built == found
    scored = tf_reid.evaluate.evaluate(tmp_path / "finds", ["evaluate.batch_size=32"], baselines=True)
    for rate in RATES:
        assert returned["raw"][rate] == found["raw"][rate]
        assert scored["raw"][rate] == pytest.approx(found["raw"][rate])
    assert {"pixels", "colour_histogram"} <= scored.keys()


def test_two_replicas_train_what_one_device_trains(tmp_path, data_dir, two_replicas, monkeypatch):
    """The same weights after the same steps, through the command: of every batch each replica takes its part."""
    plain = ["stages.classifier.optimizers.classifier={name: sgd, learning_rate: 0.01}"]
    tf_reid.train.main(command("identity", tmp_path / "one", data_dir, *plain, "strategy=one"))
    # A second strategy over the same devices in one process would reuse the first one's collective keys.
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda devices: two_replicas)
    tf_reid.train.main(command("identity", tmp_path / "two", data_dir, *plain, "strategy=mirrored"))
    model = METHODS["identity"]((32, 16), 4, 0, **small_settings("identity"))
    weights = []
    for run in ("one", "two"):
        model.classifier.load_weights(tmp_path / run / "networks" / "classifier.weights.h5")
        weights.append(model.classifier.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


# --------------------------------------------------------------------- mistakes


def test_a_mistake_is_one_sentence_and_no_traceback():
    arguments = ["--config", CONFIGS["identity"], "--set", "run.sede=3"]
    process = subprocess.run(
        [sys.executable, "-m", "tf_reid.train", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert process.returncode == 1
    (line,) = [line for line in process.stderr.splitlines() if "sede" in line]
    assert line.startswith("Error: ") and line.endswith("unknown key run.sede; did you mean seed?")
    assert "Traceback" not in process.stderr and not process.stdout


def test_a_long_message_is_whole_and_a_warning_of_a_data_set_is_a_sentence(capsys):
    def command():
        folder_dataset_builder.warn_of_empty_parts([SimpleNamespace(identity=1, split="gallery")])
        raise ConfigError("a" * 700 + " \x1b[2J end")

    with pytest.raises(SystemExit, match=r"^Error: a{700} \\x1b\[2J end\n"):
        run_command(command)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("folder: there is only one identity: ") and line.endswith("add other identities.")


@pytest.mark.parametrize(
    ("module", "arguments", "sentence"),
    [
        ("evaluate", ["--run", "nowhere"], r"Error: There is no run in nowhere \(no config\.yaml\)"),
        ("visualize", ["--run", "nowhere", "--count", "0"], r"Error: --count 0: a page needs at least one image"),
        ("visualize", ["--run", "nowhere"], r"Error: There is no run in nowhere \(no config\.yaml\)"),
        ("train", ["--config", "none.yaml"], r"Error: There is no configuration file 'none\.yaml'"),
        ("train", ["--config", "IDENTITY", "--set", "data.source=vyper"], r"Error: .*'vyper' is not known.*viper"),
        ("train", ["--config", "IDENTITY", "--set", "source=folder"], r"Error: folder: "),
        ("train", ["--config", "IDENTITY", "--set", "source=vyper", "--dry-run"], r"'vyper' is not known.*viper"),
        (
            "train",
            ["--config", "IDENTITY", "--set", "source=here"],
            r"a folder of yours is {name: folder, root: here,",
        ),
        ("train", ["--config", "IDENTITY", "--run", "here/file"], r"Error: --run here/file is a file; name a folder\."),
        ("evaluate", ["--run", "here"], r"There is no run in here \(no config\.yaml\); name the folder of a run\."),
        ("search", ["stats", "--index", "http://x/y"], r"does not begin with http://; it is a folder, qdrant://"),
    ],
)
def test_what_a_user_can_mend_is_told_in_a_sentence(module, arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").touch()
    arguments = [CONFIGS["identity"] if argument == "IDENTITY" else argument for argument in arguments]
    main = importlib.import_module(f"tf_reid.{module}").main
    with pytest.raises(SystemExit, match=sentence):
        run_command(lambda: main(arguments))


@pytest.mark.parametrize(
    ("config", "setting", "sentence"),
    [
        ("simpgan", "data.image_size=[34, 16]", "use multiples of 4"),
        ("dgnet", "method.feed=offline", r"method\.feed=offline needs .*method\.swaps_from=RUN"),  # though not to score
    ],
)
def test_a_setting_that_the_method_refuses_leaves_no_run_behind(config, setting, sentence, tmp_path, data_dir):
    wrong = command(config, tmp_path / "run", data_dir, setting)
    with pytest.raises(SystemExit, match=sentence):
        run_command(lambda: tf_reid.train.main(wrong))
    assert not (tmp_path / "run").exists()


def test_what_could_not_be_scored_is_not_trained(tmp_path):
    (tmp_path / "crops").mkdir()
    for identity in range(1, 9):
        for shot in range(4):
            keras.utils.save_img(tmp_path / f"crops/{identity}_{shot}_hall.png", np.full((16, 8, 3), identity))
    crops = {"name": "folder", "root": str(tmp_path / "crops"), "pattern": r"(?P<person>\d+)_\d_(?P<camera>\w+)"}
    arguments = command("identity", tmp_path / "run", tmp_path / "data", f"data.source={json.dumps(crops)}")
    with pytest.raises(ValueError, match=r"No query has a match: .* by the query's own camera"):
        tf_reid.train.main(arguments)
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_checkpoint_is_not_scored(tmp_path, data_dir, monkeypatch):
    monkeypatch.setattr(training, "train", lambda *_: sys.exit("stopped before its first checkpoint"))
    with pytest.raises(SystemExit, match="stopped before"):
        tf_reid.train.main(command("identity", tmp_path / "run", data_dir))
    with pytest.raises(SystemExit, match="has no checkpoint yet"):
        run_command(lambda: tf_reid.evaluate.main(["--run", str(tmp_path / "run")]))


def test_an_error_of_tensorflow_is_told_without_a_traceback_and_a_mistake_of_ours_with_one():
    def too_big():
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")

    with pytest.raises(SystemExit, match="Error: out of memory"):
        run_command(too_big)
    with pytest.raises(KeyError):
        run_command(lambda: {}["no such key"])


def test_a_traceback_is_there_for_those_who_ask(monkeypatch):
    def broken():
        raise ValueError("what is wrong")

    with pytest.raises(SystemExit, match="Error: what is wrong"):
        run_command(broken)
    monkeypatch.setenv("TF_REID_TRACEBACK", "1")
    with pytest.raises(ValueError, match="what is wrong"):
        run_command(broken)
