"""Features kept with a run, so that scoring it again by another protocol or distance reads no image.

```
RUN/evaluation/features/<representation>_<role>.npy    float32 [N, D], a row a record of the scored data set
RUN/evaluation/features/<representation>_<role>.json   which rows are there, and what they belong to
```
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from tf_reid import data
from tf_reid.runs import write_text
from tf_reid.scoring import filled

ROWS = 4096  # copied at once


class Store:
    """The kept features of one representation."""

    def __init__(self, folder: Path, representation: str):
        self.folder, self.representation = folder, representation

    def get(self, role, parts, records: data.Records, settings: dict, batches) -> np.ndarray:
        """Features of a role, memory-mapped float32 [N, D], of which at least the rows that `parts` name are filled.

        Args:
            parts: [(encoder, int indices)].
            settings: what else the features depend on; plain values.
            batches: parts -> iterable of (indices, features); called with what is not there yet.
        """
        name = f"{self.representation}_{role}"
        path, about_path = self.folder / f"{name}.npy", self.folder / f"{name}.json"
        about = settings | {"images": _images(records), "weights": [_weights(encoder) for encoder, _ in parts]}
        there = np.zeros(len(records), bool)
        kept = json.loads(about_path.read_text()) if about_path.exists() and path.exists() else {}
        if kept.get("belong_to") == about:
            for start, stop in kept["rows"]:
                there[start:stop] = True
        missing = [(encoder, indices[~there[indices]]) for encoder, indices in parts]
        missing = [(encoder, indices) for encoder, indices in missing if len(indices)]
        if not missing:
            return np.load(path, mmap_mode="r")

        def old_and_new():
            if there.any():
                old = np.load(path, mmap_mode="r")
                for rows in np.split(np.flatnonzero(there), range(ROWS, there.sum(), ROWS)):
                    yield rows, old[rows]
            yield from batches(missing)

        self.folder.mkdir(parents=True, exist_ok=True)
        beside = self.folder / f".{name}.{os.getpid()}"

        def on_disk(shape, dtype):
            return np.lib.format.open_memmap(beside, "w+", dtype, shape)

        try:
            filled(old_and_new(), len(records), on_disk).flush()
            about_path.unlink(missing_ok=True)  # never beside features of another kind
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
        for _, indices in missing:
            there[indices] = True
        ends = np.flatnonzero(np.diff(np.concatenate([[False], there, [False]]).astype(np.int8)))
        write_text(about_path, json.dumps({"belong_to": about, "rows": ends.reshape(-1, 2).tolist()}, indent=1) + "\n")
        return np.load(path, mmap_mode="r")


def can_keep(encoders: dict) -> bool:
    """Whether all that the encoders compute is told by their weights, as it is of a Keras model."""
    return all(hasattr(encoder, "get_weights") for role, encoder in encoders.items() if role != "similarity")


def _images(records):
    lines = (f"{f}\t{m}\t{len(i)}\n" for f, m, i in zip(records.file, records.modality, records.images, strict=True))
    return {"data": records.name, "sha256": hashlib.sha256("".join(lines).encode()).hexdigest()}


def _weights(encoder):
    found = hashlib.sha256()
    for values in encoder.get_weights():
        found.update(str(values.shape).encode() + np.ascontiguousarray(values).tobytes())
    return found.hexdigest()
