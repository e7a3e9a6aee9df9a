"""Several workers agree before they train: their settings, their images, their step; a lost one is named."""

import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tf_reid import config as configuration
from tf_reid.config import ConfigError
from tf_reid.methods import METHODS
from tf_reid.runs import cluster
from tf_reid.runs.checkpoints import NotSaved

ADDRESSES = ["10.0.0.1:12345", "10.0.0.2:12345"]


def of_config(monkeypatch, content):
    monkeypatch.setenv("TF_CONFIG", content if isinstance(content, str) else json.dumps(content))
    return cluster.place_of_this_worker()


def named(addresses=ADDRESSES, index=1, kind="worker"):
    return {"cluster": {kind: addresses}, "task": {"type": kind, "index": index}}


def test_a_worker_knows_its_place(monkeypatch):
    assert of_config(monkeypatch, named()) == (ADDRESSES, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "TF_CONFIG cannot be read"),
        ({"task": {"type": "worker", "index": 0}}, "cannot be read .KeyError: 'cluster'"),
        (named(index=2), "has the index 2, but names 2 workers"),
        (named(kind="chief"), "cannot be read .KeyError: 'worker'"),
        ({**named(), "cluster": {"worker": ADDRESSES, "ps": ["a:1"]}}, 'other types than "worker"'),
        (named(["a:1", "a:1"]), "names an address twice: a:1, a:1"),
    ],
)
def test_a_wrong_place_is_refused(content, message, monkeypatch):
    with pytest.raises(ConfigError, match=message):
        of_config(monkeypatch, content)


# --------------------------------------------------------------------- agreement


class Exchange:
    """Stands in for the network: workers are threads, which add up what their two replicas each hold."""

    def __init__(self, count):
        self.values, self.barrier = [None] * count, threading.Barrier(count, timeout=20)

    def strategy(self, index):
        resolver = SimpleNamespace(
            task_id=index, cluster_spec=lambda: SimpleNamespace(as_dict=lambda: {"worker": self.values})
        )
        return SimpleNamespace(cluster_resolver=resolver, num_replicas_in_sync=2 * len(self.values), exchange=self)

    def add(self, index, value):
        self.values[index] = np.asarray(value)
        self.barrier.wait()
        total = 2 * sum(self.values)
        self.barrier.wait()
        return total


@pytest.fixture
def in_workers(monkeypatch):
    """(action, argument of each worker) -> what the action returned or raised in each."""

    def add_up(strategy):
        return lambda value: strategy.exchange.add(strategy.cluster_resolver.task_id, value)

    monkeypatch.setattr(cluster, "sum_over_replicas", add_up)

    def run(action, arguments):
        exchange, results = Exchange(len(arguments)), [None] * len(arguments)

        def work(index):
            try:
                results[index] = action(exchange.strategy(index), arguments[index])
            except ConfigError as error:
                results[index] = error

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(arguments))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    return run


def test_every_worker_gets_the_texts_of_all(in_workers):
    texts = ["one", "", "thrée ✓"]
    assert in_workers(cluster.texts_of_workers, texts) == [texts] * 3


def load(*overrides):
    return configuration.load("identity", ["run.strategy=multi_worker", *overrides], METHODS)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["run.seed=3"], "run.seed is 0 and 3."),
        (["stages.classifier.batch_size=32"], "stages.classifier.batch_size is 64 and 32."),
        (["run.log_every=7"], "run.log_every is 20 and 7."),  # at which steps workers wait for each other
        (["data.image_size=[64,64]"], r"data.image_size is [64, 32] and [64, 64]."),
        (["data.data_dir=/elsewhere"], None),
    ],
)
def test_another_setting_is_refused_by_name_in_every_worker(overrides, named, in_workers):
    results = in_workers(cluster.check_settings, [load(), load(*overrides)])
    if named is None:
        assert results == [None, None]
    else:
        assert all(f"Worker 0 and worker 1 differ: {named}" in str(error) for error in results)


def test_other_images_are_refused_by_name(in_workers, monkeypatch):
    monkeypatch.setattr(cluster, "fingerprint", lambda records: records)
    one = {"source": {"images": 8, "identities": 2, "content": "abc"}}
    other = {"source": {"images": 8, "identities": 2, "content": "abd"}}
    assert in_workers(cluster.check_images, [one, one]) == [None, None]
    for error in in_workers(cluster.check_images, [one, one, other]):
        assert "Worker 0 and worker 2 differ: data.source is '8 images of 2 identities, abc' and" in str(error)


def test_another_step_is_refused_in_every_worker(in_workers):
    def check(strategy, place):
        cluster.check_same_step(strategy, *place)

    assert in_workers(check, [(1, 4), (1, 4)]) == [None, None]
    for error in in_workers(check, [(1, 4), (0, 6)]):
        assert "worker 0 of stage 1, step 4, worker 1 of stage 0, step 6" in str(error)
        assert "--run must lie on storage that all workers share" in str(error)


def test_a_process_that_trains_alone_compares_nothing():
    strategy = tf.distribute.get_strategy()
    cluster.check_settings(strategy, load())
    cluster.check_images(strategy, {"source": None})
    cluster.check_same_step(strategy, 0, 0)


# --------------------------------------------------------------------- lost workers


def unavailable(message):
    return tf.errors.UnavailableError(None, None, message)


def test_a_lost_worker_is_named():
    message = "/job:worker/replica:0/task:1 unreachable: coordination service missed its heartbeat"
    starts_again = pytest.raises(cluster.WorkerLost, match=r"Worker 1 has ended.* Start every worker again")
    with starts_again as lost, cluster.naming_lost_workers(0):
        raise unavailable(message)
    assert lost.value.exit_status == 75
    with pytest.raises(tf.errors.UnavailableError), cluster.naming_lost_workers(None):
        raise unavailable(message)
    with pytest.raises(cluster.WorkerLost, match="Another worker has ended"), cluster.naming_lost_workers(1):
        raise unavailable(message)


def test_an_error_of_another_cause_stays_what_it_is():
    of_a_step = "{{function_node __wrapped__Add_device_/job:worker/replica:0/task:0/device:CPU:0}} Incompatible shapes"
    with pytest.raises(tf.errors.InvalidArgumentError), cluster.naming_lost_workers(0):
        raise tf.errors.InvalidArgumentError(None, None, of_a_step)
    with pytest.raises(cluster.WorkerLost), cluster.naming_lost_workers(0):
        raise tf.errors.InvalidArgumentError(None, None, "Unexpected heartbeat from /job:worker/replica:0/task:0")


def test_a_checkpoint_that_a_lost_worker_prevents_is_not_a_full_disk():
    with pytest.raises(cluster.WorkerLost, match="Worker 1 has ended"), cluster.naming_lost_workers(0):
        try:
            raise unavailable("/job:worker/replica:0/task:1 cannot be reached")
        except tf.errors.OpError as error:
            raise NotSaved("A checkpoint cannot be written") from error
    with pytest.raises(NotSaved), cluster.naming_lost_workers(0):
        raise NotSaved("A checkpoint cannot be written")
