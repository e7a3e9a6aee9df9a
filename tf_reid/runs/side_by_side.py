"""Trainings that are commands of their own, several at once: each in its folder, its output in a file `.log` beside.

Finished ones are not made again, and an unfinished one is resumed.
"""

from __future__ import annotations

import os
import queue
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from tf_reid.config import ConfigError
from tf_reid.files import write_text


class Failed(Exception):
    """A command failed; the message names it and its log."""


def command(name: str, *words: object) -> list[str]:
    """The words of `python -m tf_reid.NAME`."""
    return ["python", "-m", f"tf_reid.{name}", *map(str, words)]


def check_once(option: str, numbers: Sequence[int], noun: str) -> None:
    """Refuse an option's numbers of which one is there twice: the mean would count its training twice.

    Args:
        noun: what the message calls one of them: "seed".

    Raises:
        ConfigError: one is.
    """
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"{option} {' '.join(map(str, numbers))}: a {noun} is there twice.")


@dataclass
class Training:
    """A training, and its scores when it is finished.

    Attributes:
        config: a YAML file, or the name of a configuration that comes with tf_reid.
        settings: all of --set.
    """

    folder: Path
    config: str
    settings: tuple[str, ...]

    @property
    def scores(self) -> Path:
        """A copy of the metrics that the training wrote at its end, which a later evaluation does not replace."""
        return self.folder / "scores" / "metrics.json"

    @property
    def log(self) -> Path:
        """What its commands print."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def is_trained(self) -> bool:
        return self.scores.exists()

    def training(self) -> list[str]:
        """The command that trains it, or goes on with it."""
        return command("train", "--run", self.folder, "--config", self.config, "--set", *self.settings)

    def before(self) -> Sequence[Training]:
        """The trainings that must be finished before this one is."""
        return []

    def make(self, workers: Workers) -> None:
        """Train it, if this is not done yet.

        Raises:
            Failed: the command did not succeed.
        """
        if not self.is_trained():
            workers.call(self.training(), self.log)
            write_text(self.scores, (self.folder / "metrics.json").read_text())


class Workers:
    """As many commands at once as `parallel` says; they divide the CPU cores and the GPUs.

    Args:
        gpus: the machine's, as CUDA_VISIBLE_DEVICES names them.
    """

    def __init__(self, parallel: int, gpus: Sequence[str] = ()):
        self.environments: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        for number in range(parallel):
            self.environments.put(part_of_machine(number, parallel, gpus))
        self.processes: set[subprocess.Popen[bytes]] = set()
        self.stopped = False

    def call(self, words: Sequence[str], log: Path) -> None:
        """Run a command to its end, its output at the end of a file.

        Raises:
            Failed: it did not succeed.
        """
        environment = self.environments.get()
        try:
            if self.stopped:
                raise Failed("stopped")
            status = self.execute([sys.executable, *words[1:]], log, os.environ | environment)
        finally:
            self.environments.put(environment)
        if status:
            raise Failed(f"{shlex.join(words)} failed (exit status {status}); see {log}")

    def execute(self, words: Sequence[str], log: Path, environment: dict[str, str]) -> int:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a") as file:
            # In a session of its own, Ctrl-C does not reach it twice, which would end it without a checkpoint.
            process = subprocess.Popen(
                words, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        self.processes.add(process)
        if self.stopped:  # since `call` looked
            process.terminate()
        try:
            return process.wait()
        finally:
            self.processes.discard(process)

    def stop(self) -> None:
        """Ask the commands to end; a training saves a checkpoint before it does."""
        self.stopped = True
        for process in list(self.processes):
            process.terminate()


def part_of_machine(number: int, parallel: int, gpus: Sequence[str]) -> dict[str, str]:
    """Environment variables that give one of several commands its part of the cores and of the GPUs."""
    if parallel == 1:
        return {}
    threads = str(max(1, (os.cpu_count() or 1) // parallel))
    environment = {"TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads}
    if gpus:
        own = gpus[number::parallel] or [gpus[number % len(gpus)]]
        environment |= {"CUDA_VISIBLE_DEVICES": ",".join(own), "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    return environment


def gpus() -> list[str]:
    """The GPUs, as CUDA_VISIBLE_DEVICES names them."""
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    import tensorflow as tf

    return [str(number) for number in range(len(tf.config.list_physical_devices("GPU")))]


def make_all(trainings: Iterable[Training], parallel: int, workers: Workers) -> list[str]:
    """Make trainings, each after those that it needs; returns a sentence for each that failed.

    A failure stops only those that need the one that failed.
    """
    waiting = list(trainings)
    finished: set[Path] = set()
    failures: dict[Path, str] = {}
    under_way: dict[Future[None], Training] = {}
    with ThreadPoolExecutor(parallel) as pool:
        try:
            while waiting or under_way:
                for one in list(waiting):
                    if broken := [before for before in one.before() if before.folder in failures]:
                        waiting.remove(one)
                        failures[one.folder] = f"{one.folder} needs {broken[0].folder}, which failed"
                    elif len(under_way) < parallel and all(before.folder in finished for before in one.before()):
                        waiting.remove(one)
                        under_way[pool.submit(one.make, workers)] = one
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    one = under_way.pop(future)
                    try:
                        future.result()
                        finished.add(one.folder)
                        print(f"{one.folder}: finished. {len(waiting) + len(under_way)} to go.", flush=True)
                    except Failed as error:
                        failures[one.folder] = str(error)
                        print(f"{one.folder}: {error}.", file=sys.stderr, flush=True)
        except BaseException:
            workers.stop()
            raise
    return list(failures.values())
