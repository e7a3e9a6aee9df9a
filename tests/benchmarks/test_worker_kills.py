"""The script that kills several workers of a run: what it plans, and that it sees a point that is lost or doubled."""

import signal

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import run_files, worker_kills
from tf_reid.runs.cluster import START_AGAIN


def plan(count, seed=0, workers=2, stages=2):
    return list(worker_kills.plan(count, workers, stages, np.random.default_rng(seed)))


def test_the_plan_kills_each_worker_and_all_in_the_order_of_a_run():
    kills = plan(8)
    assert kills == plan(8) != plan(8, seed=1) and len(kills) == 8
    assert {kill.victims for kill in kills} == {(0,), (1,), (0, 1)}
    assert {kill.moment for kill in kills} == {"steps", "save", "score"}
    places = [(kill.stage, kill.step) for kill in kills]
    assert places == sorted(places)
    assert [kill.victims for kill in kills if kill.moment == "score"] == [(0,), (1,)]
    assert len(plan(40)) == 40 and not plan(0)


@pytest.fixture
def cluster(tmp_path):
    return worker_kills.Cluster(tmp_path, "identity", "run", 2, np.random.default_rng(0), apart=5.0)


def test_a_worker_is_started_again_unless_it_failed(cluster, capsys):
    cluster.ended(0, 0)
    assert cluster.done == [True, False] and cluster.due[0] == 0
    for status in (-signal.SIGKILL, START_AGAIN):
        cluster.due[1] = 0
        cluster.ended(1, status)
        assert cluster.due[1] > 0
    printed = capsys.readouterr().out
    assert "worker 1 was killed" in printed and "worker 1 ended by itself" in printed
    cluster.run.parent.mkdir(parents=True)
    cluster.log(1).write_text("Error: a reason")
    with pytest.raises(RuntimeError, match=r"Worker 1 ended with status 1: Error: a reason"):
        cluster.ended(1, 1)


def log(run, steps):
    writer = tf.summary.create_file_writer(str(run / "tensorboard"))
    with writer.as_default():
        for step in steps:
            tf.summary.scalar("classifier/loss", 1.0 / step, step=step)
    writer.close()


@pytest.mark.parametrize(
    ("again", "number"), [([6], 0), ([4, 6], 1), ([], 1)], ids=["once each", "a point twice", "a point lost"]
)
def test_every_point_of_the_curves_is_compared(again, number, tmp_path):
    log(tmp_path / "reference", [2, 4, 6])
    log(tmp_path / "run", [2, 4])
    log(tmp_path / "run", again)
    assert not list(run_files.differences(tmp_path / "reference", tmp_path / "run"))
    found = list(run_files.differences(tmp_path / "reference", tmp_path / "run", with_curves=True))
    assert len(found) == number and all(each.startswith("what is logged: 1 of 3") for each in found)
