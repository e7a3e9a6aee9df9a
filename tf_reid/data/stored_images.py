"""Encoded images that stay in the files of their data set until they are read. Importing this loads no TensorFlow."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from tfds_builders import DatasetError, images

LENGTH, CHECK = 8, 4  # bytes of a TFRecord's length and of each of its two checksums: length, check, data, check


class StoredImages:
    """A sequence of encoded images; as an array of bytes, but each is read from its file when it is asked for.

    Args:
        files: those that hold images.
        file: int [N], an image's file. start, size: int64 [N], its bytes there.
        plain: bool [N], whether these need no change; see `tfds_builders.images`.
    """

    def __init__(
        self, files: Sequence[Path], file: np.ndarray, start: np.ndarray, size: np.ndarray, plain: np.ndarray
    ) -> None:
        self.files = files
        self.file, self.start, self.size, self.plain = file, start, size, plain

    def __len__(self) -> int:
        return len(self.file)

    @overload
    def __getitem__(self, chosen: int | np.integer) -> bytes: ...

    @overload
    def __getitem__(self, chosen: np.ndarray | slice) -> "StoredImages": ...

    def __getitem__(self, chosen: Any) -> "bytes | StoredImages":
        """The bytes of one image; or the images at these indices, of this slice, or where this mask is true."""
        if not isinstance(chosen, int | np.integer):
            columns = (self.file, self.start, self.size, self.plain)
            return StoredImages(self.files, *(column[chosen] for column in columns))
        # Opened for each image: that takes a few microseconds, and several threads and processes may read at once.
        path, size = self.files[self.file[chosen]], int(self.size[chosen])
        with open(path, "rb", buffering=0) as file:
            file.seek(int(self.start[chosen]))
            content = file.read(size)
        if len(content) < size:
            raise DatasetError(f"{path} has become shorter since it was opened: build the data set again")
        return content

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(len(self)))

    def tolist(self) -> list[bytes]:
        """All of them in memory."""
        return list(self)

    @staticmethod
    def concatenated(parts: "Sequence[StoredImages]") -> "StoredImages":
        """One sequence after the other."""
        files: list[Path] = []
        columns: dict[str, list[np.ndarray]] = {"file": [], "start": [], "size": [], "plain": []}
        for part in parts:
            columns["file"].append(part.file + len(files))
            columns["start"].append(part.start)
            columns["size"].append(part.size)
            columns["plain"].append(part.plain)
            files += part.files
        return StoredImages(files, **{name: np.concatenate(values) for name, values in columns.items()})


class TFRecordImages:
    """Finds the images of a data set's TFRecord files; `images` gives those that were found, in that order.

    Args:
        folder: of the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number: dict[str, int] = {}  # of a file
        self._records: list[np.ndarray] = []  # by file: int64 [records, 2], start and size of each record's data
        self._found: list[tuple[int, int, int, bool]] = []

    def find(self, tfds_id: str, image: bytes) -> None:
        """Find an image's bytes within its record.

        Args:
            tfds_id: file and number of the record, as TFDS gives them: "viper-train.tfrecord-00000-of-00001__7".
        """
        name, _, number = tfds_id.rpartition("__")
        if name not in self._number:
            self._number[name] = len(self._records)
            self._records.append(records_of(self.folder / name))
        place = self._number[name]
        start, size = self._records[place][int(number)].tolist()
        with open(self.folder / name, "rb", buffering=0) as file:
            file.seek(start)
            within = file.read(size).find(image)
        if within < 0:
            raise DatasetError(f"{self.folder / name} does not hold record {number} as it is: build the data set again")
        self._found.append((place, start + within, len(image), images.looks_plain(image)))

    def images(self) -> StoredImages:
        file, start, size, plain = zip(*self._found, strict=True)
        columns = np.array(file, np.int32), np.array(start, np.int64), np.array(size, np.int64), np.array(plain, bool)
        return StoredImages([self.folder / name for name in self._number], *columns)


def records_of(path: Path) -> np.ndarray:
    """Where the data of each record of a TFRecord file lies, and how many bytes it has: int64 [N, 2]."""
    places, start = [], 0
    with open(path, "rb", buffering=0) as file:
        while header := file.read(LENGTH):
            size = int.from_bytes(header, "little")
            places.append((start + LENGTH + CHECK, size))
            start += LENGTH + CHECK + size + CHECK
            file.seek(start)
    return np.array(places, np.int64).reshape(-1, 2)
