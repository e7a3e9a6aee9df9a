"""Which devices a run trains on, and why."""

import functools
import json
import os
import re
import subprocess
import sys

import pytest
import tensorflow as tf

from tf_reid import config as configuration
from tf_reid.config import ConfigError
from tf_reid.methods import METHODS
from tf_reid.runs import strategy

NAMES = configuration.shipped_names()
# Logical CPU devices stand in for GPUs, as many as a test asks for.
GPUS = """
import sys
import tensorflow as tf
COUNT = int(sys.argv[1])
cpu = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu[0], [tf.config.LogicalDeviceConfiguration()] * COUNT)
tf.config.get_visible_devices = lambda kind=None: cpu * COUNT
tf.config.set_visible_devices = lambda devices, kind=None: None
real = tf.config.list_logical_devices
tf.config.list_logical_devices = lambda kind=None: real("CPU")[:COUNT]
tf.config.set_logical_device_configuration = lambda *_: None  # `conftest` asks for two
sys.path.insert(0, "tests")
"""
CHOOSE = (
    GPUS
    + """
import json
from tf_reid import config
from tf_reid.methods import METHODS
from tf_reid.runs import strategy
replicas = {}
configs = {name: config.load(name, [], METHODS) for name in config.shipped_names()}
for COUNT in (1, 2, 3, 4, 8):
    for name, loaded in configs.items():
        chosen = strategy.make_strategy(loaded)
        replicas[f"{name} {COUNT}"] = chosen.strategy.num_replicas_in_sync
print(json.dumps(replicas))
"""
)
TRAIN = (
    GPUS
    + """
import pathlib
import test_commands
import tf_reid.train
from tfds_builders.synthetic_pedestrians.synthetic_pedestrians_dataset_builder import Builder
Builder.TRAIN_IDENTITIES, Builder.MORE_IDENTITIES, Builder.TEST_IDENTITIES = 4, 2, 4
folder, settings = pathlib.Path(sys.argv[2]), sys.argv[3:]
tf_reid.train.main(test_commands.command("identity", folder / "run", folder / "data", *settings))
"""
)


@functools.cache
def simple(name="identity", *overrides):
    return configuration.load(name, overrides, METHODS)


def in_a_process(script, *arguments):
    """What the script prints."""
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


# --------------------------------------------------------------------- how many GPUs


@pytest.mark.parametrize("available", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("name", NAMES)
def test_every_configuration_starts_on_so_many_gpus(name, available):
    config = simple(name)
    count, why = strategy.gpus_to_use(config, available)
    strategy.check_batches(config, count)
    assert 1 <= count <= available and bool(why) == (count < available)
    for more in range(count + 1, available + 1):  # no more of them could share every batch
        with pytest.raises(ConfigError, match=f"which {more} replicas cannot share evenly"):
            strategy.check_batches(config, more)


@pytest.mark.parametrize(
    ("name", "available", "overrides", "expected"),
    [
        ("simpgan", 2, [], (1, "stages.translation.batch_size=2 holds 1 pair, which 2 replicas cannot share evenly")),
        (
            "simpgan",
            3,
            ["stages.translation.batch_size=4"],
            (2, "stages.translation.batch_size=4 holds 2 pairs, which 3 replicas cannot share evenly"),
        ),
        (
            "simpgan",
            3,
            ["stages.translation.steps=0"],  # a stage without steps has no batch to share
            (2, "stages.classifier.batch_size=64 holds 32 pairs, which 3 replicas cannot share evenly"),
        ),
        (
            "view_adaptation",
            3,
            [],
            (2, "stages.similarity.batch_size=64 holds 16 rows of 4 images, which 3 replicas cannot share evenly"),
        ),
        ("identity", 8, [], (8, "")),
    ],
)
def test_the_reason_is_named(name, available, overrides, expected):
    assert strategy.gpus_to_use(simple(name, *overrides), available) == expected


def test_a_named_strategy_is_refused_where_a_batch_cannot_be_shared():
    with pytest.raises(ConfigError) as error:
        strategy.check_batches(simple("simpgan", "run.strategy=mirrored"), 2)
    assert str(error.value).startswith("stages.translation.batch_size=2 holds 1 pair, which 2 replicas cannot share")
    assert "use a multiple of 4, or set run.strategy=auto" in str(error.value)


# --------------------------------------------------------------------- the strategy


def test_without_a_gpu_the_cpu_is_one_device():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    for name in ("one", "auto"):
        chosen, sentence = strategy.make_strategy(simple("identity", f"run.strategy={name}"))
        assert chosen is tf.distribute.get_strategy() and chosen.num_replicas_in_sync == 1
        assert sentence == "Training on the CPU: TensorFlow sees no GPU. Steps are not compiled."


@pytest.mark.parametrize(
    ("name", "setting", "used", "sentence"),
    [
        ("simpgan", "auto", ["a"], r"Training on 1 of 3 GPUs: stages\.translation\.batch_size=2 holds 1 pair, which 3"),
        ("identity", "auto", ["a", "b"], r"Training on 2 of 3 GPUs: stages\.classifier\.batch_size=64 holds 32 pairs"),
        ("identity", "one", ["a"], r"Training on 1 of 3 GPUs: run\.strategy=one\. Steps are not compiled\.$"),
    ],
)
def test_gpus_that_are_not_used_are_left_to_others(name, setting, used, sentence, monkeypatch, two_replicas):
    seen = []
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["a", "b", "c"])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: seen.append(devices))
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda devices: two_replicas)
    chosen = strategy.make_strategy(simple(name, f"run.strategy={setting}"))
    assert seen == [used] and re.match(sentence, chosen.sentence)


def test_xla_compiles_long_stages_on_one_gpu(monkeypatch, two_replicas):
    """Its compilation takes as long as some thousand plain steps."""
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["a"])
    short, long = (simple("simpgan", f"stages.classifier.steps={steps}") for steps in (1999, 2000))
    assert strategy.compiles(long) and not strategy.compiles(short)
    assert strategy.compiles(simple("simpgan", "run.jit_compile=true"))
    assert not strategy.compiles(simple("simpgan", "stages.classifier.steps=2000", "run.jit_compile=false"))
    with two_replicas.scope():
        assert not strategy.compiles(long)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [])
    assert not strategy.compiles(long)


def test_mirrored_takes_every_device(two_replicas, monkeypatch):
    asked = []
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda devices: asked.append(devices) or two_replicas)
    assert strategy.make_strategy(simple("identity", "run.strategy=mirrored")).strategy is two_replicas
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    assert asked == [[device.name for device in devices]]


def test_the_chosen_strategy_has_as_many_replicas():
    replicas = json.loads(in_a_process(CHOOSE, 8))
    assert len(replicas) == 5 * len(NAMES)
    for key, count in replicas.items():
        name, available = key.split()
        assert count == strategy.gpus_to_use(simple(name), int(available))[0]


def test_a_run_trains_on_the_gpus_that_can_share_its_batches(tmp_path):
    printed = in_a_process(TRAIN, 3, tmp_path, "stages.classifier.steps=1")
    first = (
        "Training on 2 of 3 GPUs: stages.classifier.batch_size=4 holds 2 pairs, which 3 replicas cannot share evenly. "
        "Steps are not compiled."
    )
    assert printed.splitlines()[0] == first
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()).keys() == {"raw"}


def test_several_machines_need_their_names(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    config = configuration.load("identity", ["run.strategy=multi_worker"], METHODS)
    with pytest.raises(ConfigError, match=r"run\.strategy is multi_worker, but TF_CONFIG is not set"):
        strategy.make_strategy(config)


def test_a_batch_that_workers_cannot_share_needs_another_number_of_them():
    config = configuration.load("simpgan", ["run.strategy=multi_worker"], METHODS)
    with pytest.raises(ConfigError, match=r"use a multiple of 6, or another number of workers\."):
        strategy.check_batches(config, 3)


def test_batches_are_copied_ahead_in_their_order(monkeypatch):
    """A logical CPU device stands in for a GPU."""
    batches = tf.data.Dataset.range(5).map(lambda number: {"source": tf.fill([2, 3], number)})
    cpus = tf.config.list_logical_devices("CPU")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: cpus[1:])
    ahead = strategy.on_devices(tf.distribute.get_strategy(), batches)
    assert not isinstance(ahead, tf.data.Dataset)

    @tf.function
    def read(iterator):
        return next(iterator)["source"]

    iterator = iter(ahead)
    values = [read(iterator) for _ in range(5)]
    assert [int(value[0, 0]) for value in values] == [0, 1, 2, 3, 4]
    assert {value.shape for value in values} == {(2, 3)}
    monkeypatch.undo()
    assert strategy.on_devices(tf.distribute.get_strategy(), batches) is batches  # nothing to copy to
