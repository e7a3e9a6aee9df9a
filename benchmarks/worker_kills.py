"""Several workers of one run that are killed one by one, beside workers that are not: equal, bit for bit?

`python -m benchmarks.kills --workers 2 --kills 5` trains a method by two workers undisturbed, and once more while it
kills a worker, the other one, or both, again and again: between steps, while a checkpoint is written, while the first
worker scores the run. Each worker that has ended is started again with the same command, some seconds later, as a
cluster's scheduler does. A worker that is left alone has to end by itself, with the status 75. At the end, weights,
all variables of the last checkpoint, features, metrics and every point of the curves must be the reference's.

Stopped itself, the command kills all workers; the same command with the same `--runs` goes on.
"""

import argparse
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks import kills
from benchmarks.run_files import differences, is_writing, reached
from tf_reid.methods import METHODS
from tf_reid.runs.cluster import START_AGAIN
from tf_reid.runs.local_workers import free_ports

STEPS = 16  # of a stage
MOMENTS = ("steps", "save")
SECONDS = 600  # until something has to happen: a kill, or the end


@dataclasses.dataclass(frozen=True)
class Kill:
    """When workers are killed, and which.

    Attributes:
        victims: the numbers of the workers.
        stage, step: as soon as a checkpoint of this step is there, or a later one; ...
        moment: ... `seconds` later ("steps"), or in the next save of a checkpoint ("save"); or while the finished run
            is scored ("score").
    """

    victims: tuple[int, ...]
    stage: int
    step: int
    moment: str
    seconds: float = 0.0


def run(args: argparse.Namespace) -> int:
    """Carry out the command; returns its exit status."""
    folder = args.runs or Path(tempfile.mkdtemp(prefix="tf_reid_worker_kills_"))
    print(f"{args.workers} workers; the folder of the runs is {folder}.", flush=True)
    if not (folder / "images").exists():
        kills.draw_images(folder / "images")
    wrong = 0
    for method in args.only or list(METHODS):
        rng = np.random.default_rng(args.seed)
        undisturbed = Cluster(folder, method, "reference", args.workers, rng, args.apart)
        if not (undisturbed.run / "metrics.json").exists():  # else a command before has trained it
            undisturbed.run_to_its_end([])
        killed = Cluster(folder, method, f"killed_{args.kills}_times", args.workers, rng, args.apart)
        planned = list(plan(args.kills, args.workers, len(METHODS[method].STAGES), rng))
        start = time.monotonic()
        killed.run_to_its_end(planned)
        found = list(differences(undisturbed.run, killed.run, with_curves=True))
        wrong += bool(found)
        seconds = time.monotonic() - start
        result = "; ".join(found) or "equal"
        print(f"{method}: {result} after {len(planned)} kills, {killed.starts} starts and {seconds:.0f} s.", flush=True)
    if not wrong and not args.runs:
        shutil.rmtree(folder)
    return 1 if wrong else 0


def plan(count: int, workers: int, stages: int, rng: np.random.Generator) -> Iterator[Kill]:
    """The kills, in the order of a run; each worker alone and all together, the last two while the run is scored."""
    alone = [(worker,) for worker in range(workers)]
    victims = [*alone, tuple(range(workers))]
    rng.shuffle(victims)
    places = [(stage, step) for stage in range(stages) for step in range(0, STEPS - kills.EVERY, kills.EVERY)]
    scored = min(2, max(0, count - 2))
    chosen = sorted(rng.choice(len(places), count - scored, replace=count - scored > len(places)))
    for number, place in enumerate(chosen):
        moment = MOMENTS[number % len(MOMENTS)]
        yield Kill(victims[number % len(victims)], *places[place], moment, float(rng.uniform(0, 0.5)))
    for number in range(scored):
        yield Kill(alone[number % workers], stages, 0, "score")


class Cluster:
    """The workers of one run, each in a process that is started again where it ends before the run does."""

    def __init__(
        self, folder: Path, method: str, name: str, workers: int, rng: np.random.Generator, apart: float
    ) -> None:
        self.folder, self.method, self.run = folder, method, folder / method / name
        self.noted = self.run.with_name(f"{self.run.name}.kills")
        self.rng, self.apart = rng, apart
        self.addresses = [f"localhost:{port}" for port in free_ports(workers)]
        self.processes: list[subprocess.Popen | None] = [None] * workers
        self.due = [0.0] * workers  # when a worker that does not run is to be started
        self.done = [False] * workers
        self.starts = 0
        self.killed_at = 0.0

    def run_to_its_end(self, planned: Sequence[Kill]) -> None:
        """Start the workers until each has ended with status 0; kill as planned."""
        done = int(self.noted.read_text()) if self.noted.exists() else 0
        try:
            self.follow(list(planned[done:]), done)
        finally:
            self.end()

    def follow(self, left: list[Kill], done: int) -> None:
        """Look after the workers; note how many kills are done, for a command that goes on from there."""
        since = time.monotonic()
        while not all(self.done):
            self.look_after()
            if left and self.is_time_for(left[0]):
                self.kill(left.pop(0))
                done += 1
                self.noted.write_text(str(done))
                since = time.monotonic()
            if time.monotonic() - since > SECONDS:
                raise RuntimeError(f"Nothing has happened for {SECONDS} s; the logs are beside {self.run}.")
            time.sleep(0.002)
        if left:
            raise RuntimeError(f"The run ended before {left[0]}.")

    def look_after(self) -> None:
        """Start the workers that are due, and see which have ended."""
        for number, process in enumerate(self.processes):
            if process is None:
                if not self.done[number] and time.monotonic() >= self.due[number]:
                    self.start(number)
            elif (status := process.poll()) is not None:
                self.processes[number] = None
                self.ended(number, status)

    def start(self, number: int) -> None:
        self.run.parent.mkdir(parents=True, exist_ok=True)
        cluster = {"cluster": {"worker": self.addresses}, "task": {"type": "worker", "index": number}}
        command = [sys.executable, "-m", "tf_reid.train", "--config", self.method, "--run", str(self.run), "--set"]
        command += [*kills.settings(self.folder, self.method, STEPS), "run.strategy=multi_worker"]
        command += [f"run.evaluate_every={2 * kills.EVERY}"]
        with self.log(number).open("ab") as log:
            self.processes[number] = subprocess.Popen(
                command, env={**os.environ, "TF_CONFIG": json.dumps(cluster)}, stdout=log, stderr=subprocess.STDOUT
            )
        self.starts += 1

    def log(self, number: int) -> Path:
        return self.run.with_name(f"{self.run.name}_{number}.log")

    def ended(self, number: int, status: int) -> None:
        """A worker has ended: it is done, or is started again some seconds later."""
        if status == 0:
            self.done[number] = True
        elif status in (-signal.SIGKILL, START_AGAIN):
            delay = float(self.rng.uniform(0, self.apart))
            self.due[number] = time.monotonic() + delay
            why = "was killed" if status == -signal.SIGKILL else "ended by itself"
            after = time.monotonic() - self.killed_at
            print(f"  worker {number} {why} {after:.1f} s after the kill; it starts in {delay:.0f} s", flush=True)
        else:
            raise RuntimeError(f"Worker {number} ended with status {status}: {self.log(number).read_text()[-2000:]}")

    def is_time_for(self, kill: Kill) -> bool:
        """Whether the moment of a kill has come; it waits for `seconds` where it has."""
        if None in self.processes:
            return False
        if kill.moment == "score":
            at = reached(self.run)
            return at == (kill.stage, 0) and not (self.run / "metrics.json").exists()
        if not (self.run / "data.json").exists() or (reached(self.run) or (0, 0)) < (kill.stage, kill.step):
            return False
        if kill.moment == "save":
            return is_writing(self.run)
        time.sleep(kill.seconds)
        return True

    def kill(self, kill: Kill) -> None:
        at, writing = reached(self.run), is_writing(self.run)
        for victim in kill.victims:
            if process := self.processes[victim]:
                process.kill()
        self.killed_at = time.monotonic()
        stages = [*METHODS[self.method].STAGES, "all stages"]
        where = f"{stages[at[0]]} {at[1]}" if at else "nothing saved"
        names = " and ".join(map(str, kill.victims))
        print(f"{self.method}, {where}{', writing' * writing}: killed {names}", flush=True)

    def end(self) -> None:
        """Let no process live on."""
        for process in self.processes:
            if process:
                process.kill()
                process.wait()
