"""Imports point down: a wing knows nothing of those above it, a ground wing nothing of another, a method of another."""

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tf_reid.methods import METHODS

ROOT = Path(__file__).parent.parent
PACKAGES = ("tf_reid", "tfds_builders", "export", "benchmarks")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
}
# The floors of tf_reid, from the ground up. A wing is a folder, or a module that stands beside the folders.
BASE = {"config", "files", "command_line"}
GROUND = {"data", "networks", "metrics", "pictures"}
ABOVE = ["methods", "runs", "evaluation", "encoders", "web", "gallery"]
COMMANDS = {"train", "evaluate", "visualize", "search", "tune"}
UPON_TRAINING = {"pretrain"}  # commands that train by `train`
FLOOR = dict.fromkeys(BASE, 0) | dict.fromkeys(GROUND, 1) | {wing: 2 + number for number, wing in enumerate(ABOVE)}
FLOOR |= dict.fromkeys(COMMANDS, 2 + len(ABOVE)) | dict.fromkeys(UPON_TRAINING, 3 + len(ABOVE))
FLOOR |= {"settings": -1}  # config reads the settings
LIGHT = (
    "tf_reid",
    "tf_reid.config",
    "tf_reid.settings",
    "tf_reid.files",
    "tf_reid.data.records",
    "tf_reid.gallery.records",
    "export.client",
)
HEAVY = {"tensorflow", "keras", "tensorflow_datasets", "tensorboard", "faiss", "ray", "qdrant_client", "psycopg"}
LONGEST = 350  # lines of a file


@functools.cache
def imports(module):
    """Dotted names that a module imports, at its top or within a function; `from a import b` gives a and a.b."""
    package = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            names |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
    return names


def of_the_library(module):
    """The other modules of tf_reid that a module imports, without the packages that hold nothing."""
    names = {name for name in imports(module) if name in MODULES and name.startswith("tf_reid.") and is_code(name)}
    return names - {module}


def is_code(module):
    return bool(MODULES[module].read_text().strip())


def wing(module):
    return module.split(".")[1]


LIBRARY = sorted(module for module in MODULES if module.startswith("tf_reid.") and is_code(module))


def test_imports_are_seen_in_all_their_forms():
    assert {"tf_reid.data.records", "tf_reid.config"} <= of_the_library("tf_reid.runs.splits")
    assert "tf_reid.config" in of_the_library("tf_reid.train")  # within a function
    assert "tf_reid.methods.simpgan" in of_the_library("tf_reid.methods")


def test_every_wing_has_a_floor():
    assert {wing(module) for module in LIBRARY} == FLOOR.keys()


@pytest.mark.parametrize("module", LIBRARY)
def test_nothing_points_up(module):
    assert not {name for name in of_the_library(module) if FLOOR[wing(name)] > FLOOR[wing(module)]}


@pytest.mark.parametrize("module", [module for module in LIBRARY if wing(module) in GROUND])
def test_a_ground_wing_knows_no_other(module):
    assert {wing(name) for name in of_the_library(module)} <= {wing(module), "files"}


@pytest.mark.parametrize("module", [module for module in LIBRARY if wing(module) in BASE | COMMANDS])
def test_modules_beside_the_wings_do_not_know_each_other(module):
    floor = BASE if wing(module) in BASE else COMMANDS
    assert not {name for name in of_the_library(module) if wing(name) in floor - {wing(module)}}


@pytest.mark.parametrize("module", [f"tf_reid.methods.{name}" for name in METHODS])
def test_a_method_never_knows_another_method(module):
    assert not {name for name in of_the_library(module) if name.split(".")[-1] in METHODS and wing(name) == "methods"}


def test_the_library_imports_in_one_direction():
    waiting = {module: of_the_library(module) for module in LIBRARY}
    while waiting:
        free = {module for module, below in waiting.items() if not below & waiting.keys()}
        assert free, f"these import each other in a circle: {sorted(waiting)}"
        waiting = {module: below for module, below in waiting.items() if module not in free}


@pytest.mark.parametrize("module", LIBRARY)
def test_the_library_knows_neither_export_nor_benchmarks(module):
    assert not {name for name in imports(module) if name.split(".")[0] in ("export", "benchmarks")}


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("tfds_builders")])
def test_the_data_sets_know_nothing_of_the_library(module):
    allowed = {"tf_reid.command_line", "tf_reid.command_line.data"} if module.endswith("__main__") else set()
    assert not {name for name in imports(module) - allowed if name.split(".")[0] in ("tf_reid", "export")}


@pytest.mark.parametrize("module", [module for module in LIBRARY if FLOOR[wing(module)] > FLOOR["methods"]])
def test_no_method_is_known_by_name(module):
    methods = {f"tf_reid.methods.{name}" for name in METHODS}
    assert not {name for name in imports(module) if ".".join(name.split(".")[:3]) in methods}


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_nothing_heavy(module):
    code = f"import json, sys, {module}; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(json.loads(done.stdout))


def test_every_module_is_called_by_what_it_is_about():
    vague = {"utils", "util", "helpers", "helper", "misc", "common", "tools"}
    assert not [module for module in MODULES if module.split(".")[-1] in vague]


@pytest.mark.parametrize("module", sorted(module for module in MODULES if not module.startswith("benchmarks")))
def test_every_file_is_read_in_one_sitting(module):
    assert len(MODULES[module].read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_file_and_a_configuration_of_its_name(name):
    assert METHODS[name].__module__ == f"tf_reid.methods.{name}"
    assert yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())["method"]["name"] == name


def test_no_two_files_of_tests_have_one_name():
    """Pytest cannot import both."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py")]
    assert len(names) == len(set(names)), [name for name in names if names.count(name) > 1]


def test_the_tests_mirror_the_package():
    """Every folder of tests that is named after a wing holds tests of that wing's modules."""
    for folder in (path for path in (ROOT / "tests").iterdir() if path.name in GROUND | set(ABOVE)):
        modules = {module.split(".")[-1] for module in LIBRARY if wing(module) == folder.name}
        for path in folder.glob("test_*.py"):
            subject = path.stem.removeprefix("test_")
            assert any(subject.startswith(module) or module.startswith(subject) for module in modules), path
