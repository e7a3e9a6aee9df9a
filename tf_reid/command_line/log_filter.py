"""Holds back the lines that TensorFlow and CUDA log at start-up, so that a command's first line is its own.

These lines come from C++ and go to file descriptor 2, where Python cannot filter them. So descriptor 2 becomes a pipe
to a second process (this file, run as a program), which passes on every line but the known ones. It is a process
and no thread, so that an error that is written just before a crash still reaches the screen. Python's own standard
error (messages, progress bars, tracebacks) goes to the screen directly.

The lines that were held back are shown if the command fails. With TF_REID_VERBOSE=1 nothing is held back.
"""

import contextlib
import io
import os
import re
import subprocess
import sys

VERBOSE = "TF_REID_VERBOSE"
SHOW, FORGET = b"show", b"forget"  # what the command sends at its end, behind a zero byte
MOST_LINES = 200  # that are kept

HELD_BACK = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|To enable the following instructions"
    rb"|[IW]\d{4} \d\d:\d\d"  # information and warnings; of the errors only those below, which stop nothing
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IW] "
    rb"|E\d{4} .*(use_unbounded_threadpool|failed call to cuInit|Unable to register cu\w+ factory)"
    # One of the passes that rewrite a graph, refused: the graph is as it was. DG-Net's penalty is such a graph.
    rb"|E\d{4} .*meta_optimizer\.cc.*remapper failed"
)
UNFINISHED = re.compile(rb"[IWE]\d|W?A?R?$|WARNING|To enable|\d{4}-")  # how a line begins that may be held back


class LogFilter:
    """Descriptor 2 while it is filtered; see `hold_back`."""

    def __init__(self) -> None:
        self._screen = os.dup(2)
        reading, writing = os.pipe()
        # In a session of its own, Ctrl-C does not stop it before the command has had its last word.
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", __file__], stdin=reading, stdout=subprocess.DEVNULL, start_new_session=True
        )
        os.close(reading)
        os.dup2(writing, 2)
        os.close(writing)
        screen = os.fdopen(os.dup(self._screen), "wb", buffering=0)
        sys.stderr = io.TextIOWrapper(screen, sys.stderr.encoding, "backslashreplace", write_through=True)

    def show(self) -> None:
        """Write out the lines held back, and hold back no more."""
        os.write(2, b"\0" + SHOW + b"\n")
        os.dup2(self._screen, 2)
        with contextlib.suppress(subprocess.TimeoutExpired):  # where a process that the command started has the pipe
            self._process.wait(2)

    def forget(self) -> None:
        """The command has come to its end: what was held back is not needed."""
        os.write(2, b"\0" + FORGET + b"\n")


_active: LogFilter | None = None


def hold_back() -> LogFilter | None:
    """Hold back TensorFlow's start-up lines from now on.

    A module that imports TensorFlow at its top calls this before, and `run_command` then finds it done.

    Returns:
        None where nothing is held back: TF_REID_VERBOSE=1, TensorFlow has started already, or standard error is not
        this process's own (in a notebook, in a test).
    """
    global _active
    if _active or os.environ.get(VERBOSE, "0") != "0":
        return _active
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "tensorflow" in sys.modules or sys.stderr is None or sys.stderr is not sys.__stderr__:
        return None
    _active = LogFilter()
    return _active


def main() -> None:
    """Copy standard input to standard error, line by line, without the lines to be held back."""
    kept: list[bytes] = []
    rest = word = b""
    while chunk := os.read(0, 65536):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.endswith((b"\0" + SHOW, b"\0" + FORGET)):
                before, _, word = line.rpartition(b"\0")
                _write([*kept, before] if word == SHOW else [before])
                kept = []
            elif word != SHOW and HELD_BACK.match(line):
                kept = [*kept, line][-MOST_LINES:] if not word else []
            else:
                os.write(2, line + b"\n")
        if rest and not UNFINISHED.match(rest):  # such as a progress bar, which has no end of line
            os.write(2, rest)
            rest = b""
    _write([*kept, rest])  # neither word came: the process was killed or has crashed


def _write(lines):
    os.write(2, b"".join(line + b"\n" for line in lines if line))


if __name__ == "__main__":
    main()
