"""One training at a time in a run's folder: a lock that ends with its process, however that ends."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tf_reid.config import ConfigError

try:
    import fcntl
except ImportError:  # Windows: no lock; TensorFlow has no GPU there, and two trainings in one folder are as unlikely
    fcntl = None  # type: ignore[assignment]

NAME = "training.lock"  # it stays; what counts is whether a process holds the lock on it


@contextlib.contextmanager
def training(folder: Path) -> Iterator[None]:
    """In this context, no other training may use the run's folder; it is created where there is none.

    A folder that still holds nothing else at the end is removed.

    Raises:
        ConfigError: another training uses it; the message says which.
        OSError: the folder cannot be written.
    """
    if fcntl is None:
        yield
        return
    with _locked(folder):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # also where somebody has removed the folder meanwhile
                if [path.name for path in folder.iterdir()] == [NAME]:
                    (folder / NAME).unlink()
                    folder.rmdir()


def _locked(folder: Path) -> IO[str]:
    """The open file that holds the lock."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / NAME).open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):  # a file system without locks
                print(f"{folder}: this file system has no locks ({error.strerror}); start no second training here.")
                return file
            file.seek(0)
            holder = file.read(200).strip()
            file.close()
            raise ConfigError(
                f"{folder} is in use by another training{f' ({holder})' if holder else ''}; wait for its end, or "
                "choose another --run."
            ) from None
        if _is_there(file, folder):  # else the one before has just removed it
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            return file
        file.close()


def _is_there(file: IO[str], folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), (folder / NAME).stat())
    except FileNotFoundError:
        return False
