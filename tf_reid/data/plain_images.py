"""The images of data sets as every decoder reads them alike: in memory, or read from files as batches want them."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np

from tf_reid.data.records import Records
from tf_reid.data.stored_images import StoredImages
from tfds_builders import DatasetError, images
from tfds_builders.listing import shown

PlainImages: TypeAlias = "Sequence[bytes] | ImagesOfFiles"


def plain_images(*data_sets: Records) -> PlainImages:
    """The plain images of data sets, one after the other: a list in memory if none of them stays in files.

    Images of a data set that an earlier version built may need a change to be plain.

    Raises:
        DatasetError: an image is damaged or too large.
    """
    if any(isinstance(records.images, StoredImages) for records in data_sets):
        return ImagesOfFiles(data_sets)
    return [image for records in data_sets for image in _in_memory(records)]


class ImagesOfFiles:
    """Plain images of several data sets, one after the other, of which at least one stays in files."""

    def __init__(self, data_sets: Sequence[Records]) -> None:
        self._images = [self._checked(records) for records in data_sets]
        self._ends = np.cumsum([len(of_one) for of_one in self._images])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The bytes of the images at these indices, int [B] -> object [B]."""
        data_set = np.searchsorted(self._ends, indices, side="right")
        first = self._ends - [len(of_one) for of_one in self._images]
        found = np.empty(len(indices), object)
        for place, (number, index) in enumerate(zip(data_set, indices - first[data_set], strict=True)):
            found[place] = self._one(self._images[number], index)
        return found

    @staticmethod
    def _one(of_one: Sequence[bytes] | StoredImages, index: int) -> bytes:
        content = of_one[index]
        return images.plain(content) if isinstance(of_one, StoredImages) and not of_one.plain[index] else content

    @staticmethod
    def _checked(records: Records) -> Sequence[bytes] | StoredImages:
        """Images that need a change are read once here: a damaged one is refused before a training begins."""
        if not isinstance(records.images, StoredImages):
            return list(_in_memory(records))
        for _ in _in_memory(records.take(~records.images.plain)):
            pass
        return records.images


def _in_memory(records: Records) -> Iterator[bytes]:
    for content, file in zip(records.images, records.file, strict=True):
        try:
            yield content if images.looks_plain(content) else images.plain(content)
        except ValueError as error:
            raise DatasetError(
                f"{records.name}: the image {shown(str(file))} {error}: build the data set again, from a sound copy"
            ) from None
