"""How every command runs: TensorFlow's start-up lines are held back, and errors are one sentence.

The functions named after commands are the console scripts of setup.cfg.
"""

import argparse
import contextlib
import importlib
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import tfds_builders
from tf_reid.command_line.log_filter import hold_back
from tfds_builders.listing import as_text, printable

EXTRA_OF = {  # a package that is not always installed -> the extra of setup.cfg that brings it
    "faiss": "search",
    "fastapi": "search",
    "fsspec": "bulk",
    "pgvector": "search",
    "psycopg": "search",
    "pyarrow": "bulk",
    "qdrant_client": "search",
    "uvicorn": "search",
    "grpc": "serving",
    "prometheus_client": "serving",
    "ray": "serving",
    "requests": "serving",
    "tensorflow_serving": "serving",
}
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]  # ask for an end
HINT = "(TF_REID_TRACEBACK=1 shows where it was raised, TF_REID_VERBOSE=1 what TensorFlow logs.)"


class Terminated(SystemExit):
    """A signal ends the process; the exit status is the shell's for that: 143 for SIGTERM, 129 for SIGHUP."""

    def __init__(self, number: int, sentence: str = "") -> None:
        super().__init__(128 + number)
        self.sentence = sentence or f"Stopped by {signal.Signals(number).name}."


def run_command(command: Callable[[], object]) -> None:
    """Run a command; an error that a user can mend is one sentence, without a traceback.

    The log lines held back are shown where the error may be TensorFlow's or our own, not where a value or a file is
    wrong, or where a signal ends the command.
    """
    held_back = hold_back()
    try:
        with _signals_raised(), _warnings_as_sentences():
            command()
    except BaseException as error:
        if held_back:
            held_back.forget() if _is_a_users_mistake(error) else held_back.show()
        if isinstance(error, Terminated):
            print(f"\n{error.sentence}", file=sys.stderr)
            raise
        if isinstance(error, KeyboardInterrupt):
            sys.exit(
                f"\n{error}"
                if error.args
                else "\nStopped. The same command resumes a training from its last checkpoint."
            )
        if isinstance(error, ModuleNotFoundError) and (extra := EXTRA_OF.get(str(error.name).split(".")[0])):
            sys.exit(f"Error: {error.name} is not installed; this needs pip install 'tf_reid[{extra}]'.")
        if os.environ.get("TF_REID_TRACEBACK") or not isinstance(error, _reported_in_a_sentence()):
            raise
        lines = as_text(str(error)).split("\n")
        message = "\n".join(map(printable, lines))  # names of files may hold what a terminal obeys
        message = f"Error: {message}\n{HINT}"
        if not hasattr(error, "exit_status"):
            sys.exit(message)
        print(message, file=sys.stderr)
        sys.exit(error.exit_status)
    if held_back:
        held_back.forget()


@contextlib.contextmanager
def _signals_raised() -> Iterator[None]:
    """In this context SIGTERM and SIGHUP raise `Terminated`, so that what is half done is cleared away.

    A command that has something to save, or a server, sets handlers of its own within it.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # no other may change what signals do
        for number in SIGNALS:  # of SIGINT, Python makes a KeyboardInterrupt by itself
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _warnings_as_sentences() -> Iterator[None]:
    """In this context what the data sets warn of is printed without the line of code that warns."""
    with warnings.catch_warnings():
        before = warnings.showwarning

        def show(message, category, filename, lineno, file=None, line=None):
            if Path(filename).is_relative_to(Path(tfds_builders.__file__).parent):
                print(f"{printable(as_text(str(message)))}.", file=sys.stderr)
            else:
                before(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def _terminate(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # the second one
    raise Terminated(number)


def _is_a_users_mistake(error: BaseException) -> bool:
    """Or no mistake at all: the command was stopped, or has exited by itself. Or an error whose class is ours."""
    ours = type(error).__module__.split(".")[0] in ("tf_reid", "tfds_builders", "export")
    return ours or isinstance(error, ValueError | OSError | SystemExit | KeyboardInterrupt)


def _reported_in_a_sentence() -> tuple[type[BaseException], ...]:
    tensorflow = sys.modules.get("tensorflow")  # not loaded where the settings alone were wrong
    of_tensorflow = (tensorflow.errors.OpError,) if tensorflow else ()
    return (ValueError, OSError, RuntimeError, *of_tensorflow)


def program(module: str) -> str:
    """What the user typed to start a module, for its help: `tf-reid-train` or `python -m tf_reid.train`."""
    script = Path(sys.argv[0]).name
    return script if script.startswith("tf-reid-") else f"python -m {module}"


def settings_option(parser: argparse.ArgumentParser, about: str) -> None:
    """Give a command the option `--set key=value ...`, which may be there several times; `about` is its help."""
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="key=value", help=about)


def positive(text: str) -> int:
    """The number of an option that counts something.

    Raises:
        ArgumentTypeError: it is none, or less than 1.
    """
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def fraction(text: str) -> float:
    """The number of an option that is a part of something.

    Raises:
        ArgumentTypeError: it is none, or not between 0 and 1.
    """
    value = _number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def gpus(text: str) -> float:
    """How many GPUs a process gets of Ray: a part of one, or a whole number of them.

    Raises:
        ArgumentTypeError: it is neither.
    """
    value = _number(text)
    if not (0 <= value <= 1 or (value > 1 and value.is_integer())):
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1, nor a larger whole number")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def train() -> None:
    """tf-reid-train"""
    _run_module("tf_reid.train")


def pretrain() -> None:
    """tf-reid-pretrain"""
    _run_module("tf_reid.pretrain")


def tune() -> None:
    """tf-reid-tune"""
    _run_module("tf_reid.tune")


def evaluate() -> None:
    """tf-reid-evaluate"""
    _run_module("tf_reid.evaluate")


def visualize() -> None:
    """tf-reid-visualize"""
    _run_module("tf_reid.visualize")


def search() -> None:
    """tf-reid-search"""
    _run_module("tf_reid.search")


def data() -> None:
    """tf-reid-data"""
    _run_module("tfds_builders.__main__")


def export() -> None:
    """tf-reid-export"""
    _run_module("export.__main__")


def serve() -> None:
    """tf-reid-serve"""
    _run_module("export.serve")


def _run_module(module: str) -> None:
    """Run a module's `main`; a number that it returns is the exit status."""

    def command():
        status = importlib.import_module(module).main()
        if isinstance(status, int) and status:
            sys.exit(status)

    run_command(command)
