"""The script of a GPU's figures: its commands, their paths and their time."""

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "gpu.sh"


def written(folder, *arguments, **variables):
    """What the script writes into `to`, by part, if Python only prints its arguments; started in `folder`."""
    environment = {**os.environ, "PYTHON": "echo", **variables}
    done = subprocess.run(["bash", SCRIPT, "to", *arguments], cwd=folder, env=environment, capture_output=True)
    return done.returncode, {path.stem: path.read_text() for path in (folder / "to").glob("*.txt")}


def test_gpu_script_takes_paths_from_where_it_is_started(tmp_path):
    status, texts = written(tmp_path, "simpgan", "--data", "images", "--weights", "/net.weights.h5", "steps")
    assert status == 0
    assert set(texts) == {"device", "simpgan", "simpgan_compiled", "dgnet_plain"}
    assert f"--run {tmp_path}/to/simpgan_0 " in texts["simpgan"]
    assert f" data.data_dir={tmp_path}/images " in texts["simpgan"]
    assert " method.weights=/net.weights.h5 " in texts["simpgan"]
    assert f"--to {tmp_path}/to/steps.jsonl" in texts["dgnet_plain"]


def test_gpu_script_divides_what_is_left_and_says_what_it_skips(tmp_path):
    _, texts = written(tmp_path, LIMIT="60")
    assert set(texts) == {"device", "simpgan_compiled", "dgnet_plain", "check", "simpgan", "dgnet_compiled"}
    assert "skipped, it needs --data" in texts["simpgan"]
    seconds = int(texts["simpgan_compiled"].split("at most ")[1].split()[0])
    assert 45 <= seconds <= 55
    _, texts = written(tmp_path, "dgnet", LIMIT="20")
    assert "dgnet_compiled: skipped" in texts["dgnet_compiled"]


def test_gpu_script_says_that_a_part_failed_or_is_not_known(tmp_path):
    assert written(tmp_path, "dgnet", PYTHON="false")[0] == 1
    assert written(tmp_path, "chekc")[0] == 2
