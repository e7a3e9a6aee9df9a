"""Two workers on one machine, started by one command, train what one device trains; they stop where they cannot."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import small_settings
from test_commands import command, data_dir  # noqa: F401  a fixture

import tf_reid.train
from tf_reid.command_line import Terminated
from tf_reid.methods import METHODS
from tf_reid.runs import local_workers
from tf_reid.runs.cluster import START_AGAIN

SGD = "stages.classifier.optimizers.classifier={name: sgd, learning_rate: 0.01}"
CHOSEN = ("data.validation=2", "run.validate_every=1", "run.keep=best", "stages.classifier.early_stop={watch: mAP}")

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.getcwd()}


def start(logs, arguments):
    line = [sys.executable, "-m", "tf_reid.runs.local_workers", "--logs", str(logs), "--", *arguments]
    return subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True, timeout=540)


def start_each(arguments_of_workers):
    """Two workers with arguments of their own -> their processes."""
    addresses = [f"localhost:{port}" for port in local_workers.free_ports(2)]
    processes = []
    for index, arguments in enumerate(arguments_of_workers):
        environment = ENVIRONMENT | local_workers._place(addresses, index)
        line = [sys.executable, "-m", "tf_reid.train", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        processes.append(subprocess.Popen(line, env=environment, **pipes))
    return processes


def printed_by(process):
    """What a worker printed until it ended."""
    return process.communicate(timeout=300)[0]


def test_two_workers_train_and_choose_what_one_device_does(tmp_path, data_dir):  # noqa: F811
    alone = command("identity", tmp_path / "one", data_dir, SGD, *CHOSEN, "strategy=one")
    tf_reid.train.main(alone)
    chosen = command("identity", tmp_path / "two", data_dir, SGD, *CHOSEN, "evaluate_every=2")
    kill_one_of_two(tmp_path / "two", [*chosen, "strategy=multi_worker"])
    done = start(tmp_path / "logs", chosen)
    other = (tmp_path / "logs" / "worker_1.log").read_text()
    assert done.returncode == 0, done.stderr[-2000:] + other[-2000:]
    for printed in (done.stdout, other):
        assert "Training on 2 workers with 2 replicas." in printed
        assert ("metrics.json" in printed) == (printed is done.stdout)  # the first one alone scores the run
    kept = [json.loads((tmp_path / run / "validation.json").read_text())["classifier"] for run in ("one", "two")]
    assert kept[0]["step"] == kept[1]["step"] and kept[0]["mAP"] == pytest.approx(kept[1]["mAP"], abs=1e-3)
    sentence = f"Stage classifier: the weights after step {kept[1]['step']} of 2 are kept"
    assert sentence in done.stdout and sentence in other

    weights = []
    model = METHODS["identity"]((32, 16), 2, 0, **small_settings("identity"))
    for run in ("one", "two"):
        model.classifier.load_weights(tmp_path / run / "networks" / "classifier.weights.h5")
        weights.append(model.classifier.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    assert {path.name for path in (tmp_path / "two").iterdir()} >= {"checkpoints", "networks", "tensorboard"}

    # The second worker does not see what the first saved.
    folders = (tmp_path / "two", tmp_path / "elsewhere")
    arguments = [command("identity", run, data_dir, SGD, *CHOSEN, "strategy=multi_worker") for run in folders]
    for process in start_each(arguments):
        printed = printed_by(process)
        assert "--run must lie on storage that all workers share" in printed, printed[-3000:]


def kill_one_of_two(run, arguments):
    """Of two workers, kill the second one when the first has saved a checkpoint: the first ends by itself."""
    first, second = start_each([arguments, arguments])
    while not (run / "checkpoints" / "ckpt-1.index").exists() and second.poll() is None:
        time.sleep(0.02)
    second.kill()
    printed_by(second)
    printed = printed_by(first)
    assert "Error: Worker 1 has ended, has been started anew, or cannot be reached. Start every worker" in printed
    assert first.returncode == START_AGAIN, printed[-3000:]
    if (run / "validation.json").exists():  # the stage was over before the kill, on a busy machine
        shutil.rmtree(run)


def test_a_worker_that_fails_stops_the_others(tmp_path):
    done = start(tmp_path / "logs", ["--config", "identity", "--sede", "3"])
    assert done.returncode == 1 and "unrecognized arguments: --sede 3" in done.stderr
    assert "ended with status 2" in done.stderr


@pytest.mark.parametrize(
    ("gpus", "expected"), [("", ["", ""]), ("0,1", ["0", "1"]), ("0,1,2,3", ["0,1", "2,3"]), ("5", ["", ""])]
)
def test_the_gpus_are_divided_among_the_workers(gpus, expected, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    addresses = ["localhost:1", "localhost:2"]
    assert [local_workers._place(addresses, index)["CUDA_VISIBLE_DEVICES"] for index in (0, 1)] == expected


@pytest.mark.parametrize(("trap", "signals"), [("exit 143", 1), ("", 2)])
def test_a_signal_is_passed_on_and_a_second_one_kills(trap, signals, tmp_path, monkeypatch):
    """The workers end at SIGTERM, or ignore it."""
    lines = f"trap '{trap}' TERM\necho $$ >> {tmp_path}/started\nwhile :; do sleep 0.05; done"
    use_script(tmp_path, monkeypatch, lines)
    stopping = threading.Thread(target=signal_when_started, args=(tmp_path / "started", signals))
    stopping.start()
    with pytest.raises(Terminated) as ending:
        local_workers.main(["--logs", str(tmp_path), "--", "--config", "identity"])
    stopping.join()
    assert ending.value.code == 143 and "The same command resumes" in ending.value.sentence
    for process in (tmp_path / "started").read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)


def test_after_a_signal_no_further_worker_is_started(tmp_path, monkeypatch):
    use_script(tmp_path, monkeypatch, "sleep 3")
    started = []

    def start_and_signal(*arguments, **options):
        started.append(subprocess.Popen(*arguments, **options))
        os.kill(os.getpid(), signal.SIGTERM)  # before this worker can be in the list of those that it is passed on to
        return started[-1]

    monkeypatch.setattr(local_workers, "subprocess", SimpleNamespace(Popen=start_and_signal, STDOUT=subprocess.STDOUT))
    with pytest.raises(Terminated):
        local_workers.main(["--logs", str(tmp_path), "--", "--config", "identity"])
    assert [process.returncode for process in started] == [-signal.SIGTERM]


def test_a_worker_that_cannot_save_after_a_signal_has_failed(tmp_path, monkeypatch):
    use_script(tmp_path, monkeypatch, f"trap 'exit 1' TERM\necho >> {tmp_path}/started\nwhile :; do sleep 0.05; done")
    stopping = threading.Thread(target=signal_when_started, args=(tmp_path / "started", 1))
    stopping.start()
    with pytest.raises(local_workers.WorkerFailed, match="Worker 0 of 2 ended with status 1; its messages are above"):
        local_workers.main(["--logs", str(tmp_path), "--", "--config", "identity"])
    stopping.join()


def use_script(tmp_path, monkeypatch, lines):
    """A worker is this script of the shell, in place of Python."""
    worker = tmp_path / "python"
    worker.write_text(f"#!/bin/sh\n{lines}\n")
    worker.chmod(0o755)
    monkeypatch.setattr(local_workers.sys, "executable", str(worker))


def signal_when_started(file, signals):
    while not file.exists() or len(file.read_text().splitlines()) < 2:
        time.sleep(0.05)
    for _ in range(signals):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
