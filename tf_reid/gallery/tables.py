"""Tables of images beyond CSV files of this machine: those with URLs, at a URL, or in Parquet."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tf_reid.config import ConfigError
from tf_reid.encoders import remote_files
from tfds_builders import DatasetError, labels, tables
from tfds_builders.labels import LABELS, Row
from tfds_builders.listing import shown

COLUMNS = {"path": "path", "person": "person", "identity": "person", "camera": "camera", "time": "time"}  # of Parquet


def names_urls(table: str) -> bool:
    """Whether a CSV file of this machine has paths that are URLs."""
    return any(
        remote_files.is_url(cells["path"]) for _, cells in tables.read(Path(table), {"path": ""}, ("path", *LABELS))
    )


def rows(table: str, is_parquet: bool) -> list[Row]:
    """Rows of a table, a path or a URL; paths in it are relative to the folder of the table. No image is looked for.

    Args:
        is_parquet: it is a Parquet file or a folder of some, with the columns path and perhaps person (or identity),
            camera and time; else a CSV file.

    Raises:
        ConfigError, FileNotFoundError, DatasetError: it cannot be read, or has no column path.
    """
    is_folder = is_parquet and not table.endswith(".parquet")
    folder = table if is_folder else remote_files.folder_of(table)
    found = []
    for number, cells in _parquet_rows(table) if is_parquet else _csv_rows(table):
        where = f"row {number} of {shown(table)}"
        if not cells.get("path"):
            raise ConfigError(f"{where} has no path.")
        path = remote_files.joined(folder, cells["path"])
        identity, camera = labels.normal(cells.get("person")), labels.normal(cells.get("camera"))
        found.append(Row(path, Path(path), where, identity, camera, time=cells.get("time") or None))
    if not found:
        raise ConfigError(f"The table {shown(table)} has no rows.")
    return found


def _csv_rows(table: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    if not remote_files.is_url(table):
        yield from tables.read(Path(table), {"path": ""}, ("path", *LABELS))
        return
    with tempfile.TemporaryDirectory(prefix="tf_reid_") as folder:
        copy = Path(folder) / table.rpartition("/")[2]
        copy.write_bytes(remote_files.read(table))
        try:
            yield from tables.read(copy, {"path": ""}, ("path", *LABELS))
        except DatasetError as error:
            raise DatasetError(str(error).replace(shown(copy), shown(table))) from None


def _parquet_rows(table: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    import pyarrow as pa
    import pyarrow.dataset

    number = 0
    try:
        system, path = remote_files.system_of(table) if remote_files.is_url(table) else (None, table)
        data = pyarrow.dataset.dataset(path, format="parquet", filesystem=system)
        columns = [name for name in data.schema.names if name in COLUMNS]
        if "path" not in columns:
            raise ConfigError(f"The table {shown(table)} has no column path.")
        for batch in data.to_batches(columns=columns):
            for cells in batch.to_pylist():
                number += 1
                yield number, {COLUMNS[name]: _text(value) for name, value in cells.items() if value is not None}
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file or folder {shown(table)}.") from None
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"The table {shown(table)} cannot be read: {error}.") from None


def _text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
