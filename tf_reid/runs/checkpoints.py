"""A run's checkpoints on the disk: they appear whole or not at all, and are checked before they are used.

`RUN/checkpoints/ckpt-N.index` and `ckpt-N.data-…` are TensorFlow's files of the run's N-th checkpoint. Its own manager
is not used: it searches checkpoints by a pattern, so that a folder named `run[1]` seems to have none, it trusts a file
that names the last one, and it does not wait for the disk.
"""

import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from tf_reid import files
from tf_reid.config import ConfigError

KEPT = 2  # the last one, and the one before it
BESIDE = "unfinished_"  # how the names of files begin that are being written


class NotSaved(OSError):
    """A checkpoint could not be written; the message says where and why."""


class Newest(NamedTuple):
    """The newest sound checkpoint; and number -> what is wrong, of the newer ones."""

    number: int
    damaged: dict[int, str]


def save(checkpoint: tf.train.Checkpoint, folder: Path, damaged: dict[int, str]) -> None:
    """Write the next checkpoint and wait until it is on the disk; then remove the older ones but the last.

    Args:
        damaged: the numbers of checkpoints that cannot be read; they are removed, too.

    Raises:
        NotSaved: it cannot be written. The checkpoints before it stand.
    """
    number = max(numbers(folder), default=0) + 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.write(str(folder / f"{BESIDE}ckpt-{number}"))
        written = sorted(folder.glob(f"{BESIDE}ckpt-{number}.*"))  # .data before .index
        for path in written:
            files.sync(path)
        for path in written:
            path.replace(folder / path.name.removeprefix(BESIDE))
        files.sync(folder)
    except (tf.errors.OpError, OSError) as error:
        _remove_half_written(folder)
        raise NotSaved(
            f"A checkpoint cannot be written to {folder} ({reason(error)}); the one before it stands. Make room there, "
            "or raise the limit on the size of files (ulimit -f); then the same command resumes the training."
        ) from error
    sound = [one for one in numbers(folder) if one not in damaged]
    for old in set(numbers(folder)) - set(sound[-KEPT:]):
        _remove(folder, old)


def numbers(folder: Path) -> list[int]:
    """The numbers of the checkpoints in a folder, ascending; also of those that lack a file."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = {int(match[1]) for name in names if (match := re.fullmatch(r"ckpt-(\d+)\.(index|data-\d+-of-\d+)", name))}
    return sorted(found - _half_named(folder))


def newest(folder: Path) -> Newest | None:
    """Find the newest checkpoint that can be read to its end; None if there is none at all.

    Raises:
        ConfigError: there are checkpoints, and all are damaged.
    """
    while True:
        there = numbers(folder)
        damaged: dict[int, str] = {}
        for number in reversed(there):
            if not (problem := _problem(folder, number)):
                return Newest(number, damaged)
            damaged[number] = problem
        if there == numbers(folder):  # else a training has gone on meanwhile, and removed what was about to be read
            break
    if not there and not (folder / "checkpoint").exists():  # where older versions named the last one
        return None
    each = "; ".join(f"ckpt-{number}: {problem}" for number, problem in damaged.items())
    raise ConfigError(
        f"The checkpoints in {folder} cannot be read ({each or 'all their files are missing'}). Restore one from a "
        f"copy, or remove {folder.parent} to train the run anew."
    )


def read(checkpoint: tf.train.Checkpoint, folder: Path, number: int) -> Any:
    """Assign a checkpoint's values to the objects of `checkpoint`; TensorFlow's status says which got none."""
    with files.without_pattern(folder) as path:
        return checkpoint.read(f"{path}/ckpt-{number}")


def clean(folder: Path) -> None:
    """Remove what killed processes left; call it only where no other process writes checkpoints."""
    for path in folder.glob("ckpt-*_temp"):  # of older versions
        shutil.rmtree(path)
    _remove_half_written(folder)


def reason(error: Exception) -> str:
    """The first line of an error, without the operation that raised it and where."""
    text = str(getattr(error, "strerror", None) or getattr(error, "message", None) or error).strip()
    return text.splitlines()[0].split(" [Op:")[0].rstrip(".;") if text else type(error).__name__


def _problem(folder: Path, number: int) -> str | None:
    """What is wrong with a checkpoint, if anything is: TensorFlow keeps a checksum of every tensor."""
    names = {path.name for path in folder.glob(f"ckpt-{number}.*")}
    if f"ckpt-{number}.index" not in names:
        return f"ckpt-{number}.index is missing"
    if names == {f"ckpt-{number}.index"}:
        return f"ckpt-{number}.data is missing"
    with files.without_pattern(folder) as path:
        try:
            reader = tf.train.load_checkpoint(f"{path}/ckpt-{number}")
            for tensor in reader.get_variable_to_shape_map():
                reader.get_tensor(tensor)
        except Exception as error:  # by its kind, a status becomes an IndexError, a MemoryError, an OpError ...
            return reason(error).replace(f"{path}/", "")
    return None


def _remove(folder: Path, number: int) -> None:
    for path in sorted(folder.glob(f"ckpt-{number}.*"), reverse=True):  # .index first: without it, it is none
        path.unlink(missing_ok=True)


def _remove_half_written(folder: Path) -> None:
    for number in _half_named(folder):
        _remove(folder, number)
    files.remove_unfinished(folder, BESIDE, one_writer=True)


def _half_named(folder: Path) -> set[int]:
    """The number of a checkpoint, if there is one, whose writer was killed when only some files had their names."""
    begins = re.compile(rf"{BESIDE}ckpt-(\d+)\.")
    return {int(match[1]) for path in folder.glob(f"{BESIDE}*") if (match := begins.match(path.name))}
