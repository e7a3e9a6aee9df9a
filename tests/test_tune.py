"""The command that tries a grid: nothing is trained twice, and nothing without validation identities."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import make_records
from rich.console import Console

import tf_reid.tune
from tf_reid import config as configuration
from tf_reid.config import ConfigError
from tf_reid.files import write_text
from tf_reid.methods import METHODS
from tf_reid.runs import side_by_side, splits, tuning
from tf_reid.runs.tuning import Over

OVER = ["--config", "identity", "--over", "method.dropout=0,0.5", "--seeds", "0", "--seeds", "1"]


@pytest.fixture
def trained(monkeypatch):
    """The runs that are trained, in order, and those that fail; none trains: its score is of its dropout."""
    of_runs, records = SimpleNamespace(names=[], failing=set()), make_records(np.repeat(np.arange(1, 7), 2), [1, 2] * 6)

    def execute(self, words, log, environment):
        run = Path(words[words.index("--run") + 1])
        if run.name in of_runs.failing:
            return 1
        of_runs.names.append(run.name)
        assert words[-1] == "evaluate.identities=validation"
        (dropout,) = [float(word.partition("=")[2]) for word in words if word.startswith("method.dropout=")]
        settings = words[words.index("--set") + 1 :]
        write_text(run / "config.yaml", configuration.dump(configuration.load("identity", settings, METHODS)))
        (run / "metrics.json").write_text(json.dumps({"raw": {"mAP": 10 * dropout, "rank1": 0.0}}))
        return 0

    monkeypatch.setattr(side_by_side.Workers, "execute", execute)
    monkeypatch.setattr(splits, "load_data", lambda config: {"source": records})
    return of_runs


def test_a_grid_that_was_stopped_is_completed_by_the_same_command(tmp_path, trained, capsys):
    command = [*OVER, "--set", "data.validation=3", "--to", str(tmp_path)]
    trained.failing.add("method.dropout=0.5-1")
    with pytest.raises(SystemExit, match=r"1 of 4 trainings failed; the same command tries them again"):
        tf_reid.tune.main(command)
    chosen = "Chosen by mAP: `--set method.dropout=0`, of 1 of 2 choices; the others are not finished.\n"
    assert chosen in (tmp_path / "tune.md").read_text()
    trained.failing.clear()
    tf_reid.tune.main(command)
    names = ["method.dropout=0-0", "method.dropout=0-1", "method.dropout=0.5-0", "method.dropout=0.5-1"]
    assert trained.names == names  # each once
    printed = capsys.readouterr().out
    assert "Chosen by mAP: `--set method.dropout=0.5`, of 2 of 2 choices.\n" in printed
    assert "--run runs/identity_chosen --set method.dropout=0.5 data.validation=0" in printed
    assert (tmp_path / "tune.csv").read_text().startswith("choice,metric,mean,spread,runs,planned\n")


@pytest.mark.parametrize("other", ["data.source=viper", "evaluate.distance=euclidean"])
def test_scores_of_other_data_or_of_another_distance_are_not_taken_for_this_grids(other, tmp_path, trained):
    command = [*OVER, "--to", str(tmp_path), "--set", "data.validation=3"]
    tf_reid.tune.main(command)
    with pytest.raises(ConfigError, match=rf"holds a run with other settings \({other.partition('=')[0]} was"):
        tf_reid.tune.main([*command, other])


def test_the_last_command_chooses_nothing_where_the_grid_chose_that_weights_are_chosen(tmp_path, trained, capsys):
    grid = ["--config", "identity", "--over", "run.keep=best,last", "--to", str(tmp_path)]
    tf_reid.tune.main([*grid, "--set", "data.validation=3", "run.validate_every=5", "method.dropout=0"])
    assert "Chosen by mAP: `--set run.keep=best`" in (printed := capsys.readouterr().out)
    assert "--set method.dropout=0 data.validation=0 run.validate_every=0 run.keep=last" in printed


def test_a_grid_without_validation_identities_is_refused_before_it_trains(tmp_path, trained):
    with pytest.raises(ConfigError, match=r"No training identity is held out for validation: set data\.validation"):
        tf_reid.tune.main([*OVER, "--to", str(tmp_path)])
    with pytest.raises(ConfigError, match=r"run\.keep=best needs scores"):
        tf_reid.tune.main([*OVER, "--set", "data.validation=3", "run.keep=best", "--to", str(tmp_path)])
    assert not trained.names and not list(tmp_path.iterdir())


def test_the_commands_are_printed_where_nothing_is_to_be_run(tmp_path, trained, capsys):
    tf_reid.tune.main([*OVER, "--set", "data.validation=3", "--to", str(tmp_path), "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(line.startswith("python -m tf_reid.train --run ") for line in lines)
    assert not trained.names


def test_a_terminal_shows_choices_as_they_are_typed(tmp_path):
    cells = tuning.cells("identity", [Over.read("data.image_size=[64,32]")], [3], [], tmp_path)
    shown = io.StringIO()
    Console(file=shown, width=80).print(tf_reid.tune._table(cells))  # where brackets may be markup
    assert "data.image_size=[64, 32]" in shown.getvalue() and "waiting" in shown.getvalue()
