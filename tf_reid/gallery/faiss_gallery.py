"""A gallery that lasts: images' embeddings and whom, where and when they show, searched by filters.

```
GALLERY/gallery.sqlite      every image: path, identity, camera, time, embedding; what made the embeddings
        index_<n>.faiss     made of it: the images up to number n, laid out for searching
```
The database alone is the truth. An `add` is one transaction, whole or not at all; the index is written beside and
renamed, and what it does not hold yet is compared one by one. So a killed process loses nothing but its own `add`, and
any number of processes may read while one writes.
"""

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np

from tf_reid.config import ConfigError

FLAT_UP_TO = 200_000  # images; above, HNSW
LINKS, BUILD_BREADTH, SEARCH_BREADTH = 32, 200, 128  # of HNSW
REBUILT_AT = 0.1  # the part of the gallery that may be missing from the index, or gone from the gallery
FEW = 20_000  # images left by filters that are compared one by one rather than by HNSW
WIDEST_SEARCH = 8192
CALIBRATED_ON = 1000
ABANDONED = 24 * 3600  # seconds without a write after which a half-written index is nobody's any more


class Record(NamedTuple):
    """An image and what is known of it; time is in seconds since 1970, UTC."""

    path: str
    identity: str | None = None
    camera: str | None = None
    time: float | None = None


class Filters(NamedTuple):
    """Which images count: of these cameras (none: all), not of those, not before, not after."""

    cameras: tuple[str, ...] = ()
    not_cameras: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None


class Match(NamedTuple):
    """A found image; `within`: nearer than the distance at which a stranger would be taken for somebody, if known."""

    id: int | str
    record: Record
    distance: float
    within: bool | None


class Gallery:
    """Open a gallery, or, with `about`, create one.

    Args:
        about: {"digest", "distance", "width", "source"}; of a gallery that is there, the digest must be the same.

    Raises:
        ConfigError: there is none and none is to be made, or its embeddings are another model's.
    """

    def __init__(self, folder: Path, about: dict | None = None):
        self.folder, self.lock = Path(folder), threading.Lock()
        path = self.folder / "gallery.sqlite"
        if not path.exists() and about is None:
            raise ConfigError(f"There is no gallery in {folder}; make one with python -m tf_reid.search build.")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(path, timeout=60.0, isolation_level=None, check_same_thread=False)
        try:
            self.database.execute("PRAGMA journal_mode=WAL")
            self.database.execute("PRAGMA secure_delete=ON")
            self._create(about)
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{path} cannot be read as a gallery: {error}.") from None
        self.about = self._about()
        if not self.about:
            raise ConfigError(f"The gallery in {folder} was never begun; make it with python -m tf_reid.search build.")
        check_same_model(self.about, about, folder)
        self.revision, self.index, self.covered = None, None, 0

    def _create(self, about):
        with self._transaction():
            self.database.execute("CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
            self.database.execute(
                "CREATE TABLE IF NOT EXISTS images (id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT UNIQUE NOT NULL, "
                "identity TEXT, camera TEXT, time REAL, embedding BLOB NOT NULL)"
            )
            if about and not self._about():
                self._write_about({**about, "revision": 0})

    @contextlib.contextmanager
    def _snapshot(self):
        """Inside, one state of the gallery is read, whatever others write meanwhile."""
        with self.lock, self._transaction("DEFERRED"):
            self._refresh()
            yield

    @contextlib.contextmanager
    def _transaction(self, kind="IMMEDIATE"):
        self.database.execute(f"BEGIN {kind}")
        try:
            yield
        except BaseException:
            self.database.execute("ROLLBACK")
            raise
        self.database.execute("COMMIT")

    def _about(self):
        return {key: json.loads(value) for key, value in self.database.execute("SELECT key, value FROM about")}

    def _write_about(self, values):
        rows = [(key, json.dumps(value)) for key, value in values.items()]
        self.database.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", rows)

    def _changed(self):
        self._write_about({"revision": self._about()["revision"] + 1})

    def __len__(self):
        return self.database.execute("SELECT COUNT(*) FROM images").fetchone()[0]

    def known(self, paths: Sequence[str]) -> set[str]:
        """Those of these paths that are in the gallery."""
        found = set()
        for start in range(0, len(paths), 500):
            part = paths[start : start + 500]
            asked = f"SELECT path FROM images WHERE path IN ({','.join('?' * len(part))})"
            found |= {path for (path,) in self.database.execute(asked, part)}
        return found

    def add(self, records: Sequence[Record], embeddings) -> int:
        """Add images, all or none; of those whose path is there already, nothing is changed. Returns how many are new.

        Args:
            embeddings: float32 [N, D], finite.
        """
        embeddings = checked(embeddings, self.about["width"], len(records))
        rows = [(*record, row.tobytes()) for record, row in zip(records, embeddings, strict=True)]
        with self.lock, self._transaction():
            before = len(self)
            self.database.executemany(
                "INSERT INTO images (path, identity, camera, time, embedding) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (path) DO NOTHING",
                rows,
            )
            self._changed()
            return len(self) - before

    def remove(self, paths: Sequence[str] = (), identity: str | None = None, until: float | None = None) -> int:
        """Remove images by their paths or folders, all of a person, or all up to a time. Returns how many there were.

        Nothing of them stays in the database's files; the index forgets them with `lay_out(always=True)`.
        """
        with self.lock:
            with self._transaction():
                before = len(self)
                for path in paths:
                    beneath = f"{path}/"
                    asked = "DELETE FROM images WHERE path = ? OR substr(path, 1, ?) = ?"
                    self.database.execute(asked, (path, len(beneath), beneath))
                if identity is not None:
                    self.database.execute("DELETE FROM images WHERE identity = ?", (identity,))
                if until is not None:
                    self.database.execute("DELETE FROM images WHERE time <= ?", (until,))
                self._changed()
                removed = before - len(self)
            self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return removed

    def lay_out(self, always=False):
        """Write the index anew where too much is missing from it, or gone."""
        with self._snapshot():
            indexed = self.index.ntotal if self.index is not None else 0
            missing = int((self.ids > self.covered).sum())
            stale = missing + indexed - (len(self.ids) - missing)
            if not always and indexed and stale <= REBUILT_AT * len(self.ids):
                return
            placed = None
            if len(self.ids):
                last = int(self.ids[-1])
                placed = {"file": f"index_{last}_{os.getpid()}_{self.revision}.faiss", "covered": last}
                beside = self.folder / f".{placed['file']}"
                faiss.write_index(self._built(), str(beside))
                os.replace(beside, self.folder / placed["file"])
        with self.lock, self._transaction():
            old = self._about().get("index")
            self._write_about({"index": placed})
            self._changed()
        if old and old != placed:
            (self.folder / old["file"]).unlink(missing_ok=True)
        for path in self.folder.glob("*index_*"):  # what killed processes left
            if (placed is None or path.name != placed["file"]) and time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink(missing_ok=True)

    def _built(self):
        width, kind = self.about["width"], self._metric()
        if len(self.ids) <= FLAT_UP_TO:
            inner = faiss.IndexFlat(width, kind)
        else:
            inner = faiss.IndexHNSWFlat(width, LINKS, kind)
            inner.hnsw.efConstruction = BUILD_BREADTH
        index = faiss.IndexIDMap2(inner)
        for start in range(0, len(self.ids), 50_000):
            ids = self.ids[start : start + 50_000]
            index.add_with_ids(self._embeddings(ids), ids)
        return index

    def _metric(self):
        return faiss.METRIC_INNER_PRODUCT if self.about["distance"] == "cosine" else faiss.METRIC_L2

    def _refresh(self):
        """Take over what this or another process wrote since."""
        about = self._about()
        if about["revision"] == self.revision:
            return
        rows = self.database.execute("SELECT id, camera, time FROM images ORDER BY id").fetchall()
        self.ids = np.array([row[0] for row in rows], np.int64)
        self.cameras = np.array([row[1] if row[1] is not None else "" for row in rows], dtype=str)
        self.times = np.array([row[2] if row[2] is not None else np.nan for row in rows], np.float64)
        placed = about.get("index")
        if not placed:
            self.index, self.covered = None, 0
        elif self.index is None or placed != self.about.get("index"):
            try:
                self.index, self.covered = faiss.read_index(str(self.folder / placed["file"])), placed["covered"]
            except RuntimeError:  # lost, or half of it: slower, not wrong
                self.index, self.covered = None, 0
        self.about, self.revision = about, about["revision"]

    def _embeddings(self, ids):
        """Of these numbers, ascending."""
        found = np.empty((len(ids), self.about["width"]), np.float32)
        if len(ids) > FEW and len(ids) == len(self.ids):
            for row, (blob,) in enumerate(self.database.execute("SELECT embedding FROM images ORDER BY id")):
                found[row] = np.frombuffer(blob, np.float32)
            return found
        for start in range(0, len(ids), 500):
            part = [int(i) for i in ids[start : start + 500]]
            asked = f"SELECT embedding FROM images WHERE id IN ({','.join('?' * len(part))}) ORDER BY id"
            for row, (blob,) in enumerate(self.database.execute(asked, part)):
                found[start + row] = np.frombuffer(blob, np.float32)
        return found

    def search(self, embeddings, top=10, filters: Filters | None = None, exact=False) -> list[list[Match]]:
        """The nearest images of each query, nearest first, at most `top`.

        Args:
            embeddings: float32 [Q, D] of the same model. exact: compare with every image, also where HNSW would do.
        """
        queries = checked(embeddings, self.about["width"])
        with self._snapshot():
            allowed = self._allowed(filters or Filters())
            indexed = allowed[allowed <= self.covered]  # 0 where there is no index
            others = allowed[len(indexed) :]
            if self._is_hnsw() and (exact or len(indexed) <= FEW):
                others, indexed = allowed, allowed[:0]
            parts = [
                part for part in (self._by_index(queries, indexed, top), self._one_by_one(queries, others, top)) if part
            ]
            if not parts:
                return [[] for _ in queries]
            distances, ids = (np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True))
            order = np.argsort(distances, axis=1, kind="stable")[:, :top]
            distances, ids = (np.take_along_axis(values, order, axis=1) for values in (distances, ids))
            return self._matches(distances, ids)

    def _allowed(self, filters):
        keep = np.ones(len(self.ids), bool)
        if filters.cameras:
            keep &= np.isin(self.cameras, filters.cameras)
        if filters.not_cameras:
            keep &= ~np.isin(self.cameras, filters.not_cameras)
        if filters.since is not None:
            keep &= self.times >= filters.since
        if filters.until is not None:
            keep &= self.times <= filters.until
        return self.ids[keep]

    def _by_index(self, queries, ids, top):
        if not len(ids):
            return None
        chosen = None  # all, which is faster than naming them
        if len(ids) < self.index.ntotal:
            mask = np.zeros(self.covered + 1, bool)
            mask[ids] = True
            bits = np.packbits(mask, bitorder="little")
            chosen = faiss.IDSelectorBitmap(bits)
        if self._is_hnsw():
            # The walk passes those that are left out too, so it has to be wider as they are many, and then some.
            wider = 1 if chosen is None else 2 * self.index.ntotal // len(ids)
            breadth = max(SEARCH_BREADTH, 2 * top) * wider
            asked = faiss.SearchParametersHNSW(sel=chosen, efSearch=min(breadth, WIDEST_SEARCH))
        else:
            asked = faiss.SearchParameters(sel=chosen) if chosen is not None else None
        values, found = self.index.search(queries, min(top, len(ids)), params=asked)
        return np.where(found < 0, np.inf, self._distance(values)), found

    def _is_hnsw(self):
        return self.index is not None and isinstance(faiss.downcast_index(self.index.index), faiss.IndexHNSW)

    def _one_by_one(self, queries, ids, top):
        if not len(ids):
            return None
        indexed = int((ids <= self.covered).sum())
        embeddings = self._embeddings(ids[indexed:])
        if indexed:  # quicker than from the database
            embeddings = np.concatenate([self.index.reconstruct_batch(ids[:indexed]), embeddings])
        values, found = faiss.knn(queries, embeddings, min(top, len(ids)), metric=self._metric())
        return self._distance(values), ids[found]

    def _distance(self, values):
        return 1.0 - values if self.about["distance"] == "cosine" else np.sqrt(np.maximum(values, 0.0))

    def _matches(self, distances, ids):
        records = self._records(np.unique(ids[np.isfinite(distances)]))
        limit = (self.about.get("nobody") or {}).get("distance")
        return [
            [
                Match(int(i), records[int(i)], float(d), None if limit is None else bool(d <= limit))
                for d, i in zip(*row, strict=True)
                if np.isfinite(d)
            ]
            for row in zip(distances, ids, strict=True)
        ]

    def _records(self, ids):
        found = {}
        for start in range(0, len(ids), 500):
            part = [int(i) for i in ids[start : start + 500]]
            asked = f"SELECT id, path, identity, camera, time FROM images WHERE id IN ({','.join('?' * len(part))})"
            found |= {row[0]: Record(*row[1:]) for row in self.database.execute(asked, part)}
        return found

    def everything(self) -> tuple[list[str], np.ndarray]:
        """Paths and embeddings of all images."""
        with self._snapshot():
            paths = [path for (path,) in self.database.execute("SELECT path FROM images ORDER BY id")]
            return paths, self._embeddings(self.ids)

    def with_identities(self, most) -> tuple[list[str], np.ndarray]:
        """Persons and embeddings of up to so many images whose person is known, drawn evenly."""
        with self._snapshot():
            asked = "SELECT id, identity FROM images WHERE identity IS NOT NULL ORDER BY id"
            found = self.database.execute(asked).fetchall()
            some = np.sort(np.random.default_rng(0).permutation(len(found))[:most])
            return [found[n][1] for n in some], self._embeddings(np.array([found[n][0] for n in some], np.int64))

    def keep_calibration(self, found: dict):
        with self.lock, self._transaction():
            self._write_about({"nobody": found})
            self._changed()

    def summary(self) -> dict:
        """What a searcher has to know: how many images, which cameras, within which distance a match counts."""
        with self._snapshot():
            cameras = [str(name) for name in np.unique(self.cameras) if name]
            return {"images": len(self.ids), "cameras": cameras, "nobody": self.about.get("nobody")}

    def stats(self) -> dict:
        """Plain values: how many images, persons, cameras, since when; the model; the index."""
        with self._snapshot():
            counted = "COUNT(*), COUNT(DISTINCT identity), COUNT(DISTINCT camera), MIN(time), MAX(time)"
            found = self.database.execute(f"SELECT {counted} FROM images").fetchone()
            whole = self.database.execute("PRAGMA quick_check").fetchone()[0] == "ok"
            size = sum(path.stat().st_size for path in self.folder.iterdir())
            kind = "none" if self.index is None else "HNSW" if self._is_hnsw() else "flat"
            return {
                **dict(zip(("images", "identities", "cameras", "since", "until"), found, strict=True)),
                "database": "sound" if whole else "damaged",
                "index": kind,
                "not in the index yet": int((self.ids > self.covered).sum()),
                "bytes": size,
                **{key: self.about[key] for key in ("digest", "distance", "width", "source")},
                "nobody": self.about.get("nobody"),
            }


def calibrate(gallery, rate: float) -> dict | None:
    """Set the distance within which a match counts, so that a stranger finds one in this part of the searches.

    It is the quantile of how near images come to the nearest image of another person, so it holds for strangers like
    those in the gallery and for a gallery of its size. None, and nothing is set, where too few images have a person.
    """
    identities, embeddings = gallery.with_identities(CALIBRATED_ON)
    if len(set(identities)) < 2 or len(identities) * rate < 1:
        return None
    waiting, nearest, top, count = np.arange(len(identities)), [], 64, len(gallery)
    while len(waiting):  # a person with many images fills the first places, so more are asked for
        unanswered = []
        for part in np.array_split(waiting, -(-len(waiting) // 100)):
            for number, matches in zip(part, gallery.search(embeddings[part], top), strict=True):
                others = [m.distance for m in matches if m.record.identity not in (None, identities[number])]
                nearest += others[:1]
                unanswered += [] if others or top >= count else [number]
        waiting, top = np.array(unanswered, int), 8 * top
    found = {"rate": rate, "distance": float(np.quantile(nearest, rate)), "images": len(gallery), "asked": len(nearest)}
    gallery.keep_calibration(found)
    return found


def check_same_model(there: dict, asked: dict | None, place):
    """Raise a ConfigError where a gallery's embeddings are not those of the model that asks."""
    if asked and there["digest"] != asked["digest"]:
        raise ConfigError(
            f"{place} was built by model {there['digest']} ({there['source']}), and this is {asked['digest']} "
            f"({asked['source']}): their embeddings cannot be compared. Build another gallery, or use the first model."
        )


def checked(embeddings, width, count=None) -> np.ndarray:
    """float32 [N, width], contiguous.

    Raises:
        ValueError: another shape, or numbers that are not finite.
    """
    found = np.ascontiguousarray(embeddings, np.float32)
    if found.ndim != 2 or found.shape[1] != width or (count is not None and len(found) != count):
        raise ValueError(
            f"Embeddings must be [{count if count is not None else 'N'}, {width}], not {list(found.shape)}."
        )
    if not np.isfinite(found).all():
        raise ValueError("Embeddings must be finite numbers.")
    return found
