"""The SQLite table of a gallery's images, which alone is the truth, and what the gallery keeps about itself."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tf_reid.gallery.records import Record

PARAMETERS = 500  # values in one statement
TABLES = (
    "CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS images (id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT UNIQUE NOT NULL, "
    "identity TEXT, camera TEXT, time REAL, embedding BLOB NOT NULL)",
)


class Columns(NamedTuple):
    """What filters look at, of all images by ascending number: int64 ids, cameras ("": unknown), times (nan)."""

    ids: np.ndarray
    cameras: np.ndarray
    times: np.ndarray


class ImageTable:
    """Open the database. Every image has a number that is never given again.

    Raises:
        sqlite3.DatabaseError: the file is not a database.
    """

    def __init__(self, path: Path):
        self._connection = sqlite3.connect(path, timeout=60.0, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA secure_delete=ON")  # nothing of a removed image stays in the file

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        """What happens inside happens as a whole or not at all; DEFERRED: reads see one state of the database."""
        self._connection.execute(f"BEGIN {kind}")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

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
        return {key: json.loads(value) for key, value in self._connection.execute("SELECT key, value FROM about")}

    def write_about(self, values: dict[str, Any]) -> None:
        rows = [(key, json.dumps(value)) for key, value in values.items()]
        self._connection.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", rows)

    def count_revision(self) -> None:
        """Let other processes know that something changed."""
        self.write_about({"revision": self.about()["revision"] + 1})

    # ------------------------------------------------------------------ writing

    def add(self, records: Sequence[Record], embeddings: np.ndarray) -> None:
        """Images whose path is there already stay as they are."""
        rows = [(*record, embedding.tobytes()) for record, embedding in zip(records, embeddings, strict=True)]
        self._connection.executemany(
            "INSERT INTO images (path, identity, camera, time, embedding) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (path) DO NOTHING",
            rows,
        )

    def remove_path(self, path: str) -> None:
        """Remove an image, or all of a folder."""
        inside = f"{path}/"
        statement = "DELETE FROM images WHERE path = ? OR substr(path, 1, ?) = ?"
        self._connection.execute(statement, (path, len(inside), inside))

    def remove_identity(self, identity: str) -> None:
        self._connection.execute("DELETE FROM images WHERE identity = ?", (identity,))

    def remove_until(self, time: float) -> None:
        self._connection.execute("DELETE FROM images WHERE time <= ?", (time,))

    def empty_log(self) -> None:
        """Move everything from the write-ahead log into the database's file, so that the log keeps nothing removed."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

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

    def paths(self) -> list[str]:
        """Of all images by ascending number."""
        return [path for (path,) in self._connection.execute("SELECT path FROM images ORDER BY id")]

    def records(self, ids: np.ndarray) -> dict[int, Record]:
        rows = self._where_in("SELECT id, path, identity, camera, time FROM images WHERE id IN", ids)
        return {number: Record(*values) for number, *values in rows}

    def identities(self) -> list[tuple[int, str]]:
        """Number and identity of the images whose identity is known, by ascending number."""
        statement = "SELECT id, identity FROM images WHERE identity IS NOT NULL ORDER BY id"
        return self._connection.execute(statement).fetchall()

    def embeddings(self, ids: np.ndarray, width: int) -> np.ndarray:
        """float32 [N, width] of these images; the numbers ascend."""
        rows = self._where_in("SELECT embedding FROM images WHERE id IN", ids, "ORDER BY id")
        return _stacked(rows, len(ids), width)

    def all_embeddings(self, width: int) -> np.ndarray:
        """float32 [N, width] of all images by ascending number."""
        rows = self._connection.execute("SELECT embedding FROM images ORDER BY id")
        return _stacked(rows, len(self), width)

    def counts(self) -> dict[str, Any]:
        """How many images, identities and cameras, and the earliest and the latest time."""
        statement = (
            "SELECT COUNT(*), COUNT(DISTINCT identity), COUNT(DISTINCT camera), MIN(time), MAX(time) FROM images"
        )
        values = self._connection.execute(statement).fetchone()
        return dict(zip(("images", "identities", "cameras", "since", "until"), values, strict=True))

    def is_sound(self) -> bool:
        return self._connection.execute("PRAGMA quick_check").fetchone()[0] == "ok"

    def _where_in(self, statement, values, order=""):
        """Rows of a statement that ends in IN, a part of the values at a time."""
        for start in range(0, len(values), PARAMETERS):
            part = values[start : start + PARAMETERS]
            part = part.tolist() if isinstance(part, np.ndarray) else list(part)  # SQLite knows no NumPy numbers
            marks = ",".join("?" * len(part))
            yield from self._connection.execute(f"{statement} ({marks}) {order}", part)


def _stacked(rows, count, width):
    embeddings = np.empty((count, width), np.float32)
    for number, (content,) in enumerate(rows):
        embeddings[number] = np.frombuffer(content, np.float32)
    return embeddings
