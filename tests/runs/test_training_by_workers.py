"""Two processes, as on two machines, train what one device trains."""

import json
import os
import subprocess
import sys

import numpy as np
import test_training
from conftest import build

from tf_reid.runs.local_workers import free_ports

WORKER = """
import pathlib, sys, tempfile
sys.path[:0] = ["tests", "tests/runs"]
import test_training
from tf_reid.runs import reproducibility, run_folder, splits, training
from tf_reid.runs.strategy import make_strategy, own_folder
folder = pathlib.Path(sys.argv[1])
own_files = pathlib.Path(tempfile.mkdtemp(dir=folder))  # not a file that the other worker may be writing
config = test_training.settings(own_files, *test_training.ONE_STAGE, "strategy=multi_worker", name="identity")
strategy = make_strategy(config).strategy
reproducibility.make_deterministic(config)
seen = splits.training_records(config, test_training.domains())
with strategy.scope():
    model = run_folder.build_model(config, seen["source"].identities)
own = own_folder(strategy, folder / "shared")
training.train(model, config, seen, folder / "shared", dict, own)
print("REPLICAS", strategy.num_replicas_in_sync)
"""


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
