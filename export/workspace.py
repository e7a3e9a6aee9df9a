"""Where an export works before its versions get their names; several exports to one folder may run at once.

```
FOLDER/.export_<random>/lock            held by the export that works here; free once its process is gone
                        NAME/saved/     a version that is not proved yet
FOLDER/serving/.lock                    held while version numbers are given and models.config is written
```
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from export import deployment
from export.names import SERVING, version_number
from tf_reid.config import ConfigError

PREFIX = ".export_"


@contextlib.contextmanager
def opened(to: Path) -> Iterator[Path]:
    """A folder inside `to` for one export, removed at its end; what killed exports left is removed first.

    Raises:
        ConfigError: `to` is a file.
    """
    if to.is_file():
        raise ConfigError(f"--to {to} is a file; name a folder.")
    (to / SERVING).mkdir(parents=True, exist_ok=True)
    with locked(to):
        _remove_abandoned(to)
        place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=to))
        lock = _held(place / "lock")
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def locked(to: Path) -> Iterator[None]:
    """Inside, no other process gives version numbers in this folder or writes its models.config."""
    lock = _held(to / SERVING / ".lock")
    try:
        yield
    finally:
        os.close(lock)


def give_versions(to: Path, proved: Mapping[str, Path]) -> dict[str, Path]:
    """Move proved models to their next version, the same number for all, and write the files that deploy them.

    Args:
        proved: model's name -> the folder where it lies now.

    Returns:
        model's name -> the folder of its new version.
    """
    with locked(to):
        version = str(next_version(to, proved))
        given: dict[str, Path] = {}
        try:
            for model, place in proved.items():
                (to / model).mkdir(exist_ok=True)
                os.rename(place, to / model / version)
                given[model] = to / model / version
            deployment.write(to)
        except BaseException:  # all of them or none
            for folder in given.values():
                shutil.rmtree(folder, ignore_errors=True)
            raise
    return given


def next_version(to: Path, models: Mapping[str, Path]) -> int:
    """The least number above every version that any of these models has."""
    folders = [path for model in models if (to / model).is_dir() for path in (to / model).iterdir()]
    return max((version_number(path.name) or 0 for path in folders), default=0) + 1


def _held(path):
    """A file's descriptor, locked: the lock ends when the descriptor is closed or its process ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _remove_abandoned(to):
    """Remove the folders of exports whose processes are gone."""
    for path in to.iterdir():
        if path.name.startswith(PREFIX) and not _is_in_use(path / "lock"):
            shutil.rmtree(path, ignore_errors=True)


def _is_in_use(path):
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
