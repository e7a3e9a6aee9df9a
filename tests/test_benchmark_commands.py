"""The commands of tables in docs/ are ones: known options, known variants, valid settings."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from tf_reid import config
from tf_reid.methods import METHODS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = sorted(
    {
        (module, options.strip())
        for page in PAGES
        for module, options in re.findall(r"python -m (benchmarks\.\w+)([^`\n]*)", page.read_text())
        if options.strip() != "--help"
    }
)


def test_the_pages_name_the_commands_of_their_tables():
    modules = [module for module, _ in COMMANDS]
    assert modules.count("benchmarks.ablation") > 15
    assert modules.count("benchmarks.simpgan_table") > 4


@pytest.mark.parametrize(("module", "options"), COMMANDS)
def test_a_command_of_a_table_is_one(module, options, monkeypatch):
    monkeypatch.setattr("sys.argv", [module, *shlex.split(options)])
    benchmark = importlib.import_module(module)
    if not hasattr(benchmark, "VARIANTS"):
        return
    args = benchmark.arguments()
    if not args.config:
        return
    method = config.load(str(ROOT / args.config), args.set, METHODS).method["name"]
    variants = benchmark.VARIANTS[method] if module == "benchmarks.ablation" else benchmark.VARIANTS
    for variant in args.variants or variants:
        assert variant in variants, options
        config.load(str(ROOT / args.config), [*variants[variant], *args.set], METHODS)
