"""The scripts of docs/cluster.md give each worker its place, and start it again where it is to be."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tf_reid.runs import cluster

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
# Programs that stand in for Slurm's and for Python, which notes its place in the cluster and ends with a status.
PROGRAMS = {
    "scontrol": 'case $1 in show) printf "n2\\nn10\\n";; *) echo "$@" >> "$NOTES/requeued";; esac',
    "srun": 'shift\nfor SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@" || status=$?; done\nexit ${status:-0}',
    "python": 'echo "$TF_CONFIG" >> "$NOTES/places"\necho "$@" >> "$NOTES/commands"\n'
    'status=$(sed -n "$(wc -l < "$NOTES/places")p" "$NOTES/statuses")\nexit ${status:-0}',
    "sleep": "",
}


@pytest.fixture
def run(tmp_path):
    """(command, statuses that Python ends with, variables) -> the exit status, the places and what was put back."""
    for name, lines in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{lines}\n")
        (tmp_path / name).chmod(0o755)

    def ended(command, statuses=(), **variables):
        (tmp_path / "statuses").write_text("".join(f"{status}\n" for status in statuses))
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "NOTES": str(tmp_path), **variables}
        status = subprocess.run(command, env=environment, timeout=20).returncode
        places = [json.loads(line) for line in (tmp_path / "places").read_text().splitlines()]
        requeued = (tmp_path / "requeued").read_text().split() if (tmp_path / "requeued").exists() else []
        for name in ("places", "requeued"):
            (tmp_path / name).unlink(missing_ok=True)
        return status, places, requeued

    return ended


def check(places, addresses, monkeypatch):
    """Each of two workers has its place, as tf_reid reads it."""
    for index, place in enumerate(places):
        monkeypatch.setenv("TF_CONFIG", json.dumps(place))
        assert cluster.place_of_this_worker() == (addresses, index)
    assert len(places) == len(addresses)


SLURM = {"SLURM_JOB_ID": "42", "SLURM_JOB_NODELIST": "n[2,10]"}


def test_slurm(run, monkeypatch):
    script = ["bash", str(EXAMPLES / "train.sbatch")]
    status, places, requeued = run(script, **SLURM)
    check(places, ["n2:15042", "n10:15042"], monkeypatch)
    assert (status, requeued) == (0, [])
    assert run(script, [0, 75], **SLURM)[::2] == (75, ["requeue", "42"])
    assert run(script, [0, 75], **SLURM, SLURM_RESTART_COUNT="20")[::2] == (75, [])
    assert run(script, [1, 1], **SLURM)[::2] == (1, [])


def test_kubernetes(run, monkeypatch):
    service, job = yaml.safe_load_all((EXAMPLES / "train_job.yaml").read_text())
    name, spec = job["metadata"]["name"], job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    places = []
    for index in range(spec["completions"]):
        places += run([*container["command"], *container["args"]], JOB_COMPLETION_INDEX=str(index))[1]
    subdomain = spec["template"]["spec"]["subdomain"]
    check(places, [f"{name}-{index}.{subdomain}:12345" for index in range(2)], monkeypatch)
    assert service["metadata"]["name"] == subdomain and service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": name} and spec["parallelism"] == spec["completions"]
    (port,) = service["spec"]["ports"]
    assert port["port"] == 12345 and spec["completionMode"] == "Indexed"
    final = [rule for rule in spec["podFailurePolicy"]["rules"] if rule["action"] == "FailJob"]
    assert cluster.START_AGAIN not in final[0]["onExitCodes"]["values"]


def test_ssh(run, monkeypatch):
    script = str(EXAMPLES / "train_worker.sh")
    both = [run([script, index])[1][0] for index in "01"]
    check(both, ["10.0.0.1:12345", "10.0.0.2:12345"], monkeypatch)
    status, places, _ = run([script, "1"], [75, 137, 0])
    assert status == 0 and len(places) == 3  # started again twice
    assert run([script, "0"], [1])[0] == 1 and run([script, "0"], [143])[0] == 143


def test_the_commands_are_ones(run, tmp_path):
    import tf_reid.train

    run(["bash", str(EXAMPLES / "train.sbatch")], **SLURM)
    _, job = yaml.safe_load_all((EXAMPLES / "train_job.yaml").read_text())
    run(["bash", "-c", *job["spec"]["template"]["spec"]["containers"][0]["args"]], JOB_COMPLETION_INDEX="0")
    run([str(EXAMPLES / "train_worker.sh"), "0"])
    lines = (tmp_path / "commands").read_text().splitlines()
    assert len(lines) == 4
    for line in lines:
        dash_m, module, *options = line.split()
        assert (dash_m, module) == ("-m", "tf_reid.train")
        assert "run.strategy=multi_worker" in tf_reid.train.arguments(options).set
