"""Finished runs -> a table's files: NAME.md and NAME.csv, and for a figure NAME.png and the points of its lines.

Every file is written beside and then renamed. A cell is the mean over runs of the mean over a protocol's trials.
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.tables.definitions import Cmc, Columns, Logged, Row, Sweep, Table
from benchmarks.tables.running import Plan, Run, score_of
from tf_reid.files import write_text
from tf_reid.pictures import curves, grids

POINTS = 50  # of a logged line, each the mean of its part of the steps
RATE = re.compile(r"rank\d+|mAP|mAP_trapezoid|mINP")  # metrics of which one decimal is shown


class Cell(NamedTuple):
    """One metric of a row: over the runs that have it, and in the paper.

    Attributes:
        values: one for each finished run.
        planned: how many runs there are once all are finished.
        paper: None where the paper has no figure.
    """

    values: list[float]
    planned: int
    paper: float | None


class Line(NamedTuple):
    """A line of a plot, with the standard deviation over runs at each point."""

    x: list[float]
    y: list[float]
    spread: list[float]


class Plot(NamedTuple):
    """Lines by their names, what the axes show, and where the y axis begins and ends (None: at the values)."""

    lines: dict[str, Line]
    across: str
    up: str
    heights: tuple[float, float] | None = None


def write(table: Table, plan: Plan, command: str) -> str:
    """Write a table's files into the runs' root; returns what NAME.md holds."""
    root = plan.request.root
    drawn = plots(table, plan)
    parts = [*head(table, plan, command), markdown(table, plan), *foot(table, plan)]
    parts += [f"![{name}]({name}.png)" for name in drawn]
    text = "\n\n".join(parts) + "\n"
    write_text(root / f"{table.name}.csv", comma_separated(table, plan))
    write_text(root / f"{table.name}.md", text)
    for name, plot in drawn.items():
        write_text(root / f"{name}_lines.csv", points(plot.lines))
        xy = {title: (line.x, line.y) for title, line in plot.lines.items()}
        grids.write_png(root / f"{name}.png", curves.lines(xy, plot.across, plot.up, plot.heights))
    return text


# --------------------------------------------------------------------- head and foot


def head(table: Table, plan: Plan, command: str) -> Iterator[str]:
    """Command, seeds, spread, hardware, date and revision, as Markdown's paragraphs."""
    request = plan.request
    yield f"# {table.name}"
    yield table.shows
    yield f"`{command}`"
    drawn = f"seeds {' '.join(map(str, request.seeds))}"
    if request.trials:
        drawn += f", splits {' '.join(map(str, request.trials))}"
    of_paper = "; in brackets the paper's figure" if any(row.paper for row in table.rows) else ""
    if of_paper and request.size != "full":
        of_paper += ", of its own data and networks"
    partly = "; (2 of 3): over two of three runs, the others lack it" if is_partly_finished(table, plan) else ""
    yield f"Cells: mean ± standard deviation over the runs ({drawn}){of_paper}{partly}."
    lines = [f"{columns.title}: {protocol_of(columns, table, plan)}" for columns in table.columns(request.size)]
    lines += [f"Trained: {one}" for one in environments(plan, table)]
    lines += [f"Written: {datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"]
    yield "\n".join(f"- {line}" for line in lines)


def protocol_of(columns: Columns, table: Table, plan: Plan) -> str:
    """How these columns were scored, as the first finished run's metrics say it."""
    settings = " ".join(columns.score.settings + columns.score.options)
    data = f"{columns.data.config} {' '.join((*columns.data.settings, settings))}".strip()
    for row in table.made(columns):
        finished = entries(plan, columns, row).values()
        for entry in finished:
            if "protocol" in entry:
                shown = "queries", "gallery", "trials"
                counts = ", ".join(f"{key} {entry[key]:g}" for key in shown)
                runs = f"{len(finished)} of {len(plan.request.draws(columns.data))} runs"
                return f"{data}; protocol {entry['protocol']}, {counts}, {runs}. {entry['description']}"
    return data


def environments(plan: Plan, table: Table) -> list[str]:
    """Revision and hardware of the table's runs, each combination once."""
    seen = []
    for columns in table.columns(plan.request.size):
        for row in table.made(columns):
            for run in plan.of_cell(columns, row):
                path = run.folder / "environment.json"
                if path.exists():
                    seen.append(machine(json.loads(path.read_text())))
    return list(dict.fromkeys(seen))


def machine(environment: dict[str, Any]) -> str:
    """What an environment.json says about revision and hardware."""
    gpus = ", ".join(environment.get("gpus") or ["no GPU"])
    return f"revision {environment['revision']}; {environment['cpu']}, {environment['cpu_cores']} cores; {gpus}"


def foot(table: Table, plan: Plan) -> Iterator[str]:
    """Notes, and why cells are empty."""
    chosen = [f"{row.title}: {row.chosen}, chosen on validation identities." for row in table.rows if row.chosen]
    lines = [*table.notes, *chosen, *(f"Not made: {row.title}. {row.missing}" for row in table.rows if row.missing)]
    for columns in table.columns(plan.request.size):
        for row in table.rows:
            if why := columns.data.without.get(row.representation):
                lines.append(f"Not made: {columns.title}, {row.title}. {why}")
        for row in table.made(columns):
            lines += [f"{columns.title}, {row.title}: {lack}" for lack in lacks(plan, columns, row)]
    if lines:
        yield "\n".join(f"- {line}" for line in lines)


def lacks(plan: Plan, columns: Columns, row: Row) -> Iterator[str]:
    """What finished runs' scores do not have although the row reads it."""
    for path, entry in entries(plan, columns, row).items():
        absent = [metric for metric in columns.metrics if value_of(entry, metric) is None]
        if absent:
            yield f"{path} has no {', '.join(absent) if entry else row.representation}."


def is_partly_finished(table: Table, plan: Plan) -> bool:
    return any(0 < len(cell.values) < cell.planned for row in table.rows for _, _, cell in cells(table, plan, row))


# --------------------------------------------------------------------- cells


def entries(plan: Plan, columns: Columns, row: Row) -> dict[Path, dict[str, Any]]:
    """Finished runs' scores -> what they have of the row's representation; empty where they do not have it."""
    paths = [run.score_file(score_of(columns, row)) for run in plan.of_cell(columns, row)]
    return {path: json.loads(path.read_text()).get(row.representation, {}) for path in paths if path.exists()}


def value_of(entry: dict[str, Any], metric: str) -> float | None:
    """A metric of a score; "FID" also stands for "FID (whose features)"."""
    for key, value in entry.items():
        if key == metric or key.startswith(f"{metric} ("):
            return float(value)
    return None


def cells(table: Table, plan: Plan, row: Row) -> Iterator[tuple[Columns, str, Cell]]:
    """(columns, metric, cell) of a row, from left to right."""
    for columns in table.columns(plan.request.size):
        of_runs = entries(plan, columns, row).values() if row in table.made(columns) else []
        planned = len(plan.request.draws(columns.data))
        paper = row.paper.get(columns.paper or columns.title) or (None,) * len(columns.metrics)
        for metric, figure in zip(columns.metrics, paper, strict=True):
            values = [value_of(entry, metric) for entry in of_runs]
            yield columns, metric, Cell([value for value in values if value is not None], planned, figure)


def shown(cell: Cell, metric: str) -> str:
    """A cell as text, such as "26.1 ± 0.4 [26.97]", or "26.1 ± 0.4 (2 of 3) [26.97]" where a run is not finished."""
    digits = "{:.1f}" if RATE.fullmatch(metric) else "{:.4g}"
    text = digits.format(np.mean(cell.values)) if cell.values else "-"
    if len(cell.values) > 1:
        text += f" ± {digits.format(np.std(cell.values))}"
    if 0 < len(cell.values) < cell.planned:
        text += f" ({len(cell.values)} of {cell.planned})"
    return text if cell.paper is None else f"{text} [{cell.paper:g}]"


def markdown(table: Table, plan: Plan) -> str:
    """The table itself; columns' titles stand before their first metric."""
    titles = []
    for columns in table.columns(plan.request.size):
        first, *others = columns.metrics
        titles += [f"{columns.title}: {first}", *others]
    lines = ["| | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for row in table.rows:
        texts = [shown(cell, metric) for _, metric, cell in cells(table, plan, row)]
        title = f"{row.title} (chosen on validation)" if row.chosen else row.title
        lines.append(f"| {title} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def comma_separated(table: Table, plan: Plan) -> str:
    """One line for each cell."""
    lines = [["row", "columns", "metric", "mean", "spread", "runs", "planned", "paper"]]
    for row in table.rows:
        for columns, metric, cell in cells(table, plan, row):
            mean, spread = (np.mean(cell.values), np.std(cell.values)) if cell.values else ("", "")
            paper = "" if cell.paper is None else cell.paper
            lines.append([row.title, columns.title, metric, mean, spread, len(cell.values), cell.planned, paper])
    return csv_text(lines)


# --------------------------------------------------------------------- plots


def plots(table: Table, plan: Plan) -> dict[str, Plot]:
    """Name of the file -> its plot, of finite points alone; none where no run is finished."""
    made = {}
    if isinstance(table.plot, Sweep):
        metric = table.columns(plan.request.size)[0].metrics[0]
        made[table.name] = Plot(swept(table, plan), table.plot.across, metric)
    elif isinstance(table.plot, Cmc):
        for columns in table.columns(plan.request.size):
            name = f"{table.name}-{columns.data.name}"
            made[name] = Plot(cmc_lines(table, plan, columns), "rank", "matching rate, %", (0.0, 100.0))
    elif isinstance(table.plot, Logged):
        up = "loss" if len(table.plot.tags) > 1 else next(iter(table.plot.tags))
        made[table.name] = Plot(logged_lines(table, plan), "step", up)
    finite = {name: plot._replace(lines=of_finite_points(plot.lines)) for name, plot in made.items()}
    return {name: plot for name, plot in finite.items() if plot.lines}


def of_finite_points(lines: dict[str, Line]) -> dict[str, Line]:
    """The lines without points whose y is not finite, such as the FID of a run that diverged."""
    kept = {}
    for title, line in lines.items():
        points = [point for point in zip(*line, strict=True) if np.isfinite(point[1])]
        if points:
            kept[title] = Line(*map(list, zip(*points, strict=True)))
    return kept


def swept(table: Table, plan: Plan) -> dict[str, Line]:
    """The first metric of each group of columns over the rows' `at`; a line whose runs are not all there says so."""
    lines: dict[str, Line] = {}
    partly = set()
    for row in table.rows:
        for columns, metric, cell in cells(table, plan, row):
            if metric != columns.metrics[0] or row.at is None:
                continue
            several = len(table.columns(plan.request.size)) > 1
            title = ", ".join(filter(None, [columns.title if several or not row.line else "", row.line]))
            if len(cell.values) < cell.planned:
                partly.add(title)
            if cell.values:
                line = lines.setdefault(title, Line([], [], []))
                line.x.append(row.at)
                line.y.append(float(np.mean(cell.values)))
                line.spread.append(float(np.std(cell.values)))
    return {f"{title} (not finished)" if title in partly else title: line for title, line in lines.items()}


def cmc_lines(table: Table, plan: Plan, columns: Columns) -> dict[str, Line]:
    """The rows' CMC curves in these columns."""
    lines = {}
    for row in table.made(columns):
        rates = [entry["cmc"] for entry in entries(plan, columns, row).values() if "cmc" in entry]
        if rates:
            ranks = list(range(1, len(rates[0]) + 1))
            lines[row.title] = Line(ranks, np.mean(rates, axis=0).tolist(), np.std(rates, axis=0).tolist())
    return lines


def logged_lines(table: Table, plan: Plan) -> dict[str, Line]:
    """What the rows' runs logged, each point the mean over a part of the steps; rows of the same runs have one line.

    A line is called by its row, and by its tags' title where there are several.
    """
    lines = {}
    columns = table.columns(plan.request.size)[0]
    first_rows: dict[str, Row] = {}
    for row in table.made(columns):
        first_rows.setdefault(row.variant.name, row)
    for row in first_rows.values():
        runs = [run for run in plan.of_cell(columns, row) if run.is_trained()]
        for title, tags in table.plot.tags.items():
            if line := logged_line(runs, tags):
                lines[f"{row.title}: {title}" if len(table.plot.tags) > 1 else row.title] = line
    return lines


def logged_line(runs: Sequence[Run], tags: Sequence[str]) -> Line | None:
    """The sum of some tags, over the steps at which all runs logged them; None: they did not."""
    sums = []
    for run in runs:
        of_tags = [logged_values(run.folder, tag) for tag in tags]
        steps = set.intersection(*map(set, of_tags))
        sums.append({step: sum(values[step] for values in of_tags) for step in steps})
    steps = sorted(set.intersection(*map(set, sums))) if sums else []
    if not steps:
        return None
    parts = np.array_split(np.array(steps), min(POINTS, len(steps)))
    by_run = np.array([[np.mean([values[step] for step in part]) for part in parts] for values in sums])
    return Line([float(part[-1]) for part in parts], by_run.mean(axis=0).tolist(), by_run.std(axis=0).tolist())


def logged_values(run: Path, tag: str) -> dict[int, float]:
    """Step -> value, of every event file of a run; where a resumed run logged a step twice, its last value."""
    import tensorflow as tf

    values = {}
    for file in sorted((run / "tensorboard").glob("events*")):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                if value.tag == tag:
                    values[event.step] = float(tf.make_ndarray(value.tensor))
    return values


def points(lines: dict[str, Line]) -> str:
    """The points of a plot's lines."""
    rows: list[list[Any]] = [["line", "x", "y", "spread"]]
    for title, line in lines.items():
        rows += [[title, *point] for point in zip(*line, strict=True)]
    return csv_text(rows)


def csv_text(lines: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
