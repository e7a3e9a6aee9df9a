"""Features are kept with a run, so that no image is read again when it is scored by another protocol or distance.

```
RUN/evaluation/features/<role>_<digest>.json           which rows are there, in which array, and what they belong to
RUN/evaluation/features/<role>_<digest>_<unique>.npy   that array, float32 [N, D], a row a record of the scored data set
```
The digest is of what the features depend on: images, encoders and settings. Several processes may share the folder: an
array is never changed once it has its name, and the JSON file names the array that its rows belong to.
"""

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tf_reid.data.records import Records, content
from tf_reid.evaluation.extraction import Batches, Part, Parts, filled_together
from tf_reid.files import sync, write_text

FORMAT = 1  # increase it when code (decoding, resizing, a layer) changes so that the same images get other features
ROWS = 4096  # how many are copied at once
ABANDONED = 24 * 3600  # seconds without a write after which a half-written array is removed


class Store:
    """The features of one evaluation; representations with the same encoder share its features."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.used: set[str] = set()  # names of what this evaluation has read or written
        self._hashed: tuple[Records, str] | None = None  # the images of the last call, and their hash

    def get(
        self,
        role: str,
        together: Sequence[Parts],
        records: Records,
        settings: Mapping[str, Any],
        batches: Batches,
    ) -> list[np.ndarray]:
        """Features of a role by several sets of encoders, memory-mapped float32 [N, D] each.

        At least the rows that their parts name are filled.

        Args:
            together: for each set, encoders and the indices of the records that each has to see.
            settings: what else the features depend on; plain values.
            batches: see `extraction.Batches`; called with the rows that are missing.
        """
        entries = [self._entry(role, parts, records, settings) for parts in together]
        incomplete: dict[tuple[bytes, ...], list[_Entry]] = {}  # by the rows that are missing
        for entry in entries:
            if entry.features is None or entry.missing:
                incomplete.setdefault(tuple(rows.tobytes() for _, rows in entry.missing), []).append(entry)
        for alike in incomplete.values():
            try:
                new = filled_together(
                    batches([entry.missing for entry in alike]), len(records), [entry.begin for entry in alike]
                )
                for entry, array in zip(alike, new, strict=True):
                    entry.finish(array)
            finally:
                for entry in alike:
                    entry.beside.unlink(missing_ok=True)
        return [entry.features for entry in entries]

    def _entry(self, role: str, parts: Parts, records: Records, settings: Mapping[str, Any]) -> "_Entry":
        """What is kept of the features of a set of encoders, and what is missing."""
        encoders = [identifier(encoder) for encoder, _ in parts]
        about = {**settings, "format": FORMAT, "images": self._content(records), "encoders": encoders}
        name = f"{role}_{_sha256(json.dumps(about, sort_keys=True))[:16]}"
        self.used.add(name)
        return _Entry(self.folder, name, about, *self._kept(name, len(records)), parts)

    def _content(self, records: Records) -> str:
        """`records.content`, once for all representations."""
        if self._hashed is None or self._hashed[0] is not records:
            self._hashed = records, content(records)
        return self._hashed[1]

    def _kept(self, name: str, count: int) -> tuple[np.ndarray | None, np.ndarray]:
        """The array of this name, None if there is none; and which of its rows are filled, bool [count]."""
        there = np.zeros(count, bool)
        try:
            listed = json.loads((self.folder / f"{name}.json").read_text())
            array = np.load(self.folder / listed["features"], mmap_mode="r")
            if array.shape[0] != count:
                raise ValueError("rows are missing")
            for start, stop in listed["rows"]:
                there[start:stop] = True
        except FileNotFoundError:  # of the array: another process has just removed it
            return None, there
        except (ValueError, LookupError, TypeError, AttributeError, EOFError):  # damaged: all are made anew
            return None, np.zeros(count, bool)
        return array, there

    def remove_the_rest(self) -> None:
        """Remove what this evaluation did not use: features of other weights or settings, files of killed processes."""
        kept = set()
        for path in (self.folder / f"{name}.json" for name in self.used):
            if path.exists():
                kept |= {path.name, json.loads(path.read_text())["features"]}
        for path in self.folder.glob("*"):
            if path.name in kept:
                continue
            try:
                if not path.name.startswith(".") or time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()
            except FileNotFoundError:  # another process has removed it, or given it its name
                continue


class _Entry:
    """The features of one role by one set of encoders.

    Args:
        about: what they belong to.
        features: the array that is kept; None if there is none. there: which of its rows are filled, bool [N].
        parts: encoders, and the rows that are needed.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        about: dict[str, Any],
        features: np.ndarray | None,
        there: np.ndarray,
        parts: Parts,
    ) -> None:
        self.name, self.about, self.there = name, about, there
        self.features: Any = features
        missing = [(encoder, indices[~there[indices]]) for encoder, indices in parts]
        self.missing: list[Part] = [(encoder, indices) for encoder, indices in missing if len(indices)]
        self.path = folder / f"{name}_{uuid.uuid4().hex[:8]}.npy"
        self.beside = self.path.with_name(f".{self.path.name}")

    def begin(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """A new array on the disk with the rows that are there already."""
        self.beside.parent.mkdir(parents=True, exist_ok=True)
        array = _on_disk(self.beside, shape, dtype)
        if self.features is not None and self.there.any():
            for rows in np.split(np.flatnonzero(self.there), range(ROWS, self.there.sum(), ROWS)):
                array[rows] = self.features[rows]
        return array

    def finish(self, array: np.ndarray) -> None:
        """Give the array its name, now that the missing rows are filled, and list its rows."""
        if isinstance(array, np.memmap):
            array.flush()
        sync(self.beside)
        self.features = np.load(self.beside, mmap_mode="r")  # now: once it has its name, another process may remove it
        os.replace(self.beside, self.path)
        for _, indices in self.missing:
            self.there[indices] = True
        ends = np.flatnonzero(np.diff(np.concatenate([[False], self.there, [False]]).astype(np.int8)))
        listed = {"belong_to": self.about, "features": self.path.name, "rows": ends.reshape(-1, 2).tolist()}
        write_text(self.path.with_name(f"{self.name}.json"), json.dumps(listed, indent=1) + "\n")


def identifier(encoder: Any) -> dict[str, str]:
    """What identifies an encoder: hashes of its weights and of what it computes."""
    return {"weights": _weights(encoder), "computation": _computation(encoder)}


def can_keep(encoders: Mapping[str, Any]) -> bool:
    """Whether the encoders are Keras models, which are identified by their weights and settings.

    The code of a layer is not part of that: where it changes, `FORMAT` has to be increased.
    """
    return all(hasattr(encoder, "get_weights") for encoder in encoders.values())


def _on_disk(path: Path, shape: tuple[int, ...], dtype: Any) -> np.memmap:
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # where the disk is full, an error here; later, writing to memory, a crash
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _weights(encoder: Any) -> str:
    digest = hashlib.sha256()
    for values in encoder.get_weights():
        digest.update(str(values.shape).encode() + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _computation(encoder: Any) -> str:
    """A hash of the layers, their settings and connections; the same however many layers were made before them.

    Keras numbers the layers that nobody named as they are made: here they are numbered within the encoder.
    """
    text = encoder.to_json()
    names = dict.fromkeys(re.findall(r'"name": "([^"]+)"', text))
    numbered = {name: re.sub(r"_\d+$", "", name) + f"#{number}" for number, name in enumerate(names)}
    return _sha256(re.sub(r'"([^"]+)"', lambda found: f'"{numbered.get(found[1], found[1])}"', text))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
