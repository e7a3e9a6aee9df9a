"""Ray as a process's own: it listens on this machine alone, answers none but its own processes, and leaves nothing.

Ray's services run code for whoever reaches them. They listen on all addresses, without asking who calls, unless these
variables are set before Ray is imported:

- its node has the address 127.0.0.1, which Ray itself takes on macOS and Windows, and on Linux with this variable;
- each call to one of its services (also that of jobs, in the agent of its dashboard) needs a token, which lies in a
  file that only this user can read.

Importing this module loads neither Ray nor TensorFlow.
"""

import contextlib
import functools
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tf_reid.files import write_text

LONGEST_PLACE = 25  # characters: Ray's sockets lie 82 deeper, and the path of a socket may have 107


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder that no other user can enter, for Ray's files and its token; removed at the end."""
    place = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    made = Path(tempfile.mkdtemp(prefix="reid_", dir=place if len(place) <= LONGEST_PLACE else "/tmp"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def set_environment(folder: Path) -> None:
    """Set the variables by which a Ray that is imported and started from now on is private.

    Args:
        folder: as `folder` gives it; the token's file is written into it.
    """
    token = folder / "token"
    write_text(token, _token(), private=True)
    os.environ.pop("RAY_AUTH_TOKEN", None)  # would be taken in place of the file
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the address 127.0.0.1, on Linux too
        "RAY_USAGE_STATS_ENABLED": "0",
    }


@functools.cache
def _token():
    """One for all that this process starts: Ray reads it once."""
    return secrets.token_hex(32)


def temporary(folder: Path) -> str:
    """Where Ray keeps its files. It lets every user into this one, but none can come through the folder above."""
    return str(folder / "ray")
