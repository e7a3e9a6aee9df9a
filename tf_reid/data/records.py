"""The images of a data set, still encoded, and what is known of each. Importing this module loads no TensorFlow."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tf_reid.data.stored_images import StoredImages, TFRecordImages

IN_MEMORY = 2**28  # bytes of a data set whose encoded images are kept in memory; those of a larger one stay in files


@dataclass(frozen=True)
class Origin:
    """One of several data sets that were joined.

    Attributes:
        name: of the data set. population: of its identities.
        added: what was added to its identities' numbers.
    """

    name: str
    population: str
    added: int


@dataclass(frozen=True)
class Records:
    """The images of one data set, or of several that were joined, still encoded, and what is known of each.

    Attributes:
        name: the data set, for messages.
        images: JPEG or PNG bytes, an array object [N]; those of a large data set stay in its files until they are read.
        identity, camera: int64 [N]; identity 0 is a distractor, -1 is junk.
        modality: str [N], "rgb" or "infrared".
        file: str [N].
        split: str [N], "train", "query" or "gallery", in some data sets "multi_query".
        protocols: name -> protocol, see `tf_reid.metrics.protocols`.
        default_protocol: the one that is used where none is asked for.
        population: which people the identities are of. In two data sets of one population, a number is one person.
        identity_labels, camera_labels: number -> what the user calls it, of a folder of his own; else nothing.
        origins: of joined data sets each one, see `joined_records`; protocols and population are those of the first.
        origin: int64 [N], the place of an image's data set among `origins`; None where there are none.
        known_before: of training images, population -> identities that a run's initial weights were trained on.
        chosen_before: of training images, population -> identities that another run, whose networks it takes, knows.
        held_out: of training images, population -> the run's validation identities.
    """

    name: str
    images: np.ndarray | StoredImages
    identity: np.ndarray
    camera: np.ndarray
    modality: np.ndarray
    file: np.ndarray
    split: np.ndarray
    protocols: dict
    default_protocol: str
    population: str
    identity_labels: Mapping[int, str] = field(default_factory=dict)
    camera_labels: Mapping[int, str] = field(default_factory=dict)
    origins: tuple[Origin, ...] = ()
    origin: np.ndarray | None = None
    known_before: Mapping[str, Sequence[int]] = field(default_factory=dict)
    chosen_before: Mapping[str, Sequence[int]] = field(default_factory=dict)
    held_out: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def identities(self) -> int:
        """How many identities there are."""
        return len(np.unique(self.identity))

    def take(self, chosen: np.ndarray | slice) -> "Records":
        """The records at these indices, or where this mask is true."""
        columns = ("images", "identity", "camera", "modality", "file", "split", *(["origin"] if self.origins else []))
        return replace(self, **{column: getattr(self, column)[chosen] for column in columns})

    @property
    def scored_name(self) -> str:
        """The data set that the protocols are of: of joined ones the first."""
        return self.origins[0].name if self.origins else self.name

    @property
    def populations(self) -> list[str]:
        """The population of each data set, once."""
        return list(dict.fromkeys([self.population, *(one.population for one in self.origins)]))

    @property
    def parts(self) -> list[tuple[str, np.ndarray]]:
        """Name and images (indices, ascending) of each data set; of joined ones there are several."""
        if self.origin is None:
            return [(self.name, np.arange(len(self)))]
        return [(one.name, np.flatnonzero(self.origin == place)) for place, one in enumerate(self.origins)]

    @property
    def data_sets(self) -> list[tuple[str, int]]:
        """Name and number of images of each data set."""
        return [(name, len(images)) for name, images in self.parts]

    @property
    def is_scored(self) -> np.ndarray:
        """Which images are of that data set, bool [N]."""
        return np.ones(len(self), bool) if self.origin is None else self.origin == 0

    def numbers_in(self, population: str) -> np.ndarray:
        """Which of a population's identities the images show, by its own numbers: int64 [N], -1 for those of others.

        Distractors and junk, which have no one number, are -1 as well.
        """
        origins = self.origins or (Origin(self.name, self.population, 0),)
        origin = np.zeros(len(self), np.int64) if self.origin is None else self.origin
        numbers = np.full(len(self), -1)
        for place, one in enumerate(origins):
            if one.population == population:
                own = (origin == place) & (self.identity > 0)
                numbers[own] = self.identity[own] - one.added
        return numbers


def load_records(builder, in_files: bool | None = None) -> Records:
    """Read an `images` data set that a builder of `tfds_builders` has prepared; the images stay encoded.

    Args:
        in_files: whether the images stay in the data set's files; by default, if they are many: see `stay_in_files`.
    """
    import tensorflow_datasets as tfds

    if in_files is None:
        in_files = stay_in_files([builder])

    columns: dict[str, list] = {name: [] for name in ("identity", "camera", "modality", "file", "split")}
    in_memory, stored = [], TFRecordImages(Path(builder.data_dir)) if in_files else None
    modalities = builder.info.features["modality"].names
    for split in builder.info.splits:
        dataset = builder.as_dataset(
            split,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(add_tfds_id=in_files),
        )
        for record in dataset.as_numpy_iterator():
            if stored:
                stored.find(record["tfds_id"].decode(), record["image"])
            else:
                in_memory.append(record["image"])
            columns["identity"].append(record["identity"])
            columns["camera"].append(record["camera"])
            columns["modality"].append(modalities[record["modality"]])
            columns["file"].append(record["file"].decode())
            columns["split"].append(split)
    metadata = builder.info.metadata
    known: dict[str, Any] = {name: np.array(values) for name, values in columns.items()}
    return Records(
        builder.info.full_name,
        stored.images() if stored else np.array(in_memory, dtype=object),
        **known,
        protocols=metadata["protocols"],
        default_protocol=metadata["default_protocol"],
        population=builder.population,
        identity_labels={number: label for label, number in metadata.get("identities", {}).items()},
        camera_labels={number: label for label, number in metadata.get("cameras", {}).items()},
    )


def stay_in_files(builders: Sequence) -> bool:
    """Whether data sets are together larger than `IN_MEMORY`, and of files in which a record can be found."""
    are_local = all("://" not in str(builder.data_dir) for builder in builders)
    are_indexed = all(builder.info.file_format.value == "tfrecord" for builder in builders)
    return sum(builder.info.dataset_size for builder in builders) > IN_MEMORY and are_local and are_indexed


def content(records: Records) -> str:
    """A SHA-256 of the images' bytes and of what is known of each, in their order; not of where they lie."""
    digest = hashlib.sha256()
    columns = (records.images, records.file, records.identity, records.camera, records.modality)
    for image, *known in zip(*columns, strict=True):
        line = "\t".join(map(str, [hashlib.sha256(image).hexdigest(), *known]))
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def relabelled(identity: np.ndarray) -> np.ndarray:
    """Person ids -> 0..K-1 in ascending order, as a K-way classifier wants them."""
    return np.unique(identity, return_inverse=True)[1]
