"""The commands of benchmarks in docs/ are ones: known options, configurations and tables that there are."""

import importlib
import os
import re
import shlex
from pathlib import Path

import pytest

from benchmarks.tables import __main__ as tables
from benchmarks.tables import running
from tf_reid import config as configuration
from tf_reid.methods import METHODS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = sorted(
    {
        (module, options.strip())
        for page in PAGES
        for module, options in re.findall(r"python -m (benchmarks\.\w+)([^`\n]*)", page.read_text())
        if options.strip() not in ("--help", "--list")
    }
)


def test_the_pages_name_the_commands_of_the_tables():
    named = {name for module, options in COMMANDS if module == "benchmarks.tables" for name in shlex.split(options)}
    assert not {table.name for table in tables.chosen(["all"], "full")} - named, "docs/reproduce.md names each"
    assert not {name for name, table in tables.TABLES.items() if not table.of_paper} - named


WITHOUT_OPTIONS = {"benchmarks.pipeline"}
OF_TABLES = [options for module, options in COMMANDS if module == "benchmarks.tables"]
OF_OTHERS = [(module, options) for module, options in COMMANDS if module != "benchmarks.tables"]


@pytest.mark.parametrize(("module", "options"), OF_OTHERS)
def test_a_command_of_a_benchmark_has_known_options(module, options):
    benchmark = importlib.import_module(module)
    if module in WITHOUT_OPTIONS:
        assert not options
        return
    args = benchmark.arguments(shlex.split(options))
    for config in getattr(args, "configs", []):
        stages = configuration.load(config, getattr(args, "set", []), METHODS).stages
        assert set(args.stages or []) <= set(stages)


def test_an_option_that_a_benchmark_has_not_is_refused():
    with pytest.raises(SystemExit):
        importlib.import_module("benchmarks.training").arguments(["--only", "dgnet"])


@pytest.mark.parametrize("options", OF_TABLES)
def test_a_command_of_a_table_is_one(options, tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "exists", lambda path: True)  # archives and weights that a reader has
    args = tables.arguments(shlex.split(options))
    plan = running.Plan(running.Request(args.size, args.seeds or (0,), tmp_path, args.trials, args.set))
    for table in tables.chosen(args.tables, args.size):
        plan.add(table)
    first = next(iter(plan.runs.values()))
    running.check([first])  # tests/benchmarks/test_tables.py checks them all, without --set
