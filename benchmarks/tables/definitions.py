"""What a table is made of: plain values, so that a paper's module reads as a list of its tables and figures.

A cell of a table is one metric of one row in one column. The row says which training it comes from (`Variant`) and
which representation is read; the column says which data set is trained on and how the run is scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Data:
    """A data set and the configuration that trains on it.

    Attributes:
        name: a part of the runs' folders.
        config: name of a configuration that comes with tf_reid.
        settings: in place of the configuration's own.
        trials: how many splits the protocol has; a run is trained for each.
        base: the data on which its runs find those that they need; by default, itself.
        without: representation -> why the configuration's runs do not have it; its cells are not made.
    """

    name: str
    config: str
    settings: tuple[str, ...] = ()
    trials: int = 1
    base: Data | None = None
    without: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """A training.

    Attributes:
        name: a part of the run's folder.
        settings: in place of the configuration's; those of `needs` stand in them by their `folder`.
        full, cpu: further settings at one size alone.
        needs: the trainings that must be finished before, of the same data, seed and split.
        config: of a training that the data set's own configuration does not describe.
        one_seed: whether all runs that need this one share it; it then has seed 0.
    """

    name: str
    settings: tuple[str, ...] = ()
    full: tuple[str, ...] = ()
    cpu: tuple[str, ...] = ()
    needs: tuple[Variant, ...] = ()
    config: str | None = None
    one_seed: bool = False

    @property
    def folder(self) -> str:
        """What stands for the folder of its run in settings and options of others."""
        return f"{{{self.name}}}"


@dataclass(frozen=True)
class Score:
    """A way to score a finished run; nothing is trained again.

    Attributes:
        settings: what a trained run may be scored with, such as "evaluate.protocol=all_multi".
        options: of `python -m tf_reid.evaluate`, such as ("--across",); `needs` stands in them by its `folder`.
        file: what the command writes and the cells are read from, without its suffix.
        needs: another run that the options name.
    """

    settings: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    file: str = "metrics"
    needs: Variant | None = None


@dataclass(frozen=True)
class Columns:
    """Neighbouring columns: one data set, scored in one way.

    Attributes:
        title: what stands above them.
        metrics: keys of the file's entries; "FID" also stands for "FID (whose features)".
        paper: title of the paper's columns that these are compared with; a row's `paper` has this key.
    """

    title: str
    data: Data
    metrics: tuple[str, ...]
    paper: str = ""
    score: Score = Score()


@dataclass(frozen=True)
class Row:
    """A row.

    Attributes:
        representation: which entry of the file the cells are read from.
        score: in place of the columns' own, joined with its settings.
        paper: title of the paper's columns -> its figures, one for each metric; None where it has none.
        chosen: what was chosen on validation identities: "method.dropout of 0 and 0.5"; empty: nothing.
        at: where a sweep puts the row on its x axis.
        line: which line of a sweep it belongs to.
        missing: why the row cannot be made yet; it is then listed and not run.
    """

    title: str
    variant: Variant
    representation: str = "raw"
    score: Score = Score()
    paper: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    chosen: str = ""
    at: float | None = None
    line: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Sweep:
    """A plot of the first metric of every group of columns over the rows' `at`."""

    across: str


@dataclass(frozen=True)
class Cmc:
    """A plot of the rows' whole CMC curves, one picture for each group of columns."""


@dataclass(frozen=True)
class Logged:
    """A plot of what the rows' runs logged, over steps.

    Attributes:
        tags: title of a line -> the tags of TensorBoard whose sum it shows.
    """

    tags: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Table:
    """A table or figure.

    Attributes:
        name: what the command calls it: "dgnet-3" for Table 3, "dgnet-fig8" for Fig. 8.
        shows: what the paper shows there, in our words.
        full, cpu: the columns at each size; the small size stands in rendered people for the paper's data sets.
        notes: what differs from the paper, or has to be known to read the figures.
        of_paper: false for tables that no paper has.
        seeds: those of its runs where the command names none.
    """

    name: str
    shows: str
    rows: tuple[Row, ...]
    full: tuple[Columns, ...]
    cpu: tuple[Columns, ...]
    plot: Sweep | Cmc | Logged | None = None
    notes: tuple[str, ...] = ()
    of_paper: bool = True
    seeds: tuple[int, ...] = (0,)

    def columns(self, size: str) -> tuple[Columns, ...]:
        return self.full if size == "full" else self.cpu

    def made(self, columns: Columns) -> tuple[Row, ...]:
        """The rows that can be made in these columns."""
        return tuple(row for row in self.rows if not row.missing and row.representation not in columns.data.without)


@dataclass(frozen=True)
class LeftOut:
    """A table or figure of a paper that is not made here, and why."""

    name: str
    shows: str
    why: str
