"""The SQLite table of a gallery's images, which alone is the truth, and what the gallery keeps about itself."""

import contextlib
import json
import os
import sqlite3
import stat
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tf_reid.config import ConfigError
from tf_reid.gallery.records import Record

PARAMETERS = 500  # values in one statement
WAITED = 60.0  # seconds for another process that writes, or reads what is to be erased
TABLES = (
    "CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS images (id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT UNIQUE NOT NULL, "
    "identity TEXT, camera TEXT, time REAL, checksum INTEGER, embedding BLOB NOT NULL)",
)
SETTINGS = (
    "journal_mode=WAL",
    "secure_delete=ON",  # what is removed is overwritten; the copies that pages leave behind go with `erase`
    "trusted_schema=OFF",  # the database may come from somebody else
    "cell_size_check=ON",
)
# What SQLite says -> what is wrong and what to do, as the rest of a sentence about the file.
SENTENCES = {
    "file is not a database": "cannot be read as a gallery: it is not a database, or damaged. Restore it from a copy, "
    "or name another folder",
    "database is locked": "is being written by another process; run the command again when that has ended",
    "readonly": "cannot be written: the file or its folder is read-only for you. Copy the gallery to a folder of your "
    "own",
    "unable to open": "cannot be opened: it, or its folder, is not readable and writable for you. Copy the gallery to "
    "a folder of your own",
    "is full": "cannot be written: the disk is full. What was stored before stays; free some space (removing images "
    "needs as much as the gallery takes) and run the same command again",
    "disk I/O error": "cannot be read or written: the disk reports an error, or may not hold a file of that size. Mend "
    "that and run the same command again",
}
DAMAGED = "is damaged ({reason}). Restore it from a copy, or build the gallery anew with python -m tf_reid.search build"


class Columns(NamedTuple):
    """What filters look at, of all images by ascending number: int64 ids, cameras ("": unknown), times (nan)."""

    ids: np.ndarray
    cameras: np.ndarray
    times: np.ndarray


class ImageTable:
    """Open the database. Every image has a number that is never given again.

    What goes wrong here or later with its file is a ConfigError that names it.

    Args:
        make: make the file where there is none, for this user alone.
    """

    def __init__(self, path: Path, make: bool):
        self._path, self._has_checksums = path, False
        with self._in_sentences():
            if make:
                _make(path)
            _check_kind(path)
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=WAITED,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                for setting in SETTINGS:
                    self._connection.execute(f"PRAGMA {setting}")
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        """What happens inside happens as a whole or not at all; DEFERRED: reads see one state of the database."""
        with self._in_sentences():
            self._connection.execute(f"BEGIN {kind}")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite has ended some by itself, such as on a full disk
                    self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _in_sentences(self):
        """Inside, what is wrong with the file becomes a ConfigError; mistakes in the program stay what they are."""
        try:
            yield
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be opened: {error.strerror}.") from None
        except sqlite3.DatabaseError as error:
            if type(error) not in (sqlite3.DatabaseError, sqlite3.OperationalError):
                raise
            for said, rest in SENTENCES.items():
                if said in str(error):
                    raise ConfigError(f"{self._path} {rest}.") from None
            raise self.damaged(str(error)) from None

    # -------------------------------------------------------------- the gallery

    def create(self, about: dict[str, Any]) -> None:
        """Make the tables where there are none; `about` is kept where nothing was kept before."""
        with self.transaction():
            for statement in TABLES:
                self._connection.execute(statement)
            if not self.about():
                self.write_about({**about, "revision": 0})

    def about(self) -> dict[str, Any]:
        """What is kept about the gallery; nothing where the tables were never made."""
        if not self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone():
            return {}
        try:
            return {key: json.loads(value) for key, value in self._connection.execute("SELECT key, value FROM about")}
        except (TypeError, ValueError):
            raise self.damaged("what it keeps about itself") from None

    def write_about(self, values: dict[str, Any]) -> None:
        """Keep these values; None removes one."""
        for key, value in values.items():
            if value is None:
                self._connection.execute("DELETE FROM about WHERE key = ?", (key,))
            else:
                self._connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, json.dumps(value)))

    def count(self, key: str) -> None:
        """Add 1: to "revision", which lets other processes know that something changed, or to "removals"."""
        self.write_about({key: self.about().get(key, 0) + 1})

    def keep_count(self) -> int:
        """Keep how many images there are, so that lost ones are missed. Returns it."""
        images = len(self)
        self.write_about({"images": images})
        return images

    # ------------------------------------------------------------------ writing

    def add(self, records: Sequence[Record], embeddings: np.ndarray) -> None:
        """Images whose path is there already stay as they are."""
        if self._checksums() == "NULL":
            self._connection.execute("ALTER TABLE images ADD COLUMN checksum INTEGER")
        rows = [_row(record, embedding) for record, embedding in zip(records, embeddings, strict=True)]
        self._connection.executemany(
            "INSERT INTO images (path, identity, camera, time, embedding, checksum) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (path) DO NOTHING",
            rows,
        )

    def remove_path(self, path: str) -> None:
        """Remove an image, or all of a folder."""
        # "0" follows "/": all paths between begin with the folder's. So the table's index finds them.
        statement = "DELETE FROM images WHERE path = ? OR (path >= ? AND path < ?)"
        self._connection.execute(statement, (path, f"{path}/", f"{path}0"))

    def remove_identity(self, identity: str) -> None:
        self._connection.execute("DELETE FROM images WHERE identity = ?", (identity,))

    def remove_until(self, time: float) -> None:
        self._connection.execute("DELETE FROM images WHERE time <= ?", (time,))

    def erase(self) -> bool:
        """Rewrite the database's file without what was removed, and empty the write-ahead log.

        Returns:
            False where another process still reads the log, which then keeps what was removed.
        """
        with self._in_sentences():
            self._connection.execute("VACUUM")
            busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy

    # ------------------------------------------------------------------ reading

    def __len__(self):
        return self._connection.execute("SELECT COUNT(*) FROM images").fetchone()[0]

    def contained(self, paths: Sequence[str]) -> set[str]:
        return {path for (path,) in self._where_in("SELECT path FROM images WHERE path IN", paths)}

    def columns(self) -> Columns:
        rows = self._connection.execute("SELECT id, camera, time FROM images ORDER BY id").fetchall()
        ids = np.array([number for number, _, _ in rows], np.int64)
        cameras = np.array(["" if camera is None else camera for _, camera, _ in rows], dtype=str)
        times = np.array([np.nan if time is None else time for _, _, time in rows], np.float64)
        return Columns(ids, cameras, times)

    def paths(self, after: int, most: int) -> list[tuple[int, str]]:
        """Number and path of up to so many images with higher numbers, by ascending number."""
        statement = "SELECT id, path FROM images WHERE id > ? ORDER BY id LIMIT ?"
        return self._connection.execute(statement, (after, most)).fetchall()

    def ids(self, paths: Sequence[str]) -> np.ndarray:
        """Ascending numbers of those of these images that are there."""
        numbers = [number for (number,) in self._where_in("SELECT id FROM images WHERE path IN", paths)]
        return np.unique(np.array(numbers, np.int64))

    def records(self, ids: np.ndarray) -> dict[int, Record]:
        return {number: Record(*values) for number, *values, _ in self._stored(ids, None)}

    def identities(self) -> list[tuple[int, str]]:
        """Number and identity of the images whose identity is known, by ascending number."""
        statement = "SELECT id, identity FROM images WHERE identity IS NOT NULL ORDER BY id"
        return self._connection.execute(statement).fetchall()

    def embeddings(self, ids: np.ndarray, width: int) -> np.ndarray:
        """float32 [N, width] of these images; the numbers ascend."""
        embeddings = np.empty((len(ids), width), np.float32)
        for row, (*_, content) in enumerate(self._stored(ids, width)):
            embeddings[row] = np.frombuffer(content, np.float32)
        return embeddings

    def counts(self) -> dict[str, Any]:
        """How many images, identities and cameras, and the earliest and the latest time."""
        statement = (
            "SELECT COUNT(*), COUNT(DISTINCT identity), COUNT(DISTINCT camera), MIN(time), MAX(time) FROM images"
        )
        values = self._connection.execute(statement).fetchone()
        return dict(zip(("images", "identities", "cameras", "since", "until"), values, strict=True))

    def damage(self, ids: np.ndarray, width: int) -> str | None:
        """What is damaged in the file, or stored of these images, all of which is read; or None."""
        try:
            found = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                return f"damaged: {' '.join(str(found).split())}"
            for _ in self._stored(ids, width):
                pass
        except (ConfigError, sqlite3.DatabaseError) as error:
            return f"damaged: {error}"
        return None

    def damaged(self, reason: str) -> ConfigError:
        return ConfigError(f"{self._path} {DAMAGED.format(reason=reason)}.")

    def _stored(self, ids, width):
        """(number, path, identity, camera, time, embedding) of images, whose numbers ascend, as they were stored.

        Args:
            width: of the embeddings; None: they are not read.

        Raises:
            ConfigError: an image is lost, or what is there is not what was stored.
        """
        embedding = "NULL" if width is None else "embedding"
        columns = f"id, path, identity, camera, time, {embedding}, {self._checksums()}"
        count = 0
        for *row, checksum in self._where_in(f"SELECT {columns} FROM images WHERE id IN", ids, "ORDER BY id"):
            if row[0] != ids[count]:
                raise self.damaged(f"image {ids[count]} is lost")
            if not _is_right(*row[1:], checksum, width):
                raise ConfigError(
                    f"{self._path} is damaged: what it keeps of image {row[0]}, {row[1]}, is not what was stored. "
                    "Remove this image with python -m tf_reid.search remove and add it again, or restore the gallery "
                    "from a copy."
                )
            count += 1
            yield row
        if count != len(ids):
            raise self.damaged(f"image {ids[count]} is lost")

    def _checksums(self):
        """The column of checksums, or NULL in a gallery that was made before there were any."""
        if not self._has_checksums:
            columns = [name for _, name, *_ in self._connection.execute("PRAGMA table_info(images)")]
            self._has_checksums = "checksum" in columns
        return "checksum" if self._has_checksums else "NULL"

    def _where_in(self, statement, values, order=""):
        """Rows of a statement that ends in IN, a part of the values at a time."""
        for start in range(0, len(values), PARAMETERS):
            part = values[start : start + PARAMETERS]
            part = part.tolist() if isinstance(part, np.ndarray) else list(part)  # SQLite knows no NumPy numbers
            marks = ",".join("?" * len(part))
            # All at once: a statement that is left half read would keep the database busy.
            yield from self._connection.execute(f"{statement} ({marks}) {order}", part).fetchall()


def _row(record, embedding):
    """What is stored of an image, as plain values, and the checksum of it."""
    values, content = tuple(record), embedding.tobytes()
    return *values, content, _of_embedding(content) | _of_labels(*values)


def _of_labels(*values):
    """The lower half of a checksum, 32 bits."""
    return zlib.crc32(repr(values).encode())


def _of_embedding(content):
    """The upper half of a checksum: of 63 bits, which SQLite keeps as a positive number."""
    return zlib.crc32(content) >> 1 << 32


def _is_right(path, identity, camera, time, embedding, checksum, width):
    if width is not None and not (isinstance(embedding, bytes) and len(embedding) == 4 * width):
        return False
    if checksum is None:
        return True
    labels = _of_labels(path, identity, camera, time)
    if width is None:
        return isinstance(checksum, int) and checksum & 0xFFFFFFFF == labels
    return checksum == _of_embedding(embedding) | labels


def _make(path):
    """An empty file that this user alone may read, and its folder likewise; what is there stays as it is."""
    if path.parent.is_file():
        raise ConfigError(f"{path.parent} is a file, not a folder; name another --index.")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _check_kind(path):
    """Refuse links and all but files: SQLite would write where a link leads to, and wait for a pipe."""
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(file.lstat().st_mode):
                raise ConfigError(f"{file} is a link, or not a file: put the file itself into the gallery's folder.")
