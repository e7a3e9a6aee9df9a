"""The files of a gallery's index: written whole, checked by their digest, removed when nothing names them any more."""

import contextlib
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from tf_reid.config import ConfigError
from tf_reid.gallery.faiss_index import FaissIndex
from tfds_builders.listing import shown

NAME = re.compile(r"index_[0-9]+_[0-9]+_[0-9]+\.faiss")
BLOCK = 2**20  # bytes hashed at once
OWN = ("gallery.sqlite", "index.lock", "index_")  # how the names of a gallery's files begin; others are hidden


def check_holds_no_other_files(folder: Path) -> None:
    """Make sure that no gallery is made among other files, such as the images that it is to hold.

    Raises:
        ConfigError: the folder has files and no gallery.
    """
    if (folder / "gallery.sqlite").exists() or not folder.is_dir():
        return
    others = sorted(path.name for path in folder.iterdir() if not path.name.startswith((".", *OWN)))
    if others:
        raise ConfigError(
            f"{folder} holds other files, such as {shown(others[0])}; name another folder for the gallery."
        )


class DamagedIndex(Exception):
    """An index that cannot be used: a sentence without its full stop."""


class IndexFiles:
    """In a gallery's folder: `index_*.faiss`, `.index_*.faiss` while one is written, and `index.lock`."""

    def __init__(self, folder: Path):
        self._folder = folder

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Inside, no other process writes or removes index files; the lock ends with its process.

        Raises:
            ConfigError: the folder cannot be written.
        """
        path = self._folder / "index.lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"{path} cannot be opened: {error.strerror}.") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def write(self, index: FaissIndex, name: str) -> dict[str, Any]:
        """Write an index beside, then rename it; only inside of `writing`. Its access rights are the database's.

        Returns:
            What the gallery keeps of it: {"file", "covered", "digest"}.

        Raises:
            ConfigError: it cannot be written. Nothing of it is left.
        """
        path, beside, digest = self._folder / name, self._folder / f".{name}", hashlib.sha256()
        mode = stat.S_IMODE((self._folder / "gallery.sqlite").stat().st_mode)
        try:
            with open(beside, "xb", opener=lambda file, flags: os.open(file, flags | os.O_NOFOLLOW, 0o600)) as file:
                os.fchmod(file.fileno(), mode & 0o666)

                def write(content):
                    file.write(content)
                    digest.update(content)

                index.write(write)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except OSError as error:
            raise ConfigError(
                f"The index {path} cannot be written: {error.strerror}. All images are stored, and a search compares "
                "them one by one until there is an index; free space, then run python -m tf_reid.search add "
                f"--index {self._folder}."
            ) from None
        finally:
            beside.unlink(missing_ok=True)
        return {"file": name, "covered": index.last, "digest": digest.hexdigest()}

    def read(self, entry: Any, width: int, distance: str) -> FaissIndex:
        """Open the index that `write` returned this entry of.

        The file is read twice: once for its digest, and, only where that is right, once by FAISS.

        Raises:
            DamagedIndex: the file is lost, damaged, or not that index; the entry names no file of the folder.
        """
        name = entry.get("file") if isinstance(entry, Mapping) else None
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise DamagedIndex(f"The gallery {self._folder} names the index {name!r}, which is no index of its folder")
        path = self._folder / name
        if "digest" not in entry:
            raise DamagedIndex(f"The index {path} was made by an earlier version, which kept no digest of it")
        try:
            with open(path, "rb", buffering=0, opener=_without_links) as file:
                if _digest(file) != entry["digest"]:
                    raise DamagedIndex(f"The index {path} is damaged: its digest is not the one that was kept")
                file.seek(0)
                return FaissIndex.read(file.read, width, distance, entry.get("covered"))
        except OSError as error:
            raise DamagedIndex(f"The index {path} cannot be opened: {error.strerror}") from None
        except (ValueError, RuntimeError, MemoryError) as error:
            reason = str(error).splitlines()[0] if str(error) else "too little memory"
            raise DamagedIndex(f"The index {path} cannot be read: {reason}") from None

    def remove_others(self, entry: Any) -> None:
        """Remove every index file but that of this entry; only inside of `writing`."""
        kept = entry.get("file") if isinstance(entry, Mapping) else None
        for path in self._folder.iterdir():
            if NAME.fullmatch(path.name.removeprefix(".")) and path.name != kept:
                path.unlink(missing_ok=True)

    def bytes_of_folder(self) -> int:
        """The size of all files of the gallery's folder."""
        total = 0
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process has removed it meanwhile
                total += path.lstat().st_size
        return total


def _without_links(path: str, flags: int) -> int:
    """Open a file itself, not what a link of its name leads to; a pipe is not waited for."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _digest(file: BinaryIO) -> str:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise ValueError("it is not a file")
    digest, block = hashlib.sha256(), memoryview(bytearray(BLOCK))
    while count := file.readinto(block):  # type: ignore[attr-defined]
        digest.update(block[:count])
    return digest.hexdigest()
