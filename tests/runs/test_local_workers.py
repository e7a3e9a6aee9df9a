"""Two workers on one machine, started by one command, train what one device trains."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import small_settings
from test_commands import command, data_dir  # noqa: F401  a fixture

import tf_reid.train
from tf_reid.methods import METHODS
from tf_reid.runs import local_workers

SGD = "stages.classifier.optimizers.classifier={name: sgd, learning_rate: 0.01}"


def start(logs, arguments):
    line = [sys.executable, "-m", "tf_reid.runs.local_workers", "--logs", str(logs), "--", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=540)


def test_two_workers_train_what_one_device_trains(tmp_path, data_dir):  # noqa: F811
    alone = command("identity", tmp_path / "one", data_dir, SGD, "strategy=one")
    tf_reid.train.main(alone)
    done = start(tmp_path / "logs", command("identity", tmp_path / "two", data_dir, SGD))
    other = (tmp_path / "logs" / "worker_1.log").read_text()
    assert done.returncode == 0, done.stderr[-2000:] + other[-2000:]
    for printed in (done.stdout, other):
        assert "Training on 2 workers with 2 replicas." in printed

    weights = []
    model = METHODS["identity"]((32, 16), 4, 0, **small_settings("identity"))
    for run in ("one", "two"):
        model.classifier.load_weights(tmp_path / run / "networks" / "classifier.weights.h5")
        weights.append(model.classifier.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_a_worker_that_fails_stops_the_others(tmp_path):
    done = start(tmp_path / "logs", ["--config", "identity", "--set", "run.sede=3"])
    assert done.returncode == 1 and "unknown key run.sede; did you mean seed?" in done.stderr
    assert "ended with status 1" in done.stderr


@pytest.mark.parametrize(
    ("gpus", "expected"), [("", ["", ""]), ("0,1", ["0", "1"]), ("0,1,2,3", ["0,1", "2,3"]), ("5", ["", ""])]
)
def test_the_gpus_are_divided_among_the_workers(gpus, expected, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    addresses = ["localhost:1", "localhost:2"]
    assert [local_workers._place(addresses, index)["CUDA_VISIBLE_DEVICES"] for index in (0, 1)] == expected
