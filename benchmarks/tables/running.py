"""The runs of tables: which there are, and how they are made, several at once.

A run lies in ROOT/DATA-VARIANT-SEED[-SPLIT], its scores in the folder `scores` within, its output in a file `.log`
beside. Finished runs and scores are not made again, and an unfinished training is resumed.
"""

from __future__ import annotations

import os
import queue
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.tables.definitions import Columns, Data, Row, Score, Table, Variant
from tf_reid import config as configuration
from tf_reid.config import ConfigError
from tf_reid.files import write_text
from tf_reid.methods import METHODS
from tf_reid.runs import run_folder

OF_TRAINING = Score()  # what a training itself writes


@dataclass(frozen=True)
class Request:
    """What the command line says about the runs.

    Attributes:
        size: "cpu" or "full".
        trials: the splits to train on; None: all that a protocol has. A protocol with a single split has that one.
        settings: for every run; a variant's own go before them.
        root: the folder of the runs.
    """

    size: str
    seeds: Sequence[int]
    root: Path
    trials: Sequence[int] | None = None
    settings: Sequence[str] = ()

    def draws(self, data: Data) -> list[tuple[int, int]]:
        """(seed, split) of every run of a variant.

        Raises:
            ConfigError: the data set has several splits, and none of them is asked for.
        """
        splits = list(range(data.trials))
        if self.trials is not None and data.trials > 1:
            splits = [trial for trial in self.trials if trial in splits]
            if not splits:
                asked = " ".join(map(str, self.trials))
                raise ConfigError(f"--trials {asked}: {data.name} has the trials 0 to {data.trials - 1}.")
        return [(seed, trial) for seed in self.seeds for trial in splits]


@dataclass
class Run:
    """A training, and the ways in which it is scored.

    Attributes:
        settings: all of --set.
        needs: the runs that must be finished before.
        scores: name of a score's file -> the score, and the run that its options name.
    """

    folder: Path
    config: str
    settings: tuple[str, ...]
    needs: tuple[Run, ...] = ()
    scores: dict[str, tuple[Score, Run | None]] = field(default_factory=dict)

    def before(self) -> list[Run]:
        """The runs that must be finished before this one is."""
        return [*self.needs, *(needed for _, needed in self.scores.values() if needed)]

    def score_file(self, score: Score) -> Path:
        return self.folder / "scores" / f"{score_name(score)}.json"

    def missing_scores(self) -> list[tuple[Score, Run | None]]:
        return [of_score for of_score in self.scores.values() if not self.score_file(of_score[0]).exists()]

    def is_trained(self) -> bool:
        return self.score_file(OF_TRAINING).exists()

    def training(self) -> list[str]:
        """The command that trains it, or goes on with it."""
        return command("train", "--run", self.folder, "--config", self.config, "--set", *self.settings)

    def scoring(self, score: Score, needed: Run | None) -> list[str]:
        options = placed(score.options, {score.needs.folder: needed.folder} if needed else {})
        settings = ["--set", *score.settings] if score.settings else []
        return command("evaluate", "--run", self.folder, *options, *settings)


def placed(settings: Iterable[str], folders: Mapping[str, Path]) -> list[str]:
    """Settings with runs' folders in the places that stand for them."""
    settings = list(settings)
    for place, folder in folders.items():
        settings = [setting.replace(place, str(folder)) for setting in settings]
    return settings


def command(name: str, *words) -> list[str]:
    return ["python", "-m", f"tf_reid.{name}", *map(str, words)]


def score_name(score: Score) -> str:
    """A file's name that tells a score from every other: "metrics", "metrics_evaluate.protocol=all_multi"."""
    return re.sub(r"[^\w.=,-]+", "_", "_".join([score.file, *score.settings, *score.options]))


def score_of(columns: Columns, row: Row) -> Score:
    """How a row is scored in these columns: as both say."""
    own, of_row = columns.score, row.score
    return Score(
        settings=(*own.settings, *of_row.settings),
        options=(*own.options, *of_row.options),
        file=of_row.file if of_row.file != OF_TRAINING.file else own.file,
        needs=of_row.needs or own.needs,
    )


class Plan:
    """The runs of some tables, each of them once."""

    def __init__(self, request: Request):
        self.request = request
        self.runs: dict[Path, Run] = {}

    def add(self, table: Table) -> None:
        for columns in table.columns(self.request.size):
            for row in table.made(columns):
                self.of_cell(columns, row)

    def of_cell(self, columns: Columns, row: Row) -> list[Run]:
        """The runs that a row's figures in these columns are means over."""
        score = score_of(columns, row)
        runs = []
        for seed, trial in self.request.draws(columns.data):
            run = self.run(columns.data, row.variant, seed, trial)
            needed = self.run(columns.data.base or columns.data, score.needs, seed, trial) if score.needs else None
            run.scores[score_name(score)] = score, needed
            runs.append(run)
        return runs

    def run(self, data: Data, variant: Variant, seed: int, trial: int) -> Run:
        """A variant's training; those before it come first in `runs`.

        Raises:
            ValueError: there is another one with this name.
        """
        seed = 0 if variant.one_seed else seed
        split = f"-{trial}" if data.trials > 1 else ""
        folder = self.request.root / f"{data.name}-{variant.name}-{seed}{split}"
        needed = {one.folder: self.run(data.base or data, one, seed, trial) for one in variant.needs}
        of_size = variant.full if self.request.size == "full" else variant.cpu
        settings = [*self._common(data, variant), *variant.settings, *of_size, f"run.seed={seed}"]
        settings += [f"data.trial={trial}"] if split else []
        settings = placed(settings, {place: run.folder for place, run in needed.items()})
        run = Run(folder, variant.config or data.config, tuple(settings), tuple(needed.values()))
        known = self.runs.setdefault(folder, run)
        if (known.config, known.settings) != (run.config, run.settings):
            raise ValueError(f"Two different runs are called {folder.name}.")
        return known

    def _common(self, data: Data, variant: Variant) -> Iterator[str]:
        """Settings of every variant; those of method and stages suit the data set's own configuration alone."""
        for setting in (*data.settings, *self.request.settings):
            if variant.config is None or not re.match(r"method|stages", setting):
                yield setting


def check(runs: Iterable[Run]) -> None:
    """Make sure that every run has valid settings, and that no folder holds a run with other ones.

    Raises:
        ConfigError: one does not.
    """
    for run in runs:
        settings = run.settings
        if not (run.folder / "config.yaml").exists():
            # The runs that it needs may not be there yet, and a setting that names one is not valid before.
            folders = [str(needed.folder) for needed in run.needs]
            settings = [one for one in settings if not any(folder in one for folder in folders)]
        run_folder.check_run(run.folder, configuration.load(run.config, settings, METHODS))


def commands(run: Run) -> Iterator[str]:
    """What has to be run for a run to have all its scores, as lines of a shell."""
    if not run.is_trained():
        yield shlex.join(run.training())
    for score, needed in run.missing_scores():
        if score != OF_TRAINING:
            yield shlex.join(run.scoring(score, needed))


class Failed(Exception):
    """A command failed; the message names it and its log."""


class Workers:
    """As many commands at once as `parallel` says; they divide the CPU cores and the GPUs.

    Args:
        gpus: the machine's, as CUDA_VISIBLE_DEVICES names them.
    """

    def __init__(self, parallel: int, gpus: Sequence[str] = ()):
        self.environments: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        for number in range(parallel):
            self.environments.put(part_of_machine(number, parallel, gpus))
        self.processes: set[subprocess.Popen] = set()
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
            process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=environment)
        self.processes.add(process)
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


def make(run: Run, workers: Workers) -> None:
    """Train a run and score it, as far as this is not done yet.

    Raises:
        Failed: a command did not succeed.
    """
    log = run.folder.with_name(f"{run.folder.name}.log")
    if not run.is_trained():
        workers.call(run.training(), log)
        keep(run, OF_TRAINING)
    for score, needed in run.missing_scores():
        if score != OF_TRAINING:
            workers.call(run.scoring(score, needed), log)
            keep(run, score)


def keep(run: Run, score: Score) -> None:
    """Copy what a command wrote to a place where the next one does not replace it."""
    write_text(run.score_file(score), (run.folder / f"{score.file}.json").read_text())


def make_all(runs: Iterable[Run], parallel: int, workers: Workers) -> list[str]:
    """Make runs, each after those that it needs; returns a sentence for each that failed.

    A failure stops only the runs that need the one that failed.
    """
    waiting = list(runs)
    finished: set[Path] = set()
    failures: dict[Path, str] = {}
    under_way: dict[Future, Run] = {}
    with ThreadPoolExecutor(parallel) as pool:
        try:
            while waiting or under_way:
                for run in list(waiting):
                    if broken := [before for before in run.before() if before.folder in failures]:
                        waiting.remove(run)
                        failures[run.folder] = f"{run.folder} needs {broken[0].folder}, which failed"
                    elif len(under_way) < parallel and all(before.folder in finished for before in run.before()):
                        waiting.remove(run)
                        under_way[pool.submit(make, run, workers)] = run
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    run = under_way.pop(future)
                    try:
                        future.result()
                        finished.add(run.folder)
                        print(f"{run.folder}: finished. {len(waiting) + len(under_way)} to go.", flush=True)
                    except Failed as error:
                        failures[run.folder] = str(error)
                        print(f"{run.folder}: {error}.", file=sys.stderr, flush=True)
        except BaseException:
            workers.stop()
            raise
    return list(failures.values())
