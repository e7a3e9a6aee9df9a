"""The runs of tables: which there are, and how they are made, several at once.

A run lies in ROOT/DATA-VARIANT-SEED[-SPLIT], its scores in the folder `scores` within, its output in a file `.log`
beside. Finished runs and scores are not made again, and an unfinished training is resumed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.tables.definitions import Columns, Data, Row, Score, Table, Variant
from tf_reid import config as configuration
from tf_reid.config import ConfigError
from tf_reid.files import write_text
from tf_reid.methods import METHODS
from tf_reid.runs import run_folder
from tf_reid.runs.side_by_side import Training, Workers, command

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
            ConfigError: the data set has several splits, and not all that are asked for.
        """
        splits: Sequence[int] = range(data.trials)
        if self.trials is not None and data.trials > 1:
            for trial in self.trials:
                if trial not in splits:
                    raise ConfigError(f"--trials {trial}: {data.name} has the trials 0 to {data.trials - 1}.")
            splits = self.trials
        return [(seed, trial) for seed in self.seeds for trial in splits]


@dataclass
class Run(Training):
    """A training, and the ways in which it is scored.

    Attributes:
        needs: the runs that must be finished before.
        scored: name of a score's file -> the score, and the run that its options name.
    """

    needs: tuple[Run, ...] = ()
    scored: dict[str, tuple[Score, Run | None]] = field(default_factory=dict)

    def before(self) -> list[Run]:
        """The runs that must be finished before this one is."""
        return [*self.needs, *(needed for _, needed in self.scored.values() if needed)]

    def score_file(self, score: Score) -> Path:
        return self.folder / "scores" / f"{score_name(score)}.json"

    def missing_scores(self) -> list[tuple[Score, Run | None]]:
        return [of_score for of_score in self.scored.values() if not self.score_file(of_score[0]).exists()]

    def scoring(self, score: Score, needed: Run | None) -> list[str]:
        options = placed(score.options, {score.needs.folder: needed.folder} if needed else {})
        settings = ["--set", *score.settings] if score.settings else []
        return command("evaluate", "--run", self.folder, *options, *settings)

    def make(self, workers: Workers) -> None:
        """Train it and score it, as far as this is not done yet.

        Raises:
            Failed: a command did not succeed.
        """
        super().make(workers)
        for score, needed in self.missing_scores():
            if score != OF_TRAINING:
                workers.call(self.scoring(score, needed), self.log)
                keep(self, score)


def placed(settings: Iterable[str], folders: Mapping[str, Path]) -> list[str]:
    """Settings with runs' folders in the places that stand for them."""
    settings = list(settings)
    for place, folder in folders.items():
        settings = [setting.replace(place, str(folder)) for setting in settings]
    return settings


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
            run.scored[score_name(score)] = score, needed
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
        """Settings of every variant.

        Those of method and stages suit the data set's own configuration alone; but for the weights to start from.
        """
        for setting in (*data.settings, *self.request.settings):
            if variant.config is None or not re.match(r"method\.(?!weights=)|stages", setting):
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
        run_folder.check_scored_alike(run.folder, configuration.load(run.config, settings, METHODS), "--runs")


def commands(run: Run) -> Iterator[str]:
    """What has to be run for a run to have all its scores, as lines of a shell."""
    if not run.is_trained():
        yield shlex.join(run.training())
    for score, needed in run.missing_scores():
        if score != OF_TRAINING:
            yield shlex.join(run.scoring(score, needed))


def keep(run: Run, score: Score) -> None:
    """Copy what a command wrote to a place where the next one does not replace it."""
    write_text(run.score_file(score), (run.folder / f"{score.file}.json").read_text())
