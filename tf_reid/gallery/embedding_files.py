"""Embeddings as Parquet files in a folder or at a URL, from which galleries are built: by this library or any other.

```
FOLDER/embeddings_<random>.parquet    path, identity, camera, time, embedding, model_digest: a row for each image
```
Each file is whole or not there. Its metadata `tf_reid` is JSON: "digest", "distance", "width" and "source" of the
encoder, and "format". A time is in seconds since 1970, UTC. Several commands may write into one folder, of which each
skips what was there when it began.
"""

import contextlib
import errno
import io
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import Self

from tf_reid.config import ConfigError
from tf_reid.encoders import remote_files
from tf_reid.files import write_bytes
from tf_reid.gallery.base import check_about
from tf_reid.gallery.records import FORMAT, Record, checked_embeddings
from tfds_builders.listing import shown

IN_A_FILE = 4096  # images
READ_AT_ONCE = 1024
KEY = b"tf_reid"


class EmbeddingFiles:
    """A folder of embeddings, to write to and read from; a context manager that writes what was added last.

    Attributes:
        about: "digest", "distance", "width", "source" of the encoder, and "format".

    Args:
        folder: a folder or a URL.
        about: of the encoder whose embeddings are to be added. None: the folder is only read.

    Raises:
        ConfigError: the folder holds embeddings of another model or version, or, where it is only read, none; a file is
          damaged; the folder cannot be written.
    """

    def __init__(self, folder: str, about: Mapping[str, Any] | None = None):
        self.folder, self._names = folder, _files_in(folder)
        self._waiting: list[tuple[Record, bytes]] = []  # for the next file
        if about is None and not self._names:
            raise ConfigError(
                f"There are no embeddings in {shown(folder)}; make some with python -m tf_reid.search embed."
            )
        self.about: dict[str, Any] = {**about, "format": FORMAT} if about else self._about_of(self._names[0])
        for name in self._names:
            check_about(self._about_of(name), shown(name), self.about)
        if about is not None:  # what cannot be written is refused before images are embedded in vain
            import pyarrow.parquet  # noqa: F401

            _check_writable(folder)

    def __len__(self) -> int:
        """How many rows the files have."""
        count = 0
        for name in self._names:
            with _errors_name(name):
                count += self._open(name).metadata.num_rows
        return count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def contained(self, paths: Sequence[str]) -> set[str]:
        """Those of these paths that the files hold."""
        asked, held = set(paths), set[str]()
        for name in self._names:
            for (column,) in self._read(name, ["path"]):
                held |= asked.intersection(column.to_pylist())
        return held

    def add(self, records: Sequence[Record], embeddings: np.ndarray) -> int:
        """Add images, float32 [N, D]. They are in a file once there are enough for one, or at `close`."""
        embeddings = checked_embeddings(embeddings, self.about["width"], len(records))
        self._waiting += [(record, row.tobytes()) for record, row in zip(records, embeddings, strict=True)]
        while len(self._waiting) >= IN_A_FILE:
            self._write(self._waiting[:IN_A_FILE])
            del self._waiting[:IN_A_FILE]
        return len(records)

    def close(self) -> None:
        """Write what was added since the last file."""
        if self._waiting:
            self._write(self._waiting)
            self._waiting = []

    def rows(self) -> Iterator[tuple[list[Record], np.ndarray]]:
        """All images, some at a time, with their embeddings float32 [N, D]."""
        for name in self._names:
            for *columns, embeddings in self._read(name, [*Record._fields, "embedding"]):
                records = [Record(*values) for values in zip(*(column.to_pylist() for column in columns), strict=True)]
                yield records, np.array(embeddings.flatten(), np.float32).reshape(-1, self.about["width"])

    def _write(self, rows: Sequence[tuple[Record, bytes]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        records, width = [record for record, _ in rows], self.about["width"]
        numbers = np.frombuffer(b"".join(embedding for _, embedding in rows), np.float32)
        columns = {
            "path": pa.array([record.path for record in records], pa.string()),
            "identity": pa.array([record.identity for record in records], pa.string()),
            "camera": pa.array([record.camera for record in records], pa.string()),
            "time": pa.array([record.time for record in records], pa.float64()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(numbers), width),
            "model_digest": pa.array([self.about["digest"]] * len(rows), pa.string()),
        }
        table = pa.table(columns).replace_schema_metadata({KEY: json.dumps(self.about)})
        content = io.BytesIO()
        pq.write_table(table, content, use_dictionary=["identity", "camera", "model_digest"], write_page_checksum=True)
        name = remote_files.joined(self.folder, f"embeddings_{secrets.token_hex(8)}.parquet")
        if remote_files.is_url(name):
            remote_files.write(name, content.getvalue())
        else:
            write_bytes(name, content.getvalue())
        self._names.append(name)

    def _about_of(self, name: str) -> dict[str, Any]:
        with _errors_name(name):
            content = self._open(name).schema_arrow.metadata or {}
        try:
            return dict(json.loads(content[KEY]))
        except (KeyError, TypeError, ValueError):
            raise ConfigError(f"{shown(name)} does not say which model made its embeddings; remove it.") from None

    def _read(self, name: str, columns: list[str]) -> Iterator[list[Any]]:
        """These columns of a file, some rows at a time."""
        with _errors_name(name):
            for batch in self._open(name).iter_batches(READ_AT_ONCE, columns=columns):
                yield batch.columns

    def _open(self, name: str) -> Any:
        import pyarrow.parquet as pq

        file = remote_files.opened(name) if remote_files.is_url(name) else name
        return pq.ParquetFile(file, page_checksum_verification=True)


@contextlib.contextmanager
def _errors_name(name: str) -> Iterator[None]:
    """In this context, an error of reading names the file."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{shown(name)} is damaged or cannot be read: {reason}. Remove it if it is damaged: the command that "
            "wrote it embeds its images again."
        ) from None


def _files_in(folder: str) -> list[str]:
    if remote_files.is_url(folder):
        return [name for name in remote_files.files_below(folder) if _is_ours(name.rpartition("/")[2])]
    if Path(folder).is_file():
        raise ConfigError(f"{shown(folder)} is a file, not a folder of embeddings.")
    return sorted(str(path) for path in Path(folder).glob("*.parquet") if _is_ours(path.name))


def _check_writable(folder: str) -> None:
    """Raise a ConfigError where the folder cannot be written. A store is not asked: it answers at the first file."""
    if remote_files.is_url(folder):
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ConfigError(f"The folder {shown(folder)} cannot be written: {error.strerror}.") from None


def _is_ours(name: str) -> bool:
    return name.startswith("embeddings_") and name.endswith(".parquet")
