"""Files: written whole or not at all, and lists of image files. Importing this module loads no TensorFlow."""

import contextlib
import errno
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tfds_builders.listing import named_images

UNFINISHED = ".unfinished_"  # how the name of a file begins that is being written
ABANDONED = 60  # seconds after which such a file belongs to a writer that was killed
OF_PATTERNS = frozenset("[]*?\\")  # TensorFlow takes a path with one of these for a pattern


def write_text(path: str | Path, text: str, *, private: bool = False) -> None:
    """As `write_bytes`, of text."""
    write_bytes(path, text.encode(), private=private)


def write_bytes(path: str | Path, content: bytes, *, private: bool = False) -> None:
    """Write beside, then rename: a reader never sees half a file, also after a power failure.

    Links are not followed: one in the place of the file is replaced.

    Args:
        private: only the user may read and write the file.

    Raises:
        OSError: it cannot be written; the error names the file. What stood in its place still stands.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A short name of its own: the file's may already be as long as names can be.
        beside = path.with_name(f"{UNFINISHED}{secrets.token_hex(8)}")
        mode = stat.S_IRUSR | stat.S_IWUSR if private else 0o666
        try:
            with open(beside, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def reserve(path: str | Path, size: int) -> None:
    """Make a file of so many bytes, for a library that crashes where it finds no room while it writes.

    Raises:
        OSError: there is no room for them, or files may not be so large.
    """
    with open(path, "wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)


def sync(path: str | Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    if os.name == "nt" and Path(path).is_dir():  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # of file systems that cannot do this
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def without_pattern(folder: Path) -> Iterator[Path]:
    """A path by which TensorFlow reads and writes a folder that exists, whatever its name: if need be, a link to it.

    TensorFlow looks for a file `[x]` as for a pattern, and does not find it.

    Raises:
        ValueError: the link would need one, too.
    """
    if not OF_PATTERNS & set(str(folder.absolute())):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="tf_reid_") as beside:
        if OF_PATTERNS & set(beside):
            raise ValueError(f"{beside}: set TMPDIR to a folder without *, ?, [, ] and \\ in its name.")
        link = Path(beside) / "link"
        link.symlink_to(folder.absolute(), target_is_directory=True)
        yield link


def remove_unfinished(folder: Path, begins: str = UNFINISHED, *, one_writer: bool = False) -> None:
    """Remove what killed writers left in a folder; what another process may be writing now stays.

    Args:
        begins: how the names of unfinished files and folders begin.
        one_writer: no other process writes there, so that none of them is being written.
    """
    for path in folder.glob(f"{begins}*"):
        with contextlib.suppress(FileNotFoundError):
            if one_writer or time.time() - path.stat().st_mtime > ABANDONED:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def to_stderr(sentence: str) -> None:
    """Print a sentence about what is left out."""
    print(f"Note: {sentence}.", file=sys.stderr)


def images_in(paths: Iterable[str | Path], report: Callable[[str], object] = to_stderr) -> list[Path]:
    """The files named, whatever their suffix, and all images below the folders named, in order.

    Args:
        report: takes, a sentence each, what is left out of folders: links that lead nowhere, pipes, folders that cannot
            be read, and how many files are no images by their suffix. See `tfds_builders.listing`.

    Raises:
        FileNotFoundError: one is neither file nor folder, or there is no image.
    """
    return [image.path for image in named_images(paths, report)]
