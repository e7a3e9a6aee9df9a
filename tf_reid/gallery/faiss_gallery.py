"""A gallery in a folder: images in SQLite, searched by FAISS.

```
GALLERY/gallery.sqlite      every image: path, identity, camera, time, embedding; what made the embeddings
        index_<n>_*.faiss   made of it: the images up to number n, laid out for searching
        index.lock          held by the process that lays out an index
```
The database alone is the truth. An `add` is one transaction, whole or not at all; the index is written beside and
renamed, and images that it does not hold yet are compared one by one. So a killed process loses nothing but its own
`add`, and any number of processes may read while one writes. The database keeps the index's digest, so a damaged
index is never searched.
"""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tf_reid.config import ConfigError
from tf_reid.gallery.base import ABOUT_MODEL, FEW, Gallery, check_about, checked_top
from tf_reid.gallery.faiss_index import FaissIndex, nearest
from tf_reid.gallery.image_table import Columns, ImageTable
from tf_reid.gallery.index_files import DamagedIndex, IndexFiles, check_holds_no_other_files
from tf_reid.gallery.records import FORMAT, Filters, Match, Record, check_paths, checked_embeddings, plain_records

REBUILT_AT = 0.1  # the part of the gallery that may be missing from the index, or gone from the gallery
BUILT_AT_ONCE = 50_000  # images whose embeddings are in memory while an index is built
READ_AT_ONCE = 1000  # images
TRIES = 3  # to lay out an index from which no other process removes images meanwhile


class FaissGallery(Gallery):
    """Open a gallery, or, with `about`, create one.

    Args:
        about: {"digest", "distance", "width", "source"} of the encoder; an existing gallery must have the same digest.

    Raises:
        ConfigError: there is none and none is to be made; it cannot be read; its embeddings are another model's; it
          was made by another version. So ends every other method, too, where the gallery's files are damaged, locked
          or cannot be written.
    """

    _columns: Columns

    def __init__(self, folder: str | Path, about: dict[str, Any] | None = None):
        self.folder, self.place = Path(folder), str(folder)
        self._lock, self._wanted = threading.Lock(), about
        path = self.folder / "gallery.sqlite"
        if about is None and not path.exists():
            raise ConfigError(f"There is no gallery in {folder}; make one with python -m tf_reid.search build.")
        check_holds_no_other_files(self.folder)
        self._table, self._files = ImageTable(path, make=about is not None), IndexFiles(self.folder)
        try:
            if about is not None:
                self._table.create({**about, "format": FORMAT})
            with self._table.transaction("DEFERRED"):
                self.about = self._table.about()
            if not self.about:
                raise ConfigError(f"{folder} holds no finished gallery; make it with python -m tf_reid.search build.")
            check_about(self.about, folder, about)
        except BaseException:
            self._table.close()
            raise
        # What is kept in memory is read at the first search.
        self._revision: int | None = None
        self._entry: dict[str, Any] | None = None  # what the database keeps of the index that is in memory
        self._index: FaissIndex | None = None
        self._damage: str | None = None  # why there is none in memory

    def close(self) -> None:
        with self._lock:
            self._table.close()

    def __len__(self):
        with self._lock, self._table.transaction("DEFERRED"):
            return len(self._table)

    def contained(self, paths: Sequence[str]) -> set[str]:
        with self._lock, self._table.transaction("DEFERRED"):
            return self._table.contained(paths)

    def paths(self) -> Iterator[list[str]]:
        last = 0
        while True:
            with self._lock, self._table.transaction("DEFERRED"):
                rows = self._table.paths(last, READ_AT_ONCE)
            if not rows:
                return
            last = rows[-1][0]
            yield [path for _, path in rows]

    def read(self, paths: Sequence[str]) -> tuple[list[Record], np.ndarray]:
        with self._lock, self._table.transaction("DEFERRED"):
            ids = self._table.ids(paths)
            records, embeddings = self._table.records(ids), self._table.embeddings(ids, self.about["width"])
        rows = {records[number].path: row for row, number in enumerate(ids.tolist())}
        order = [rows[path] for path in paths if path in rows]
        return [records[number] for number in ids[order].tolist()], embeddings[order]

    # ------------------------------------------------------------------ writing

    def add(self, records: Sequence[Record], embeddings) -> int:
        """As `Gallery.add`: all images or none."""
        records = plain_records(records)
        embeddings = checked_embeddings(embeddings, self.about["width"], len(records))
        with self._lock, self._table.transaction():
            before = len(self._table)
            self._table.add(records, embeddings)
            self._table.count("revision")
            return self._table.keep_count() - before

    def remove(self, paths: Sequence[str] = (), identity: str | None = None, until: float | None = None) -> int:
        check_paths(paths)
        with self._lock, self._table.transaction():
            before = len(self._table)
            for path in paths:
                self._table.remove_path(path)
            if identity is not None:
                self._table.remove_identity(identity)
            if until is not None:
                self._table.remove_until(until)
            removed = before - self._table.keep_count()
            if removed:
                self._table.count("revision")
                self._table.count("removals")
            return removed

    def erase(self) -> None:
        """As `Gallery.erase`: makes the index anew without the removed images, and rewrites the database's file."""
        self.update_index()
        with self._lock:
            with self._table.transaction("DEFERRED"):
                about = self._table.about()
            removals = about.get("removals", 0)
            if about.get("erased", 0) >= removals:
                return
            if not self._table.erase():
                raise ConfigError(
                    f"The images are removed, but another process still reads {self.folder}/gallery.sqlite-wal, which "
                    "keeps their data: end it, and run the same command again."
                )
            with self._table.transaction():
                erased = self._table.about().get("erased", 0)  # another process may have erased more meanwhile
                self._table.write_about({"erased": max(erased, removals)})

    def write_about(self, values: dict[str, Any]) -> None:
        with self._lock, self._table.transaction():
            self._table.write_about(values)
            self._table.count("revision")
        self.about = {key: value for key, value in {**self.about, **values}.items() if value is not None}

    def update_index(self, always: bool = False) -> None:
        """As `Gallery.update_index`; index files that killed processes left are removed.

        Raises:
            ConfigError: it cannot be written, or other processes removed images each time that it was made. All other
              images are stored all the same.
        """
        with self._files.writing():
            for _ in range(TRIES):
                with self._snapshot():
                    self._files.remove_others(self._entry)
                    if not always and not self._is_stale():
                        return
                    removals = self.about.get("removals", 0)
                    entry = self._write_index() if len(self._columns.ids) else None
                is_published = self._publish(entry, removals)
                with self._snapshot():
                    self._files.remove_others(self._entry)
                if is_published:
                    return
        raise ConfigError(
            f"The index of {self.folder} is not up to date: each of {TRIES} times that it was made, another process "
            "removed images meanwhile. Run the same command again."
        )

    def _publish(self, entry, removals):
        """Make this the gallery's index, unless images were removed since it was begun. Returns whether it is."""
        with self._lock, self._table.transaction():
            if self._table.about().get("removals", 0) != removals:
                return False
            self._table.write_about({"index": entry})
            self._table.count("revision")
            return True

    def mend_index(self) -> str | None:
        for _ in range(2):  # another process may make an index, and remove the one that the first snapshot names
            with self._snapshot():
                damage = self._damage
            if damage is None:
                return None
        self.update_index()
        return f"{damage}; it was made anew from the embeddings in {self.folder}/gallery.sqlite."

    def _is_stale(self):
        """Whether many images are missing from the index, or it holds one that was removed."""
        count, missing = len(self._columns.ids), self._count_missing()
        gone = (0 if self._index is None else len(self._index)) - (count - missing)
        return missing > REBUILT_AT * count or gone > 0

    def _write_index(self):
        """Build and write an index of all images. Returns what `about` keeps of it."""
        ids, width = self._columns.ids, self.about["width"]
        last = int(ids[-1])

        def parts():
            for start in range(0, len(ids), BUILT_AT_ONCE):
                part = ids[start : start + BUILT_AT_ONCE]
                yield part, self._table.embeddings(part, width)

        index = FaissIndex.build(parts(), len(ids), width, self.about["distance"], last)
        return self._files.write(index, f"index_{last}_{os.getpid()}_{self._revision}.faiss")

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
        revision = about.get("revision", 0)
        if revision == self._revision:
            return
        check_about(about, self.folder, self._wanted)
        self._columns = self._table.columns()
        ids = self._columns.ids
        if len(ids) != about.get("images", len(ids)) or (np.diff(ids) <= 0).any():
            raise self._table.damaged("images are lost or out of order")
        entry = about.get("index")
        if entry != self._entry:
            self._index, self._damage = None, None
            try:
                index = self._files.read(entry, about["width"], about["distance"]) if entry else None
                if index is not None and not index.holds(ids):
                    raise DamagedIndex(f"The index {self.folder / entry['file']} lacks images")
                self._index = index
            except DamagedIndex as error:  # every image is compared one by one, slower and not wrong
                self._damage = str(error)
        self.about, self._revision, self._entry = about, revision, entry

    def search(
        self, embeddings, top: int = 10, filters: Filters | None = None, exact: bool = False
    ) -> list[list[Match]]:
        queries = checked_embeddings(embeddings, self.about["width"])
        with self._snapshot():
            top = checked_top(top, len(self._columns.ids))
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
        distances, rows = nearest(queries, self._embeddings(ids), top, self.about["distance"])
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
            pairs = [pair for pair in zip(row_of_distances, row_of_ids, strict=True) if np.isfinite(pair[0])]
            matches = [Match(number, records[number], apart, self.accepted(apart)) for apart, number in pairs]
            matches_of_each.append(matches)
        return matches_of_each

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
        """As `Gallery.stats`; all of the gallery's files are read and checked. A damaged index stays as it is."""
        with self._snapshot():
            index = "none" if self._index is None else self._index.kind
            about = self._table.about()  # "erased" is written without a new revision
            is_erased = about.get("erased", 0) >= about.get("removals", 0)
            return {
                **self._table.counts(),
                "database": self._table.damage(self._columns.ids, self.about["width"]) or "sound",
                "index": index if self._damage is None else f"not used: {self._damage}",
                "not_indexed": self._count_missing(),
                "removed_images": "erased" if is_erased else "still in the files; run remove again",
                "bytes": self._files.bytes_of_folder(),
                **{key: self.about[key] for key in ABOUT_MODEL},
                "rejection": self.rejection,
            }

    def _count_missing(self):
        last = 0 if self._index is None else self._index.last
        return int((self._columns.ids > last).sum())
