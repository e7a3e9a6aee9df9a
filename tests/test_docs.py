"""What the README and the pages say: commands parse, examples run, links lead somewhere, the site builds."""

import argparse
import ast
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import nbclient
import nbformat
import numpy as np
import pytest
from test_commands import command, data_dir  # noqa: F401 - a fixture

import tf_reid.train
from tf_reid import config as configuration
from tf_reid.evaluation import scoring
from tf_reid.methods import METHODS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
SCRIPTS = {
    "tf-reid-train": "tf_reid.train",
    "tf-reid-pretrain": "tf_reid.pretrain",
    "tf-reid-tune": "tf_reid.tune",
    "tf-reid-evaluate": "tf_reid.evaluate",
    "tf-reid-visualize": "tf_reid.visualize",
    "tf-reid-search": "tf_reid.search",
    "tf-reid-data": "tfds_builders",
    "tf-reid-export": "export",
    "tf-reid-serve": "export.serve",
}
MODULE = re.compile(r"tf_reid\.\w+|tfds_builders|export(\.\w+)?|benchmarks\.\w+")


# --------------------------------------------------------------------- commands


def code_blocks(page: Path, languages=("", "bash", "sh", "console")) -> list[str]:
    """A page's code blocks in these languages."""
    blocks = re.findall(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for language, text in blocks if language in languages]


def commands_of(page: Path) -> list[tuple[str, list[str]]]:
    """(module or script, arguments) of every command of this project in a page's code blocks."""
    commands = []
    for line in "".join(code_blocks(page)).replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        for simple in simple_commands(list(words)):
            program = called(simple)
            if program:
                commands.append(program)
    return commands


def simple_commands(words: list[str]) -> list[list[str]]:
    """The commands of a line, parted by &&, pipes and the like; what follows a redirection is left out."""
    commands, redirected = [[]], False
    for word in words:
        if set(word) <= set("&|;()"):
            commands.append([])
            redirected = False
        elif set(word) <= set("<>"):
            redirected = True
        elif not redirected:
            commands[-1].append(word)
    return commands


def called(words: list[str]) -> tuple[str, list[str]] | None:
    """What a command calls, if it is this project's: a module's name or a script's path; and the arguments."""
    while words and (words[0] in ("do", "then", "nohup", "time") or re.match(r"\w+=", words[0])):
        words = words[1:]
    if not words:
        return None
    program, rest = Path(words[0]).name, words[1:]
    if program in SCRIPTS:
        return SCRIPTS[program], rest
    if program not in ("python", "python3") or not rest:
        return None
    if rest[0] == "-m" and len(rest) > 1 and MODULE.fullmatch(rest[1]):
        return rest[1], rest[2:]
    return (rest[0], rest[1:]) if rest[0].startswith("docs/") else None


class Parsed(BaseException):
    """Carries a command's arguments out of it before it does anything."""


@pytest.fixture
def arguments_of(monkeypatch):
    """(module, arguments) -> what the command's own parser makes of them; it exits where they are wrong."""
    parse = argparse.ArgumentParser.parse_args

    def stop(parser, args=None, namespace=None):
        raise Parsed(parse(parser, args, namespace))

    def read(module, arguments):
        name = f"{module}.__main__" if module in ("export", "tfds_builders", "benchmarks.tables") else module
        program = script(ROOT / module) if module.endswith(".py") else importlib.import_module(name)
        with monkeypatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "parse_args", stop)
            patch.setattr(sys, "argv", [module, *arguments])
            with pytest.raises(Parsed) as parsed:
                (program.main if hasattr(program, "main") else program.arguments)()
        return parsed.value.args[0]

    return read


def script(path: Path):
    """A script of the docs as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_one(page, arguments_of, monkeypatch):
    for module, arguments in commands_of(page):
        if module == "docs/examples/clip.py":
            continue  # takes a path alone
        args = arguments_of(module, arguments)
        settings = getattr(args, "set", None)
        no_settings = settings is None and not hasattr(args, "config")
        if no_settings or module == "benchmarks.tables":  # whose settings tests/test_benchmark_commands.py reads
            continue
        with monkeypatch.context() as patch:
            patch.setattr(os.path, "exists", lambda path: True)  # runs and weights that a reader has
            settings = [setting.replace("=SEED", "=0") for setting in settings or []]
            configuration.load(getattr(args, "config", "configs/simpgan.yaml"), settings, METHODS)


def test_the_readme_shows_every_command():
    modules = {module for module, _ in commands_of(README)}
    shown = {"train", "evaluate", "visualize", "search"}
    assert modules >= {f"tf_reid.{name}" for name in shown} | {"export", "export.serve", "export.client"}


@pytest.mark.parametrize(
    ("marker", "last"),
    [("train", "-m tf_reid.train --config configs/simpgan.yaml"), ("test", "-m pytest")],
)
def test_the_readmes_two_commands_begin_in_a_fresh_clone(marker, last):
    (line,) = re.findall(rf"<!-- {marker} command -->\n```\n(.*)\n```", README.read_text())
    assert re.fullmatch(
        rf"python3 -m venv \.venv && \.venv/bin/pip install -q -e \S+ && \.venv/bin/python {re.escape(last)}", line
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_python_block_of_a_page_is_python(page):
    for block in code_blocks(page, languages=("python",)):
        is_outline = "{...," in block
        is_file = block.startswith("--8<--")  # which is put there when the site is built
        if not is_outline and not is_file:
            compile(block, str(page), "exec")


# --------------------------------------------------------------------- pictures and links


def links_of(page: Path) -> list[str]:
    text = page.read_text()
    return re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text) + re.findall(r'src="([^"]+)"', text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file(page):
    assert not [link for link in links_of(page) if not (page.parent / link).exists()]


def test_pictures_are_small_and_used():
    pictures = set((DOCS / "pictures").iterdir())
    assert pictures == {
        (page.parent / link).resolve() for page in PAGES for link in links_of(page) if "pictures/" in link
    }
    assert sum(picture.stat().st_size for picture in pictures) < 400_000
    for picture in pictures:
        pixels = cv2.imread(str(picture))
        least = 10 if picture.stem == "backbones" else 20  # a plot of a few dots is nearly white
        assert pixels.shape[1] <= 900 and pixels.std() > least, picture


# --------------------------------------------------------------------- the site


def test_the_site_builds(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    process = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    api = (tmp_path / "site" / "api" / "index.html").read_text()
    assert all(f'id="{name}"' in api for name in ("tf_reid.load", "tf_reid.Encoder", "tf_reid.train.train"))
    for page, included in (("tracker", "linear_sum_assignment"), ("own_images", "random_trials")):
        assert included in (tmp_path / "site" / page / "index.html").read_text(), page


def test_the_notebook_runs(tmp_path):
    notebook = nbformat.read(DOCS / "quickstart.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=os.environ | {"PYTHONPATH": str(ROOT)})
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    assert [output for output in outputs if "image/jpeg" in output.get("data", {})]
    assert (tmp_path / "quickstart" / "run" / "metrics.json").exists()


# --------------------------------------------------------------------- examples


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):  # noqa: F811 - the fixture
    """A folder with `runs/simpgan`, a small finished run, and crops of its target."""
    folder = tmp_path_factory.mktemp("readme")
    tf_reid.train.main(command("simpgan", folder / "runs" / "simpgan", data_dir, "run.pictures_every=0"))
    images = scoring.open_trained(folder / "runs" / "simpgan", []).domains["target"].images
    for name, image in zip(("crop", "a", "b", "query"), images, strict=False):
        (folder / f"{name}.jpg").write_bytes(image)
    return folder


def test_the_readmes_python_example_runs(finished, monkeypatch, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    monkeypatch.chdir(finished)
    names = {}
    exec(block, names)
    assert names["features"].dtype == np.float32 and names["features"].shape == (2, names["encoder"].width)
    assert float(capsys.readouterr().out.splitlines()[0]) >= 0


def test_what_the_readme_says_of_deploying_and_searching_runs(finished):
    blocks = [re.search(f"## {title}\n.*?```\n(.*?)```", README.read_text(), re.DOTALL)[1] for title in SERVED]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    started = []
    try:
        for line in "".join(blocks).splitlines():
            if " serve " in line or ".serve " in line:
                started.append(serving(line, finished, environment))
                continue
            done = subprocess.run(["bash", "-c", line], cwd=finished, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, line + done.stderr
            if line.startswith("curl"):
                assert "predictions" in done.stdout, done.stdout
    finally:
        for process in started:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    with np.load(finished / "embeddings.npz") as written:
        assert written["embedding"].shape[0] == 1
    assert "Ranked images" in (finished / "matches.html").read_text()
    assert (finished / "models" / "serving" / "compose.yaml").exists()


SERVED = ("Deploy", "Search")


def serving(line: str, folder: Path, environment: dict) -> subprocess.Popen:
    """Start a command that serves, and wait until it does."""
    output = folder / "served.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            shlex.split(line.replace("python ", f"{sys.executable} ", 1)),
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    while "Ctrl-C stops" not in output.read_text():
        assert process.poll() is None, output.read_text()
        time.sleep(0.2)
    return process


def test_the_tracker_numbers_who_crosses_the_clip(finished, tmp_path):
    clip, written = tmp_path / "clip.avi", tmp_path / "tracked.avi"
    script(DOCS / "examples" / "clip.py").draw_clip(clip, frames=60)
    tracker = script(DOCS / "examples" / "tracker.py")
    args = tracker.arguments([str(clip), str(written), "--run", str(finished / "runs" / "simpgan")])
    identities = tracker.track(args.clip, args.written, args.run, threshold=2.0)  # two are in the picture at most
    assert len(identities) == 59 and not identities[0]
    assert max(map(len, identities)) == 2 and set().union(*identities) == {0, 1}
    everyone_is_new = tracker.track(args.clip, args.written, args.run, threshold=-1.0)
    assert sum(map(len, everyone_is_new)) == len(set().union(*everyone_is_new)) > 40
    video = cv2.VideoCapture(str(written))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 59


def test_the_builder_of_the_page_builds(tmp_path):
    """In a copy of the package, with the steps of the page."""
    package = tmp_path / "tfds_builders"
    shutil.copytree(ROOT / "tfds_builders", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "lobby").mkdir()
    (package / "lobby" / "__init__.py").touch()
    shutil.copy(DOCS / "examples" / "lobby_dataset_builder.py", package / "lobby")
    names = (package / "__init__.py").read_text()
    (package / "__init__.py").write_text(names.replace("DATASETS = (", 'DATASETS = (\n    "lobby",'))
    for part in ("left", "right"):
        for identity in range(1, 9):
            image = tmp_path / f"archives/lobby/{part}/{identity:04d}_0.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(image), np.full((32, 16, 3), 10 * identity, np.uint8))

    def tfds_builders_says(*arguments):
        places = ["--manual-dir", str(tmp_path / "archives"), "--data-dir", str(tmp_path / "data")]
        line = [sys.executable, "-m", "tfds_builders", *arguments, *places]
        process = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    assert "lobby: sound" in tfds_builders_says("doctor", "lobby")
    assert tfds_builders_says("build", "lobby").split()[-6:] == ["train:", "8", "query:", "4", "gallery:", "4"]


# --------------------------------------------------------------------- messages


def text_of(expression: ast.expr) -> str:
    """A message of the source, with … where something is filled in."""
    if isinstance(expression, ast.JoinedStr):
        return "".join(text_of(value) for value in expression.values)
    return expression.value if isinstance(expression, ast.Constant) and isinstance(expression.value, str) else "…"


def messages_of(module: str) -> set[str]:
    """What a module reports and raises, and the sentences that it returns."""
    tree = ast.parse((ROOT / module).read_text())
    reporting = {"DatasetError", "ConfigError", "ValueError", "report", "warn"}
    texts = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            if getattr(node.func, "id", getattr(node.func, "attr", "")) in reporting:
                texts.add(text_of(node.args[0]))
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.JoinedStr):
            texts.add(text_of(node.value))
    return {text for text in texts if " " in text}


def test_every_message_about_a_folder_is_explained():
    quoted = re.findall(r"^\| `([^`]+)` \|", (DOCS / "own_images.md").read_text(), re.MULTILINE)
    modules = ("tfds_builders/folder/folder_dataset_builder.py", "tfds_builders/labels.py", "tfds_builders/tables.py")
    modules += ("tfds_builders/listing.py",)
    modules += ("tf_reid/runs/splits.py", "tf_reid/data/samplers.py")
    messages = set().union(*(messages_of(module) for module in modules))
    assert len(messages) > 25

    def explained(message):
        pattern = ".*".join(map(re.escape, message.split("…")))
        return any(re.fullmatch(pattern, quote) for quote in quoted)

    assert not [message for message in sorted(messages) if not explained(message)]
