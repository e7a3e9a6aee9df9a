"""Which devices a run trains on: the ones that the user named, or as many GPUs as can share every batch evenly."""

import contextlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import tensorflow as tf

from tf_reid.config import ConfigError
from tf_reid.data import samplers
from tf_reid.methods import METHODS
from tf_reid.runs import cluster
from tf_reid.settings import Config

# Steps of a stage from which on XLA saves more time than its compilation takes; measured on an H200, see docs/gpus.md.
WORTH_COMPILING = 2000


class Chosen(NamedTuple):
    """A strategy, and the sentence that says which devices it uses and why."""

    strategy: tf.distribute.Strategy
    sentence: str


def make_strategy(config: Config) -> Chosen:
    """The strategy of `run.strategy`, and whether XLA compiles the steps; see `_devices`.

    Call it before anything else that starts TensorFlow's devices.

    Raises:
        ConfigError: the strategy was named, and its devices cannot share a batch evenly.
    """
    strategy, sentence = _devices(config)
    with strategy.scope():
        steps = "compiled by XLA: the first of a stage takes minutes" if compiles(config) else "not compiled"
    return Chosen(strategy, f"{sentence} Steps are {steps}.")


def _devices(config: Config) -> Chosen:
    """The strategy of `run.strategy`, and the sentence that says which devices it uses.

    `auto` uses as many GPUs as can share every stage's batch evenly, down to one; without a GPU, the CPU as one device.
    `mirrored` uses every GPU; without a GPU, every logical CPU device. `multi_worker` uses the machines of TF_CONFIG.
    """
    name = config.run.strategy
    if name == "multi_worker":
        strategy = cluster.connect(config)
        replicas, count = strategy.num_replicas_in_sync, cluster.number_of_workers(strategy)
        check_batches(config, replicas)
        return Chosen(strategy, f"Training on {_counted(count, 'worker')} with {_counted(replicas, 'replica')}.")
    gpus = tf.config.get_visible_devices("GPU")
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU" if gpus else "CPU")
        check_batches(config, len(devices))
        strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
        return Chosen(strategy, f"Training on {_counted(len(devices), 'GPU' if gpus else 'CPU device')}.")
    if not gpus:
        return Chosen(tf.distribute.get_strategy(), "Training on the CPU: TensorFlow sees no GPU.")
    count, why = (1, "run.strategy=one") if name == "one" else gpus_to_use(config, len(gpus))
    with contextlib.suppress(RuntimeError):  # they are started already
        tf.config.set_visible_devices(gpus[:count], "GPU")  # TensorFlow takes the memory of every GPU that it sees
    there = f"{count} of {len(gpus)} GPUs" if count < len(gpus) else _counted(count, "GPU")
    sentence = f"Training on {there}" + (f": {why}." if count < len(gpus) else ".")
    if count == 1:
        return Chosen(tf.distribute.get_strategy(), sentence)
    devices = tf.config.list_logical_devices("GPU")[:count]
    return Chosen(tf.distribute.MirroredStrategy([device.name for device in devices]), sentence)


def compiles(config: Config) -> bool:
    """Whether XLA compiles the steps of a run here; call it inside the strategy's scope.

    `auto`: on one GPU, if a stage has `WORTH_COMPILING` steps or more.
    """
    if config.run.jit_compile != "auto":
        return config.run.jit_compile
    if max(stage.steps for stage in config.stages.values()) < WORTH_COMPILING:
        return False
    return bool(tf.config.get_visible_devices("GPU")) and tf.distribute.get_strategy().num_replicas_in_sync == 1


def gpus_to_use(config: Config, available: int) -> tuple[int, str]:
    """How many of so many GPUs can share every stage's batch evenly, at least one; and why no more."""
    rows_of = _rows_of_stages(config)
    count = available
    while any(rows % count for rows in rows_of.values()):
        count -= 1
    if count == available:
        return count, ""
    name = min((name for name, rows in rows_of.items() if rows % available), key=lambda name: rows_of[name])
    return count, (
        f"stages.{name}.batch_size={config.stages[name].batch_size} holds {_rows(config, name, rows_of[name])}, "
        f"which {available} replicas cannot share evenly"
    )


def check_batches(config: Config, replicas: int) -> None:
    """Make sure that so many replicas get equal parts of every stage's batch, in whole rows.

    Raises:
        ConfigError: a stage's batch cannot be shared evenly.
    """
    for name, rows in _rows_of_stages(config).items():
        if rows % replicas:
            size = config.stages[name].batch_size
            raise ConfigError(
                f"stages.{name}.batch_size={size} holds {_rows(config, name, rows)}, which "
                f"{replicas} replicas cannot share evenly; use a multiple of {replicas * _row(config, name)}, or "
                f"{_remedy(config)}."
            )


def _remedy(config: Config) -> str:
    if config.run.strategy == "multi_worker":
        return "another number of workers"
    return "set run.strategy=auto, which uses as many GPUs as can share it"


def on_devices(strategy: tf.distribute.Strategy, batches: tf.data.Dataset) -> Iterable[Any]:
    """The batches, each replica's on its own device; the next ones are copied there while a step is carried out."""
    gpus = tf.config.list_logical_devices("GPU")
    if strategy.num_replicas_in_sync == 1 and strategy.cluster_resolver is None and gpus:
        strategy = tf.distribute.OneDeviceStrategy(gpus[0].name)  # TensorFlow's default strategy copies nothing ahead
    return strategy.experimental_distribute_dataset(batches)


def _rows_of_stages(config: Config) -> dict[str, int]:
    """Stage -> how many rows its global batch has, of the stages that train."""
    return {name: stage.batch_size // _row(config, name) for name, stage in config.stages.items() if stage.steps}


def _row(config: Config, name: str) -> int:
    """How many images of a domain stay together in one replica: a pair, or what else the sampler draws together."""
    sampler, stage = METHODS[config.method["name"]].STAGES[name].sampler, config.stages[name]
    return samplers.images_in_a_row(sampler, stage) * stage.images_per_view


def _rows(config: Config, name: str, count: int) -> str:
    """So many rows in words."""
    images = _row(config, name)
    if images > 2:
        return f"{_counted(count, 'row')} of {images} images"
    return _counted(count, "pair" if images == 2 else "image")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
