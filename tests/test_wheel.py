"""The wheel holds all that the package needs, and trains where no checkout is."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = {
    f"tf-reid-{name}"
    for name in ("train", "pretrain", "tune", "evaluate", "visualize", "search", "data", "export", "serve")
}
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
TINY = (
    *("data.image_size=[32, 16]", "data.augment.pad=2", "method.generator_width=4", "method.generator_blocks=1"),
    *("method.discriminator_width=4", "run.pictures_every=0"),
    *("stages.classifier.steps=1", "stages.classifier.batch_size=4", "stages.translation.steps=1"),
)


def run(*command, **options):
    """What a command prints; none of TensorFlow's log lines is among it."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"^([IWE]\d{4} |WARNING: All log)", done.stderr, re.MULTILINE), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of the sources: what an earlier build left in the checkout is not taken for a part of it."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("tf_reid", "tfds_builders", "export", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    run(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", built, source)
    (path,) = built.glob("tf_reid-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the installed wheel alone."""
    folder = tmp_path_factory.mktemp("installed")
    run(*PIP, "install", "--no-deps", "--no-compile", "--target", folder, wheel)
    return folder


@pytest.fixture
def elsewhere(installed, tmp_path):
    """Options of a process that finds the installed wheel, and no checkout."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "TF_CPP_MIN_LOG_LEVEL")}
    return {"cwd": tmp_path, "env": environment | {"PYTHONPATH": str(installed)}}


def test_it_holds_every_module_and_every_file_beside_them(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in ("tf_reid", "tfds_builders", "export")
        for suffix in ("py", "html", "md", "bib", "yaml", "config", "typed")
        for path in (ROOT / package).rglob(f"*.{suffix}")
        if path.parent.name != "__pycache__"
    }
    expected |= {f"tf_reid/configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")} | {"tf_reid/py.typed"}
    assert "export/serving/compose.yaml" in expected and "tf_reid/gallery/web_page.html" in expected
    assert not expected - inside
    assert not {name for name in inside if name.split("/")[0] in ("tests", "benchmarks", "configs")}


def test_every_command_is_a_script_that_calls_itself_by_its_name(installed, elsewhere):
    assert {path.name for path in (installed / "bin").iterdir()} == SCRIPTS
    assert run(installed / "bin" / "tf-reid-train", "--help", **elsewhere).startswith("usage: tf-reid-train ")


def test_it_trains_and_scores_where_no_checkout_is(installed, elsewhere, tmp_path):
    train = installed / "bin" / "tf-reid-train"
    printed = run(train, "--config", "simpgan", "--dry-run", **elsewhere)
    assert "source: synthetic_pedestrians/street" in printed

    images = np.random.default_rng(0).integers(256, size=(8, 2, 2, 32, 16, 3), dtype=np.uint8)
    (tmp_path / "crops").mkdir()
    for identity, camera, shot in np.ndindex(8, 2, 2):
        cv2.imwrite(str(tmp_path / "crops" / f"{identity + 1}_c{camera}_{shot}.png"), images[identity, camera, shot])
    crops = {"name": "folder", "root": "crops", "pattern": r"(?P<person>\d+)_c(?P<camera>\d)"}
    data = [f"data.{key}={json.dumps(crops)}" for key in ("source", "target")]
    printed = run(
        train, "--config", "simpgan", "--run", "mine", "--set", *data, "data.data_dir=built", *TINY, **elsewhere
    )
    assert "mAP" in printed and "translated" in printed
    assert json.loads((tmp_path / "mine" / "metrics.json").read_text())["translated"]["queries"] > 0
    revision = json.loads((tmp_path / "mine" / "environment.json").read_text())["revision"]
    assert revision.startswith("tf_reid ")  # the package's version, no commit
