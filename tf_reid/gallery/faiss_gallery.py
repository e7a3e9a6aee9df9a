"""A gallery in a folder: images in SQLite, searched by FAISS.

```
GALLERY/gallery.sqlite      every image: path, identity, camera, time, embedding; what made the embeddings
        index_<n>.faiss     made of it: the images up to number n, laid out for searching
```
The database alone is the truth. An `add` is one transaction, whole or not at all; the index is written beside and
renamed, and images that it does not hold yet are compared one by one. So a killed process loses nothing but its own
`add`, and any number of processes may read while one writes.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tf_reid.config import ConfigError
from tf_reid.gallery.base import ABOUT_MODEL, Gallery
from tf_reid.gallery.faiss_index import FaissIndex, nearest
from tf_reid.gallery.image_table import Columns, ImageTable
from tf_reid.gallery.records import (
    FORMAT,
    Filters,
    Match,
    Record,
    check_format,
    check_same_model,
    checked_embeddings,
)

REBUILT_AT = 0.1  # the part of the gallery that may be missing from the index, or gone from the gallery
FEW = 20_000  # images left by filters that are compared one by one rather than by HNSW
BUILT_AT_ONCE = 50_000  # images whose embeddings are in memory while an index is built
ABANDONED = 24 * 3600  # seconds without a write after which a half-written index belongs to no living process


class FaissGallery(Gallery):
    """Open a gallery, or, with `about`, create one.

    Args:
        about: {"digest", "distance", "width", "source"} of the encoder; an existing gallery must have the same digest.

    Raises:
        ConfigError: there is none and none is to be made; it cannot be read; its embeddings are another model's; it
          was made by an earlier version.
    """

    _columns: Columns

    def __init__(self, folder: str | Path, about: dict[str, Any] | None = None):
        self.folder, self._lock = Path(folder), threading.Lock()
        path = self.folder / "gallery.sqlite"
        if not path.exists() and about is None:
            raise ConfigError(f"There is no gallery in {folder}; make one with python -m tf_reid.search build.")
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._table = ImageTable(path)
            if about is not None:
                self._table.create({**about, "format": FORMAT})
            self.about = self._table.about()
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{path} cannot be read as a gallery: {error}.") from None
        try:
            self._check(about)
        except ConfigError:
            self._table.close()
            raise
        # What is kept in memory is read at the first search.
        self._revision: int | None = None
        self._index: FaissIndex | None = None

    def _check(self, about):
        if not self.about:
            raise ConfigError(f"{self.folder} holds no finished gallery; make it with python -m tf_reid.search build.")
        check_format(self.about, self.folder)
        if about is not None:
            check_same_model(self.about, about, self.folder)

    def close(self) -> None:
        with self._lock:
            self._table.close()

    def __len__(self):
        return len(self._table)

    def contained(self, paths: Sequence[str]) -> set[str]:
        return self._table.contained(paths)

    # ------------------------------------------------------------------ writing

    def add(self, records: Sequence[Record], embeddings) -> int:
        """As `Gallery.add`: all images or none."""
        embeddings = checked_embeddings(embeddings, self.about["width"], len(records))
        with self._lock, self._table.transaction():
            before = len(self)
            self._table.add(records, embeddings)
            self._table.count_revision()
            return len(self) - before

    def remove(self, paths: Sequence[str] = (), identity: str | None = None, until: float | None = None) -> int:
        """As `Gallery.remove`. Nothing stays in the database's files; `update_index(always=True)` empties the index."""
        with self._lock:
            with self._table.transaction():
                before = len(self)
                for path in paths:
                    self._table.remove_path(path)
                if identity is not None:
                    self._table.remove_identity(identity)
                if until is not None:
                    self._table.remove_until(until)
                self._table.count_revision()
                removed = before - len(self)
            self._table.empty_log()
            return removed

    def write_rejection(self, rejection: dict[str, Any]) -> None:
        with self._lock, self._table.transaction():
            self._table.write_about({"rejection": rejection})
            self._table.count_revision()

    def update_index(self, always: bool = False) -> None:
        """Write the index anew where too many images are missing from it, or gone from the gallery."""
        with self._snapshot():
            count = len(self._columns.ids)
            if not always and self._index is not None and self._count_stale(self._index) <= REBUILT_AT * count:
                return
            entry = self._write_index() if count else None
        with self._lock, self._table.transaction():
            former = self._table.about().get("index")
            self._table.write_about({"index": entry})
            self._table.count_revision()
        if former and former != entry:
            (self.folder / former["file"]).unlink(missing_ok=True)
        self._remove_abandoned(entry)

    def _count_stale(self, index):
        """How many images are missing from the index, or in it and no longer in the gallery."""
        missing = self._count_missing()
        gone = len(index) - (len(self._columns.ids) - missing)
        return missing + gone

    def _write_index(self):
        """Build an index of all images and write it beside, then rename. Returns what `about` keeps of it."""
        ids, width = self._columns.ids, self.about["width"]
        last = int(ids[-1])

        def parts():
            for start in range(0, len(ids), BUILT_AT_ONCE):
                part = ids[start : start + BUILT_AT_ONCE]
                yield part, self._table.embeddings(part, width)

        entry = {"file": f"index_{last}_{os.getpid()}_{self._revision}.faiss", "covered": last}
        beside = self.folder / f".{entry['file']}"
        FaissIndex.build(parts(), len(ids), width, self.about["distance"], last).write(beside)
        os.replace(beside, self.folder / entry["file"])
        return entry

    def _remove_abandoned(self, entry):
        """Remove the index files that killed processes left."""
        for path in self.folder.glob("*index_*"):
            is_current = entry is not None and path.name == entry["file"]
            if not is_current and time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink(missing_ok=True)

    # ------------------------------------------------------------------ reading

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[None]:
        """Inside, one state of the gallery is read, whatever others write meanwhile."""
        with self._lock, self._table.transaction("DEFERRED"):
            self._refresh()
            yield

    def _refresh(self):
        """Read anew what this or another process wrote since the last time."""
        about = self._table.about()
        if about["revision"] == self._revision:
            return
        self._columns = self._table.columns()
        entry = about.get("index")
        if not entry:
            self._index = None
        elif self._index is None or entry != self.about.get("index"):
            try:
                self._index = FaissIndex.read(self.folder / entry["file"], about["distance"], entry["covered"])
            except RuntimeError:  # lost or damaged: every image is compared one by one, slower and not wrong
                self._index = None
        self.about, self._revision = about, about["revision"]

    def search(
        self, embeddings, top: int = 10, filters: Filters | None = None, exact: bool = False
    ) -> list[list[Match]]:
        queries = checked_embeddings(embeddings, self.about["width"])
        with self._snapshot():
            indexed, others = self._split(self._allowed(filters or Filters()), exact)
            # The nearest of either kind of images, each [Q, up to top].
            parts = []
            if len(indexed) and self._index is not None:
                parts.append(self._index.search(queries, indexed, top))
            if len(others):
                parts.append(self._one_by_one(queries, others, top))
            if not parts:
                return [[] for _ in queries]
            # The nearest of all.
            distances = np.concatenate([part[0] for part in parts], axis=1)
            ids = np.concatenate([part[1] for part in parts], axis=1)
            order = np.argsort(distances, axis=1, kind="stable")[:, :top]
            return self._matches(np.take_along_axis(distances, order, axis=1), np.take_along_axis(ids, order, axis=1))

    def _allowed(self, filters):
        """Numbers of the images that the filters leave."""
        ids, cameras, times = self._columns
        keep = np.ones(len(ids), bool)
        if filters.cameras:
            keep &= np.isin(cameras, filters.cameras)
        if filters.not_cameras:
            keep &= ~np.isin(cameras, filters.not_cameras)
        if filters.since is not None:
            keep &= times >= filters.since
        if filters.until is not None:
            keep &= times <= filters.until
        return ids[keep]

    def _split(self, ids, exact):
        """Those that the index searches, and those that are compared one by one."""
        if self._index is None:
            return ids[:0], ids
        indexed = ids[ids <= self._index.last]
        if self._index.is_hnsw and (exact or len(indexed) <= FEW):
            return ids[:0], ids
        return indexed, ids[len(indexed) :]

    def _one_by_one(self, queries, ids, top):
        embeddings = self._embeddings(ids)
        distances, rows = nearest(queries, embeddings, top, self.about["distance"])
        return distances, ids[rows]

    def _embeddings(self, ids):
        """From the index as far as it has them, which is quicker than from the database."""
        width = self.about["width"]
        if self._index is None:
            return self._table.embeddings(ids, width)
        indexed = ids[ids <= self._index.last]
        others = self._table.embeddings(ids[len(indexed) :], width)
        return np.concatenate([self._index.embeddings(indexed), others]) if len(indexed) else others

    def _matches(self, distances, ids):
        records = self._table.records(np.unique(ids[np.isfinite(distances)]))
        matches_of_each = []
        for row_of_distances, row_of_ids in zip(distances.tolist(), ids.tolist(), strict=True):
            matches_of_each.append(
                [
                    Match(number, records[number], distance, self.accepted(distance))
                    for distance, number in zip(row_of_distances, row_of_ids, strict=True)
                    if np.isfinite(distance)
                ]
            )
        return matches_of_each

    def paths_and_embeddings(self) -> tuple[list[str], np.ndarray]:
        """Of all images; the embeddings are float32 [N, D]."""
        with self._snapshot():
            return self._table.paths(), self._table.all_embeddings(self.about["width"])

    def identified(self, most: int) -> tuple[list[str], np.ndarray]:
        """As `Gallery.identified`; drawn evenly, always the same ones."""
        with self._snapshot():
            rows = self._table.identities()
            drawn = np.sort(np.random.default_rng(0).permutation(len(rows))[:most])
            ids = np.array([rows[number][0] for number in drawn], np.int64)
            return [rows[number][1] for number in drawn], self._table.embeddings(ids, self.about["width"])

    def summary(self) -> dict[str, Any]:
        with self._snapshot():
            cameras = [str(name) for name in np.unique(self._columns.cameras) if name]
            return {"images": len(self._columns.ids), "cameras": cameras, "rejection": self.rejection}

    def stats(self) -> dict[str, Any]:
        with self._snapshot():
            return {
                **self._table.counts(),
                "database": "sound" if self._table.is_sound() else "damaged",
                "index": "none" if self._index is None else self._index.kind,
                "not_indexed": self._count_missing(),
                "bytes": sum(path.stat().st_size for path in self.folder.iterdir()),
                **{key: self.about[key] for key in ABOUT_MODEL},
                "rejection": self.rejection,
            }

    def _count_missing(self):
        last = 0 if self._index is None else self._index.last
        return int((self._columns.ids > last).sum())
