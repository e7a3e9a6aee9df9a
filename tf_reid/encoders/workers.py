"""Embedding by many processes at once, by Ray Data: each worker opens the model once, and takes images when it is free.

Ray Data holds back what the network has no time for yet: the images wait as names, and only some blocks of embeddings
wait for whoever takes them. Where a worker or its node dies, its images go to another one. An image that ends every
worker that reads it is given up with that as its reason.

Importing this module loads neither Ray nor TensorFlow.
"""

import os
import threading
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tf_reid.config import ConfigError
from tf_reid.encoders import ray_session
from tf_reid.encoders.image_checks import ImageError
from tf_reid.encoders.remote_files import is_url, place_of

BLOCK = 4  # batches that a worker takes at once: while one goes through the network, it reads the next
RETRIES = 2  # of a block whose worker died
FEWER = 16  # times fewer images in a batch, where these retries did not help
STUCK_SECONDS = 120  # without any block done, after which all workers are started anew
MOST_STARTS = 5  # in a row without any block done
CORES_A_WORKER = 2
THREADS = ("iter_threaded", "StreamingExecutor", "ray-data")  # of Ray Data, as their names begin
ENDED_WITHIN = 10  # seconds
KILLER = "cannot be read: each worker that read it ended without an answer"

Encoded: TypeAlias = str | bytes | os.PathLike[str]


class Workers(NamedTuple):
    """The processes that embed.

    Attributes:
        number: how many. None: on this machine one for every two cores; on a cluster as many as it has CPUs or, with
            `gpus`, such parts of GPUs.
        address: of a Ray cluster, host:port of its head, or "auto" on a machine of it. None: a Ray of this process's
            own on this machine, which no other user can reach.
        gpus: of each worker, such as 1 or 0.5.
    """

    number: int | None = None
    address: str | None = None
    gpus: float = 0.0


class Block(NamedTuple):
    """Some images' embeddings.

    Attributes:
        numbers: int64 [B], which of the images these are.
        embeddings: float32 [M, D] of those that can be read, in this order.
        reasons: number -> why it cannot be read, of the others.
    """

    numbers: np.ndarray
    embeddings: np.ndarray
    reasons: dict[int, str]


class Embedded(NamedTuple):
    """An image's embedding float32 [D], or why it cannot be read."""

    embedding: np.ndarray | None
    error: ImageError | None


class Worker:
    """What runs in a worker's process: a table of images -> their embeddings, or reasons.

    Args:
        source, digest: of the model. The same model must lie under this path on each node.
        role: whose images it embeds.
        batch_size: images that go through the network at once.
        threads: that its network computes with on the CPU.
    """

    def __init__(self, source: str, digest: str, role: str, batch_size: int, threads: int):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        for gpu in tf.config.list_physical_devices("GPU"):  # other workers may have a share of it
            tf.config.experimental.set_memory_growth(gpu, True)
        import tf_reid

        self.encoder, self.role, self.batch_size = tf_reid.load(source), role, batch_size
        if self.encoder.digest != digest:
            raise ConfigError(
                f"{source} on this node is model {self.encoder.digest}, and the command's is {digest}: copy the "
                "command's to all nodes."
            )

    def __call__(self, table: Any) -> Any:
        """numbers, paths, contents -> numbers, embeddings or null, reasons or null; else a failure."""
        names, contents = table["path"].to_pylist(), table["content"].to_pylist()
        images = [
            os.fsdecode(name) if content is None else content for name, content in zip(names, contents, strict=True)
        ]
        try:
            embeddings, reasons = self.embed(images)
        except Exception:  # Ray Data would take it for the end of a worker
            return _answers(table["number"], [None] * len(images), {}, traceback.format_exc())
        readable = iter(embeddings)
        return _answers(
            table["number"], [None if number in reasons else next(readable) for number in range(len(images))], reasons
        )

    def embed(self, images: Sequence[str | bytes]) -> tuple[np.ndarray, dict[int, str]]:
        """Embeddings float32 [M, D] of the readable images, and the others' reasons, by their index."""
        reasons: dict[int, str] = {}
        embeddings, _ = self.encoder.embed(
            images, self.role, self.batch_size, errors=lambda error: reasons.update({error.index: error.reason})
        )
        return embeddings, reasons


def embed(
    images: Sequence[Encoded],
    *,
    source: Path,
    digest: str,
    role: str,
    width: int,
    workers: Workers,
    batch_size: int = 64,
    ordered: bool = False,
) -> Iterator[Block]:
    """Embed images by workers. Where the iterator is closed early, the workers end.

    Args:
        images: paths, URLs, or encoded images' bytes.
        source, digest, role, width: of the encoder and of its embeddings.
        batch_size: images that go through the network at once.
        ordered: the blocks come in the order of the images, but for those whose worker died; else as they are done.

    Raises:
        ConfigError: there is no such cluster; this machine has no GPU and one was asked for.
        RuntimeError: the workers cannot start, or a worker fails on what is no fault of an image.
    """
    if not images:
        return
    with ray_session.running(workers.address, workers.number or 1):
        settings = {"source": str(source.resolve()), "digest": digest, "role": role}
        yield from _all_blocks(images, settings, width, workers, batch_size, ordered)


def _all_blocks(images, settings, width, workers, batch_size, ordered):
    """Blocks until no image is left. Images whose worker died go to others, in ever smaller blocks; at last alone."""
    waiting = np.ones(len(images), bool)
    fruitless = 0
    while waiting.any():
        before = waiting.sum()
        try:
            for block in _one_run(images, np.flatnonzero(waiting), settings, width, workers, batch_size, ordered):
                waiting[block.numbers] = False
                yield block
        except _Stuck:
            fruitless = 0 if waiting.sum() < before else fruitless + 1
            if fruitless == MOST_STARTS:
                raise RuntimeError(
                    f"No worker embedded anything in {MOST_STARTS * STUCK_SECONDS} seconds: the cluster may have too "
                    "few free CPUs or GPUs for one worker."
                ) from None
            continue
        if waiting.any() and batch_size == 1:
            lost = np.flatnonzero(waiting)
            yield Block(lost, np.zeros((0, width), np.float32), dict.fromkeys(lost.tolist(), KILLER))
            return
        batch_size = max(1, batch_size // FEWER)


def _one_run(images, numbers, settings, width, workers, batch_size, ordered):
    """Blocks of these images, but for those whose workers died too often."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.data.exceptions import ExecutionTimeoutError

    count, threads = _processes(workers)
    batches = -(-len(numbers) // batch_size)
    size = batch_size * min(BLOCK, max(1, batches // count)) if batch_size > 1 else 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own settings, and of options named otherwise from 2.64 on
        context = DataContext.get_current().copy()
        context.max_errored_blocks = -1  # of workers that died
        context.max_consecutive_actor_init_deaths = RETRIES
        context.execution_no_progress_timeout_s = STUCK_SECONDS
        context.execution_options.preserve_order = ordered
        context.enable_progress_bars = context.print_on_execution_start = False
        tables = [_table(images, numbers[start : start + size]) for start in range(0, len(numbers), size)]
        with DataContext.current(context):  # the data keeps it
            data = ray.data.from_arrow(tables).map_batches(
                Worker,
                fn_constructor_kwargs={**settings, "batch_size": batch_size, "threads": threads},
                batch_size=size,  # a block, which is what a worker takes
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=2 if size > 1 else 1),
                num_cpus=1,
                num_gpus=workers.gpus,
                max_restarts=-1,
                max_task_retries=RETRIES,
            )
    del tables
    before = set(threading.enumerate())
    answers = iter(data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    try:
        with ray_session.quiet():
            for table in answers:
                if len(table):
                    yield _block(table, width)
    except ExecutionTimeoutError:
        raise _Stuck from None
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"The workers ended: {_last_line(error)}") from error
    finally:
        answers.close()
        _wait_for_threads_since(before)


def _wait_for_threads_since(before):
    """Ray Data goes on in threads for a while. One that asks Ray when it is shut down would end this process."""
    deadline = time.monotonic() + ENDED_WITHIN
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith(THREADS):
            thread.join(max(0.0, deadline - time.monotonic()))


class _Stuck(Exception):
    """No block was done for long, as where a worker waits for a node that is gone."""


def _processes(workers):
    """How many workers, and how many threads each computes with."""
    import ray

    cores, resources = os.cpu_count() or 1, ray.cluster_resources()
    if workers.gpus:
        room = int(resources.get("GPU", 0) / workers.gpus)
        if workers.address is None and not room:  # a cluster may get such a node
            raise ConfigError(
                f"Ray finds no GPU on this machine, or not the {workers.gpus:g} of one worker: leave --gpus-per-worker "
                "out."
            )
    else:
        room = cores // CORES_A_WORKER if workers.address is None else int(resources.get("CPU", 0))
    count = workers.number or max(1, room)
    return count, 1 if workers.address else max(1, cores // count)


def _table(images, numbers):
    """The images of these numbers as Ray hands them to a worker."""
    import pyarrow as pa

    chosen = [images[number] for number in numbers]
    names = [None if isinstance(image, bytes) else os.fsencode(_whole(image)) for image in chosen]
    contents = [image if isinstance(image, bytes) else None for image in chosen]
    columns = {
        "number": pa.array(numbers),
        "path": pa.array(names, pa.binary()),
        "content": pa.array(contents, pa.binary()),
    }
    return pa.table(columns)


def _whole(name):
    """A name by which other processes find the file: a URL, or an absolute path."""
    return name if is_url(name) else os.path.abspath(name)


def _answers(numbers, embeddings, reasons, failure=None):
    import pyarrow as pa

    rows = [None if embedding is None else embedding.tobytes() for embedding in embeddings]
    columns = {
        "number": numbers,
        "embedding": pa.array(rows, pa.binary()),
        "reason": pa.array([reasons.get(row) for row in range(len(rows))], pa.string()),
        "failure": pa.array([failure] * len(rows), pa.string()),
    }
    return pa.table(columns)


def _block(table, width):
    """A worker's answer.

    Raises:
        RuntimeError: it failed.
    """
    if failure := table["failure"][0].as_py():
        raise RuntimeError(f"A worker failed: {_last_line(failure)}")
    numbers, rows, reasons = (table[name].to_pylist() for name in ("number", "embedding", "reason"))
    embeddings = np.frombuffer(b"".join(row for row in rows if row is not None), np.float32).reshape(-1, width)
    wrong = {number: reason for number, reason in zip(numbers, reasons, strict=True) if reason is not None}
    return Block(np.array(numbers), embeddings, wrong)


def in_order(images: Sequence[Encoded], blocks: Iterable[Block]) -> Iterator[Embedded]:
    """Each image's embedding or error, in order. One waits while an image before it is at another worker."""
    waiting: dict[int, Embedded] = {}
    expected = 0
    for numbers, embeddings, reasons in blocks:
        readable = iter(embeddings)
        for number in numbers.tolist():
            if number in reasons:
                waiting[number] = Embedded(None, ImageError(number, place_of(images[number]), reasons[number]))
            else:
                waiting[number] = Embedded(next(readable), None)
        while expected in waiting:
            yield waiting.pop(expected)
            expected += 1


def _last_line(error):
    return str(error).strip().rpartition("\n")[2].strip()
