"""Two processes, as on two machines, train what one device trains."""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys

import numpy as np
import test_training
from conftest import build

WORKER = """
import pathlib, sys, tempfile
sys.path.insert(0, "tests")
import test_training
from tf_reid import runs, splits, training
folder = pathlib.Path(sys.argv[1])
strategy = runs.make_strategy("multi_worker")
own_files = pathlib.Path(tempfile.mkdtemp(dir=folder))  # not a file that the other worker may be writing
config = test_training.settings(own_files, *test_training.ONE_STAGE, name="identity")
runs.make_deterministic(config)
seen = splits.training_records(config, test_training.domains())
with strategy.scope():
    model = runs.build_model(config, seen["source"].identities)
own = runs.own_folder(strategy, folder / "shared")
training.train(model, config, seen, folder / "shared", dict, own)
print("REPLICAS", strategy.num_replicas_in_sync)
"""


def free_ports(count):
    """Below the range that outgoing connections are given: one of them could take a port before a worker listens."""
    found = []
    for port in random.sample(range(15_000, 30_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("localhost", port))
            found.append(port)
    return found[:count]


def two_workers(folders):
    """-> what either printed."""
    workers = [f"localhost:{port}" for port in free_ports(2)]
    processes = []
    for index, folder in enumerate(folders):
        cluster = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "PYTHONPATH": os.getcwd(), "TF_CONFIG": json.dumps(cluster)}
        command = [sys.executable, "-c", WORKER, str(folder)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, env=environment, **pipes))
    return ["".join(process.communicate(timeout=300)) for process in processes]


def test_two_workers_train_what_one_device_trains(tmp_path):
    config = test_training.settings(tmp_path, *test_training.ONE_STAGE, name="identity")
    expected = test_training.train(tmp_path / "alone", config)
    for output in two_workers([tmp_path, tmp_path]):
        assert "REPLICAS 2" in output, output[-3000:]

    found = build("identity")
    found.classifier.load_weights(tmp_path / "shared" / "networks" / "classifier.weights.h5")
    for a, b in zip(expected.classifier.get_weights(), found.classifier.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)
    assert {path.name for path in (tmp_path / "shared").iterdir()} >= {"checkpoints", "networks", "tensorboard"}

    (tmp_path / "elsewhere").mkdir()  # the second worker does not see what the first saved
    for output in two_workers([tmp_path, tmp_path / "elsewhere"]):
        assert "--run must lie on storage that all workers share" in output
