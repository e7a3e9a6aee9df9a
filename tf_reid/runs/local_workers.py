"""Trains by several workers on this machine, to try `run.strategy=multi_worker` before several machines are used:

python -m tf_reid.runs.local_workers --workers 2 -- --config identity --run runs/two_workers

Everything behind `--` is an argument of `tf_reid.train`. The first worker writes to the screen, each other one into a
log file.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tf_reid.command_line import SIGNALS, Terminated

SECONDS_TO_STOP = 60.0  # after the first; a worker that takes longer waits for one that was not in the training yet
ENDED = {0}  # statuses of a worker that has not failed
STOPPED = {0, 128 + signal.SIGTERM, -signal.SIGTERM}  # the same after a signal; the last one: before it could catch it


class WorkerFailed(RuntimeError):
    """A worker failed; the message says which, and names its log."""


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tf_reid.runs.local_workers",
        usage="%(prog)s [-h] [--workers N] [--logs FOLDER] -- --config CONFIG [ARGUMENT ...]",
        description="Train by several workers on this machine. The GPUs of CUDA_VISIBLE_DEVICES are divided among the "
        "workers; without this variable, the workers train on the CPU.",
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="number of workers (default: 2)")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="where the other workers' logs are written")
    parser.add_argument("train", nargs="+", metavar="ARGUMENT", help="arguments of tf_reid.train")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Start the workers and wait for them; if one fails, the others are killed.

    A signal that stops this process is passed on: the workers save a checkpoint and end. A second one kills them.

    Raises:
        WorkerFailed: a worker failed, or could not save where a signal stopped it.
        Terminated: a signal has stopped the workers.
    """
    args = arguments(argv)
    logs = args.logs or Path(tempfile.mkdtemp(prefix="tf_reid_workers_"))
    logs.mkdir(parents=True, exist_ok=True)
    addresses = [f"localhost:{port}" for port in free_ports(args.workers)]
    command = [sys.executable, "-m", "tf_reid.train", *args.train, "--set", "run.strategy=multi_worker"]
    print(f"{args.workers} workers: {', '.join(addresses)}; logs of all but the first: {logs}", flush=True)
    processes: list[subprocess.Popen[bytes]] = []
    stopping = _PassOn(processes)
    try:
        for index in range(args.workers):
            environment = {**os.environ, **_place(addresses, index)}
            with contextlib.ExitStack() as opened:
                log = opened.enter_context(_log(logs, index).open("wb")) if index else None
                # In a session of its own, Ctrl-C does not reach it twice.
                processes.append(
                    subprocess.Popen(
                        command,
                        env=environment,
                        stdout=log,
                        stderr=subprocess.STDOUT if log else None,
                        start_new_session=True,
                    )
                )
            if stopping.received is not None:  # perhaps before this worker was in the list
                processes[-1].terminate()
                break
        _wait(processes, logs, stopping)
    finally:
        for process in processes:  # those that are left wait for one that failed, and would not end otherwise
            process.kill()
            process.wait()
        stopping.end()
    if stopping.received is not None:
        raise Terminated(stopping.received, "The workers have stopped. The same command resumes the training.")


class _PassOn:
    """Passes signals on to the workers until its `end`: the first as SIGTERM, the second as SIGKILL."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        self.processes = processes
        self.received: int | None = None
        self.kills = False  # the second one has come
        self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self.kills = self.received is not None
        for process in self.processes:
            process.kill() if self.kills else process.terminate()
        self.received = number

    def end(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens.

    They are below the range that outgoing connections get, one of which could take a port before a worker listens.
    """
    free: list[int] = []
    for port in random.sample(range(15_000, 30_000), 1_000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("localhost", port))
            free.append(port)
        if len(free) == count:
            return free
    raise OSError(f"There are no {count} free ports.")


def _place(addresses: Sequence[str], index: int) -> dict[str, str]:
    """The environment variables that tell a worker its place in the cluster, and its GPUs."""
    cluster = {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}}
    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    each = len(gpus) // len(addresses)
    own = gpus[index * each : (index + 1) * each]
    return {"TF_CONFIG": json.dumps(cluster), "CUDA_VISIBLE_DEVICES": ",".join(own)}


def _log(logs: Path, index: int) -> Path:
    return logs / f"worker_{index}.log"


def _wait(processes: Sequence[subprocess.Popen[bytes]], logs: Path, stopping: _PassOn) -> None:
    since: float | None = None  # when the first worker ended that was to stop
    while any(process.poll() is None for process in processes):
        if stopping.received is None:
            _check(processes, logs, ENDED)
        elif any(process.poll() is not None for process in processes):
            since = since or time.monotonic()
            if time.monotonic() - since > SECONDS_TO_STOP:
                break
        time.sleep(0.1)
    if not stopping.kills:
        _check(processes, logs, ENDED if stopping.received is None else STOPPED)


def _check(processes, logs, good):
    """Raise if a worker failed: the others would wait for it for ever."""
    for index, process in enumerate(processes):
        if process.poll() not in (None, *good):
            where = f"its log is {_log(logs, index)}" if index else "its messages are above"
            raise WorkerFailed(f"Worker {index} of {len(processes)} ended with status {process.returncode}; {where}.")


if __name__ == "__main__":
    from tf_reid.command_line import run_command

    run_command(main)
