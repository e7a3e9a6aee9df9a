"""The table of training steps: what failed is a row and an exit status, what was not measured is left empty."""

import json
import subprocess

import pytest

from benchmarks import steps, training

ROW = {"configuration": "identity", "step": "classifier", "batch": 8, "variant": "plain", "ms": 2.0, "images/s": 4000.0}
ROW |= {"first step": 1.0}


@pytest.fixture
def on_cpus(monkeypatch):
    monkeypatch.setattr("sys.argv", ["training", "identity"])
    monkeypatch.setattr(training, "matrix_rate", lambda *args: 1e9)


def test_a_stage_whose_process_fails_behind_its_first_row_is_a_failed_row(on_cpus, monkeypatch, capsys):
    output = f"{training.HEAD}\n|---|\n| a row |\n"
    monkeypatch.setattr(subprocess, "run", lambda line, **_: subprocess.CompletedProcess(line, -9, output))
    assert training.main() == 1
    assert capsys.readouterr().out.endswith("|\n| a row |\n| identity | classifier | | plain | failed | | | | |\n")
    monkeypatch.setattr(subprocess, "run", lambda line, **_: subprocess.CompletedProcess(line, 0, output))
    assert training.main() == 0


def test_a_configuration_that_fails_on_a_gpu_does_not_stop_the_others(on_cpus, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["training", "identity", "cmgan_sysu_mm01"])
    monkeypatch.setattr(training.tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    monkeypatch.setattr(training, "device_name", lambda gpus: "a GPU")

    def measured(args, config, variant, rates):
        if config == "identity":
            raise MemoryError
        yield ROW | {"configuration": config}

    monkeypatch.setattr(training, "measured", measured)
    assert training.main() == 1
    failed, row = capsys.readouterr().out.splitlines()[-2:]
    assert failed.startswith("| identity | | | plain | failed") and row.startswith("| cmgan_sysu_mm01 |")
    assert failed.count("|") == row.count("|") == training.HEAD.count("|")


def test_memory_on_cpus_is_that_of_the_first_kind_of_step(monkeypatch, tmp_path):
    kinds = [steps.Kind("before", 0, 1), steps.Kind("behind", 9, 1)]
    monkeypatch.setattr(training.steps, "built", lambda config: None)
    monkeypatch.setattr(training.steps, "batch_of", lambda *args: {})
    monkeypatch.setattr(training.steps, "kinds_of_steps", lambda *args: kinds)
    monkeypatch.setattr(training.steps, "multiply_adds", lambda *args: 500)
    monkeypatch.setattr(training.steps, "ready_steps", lambda *args: None)
    monkeypatch.setattr(training, "timed", lambda *args: (1.0, 0.5))
    monkeypatch.setattr("sys.argv", ["training", "identity"])
    rows = list(training.measured(training.arguments(), "identity", "plain", {"float32": 4000.0}))
    assert [row["step"] for row in rows if "GiB" in row] == ["before"]
    assert rows[0]["fraction of rate"] == 0.5
    training.Rows(tmp_path / "rows.jsonl").add_all(iter(rows))
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == rows
