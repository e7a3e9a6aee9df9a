"""Several workers that train one run: how they find each other, agree, and notice that one of them is lost.

TensorFlow's coordination service runs in the first worker. Every worker sends it signs of life; where they stop for ten
seconds, the exchanges of all other workers fail, and each ends with `WorkerLost`.
"""

import atexit
import contextlib
import functools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_reid.config import ConfigError
from tf_reid.runs.checkpoints import NotSaved
from tf_reid.runs.fingerprints import fingerprint
from tf_reid.settings import Config

START_AGAIN = 75  # the exit status of a worker that is to be started again: EX_TEMPFAIL of sysexits.h
# What TensorFlow raises where an exchange ends because a worker has gone, or has come back as another process.
GONE = (tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError, tf.errors.UnavailableError)
# The same, if the message speaks of the exchange; otherwise they have other causes.
PERHAPS_GONE = (
    tf.errors.AlreadyExistsError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.InvalidArgumentError,
    tf.errors.UnknownError,
)
OF_THE_EXCHANGE = re.compile("coordination|collective ops|heartbeat|incarnation|grpc|connection|socket", re.IGNORECASE)
BLOCK = 4096  # texts are exchanged in so many bytes, or a multiple: each new length would be traced anew
# Settings that may differ between workers: where things lie. What lies there is compared by its content.
PLACE = re.compile(r"data\.(\w+_dir|(source|target)(\.(root|csv))?)")


class WorkerLost(RuntimeError):
    """Another worker has ended, or the network to it is down; all are to be started again."""

    exit_status = START_AGAIN


def connect(config: Config) -> tf.distribute.Strategy:
    """The strategy of the workers that TF_CONFIG names; returns when all of them have started.

    Raises:
        ConfigError: TF_CONFIG is missing or wrong, or the workers have different settings.
        WorkerLost: the others did not come within an hour, or still belong to an earlier start.
    """
    addresses, index = place_of_this_worker()
    if len(addresses) > 1:
        print(f"Worker {index} of {len(addresses)} ({addresses[index]}) waits for the others.", flush=True)
    with naming_lost_workers(index if len(addresses) > 1 else None):
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        check_settings(strategy, config)
    return strategy


def place_of_this_worker() -> tuple[list[str], int]:
    """The addresses of all workers, and which of them this process is, as TF_CONFIG says.

    Raises:
        ConfigError: TF_CONFIG is missing or wrong.
    """
    if "TF_CONFIG" not in os.environ:
        raise ConfigError(
            "run.strategy is multi_worker, but TF_CONFIG is not set: it names the machines, see docs/cluster.md. On "
            "one machine, python -m tf_reid.runs.local_workers sets it."
        )
    try:
        content = json.loads(os.environ["TF_CONFIG"])
        cluster, task = content["cluster"], content["task"]
        addresses, index, kind = list(cluster["worker"]), int(task["index"]), task["type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"TF_CONFIG cannot be read ({type(error).__name__}: {error}); it has to look like "
            '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}.'
        ) from None
    if set(cluster) != {"worker"} or kind != "worker":
        raise ConfigError('TF_CONFIG names tasks of other types than "worker"; name every machine under "worker".')
    if not 0 <= index < len(addresses):
        raise ConfigError(f"TF_CONFIG has the index {index}, but names {len(addresses)} workers; they count from 0.")
    if len(set(addresses)) < len(addresses):
        raise ConfigError(f"TF_CONFIG names an address twice: {', '.join(addresses)}.")
    return addresses, index


@contextlib.contextmanager
def naming_lost_workers(own: int | None) -> Iterator[None]:
    """In this context an error of TensorFlow's that means that a worker is lost becomes a `WorkerLost`.

    Args:
        own: the number of this worker; None where a process trains alone, and nothing is changed.
    """
    try:
        yield
    except (tf.errors.OpError, NotSaved) as error:  # some variables of a checkpoint are read from all workers
        cause = error.__cause__ or error
        if own is None or not is_of_a_lost_worker(cause):
            raise
        others = set(re.findall(r"/job:worker/(?:replica:\d+/)?task:(\d+)", str(cause))) - {str(own)}
        which = f"Worker {others.pop()}" if len(others) == 1 else "Another worker"
        raise WorkerLost(
            f"{which} has ended, has been started anew, or cannot be reached. Start every worker again with the same "
            "command: they resume from the last checkpoint."
        ) from error


def is_of_a_lost_worker(error: BaseException) -> bool:
    """Whether TensorFlow's error, raised where several workers train, means that another one is lost."""
    return isinstance(error, GONE) or (isinstance(error, PERHAPS_GONE) and bool(OF_THE_EXCHANGE.search(str(error))))


# --------------------------------------------------------------------- exchange


def number_among_several(strategy: tf.distribute.Strategy) -> int | None:
    """Which of several workers this process is; None where it trains alone."""
    return strategy.cluster_resolver.task_id if number_of_workers(strategy) > 1 else None


def number_of_workers(strategy: tf.distribute.Strategy) -> int:
    """How many workers train the run, 1 or more."""
    if strategy.cluster_resolver is None:
        return 1
    return max(1, sum(map(len, strategy.cluster_resolver.cluster_spec().as_dict().values())))


def own_folder(strategy: tf.distribute.Strategy, folder: Path) -> Path:
    """Where this process writes: the run's folder; in workers other than the first a folder that ends with it."""
    resolver = strategy.cluster_resolver
    if resolver is not None and resolver.task_id:
        own = Path(tempfile.mkdtemp(prefix="tf_reid_worker_"))
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        return own
    return folder


@functools.lru_cache(maxsize=4)  # each new one would be traced again
def sum_over_replicas(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    """-> a function that adds up what the replicas of all workers hold: those of a worker hold the same.

    All workers call it at the same place of their training. It is traced once for each form of a tensor.
    """

    @tf.function
    def summed(of_worker: tf.Tensor) -> tf.Tensor:
        return strategy.reduce("SUM", strategy.run(lambda: of_worker), axis=None)

    return summed


def wait_for_all_workers(strategy: tf.distribute.Strategy) -> None:
    """Return where every worker has come to this place; at once where a process trains alone."""
    if strategy.cluster_resolver is not None:
        sum_over_replicas(strategy)(tf.constant(0, tf.int64)).numpy()


def texts_of_workers(strategy: tf.distribute.Strategy, text: str) -> list[str]:
    """The text of every worker, in their order; all call it at the same place."""
    workers = number_of_workers(strategy)
    if workers == 1:
        return [text]
    replicas_of_a_worker = strategy.num_replicas_in_sync // workers
    add = sum_over_replicas(strategy)

    def of_all(own: np.ndarray) -> np.ndarray:
        rows = np.zeros((workers, *own.shape), np.int64)
        rows[strategy.cluster_resolver.task_id] = own
        return np.asarray(add(tf.constant(rows))) // replicas_of_a_worker

    encoded = np.frombuffer(text.encode(), np.uint8)
    lengths = of_all(np.array(len(encoded)))
    columns = -(-int(lengths.max()) // BLOCK) * BLOCK
    rows = of_all(np.pad(encoded, (0, columns - len(encoded))))
    return [row[:length].astype(np.uint8).tobytes().decode() for row, length in zip(rows, lengths, strict=True)]


# --------------------------------------------------------------------- agreement


def check_settings(strategy: tf.distribute.Strategy, config: Config) -> None:
    """Make sure that all workers have the same version of TensorFlow and the same settings, but for places.

    Raises:
        ConfigError: in every worker; the message names what differs, and how.
    """
    settings = {key: value for key, value in _flat(config.model_dump(mode="json")) if not PLACE.fullmatch(key)}
    _check_alike(
        strategy, settings | {"the version of TensorFlow": tf.__version__}, "Start all workers with the same command."
    )


def check_images(strategy: tf.distribute.Strategy, seen: Mapping[str, Any]) -> None:
    """Make sure that all workers train on the same images.

    Args:
        seen: the training images of `source` and `target`.

    Raises:
        ConfigError: in every worker; the message names the data set and the numbers of images.
    """
    if number_of_workers(strategy) == 1:
        return
    facts = {}
    for domain, records in seen.items():
        about = fingerprint(records)
        facts[f"data.{domain}"] = (
            f"{about['images']} images of {about['identities']} identities, {about['content'][:12]}"
        )
    _check_alike(strategy, facts, "Give every worker the same data set: copy it, or share its folder.")


def check_same_step(strategy: tf.distribute.Strategy, stage: int, step: int) -> None:
    """Make sure that all workers resume from the same step; otherwise they would wait for each other for ever.

    Raises:
        ConfigError: in every worker; the message names the steps.
    """
    if number_of_workers(strategy) == 1:
        return
    places = [tuple(json.loads(text)) for text in texts_of_workers(strategy, json.dumps([stage, step]))]
    if len(set(places)) > 1:
        seen = ", ".join(f"worker {number} of stage {a}, step {b}" for number, (a, b) in enumerate(places))
        raise ConfigError(
            f"The workers see different checkpoints ({seen}); --run must lie on storage that all workers share. If it "
            "does, this storage shows the newest files late: start every worker again with the same command."
        )


def _check_alike(strategy: tf.distribute.Strategy, facts: Mapping[str, Any], remedy: str) -> None:
    """Raise in every worker where one has other facts than the first."""
    first, *others = [json.loads(text) for text in texts_of_workers(strategy, json.dumps(facts))]
    for number, other in enumerate(others, 1):
        keys = [key for key in {**first, **other} if first.get(key) != other.get(key)]
        if keys:
            shown = "; ".join(f"{key} is {first.get(key)!r} and {other.get(key)!r}" for key in keys)
            raise ConfigError(f"Worker 0 and worker {number} differ: {shown}. {remedy}")


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
