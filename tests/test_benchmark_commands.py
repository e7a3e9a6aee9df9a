"""The commands of benchmarks in docs/ are ones: known options, tables of that size, valid settings."""

import importlib
import os
import re
import shlex
from pathlib import Path

import pytest

from benchmarks.tables import __main__ as tables
from benchmarks.tables import running

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


@pytest.mark.parametrize(("module", "options"), COMMANDS)
def test_a_command_of_a_table_is_one(module, options, tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "exists", lambda path: True)  # archives and weights that a reader has
    importlib.import_module(module)
    if module != "benchmarks.tables":
        return
    args = tables.arguments(shlex.split(options))
    plan = running.Plan(running.Request(args.size, args.seeds, tmp_path, args.trials, args.set))
    for table in tables.chosen(args.tables, args.size):
        plan.add(table)
    first = next(iter(plan.runs.values()))
    running.check([first])  # tests/benchmarks/test_tables.py checks them all, without --set
