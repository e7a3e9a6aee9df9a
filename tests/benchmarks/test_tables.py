"""The command of the papers' tables: valid rows, each run once, resumed where it stopped, written with both figures."""

import csv
import dataclasses
import inspect
import json
import os
import re
import shlex
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

from benchmarks.tables import __main__ as tables
from benchmarks.tables import definitions, output, running
from benchmarks.tables.definitions import Cmc, Columns, Data, Logged, Row, Score, Sweep, Table, Variant
from tf_reid import config as configuration
from tf_reid.config import ConfigError
from tf_reid.evaluation import scoring
from tf_reid.methods import METHODS
from tf_reid.runs import side_by_side

EVERY = [(name, size) for name, table in tables.TABLES.items() for size in ("cpu", "full") if table.columns(size)]
STREET = Data("street", "simpgan")
DIRECT = Variant("direct", ("stages.translation.steps=0",))
FULL = Variant("full", (f"method.classifier={DIRECT.folder}", "stages.classifier.steps=0"), needs=(DIRECT,))
RAW, HISTOGRAM = Row("direct", DIRECT, paper={"Market": (9.6, 21.2)}), Row("colours", DIRECT, "colour_histogram")
MADE = Row("SimPGAN", FULL, "translated", paper={"Market": (18.0, None)})
ONE = Table(
    "one",
    "What it shows.",
    (RAW, MADE, Row("later", FULL, paper={"Market": (1.0, 2.0)}, missing="There is no setting yet.")),
    full=(),
    cpu=(
        Columns("street", STREET, ("rank1", "rank5"), "Market"),
        Columns("again", STREET, ("mAP",), score=Score(("evaluate.flip=false",))),
    ),
    notes=("A note.",),
)


def planned(*made, root="runs", size="cpu", seeds=(0,), trials=None, settings=()):
    plan = running.Plan(running.Request(size, seeds, Path(root), trials, settings))
    for table in made:
        plan.add(table)
    return plan


class Trainer(side_by_side.Workers):
    """Writes what the commands would write, and keeps what it was given."""

    def __init__(self, parallel=1, failing=()):
        super().__init__(parallel)
        self.calls, self.failing, self.at_once, self.most = [], failing, 0, 0
        self.lock, self.together = threading.Lock(), threading.Barrier(parallel)

    def execute(self, words, log, environment):
        with self.lock:
            self.calls.append(words[2:])
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        run = Path(words[words.index("--run") + 1])
        if run.name not in self.failing:
            self.together.wait(timeout=20)
            write_metrics(run, run.name, 10.0 * len(self.calls))
        with self.lock:
            self.at_once -= 1
        return int(run.name in self.failing)


def write_metrics(run, name, value):
    entry = {"rank1": value, "rank5": value + 1, "mAP": value / 2, "cmc": [value, value + 1, value + 2]}
    entry |= {"protocol": "market", "queries": 4, "gallery": 8, "trials": 1, "description": "As it is."}
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.json").write_text(json.dumps({"raw": entry, "translated": entry, "colour_histogram": entry}))
    environment = {"revision": "abc", "cpu": "a processor", "cpu_cores": 2, "gpus": ["a GPU"]}
    (run / "environment.json").write_text(json.dumps(environment))


# --------------------------------------------------------------------- the papers' tables


@pytest.fixture(scope="module")
def loaded():
    """(config, settings) -> the configuration, of any run; runs that are needed are taken to be there."""
    cache = {}

    def load(run):
        key = run.config, *run.settings
        if key not in cache:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os.path, "exists", lambda path: True)
                cache[key] = configuration.load(run.config, list(run.settings), METHODS)
        return cache[key]

    return load


@pytest.mark.parametrize(("name", "size"), EVERY)
def test_every_run_of_every_table_has_valid_settings(name, size, loaded):
    plan = planned(tables.TABLES[name], size=size, trials=(0,))
    assert plan.runs
    for run in plan.runs.values():
        assert "{" not in " ".join(run.settings)
        trained = loaded(run)
        for score, needed in run.scored.values():
            words = run.scoring(score, needed)
            assert "{" not in " ".join(words)
            scoring.check_overrides(trained, score.settings)  # nothing that would have to be trained again


@pytest.mark.parametrize(("name", "size"), EVERY)
def test_the_papers_figures_fit_the_columns(name, size):
    table = tables.TABLES[name]
    titles = {columns.title for columns in table.full} | {columns.paper for columns in table.full}
    for columns in table.columns(size):
        assert not columns.paper or columns.paper in titles
        for row in table.rows:
            figures = row.paper.get(columns.paper or columns.title)
            assert figures is None or len(figures) == len(columns.metrics), (row.title, columns.title)
    for row in table.rows:
        assert set(row.paper) <= titles
    sweep = isinstance(table.plot, Sweep)
    assert all((row.at is not None) == sweep for row in table.rows if not row.missing)


@pytest.mark.parametrize("size", ["cpu", "full"])
def test_all_tables_together_have_each_run_once(size):
    plan = planned(*(table for table in tables.TABLES.values()), size=size)  # two of one name would be an error
    trained = [(run.config, *sorted(set(run.settings))) for run in plan.runs.values()]
    assert len(trained) == len(set(trained))


def test_the_small_size_of_the_papers_tables_needs_no_archive(loaded):
    for table in tables.chosen(["all"], "cpu"):
        for run in planned(table).runs.values():
            data = loaded(run).data
            assert all(str(spec).startswith("synthetic_pedestrians/") for spec in (data.source, data.target) if spec)


def test_swaps_offline_are_learned_from_for_as_many_steps(loaded):
    runs = {path.name: loaded(run) for path, run in planned(tables.TABLES["dgnet-3"]).runs.items()}
    both, offline = runs["dgnet_street-both-0"], runs["dgnet_street-offline-0"]
    steps = both.stages["pretrain"].steps + both.stages["joint"].steps
    assert offline.stages["pretrain"].steps == steps and not offline.stages["joint"].steps
    assert offline.stages["pretrain"].batch_size == both.stages["joint"].batch_size
    not_fed = both.stages["pretrain"].steps + both.method["warm_up"]
    assert offline.method["warm_up"] == not_fed
    for player in ("appearance", "heads"):
        one, other = offline.stages["pretrain"].optimizers[player], both.stages["joint"].optimizers[player]
        assert (one.learning_rate, one.schedule) == (other.learning_rate, other.schedule)
        falling = steps - other.decay_from * both.stages["joint"].steps - both.stages["pretrain"].steps
        assert (1 - one.decay_from) * steps == pytest.approx(falling, rel=0.01)


def scored_names(config):
    """Names of the representations of a run; tests/methods tests these rules with each method's own model."""
    parameters = inspect.signature(METHODS[config.method["name"]]).parameters
    value = {key: config.method.get(key, parameter.default) for key, parameter in parameters.items()}
    steps = {name: stage.steps for name, stage in config.stages.items()}
    has = {"raw": True}
    match config.method["name"]:
        case "simpgan":
            has["translated"] = steps["translation"]
        case "view_adaptation":
            has["learned"] = True
        case "crossgan":
            has["transformed"] = value["search_steps"]
            has["direct"] = "/" in value["encoder"]  # a run's folder
            has["discriminator"] = value["adversarial_weight"] or value["matching_weight"]
        case "dgnet":
            fed_in = {"online": "joint", "offline": "pretrain"}[value["feed"]]
            fed = steps[fed_in] > value["warm_up"] and value["primary_weight"]
            has["primary"] = has["fine"] = fed and value["fine_ratio"]
            has["teacher"] = steps["teacher"]
    return {name for name, present in has.items() if present}


@pytest.mark.parametrize(("name", "size"), EVERY)
def test_every_run_has_the_representation_that_a_row_reads(name, size, loaded):
    table = tables.TABLES[name]
    plan = planned(table, size=size, trials=(0,))
    for columns in table.columns(size):
        for row in table.made(columns):
            score = running.score_of(columns, row)
            if score.file == "metrics" and "--baselines" not in score.options:
                for run in plan.of_cell(columns, row):
                    assert row.representation in scored_names(loaded(run)), (columns.title, row.title)


def test_multi_shot_has_the_lower_map_in_every_row_of_cmgan():
    for row in tables.TABLES["cmgan-1"].rows:
        maps = {protocol: figures[-1] for protocol, figures in row.paper.items()}
        assert maps["all-search, multi-shot"] < maps["all-search, single-shot"]
        assert maps["indoor, multi-shot"] < maps["indoor, single-shot"]


def test_the_list_names_every_table_and_what_is_left_out(capsys):
    tables.main(["--list"])
    printed = capsys.readouterr().out
    out = [left.name for paper in tables.PAPERS.values() for left in paper.LEFT_OUT]
    assert out and not set(out) & tables.TABLES.keys()
    assert all(f"  {name}" in printed for name in [*tables.TABLES, *out])
    for table in tables.TABLES.values():
        assert all(f"not yet possible: {row.title}" in printed for row in table.rows if row.missing)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name a table"),
        (["simpgan-9"], "no table 'simpgan-9'"),
        (["simpgan-viper", "--size", "full"], "no rows at --size full"),
        (["simpgan-1", "--set", "method.cycle=1"], "unknown key method.cycle"),
        (["simpgan-1", "--dry-run", "--seeds", "0", "1", "--seeds", "1"], "--seeds 0 1 1: a number is there twice"),
        (["view-viper", "--dry-run", "--trials", "2", "2"], "--trials 2 2: a number is there twice"),
    ],
)
def test_a_wrong_command_is_refused(arguments, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        tables.main([*arguments, "--runs", str(tmp_path)])


# --------------------------------------------------------------------- runs


def test_a_dry_run_prints_every_command_once(tmp_path, capsys):
    tables.main(["cmgan-1", "cmgan-fig3", "--dry-run", "--runs", str(tmp_path), "--set", "data.data_dir=here"])
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    trained = [line[line.index("--run") + 1] for line in lines if "tf_reid.train" in line]
    assert len(trained) == len(set(trained)) == 10  # full, which both have, Table 1's four others, five margins
    assert sum("evaluate.protocol=all_multi" in line for line in lines if "tf_reid.evaluate" in line) == 10
    assert all("data.data_dir=here" in line for line in lines if "tf_reid.train" in line)
    assert not any(tmp_path.iterdir())


def test_a_row_keeps_its_own_settings(tmp_path):
    settings = ("stages.translation.steps=7", "stages.classifier.steps=7")
    direct, full = planned(ONE, root=tmp_path, settings=settings).runs.values()
    assert configuration.load(direct.config, list(direct.settings), METHODS).stages["translation"].steps == 0
    assert full.settings.index("stages.classifier.steps=7") < full.settings.index("stages.classifier.steps=0")


def test_trials_are_those_that_a_protocol_has(tmp_path):
    ten = Table("ten", "", (RAW,), (), (Columns("VIPeR", Data("viper", "crossgan_viper", trials=3), ("rank1",)),))
    assert [path.name for path in planned(ten, root=tmp_path, seeds=(0, 1)).runs] == [
        f"viper-direct-{seed}-{trial}" for seed in (0, 1) for trial in range(3)
    ]
    assert len(planned(ten, root=tmp_path, trials=(0, 2)).runs) == 2
    with pytest.raises(ConfigError, match="--trials 9: viper has the trials 0 to 2"):
        planned(ten, root=tmp_path, trials=(2, 9))


def test_trials_do_not_matter_where_a_protocol_has_a_single_split(tmp_path):
    assert list(planned(ONE, root=tmp_path, trials=(1,)).runs) == list(planned(ONE, root=tmp_path).runs)
    whole = planned(tables.TABLES["view-7"], size="full", trials=(1,))
    assert {"view_viper", "view_cuhk03", "view_market1501"} == {run.name.split("-")[0] for run in whole.runs}


def test_a_run_that_all_seeds_share_is_made_once(tmp_path):
    judge = Variant("judge", one_seed=True)
    judged = Row("judged", Variant("judged", needs=(judge,)))
    made = planned(Table("shared", "", (judged,), (), ONE.cpu[:1]), root=tmp_path, seeds=(1, 2)).runs
    assert [path.name for path in made] == ["street-judge-0", "street-judged-1", "street-judged-2"]


def test_runs_are_made_in_order_and_not_again(tmp_path):
    plan, trainer = planned(ONE, root=tmp_path), Trainer()
    assert side_by_side.make_all(plan.runs.values(), 1, trainer) == []
    names = [(call[0], Path(call[call.index("--run") + 1]).name) for call in trainer.calls]
    assert names == [
        ("tf_reid.train", "street-direct-0"),
        ("tf_reid.evaluate", "street-direct-0"),
        ("tf_reid.train", "street-full-0"),
        ("tf_reid.evaluate", "street-full-0"),
    ]
    assert f"method.classifier={tmp_path / 'street-direct-0'}" in trainer.calls[2]
    assert trainer.calls[1][-1] == "evaluate.flip=false"

    again = Trainer()
    side_by_side.make_all(planned(ONE, root=tmp_path).runs.values(), 1, again)
    assert not again.calls
    (tmp_path / "street-full-0/scores/metrics.json").unlink()  # as where the training was stopped: it goes on
    side_by_side.make_all(planned(ONE, root=tmp_path).runs.values(), 1, again)
    assert [call[0] for call in again.calls] == ["tf_reid.train"]


def test_a_failure_stops_what_needs_it_and_nothing_else(tmp_path, capsys):
    other = Table("other", "", (Row("gan", Variant("gan")),), (), ONE.cpu[:1])
    plan, trainer = planned(ONE, other, root=tmp_path), Trainer(failing=("street-direct-0",))
    failures = side_by_side.make_all(plan.runs.values(), 1, trainer)
    assert len(failures) == 2 and "street-full-0 needs" in failures[1] and "street-direct-0.log" in failures[0]
    assert (tmp_path / "street-gan-0/scores/metrics.json").exists()
    assert "failed" in capsys.readouterr().err


def test_several_at_once_are_as_many_as_asked_for(tmp_path):
    variants = [Row(str(number), Variant(f"v{number}")) for number in range(4)]
    trainer = Trainer(parallel=2)  # whose commands wait until two are there
    side_by_side.make_all(
        planned(Table("four", "", variants, (), ONE.cpu[:1]), root=tmp_path).runs.values(), 2, trainer
    )
    assert trainer.most == 2 and len(trainer.calls) == 4


def test_a_run_with_other_settings_is_refused(tmp_path):
    plan = planned(ONE, root=tmp_path)
    run = next(iter(plan.runs.values()))
    run.folder.mkdir()

    def refused(setting, message):
        config = configuration.load(run.config, [*run.settings, setting], METHODS)
        (run.folder / "config.yaml").write_text(configuration.dump(config))
        with pytest.raises(ConfigError, match=message):
            running.check(plan.runs.values())

    refused("method.pool_size=3", r"other settings \(method.pool_size was 3 and is now 50\)")
    refused("evaluate.flip=false", r"other settings \(evaluate.flip was False and is now True\); choose another --runs")


# --------------------------------------------------------------------- what is written


@pytest.fixture
def finished(tmp_path):
    """The plan of ONE with two seeds, all runs finished."""
    plan = planned(ONE, root=tmp_path, seeds=(0, 1))
    side_by_side.make_all(plan.runs.values(), 1, Trainer())
    for number, run in enumerate(plan.runs.values()):
        for score, _ in run.scored.values():
            write_metrics(run.folder, "", 10.0 + 4 * number)
            running.keep(run, score)
    return plan


def test_a_table_has_ours_beside_the_papers(finished, tmp_path):
    text = output.write(ONE, finished, "python -m benchmarks.tables one")
    assert (tmp_path / "one.md").read_text() == text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == "| | street: rank1 | rank5 | again: mAP |"
    # direct has 10 and 14, full 18 and 22
    assert rows[2:] == [
        "| direct | 12.0 ± 2.0 [9.6] | 13.0 ± 2.0 [21.2] | 6.0 ± 1.0 |",
        "| SimPGAN | 20.0 ± 2.0 [18] | 21.0 ± 2.0 | 10.0 ± 1.0 |",
        "| later | - [1] | - [2] | - |",
    ]
    head = [
        "`python -m benchmarks.tables one`",
        "seeds 0 1",
        "± standard deviation",
        "revision abc; a processor, 2 cores; a GPU",
        "A note.",
    ]
    assert all(
        part in text for part in [*head, "protocol market, queries 4", "Not made: later. There is no setting yet."]
    )


def test_a_row_says_what_was_chosen_on_validation(finished):
    chosen = dataclasses.replace(RAW, chosen="method.dropout of 0 and 0.5")
    text = output.write(Table("two", "", (chosen, MADE), (), ONE.cpu), finished, "")
    assert "| direct (chosen on validation) | 12.0" in text and "| SimPGAN | 20.0" in text
    assert "- direct: method.dropout of 0 and 0.5, chosen on validation identities.\n" in text


def test_the_same_as_comma_separated_values(finished, tmp_path):
    output.write(ONE, finished, "")
    lines = list(csv.DictReader((tmp_path / "one.csv").read_text().splitlines()))
    assert lines[0] == {
        **{"row": "direct", "columns": "street", "metric": "rank1", "mean": "12.0", "spread": "2.0"},
        **{"runs": "2", "planned": "2", "paper": "9.6"},
    }
    assert lines[4] == lines[4] | {"row": "SimPGAN", "metric": "rank5", "mean": "21.0", "paper": ""}
    assert lines[6] == lines[6] | {"row": "later", "mean": "", "runs": "0", "paper": "1.0"}
    assert not list(tmp_path.glob(".unfinished*"))


def test_an_unfinished_run_leaves_its_cells_empty(tmp_path):
    plan = planned(ONE, root=tmp_path)
    text = output.write(ONE, plan, "")
    assert "| direct | - [9.6] | - [21.2] | - |" in text


def test_a_single_run_has_no_spread(tmp_path):
    assert output.shown(output.Cell([26.08], 1, 26.97), "rank1") == "26.1 [26.97]"
    assert output.shown(output.Cell([0.36012], 1, None), "SSIM") == "0.3601"
    assert output.value_of({"FID (encoder of identity)": 3.0, "FIDs": 1.0}, "FID") == 3.0


def test_a_cell_says_how_many_of_its_runs_are_finished(finished, tmp_path):
    (tmp_path / "street-direct-1/scores/metrics.json").unlink()
    text = output.write(ONE, finished, "")
    assert "| direct | 10.0 (1 of 2) [9.6] | 11.0 (1 of 2) [21.2] | 6.0 ± 1.0 |" in text
    assert "(2 of 3): over two of three runs" in text and "trials 1, 1 of 2 runs." in text
    lines = list(csv.DictReader((tmp_path / "one.csv").read_text().splitlines()))
    assert (lines[0]["runs"], lines[0]["planned"]) == ("1", "2")


def test_a_finished_score_without_what_a_row_reads_is_named(finished, tmp_path):
    absent = Row("generated", DIRECT, "fakes"), Row("direct", DIRECT, "colour_histogram")
    columns = Columns("street", STREET, ("rank1", "FID"))
    text = output.write(Table("two", "", absent, (), (columns,)), finished, "")
    score = tmp_path / "street-direct-0/scores/metrics.json"
    assert f"- street, generated: {score} has no fakes." in text
    assert f"- street, direct: {score} has no FID." in text
    assert " has no " not in output.write(ONE, finished, "")


def test_a_representation_that_a_configuration_has_not_is_left_out(finished):
    data = Data("street", "simpgan", without={"translated": "It translates nothing."})
    text = output.write(Table("two", "", (RAW, MADE), (), (Columns("street", data, ("rank1",)),)), finished, "")
    assert "| SimPGAN | - |" in text and "- Not made: street, SimPGAN. It translates nothing." in text


def with_plot(plot, *rows):
    return definitions.Table("figure", "", rows, (), ONE.cpu[:1], plot)


def test_a_sweep_has_its_rows_on_lines(finished, tmp_path):
    at = [Row("a", DIRECT, at=0.5, line="x"), Row("b", FULL, at=2.0, line="x"), Row("c", FULL, at=1.0, line="y")]
    output.write(with_plot(Sweep("weight"), *at), finished, "")
    points = list(csv.reader((tmp_path / "figure_lines.csv").read_text().splitlines()))
    assert points == [
        ["line", "x", "y", "spread"],
        *(["x", "0.5", "12.0", "2.0"], ["x", "2.0", "20.0", "2.0"], ["y", "1.0", "20.0", "2.0"]),
    ]
    assert cv2.imread(str(tmp_path / "figure.png")).std() > 0
    assert "![figure](figure.png)" in (tmp_path / "figure.md").read_text()
    (tmp_path / "street-full-1/scores/metrics.json").unlink()
    at.append(Row("d", Variant("to_come"), at=1.0, line="z"))
    at[1] = dataclasses.replace(at[1], variant=Variant("to_come"))
    partly = output.swept(with_plot(Sweep("weight"), *at), finished)
    assert {title: line.x for title, line in partly.items()} == {"x (not finished)": [0.5], "y (not finished)": [1.0]}


def test_cmc_curves_are_means_over_runs(finished, tmp_path):
    lines = output.cmc_lines(with_plot(Cmc(), RAW, MADE), finished, ONE.cpu[0])
    assert lines["direct"] == ([1, 2, 3], [12.0, 13.0, 14.0], [2.0, 2.0, 2.0])
    output.write(with_plot(Cmc(), RAW, MADE), finished, "")
    assert cv2.imread(str(tmp_path / "figure-street.png")).std() > 0


def test_logged_lines_are_sums_and_means_over_parts(finished, monkeypatch):
    logged = {
        "triplet": dict.fromkeys(range(0, 200, 2), 1.0),
        "identity": {step: float(step) for step in range(200)},
    }
    monkeypatch.setattr(output, "logged_values", lambda run, tag: logged[tag])
    plot = Logged({"both": ("triplet", "identity")})
    line = output.logged_lines(with_plot(plot, RAW), finished)["direct"]
    assert len(line.x) == output.POINTS and line.x[0] == 2.0  # the steps at which both were logged, two by two
    np.testing.assert_allclose(line.y[:2], [1.0 + (0 + 2) / 2, 1.0 + (4 + 6) / 2])
    assert line.spread[0] == 0.0
    of_runs = {run.folder: {0: 1.0, 2 + number: 5.0, 9: 3.0} for number, run in enumerate(finished.runs.values())}
    monkeypatch.setattr(output, "logged_values", lambda run, tag: of_runs[run])
    line = output.logged_lines(with_plot(Logged({"one": ("triplet",)}), RAW), finished)["direct"]
    assert (line.x, line.y) == ([0.0, 9.0], [1.0, 3.0])  # the steps at which both runs logged


def test_a_step_that_was_logged_twice_has_its_last_value(tmp_path):
    for number, points in enumerate(({1: 1.0, 2: 2.0}, {2: 20.0})):
        writer = tf.summary.create_file_writer(str(tmp_path / "tensorboard"), filename_suffix=f".{number}")
        with writer.as_default():
            for step, value in points.items():
                tf.summary.scalar("joint/loss", value, step)
                tf.summary.scalar("joint/other", 7.0, step)
        writer.close()
    assert output.logged_values(tmp_path, "joint/loss") == {1: 1.0, 2: 20.0}


def test_a_metric_is_not_read_from_one_whose_name_begins_like_it():
    entry = {"rank10": 1.0, "rank1": 2.0, "FID (encoder of a)": 3.0}
    assert [output.value_of(entry, metric) for metric in ("rank1", "FID", "rank")] == [2.0, 3.0, None]


def test_rows_of_the_same_runs_have_one_logged_line(finished, monkeypatch):
    monkeypatch.setattr(output, "logged_values", lambda run, tag: {0: 1.0})
    plot = Logged({"accuracy": ("triplet",)})
    assert list(output.logged_lines(with_plot(plot, RAW, HISTOGRAM, MADE), finished)) == ["direct", "SimPGAN"]
    assert output.plots(with_plot(plot, RAW), finished)["figure"].up == "accuracy"
    plot = Logged({"generator": ("triplet",), "discriminator": ("identity",)})
    lines = output.logged_lines(with_plot(plot, RAW, HISTOGRAM), finished)
    assert list(lines) == ["direct: generator", "direct: discriminator"]


def test_points_that_are_not_finite_are_left_out_of_a_plot(finished, tmp_path):
    for run in finished.runs.values():
        if "direct" in run.folder.name:
            write_metrics(run.folder, "", float("nan"))
            running.keep(run, Score())
    rows = Row("a", DIRECT, at=0.5), Row("b", FULL, at=2.0)
    output.write(with_plot(Sweep("weight"), *rows), finished, "")
    points = list(csv.reader((tmp_path / "figure_lines.csv").read_text().splitlines()))
    assert points[1:] == [["street", "2.0", "20.0", "2.0"]]
    assert "| a | nan ± nan |" in (tmp_path / "figure.md").read_text()
    assert output.plots(with_plot(Sweep("weight"), rows[0]), finished) == {}


def test_the_table_is_written_before_its_pictures(finished, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError("no room")

    monkeypatch.setattr(output.curves, "lines", fails)
    with pytest.raises(OSError, match="no room"):
        output.write(with_plot(Cmc(), RAW), finished, "")
    assert "![figure-street](figure-street.png)" in (tmp_path / "figure.md").read_text()


def test_a_figure_without_runs_has_no_picture(tmp_path):
    plan = planned(ONE, root=tmp_path)
    for plot in (Sweep("x"), Cmc(), Logged({"loss": ("a",)})):
        assert output.plots(with_plot(plot, RAW), plan) == {}


def test_claims_have_three_seeds_and_weights_reach_the_runs_that_they_need(tmp_path, capsys):
    weights = tmp_path / "weights.h5"
    weights.touch()
    tables.main(["claim-simpgan", "--dry-run", "--runs", str(tmp_path), "--set", f"method.weights={weights}"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "tf_reid.train" in line]
    assert len(lines) == 3 * 3 * 3  # transfers, variants, seeds
    strong = [line for line in lines if "--config strong " in line]
    assert len(strong) == 9 and all(f"method.weights={weights} " in line for line in strong)
    assert not any("classifier_kind" in line for line in strong)
    for name in ("claim-simpgan", "claim-simpgan-rendered"):
        tables.main([name, "--dry-run", "--runs", str(tmp_path), "--seeds", "4"])
        lines = [line for line in capsys.readouterr().out.splitlines() if "tf_reid.train" in line]
        assert len(lines) == 9
        networks = {tuple(re.findall(r"method\.(?:backbone|last_stride)=\S+", line)) for line in lines}
        assert len(networks) == 1, networks  # a classifier of another form would not load
