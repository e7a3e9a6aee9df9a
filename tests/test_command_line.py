"""The first line on the screen is ours; what TensorFlow logs is shown where a command fails, or on request."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tf_reid.command_line import run_command

ROOT = Path(__file__).parent.parent
HELD_BACK = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795700488.171669   20749 port.cc:153] oneDNN custom operations are on.",
    "2026-11-26 13:41:50.171669: W external/local_xla/xla/stream_executor/cuda/cuda_fft.cc:485] a warning",
    "E0000 00:00:1795700505.991971   20811 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error",
    "E0000 00:00:1795700505.99   20811 x.cc:1] NodeDef mentions attribute use_unbounded_threadpool",
    "E0000 00:00:1795737590.928385   32200 meta_optimizer.cc:967] remapper failed: INVALID_ARGUMENT: Mutation::Apply",
]
PASSED_ON = ["E0000 00:00:1795700505.991971   20811 cuda_dnn.cc:52] Could not create cudnn handle", "another line"]
# The lines come from the process itself and from one that it starts, as Ray's workers do.
SCRIPT = f"""
import os, signal, subprocess, sys
from tf_reid.command_line import run_command

def main():
    print("ours", file=sys.stderr)
    os.write(2, {chr(10).join([*HELD_BACK, PASSED_ON[0], ""]).encode()!r})
    subprocess.run(["bash", "-c", "echo {PASSED_ON[1]} >&2"])
    exec(sys.argv[1])
    os.write(2, b"I0000 00:00 at the end\\n")

run_command(main)
"""


def run(*arguments, **settings):
    """-> the exit status and the lines on standard error."""
    unset = ("TF_REID_VERBOSE", "TF_CPP_MIN_LOG_LEVEL", "TF_REID_TRACEBACK")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    environment |= {"PYTHONPATH": str(ROOT), **settings}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=120)
    return done.returncode, done.stderr.splitlines()


def run_script(ending, **settings):
    return run("-c", SCRIPT, ending, **settings)


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("pass", 0),
        ("sys.exit(3)", 3),
        ("raise ValueError('a wrong value')", 1),
        ("raise FileNotFoundError('no such file')", 1),
        ("os.kill(os.getpid(), signal.SIGINT)", 1),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143),
        ("from tf_reid.runs.local_workers import WorkerFailed; raise WorkerFailed('of ours')", 1),
    ],
)
def test_log_lines_are_held_back(ending, status):
    code, lines = run_script(ending)
    assert code == status and lines[0] == "ours"
    assert set(PASSED_ON) <= set(lines)
    assert not set(HELD_BACK) & set(lines) and "I0000 00:00 at the end" not in lines


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("raise RuntimeError('broken')", 1),
        ("{}['no such key']", 1),
        ("os.abort()", -6),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9),
    ],
)
def test_log_lines_are_shown_where_a_command_fails(ending, status):
    code, lines = run_script(ending)
    assert code == status and lines[0] == "ours"
    assert [line for line in lines if line in HELD_BACK] == HELD_BACK
    assert set(PASSED_ON) <= set(lines)
    if "broken" in ending:  # the sentence stands behind the lines, where it is seen
        assert lines.index("Error: broken") > lines.index(HELD_BACK[-1])


def test_log_lines_are_shown_on_request():
    code, lines = run_script("pass", TF_REID_VERBOSE="1")
    assert code == 0 and set(HELD_BACK) <= set(lines) and "I0000 00:00 at the end" in lines


def test_a_progress_bar_is_written_at_once():
    """Before its line ends, also by a process that the command started."""
    code, lines = run_script(
        "import time; os.write(2, b'50%'); time.sleep(0.5); print(' behind it', file=sys.stderr, flush=True)"
    )
    assert code == 0 and "50% behind it" in lines


def test_a_dry_run_writes_nothing_to_standard_error():
    command = ("-m", "tf_reid.train", "--config", "identity", "--dry-run")
    assert run(*command) == (0, [])
    code, lines = run(*command, TF_REID_VERBOSE="1")
    assert code == 0 and any(line.startswith("WARNING: All log messages before absl") for line in lines)


def test_a_module_that_imports_tensorflow_at_its_top_holds_back_before():
    early = "from tf_reid.command_line.log_filter import hold_back\nhold_back()\n" + SCRIPT
    assert run("-c", early, "sys.modules['tensorflow'] = sys") == (0, ["ours", *PASSED_ON])
    code, lines = run("-c", early, "raise RuntimeError('broken')")
    assert code == 1 and [line for line in lines if line in HELD_BACK] == HELD_BACK


def test_a_package_of_an_extra_that_is_missing_is_named_with_the_extra(monkeypatch):
    def search():
        raise ModuleNotFoundError("No module named 'faiss'", name="faiss")

    monkeypatch.setattr("tf_reid.command_line.hold_back", lambda: None)
    with pytest.raises(
        SystemExit, match=r"Error: faiss is not installed; this needs pip install 'tf_reid\[search\]'\."
    ):
        run_command(search)

    def embed():
        raise ModuleNotFoundError("No module named 'pyarrow.parquet'", name="pyarrow.parquet")

    with pytest.raises(SystemExit, match=r"this needs pip install 'tf_reid\[bulk\]'\."):
        run_command(embed)

    def broken():
        raise ModuleNotFoundError("No module named 'a_mistake'", name="a_mistake")

    with pytest.raises(ModuleNotFoundError):
        run_command(broken)


def test_an_error_is_printed_without_control_characters(monkeypatch):
    def search():
        raise ValueError("a\x1b[2J.jpg and b\u202e.jpg are damaged:\nremove them")

    monkeypatch.setattr("tf_reid.command_line.hold_back", lambda: None)
    with pytest.raises(SystemExit) as ended:
        run_command(search)
    first, second, _ = str(ended.value).splitlines()
    assert (first, second) == (r"Error: a\x1b[2J.jpg and b\u202e.jpg are damaged:", "remove them")
