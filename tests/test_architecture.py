"""Imports point down: a floor knows nothing of the ones above it, a method nothing of another."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tf_reid.methods import METHODS

ROOT = Path(__file__).parent.parent
FLOOR = {"config", "data", "image_pool", "layers", "losses", "metrics", "protocols", "similarity", "verification"}
COMMANDS = {"train", "evaluate", "visualize", "search"}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("tf_reid", "tfds_builders", "export")
    for path in (ROOT / package).rglob("*.py")
}


def imports(module):
    """Dotted names that a module imports, at its top or within a function; `from a import b` gives a and a.b."""
    package = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            found |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
    return found


def of_the_project(module, package="tf_reid"):
    """The modules of one package that a module imports, without the package itself."""
    return {name for name in imports(module) if name in MODULES and name.startswith(f"{package}.")}


def test_imports_are_seen_in_all_their_forms():
    assert {"tf_reid.data", "tf_reid.config"} <= of_the_project("tf_reid.runs")
    assert "tf_reid.runs" in of_the_project("tf_reid.train")  # within a function
    assert "tf_reid.methods.simpgan" in of_the_project("tf_reid.methods")


@pytest.mark.parametrize("name", sorted(FLOOR))
def test_the_floor_knows_nothing_of_the_project(name):
    assert of_the_project(f"tf_reid.{name}") == set()


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("tf_reid.methods.")])
def test_a_method_stands_on_the_floor_and_never_on_another_method(module):
    networks = {"backbones", "classifier", "crossgan_networks", "dgnet_networks"}
    below = {f"tf_reid.{name}" for name in FLOOR | networks} | {"tf_reid.methods.base"}
    assert of_the_project(module) - below == set()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_commands_know_of_commands(module):
    commands = {f"tf_reid.{name}" for name in COMMANDS}
    if module not in commands | {"export.check", "export.client", "export.serve"} and not module.endswith("__main__"):
        assert of_the_project(module) & commands == set()


def test_the_library_imports_in_one_direction():
    waiting = {module: of_the_project(module) for module in MODULES if module.startswith("tf_reid.")}
    while waiting:
        free = {module for module, below in waiting.items() if not below & waiting.keys()}
        assert free, f"these import each other in a circle: {sorted(waiting)}"
        waiting = {module: below for module, below in waiting.items() if module not in free}


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("tfds_builders")])
def test_the_data_sets_know_nothing_of_the_library(module):
    assert not {name for name in imports(module) if name.split(".")[0] in ("tf_reid", "export")}


def test_evaluation_knows_no_method_by_name():
    for module in ("evaluation", "scoring", "baselines", "evaluate"):
        assert not {n for n in imports(f"tf_reid.{module}") if n.startswith("tf_reid.methods.") and n in MODULES}


def test_every_module_is_called_by_what_it_is_about():
    vague = {"utils", "util", "helpers", "helper", "misc", "common", "tools"}
    assert not [module for module in MODULES if module.split(".")[-1] in vague]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_file_and_a_configuration_of_its_name(name):
    assert METHODS[name].__module__ == f"tf_reid.methods.{name}"
    assert yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())["method"]["name"] == name


def test_every_method_file_is_listed():
    files = {path.stem for path in (ROOT / "tf_reid" / "methods").glob("*.py")} - {"__init__", "base"}
    assert files == set(METHODS)


def test_reading_a_configuration_loads_no_tensorflow():
    code = "import sys, tf_reid.config; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
