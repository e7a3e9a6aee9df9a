"""The images of a data set, still encoded, and what is known of each. Importing this module loads no TensorFlow."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tf_reid.data.stored_images import StoredImages, TFRecordImages

IN_MEMORY = 2**28  # bytes of a data set whose encoded images are kept in memory; those of a larger one stay in files


@dataclass(frozen=True)
class Records:
    """The images of one data set, still encoded, and what is known of each.

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

    def __len__(self) -> int:
        return len(self.images)

    @property
    def identities(self) -> int:
        """How many identities there are."""
        return len(np.unique(self.identity))

    def take(self, chosen: np.ndarray | slice) -> "Records":
        """The records at these indices, or where this mask is true."""
        columns = ("images", "identity", "camera", "modality", "file", "split")
        return replace(self, **{column: getattr(self, column)[chosen] for column in columns})


def load_records(builder) -> Records:
    """Read an `images` data set that a builder of `tfds_builders` has prepared; the images stay encoded."""
    import tensorflow_datasets as tfds

    columns: dict[str, list] = {name: [] for name in ("identity", "camera", "modality", "file", "split")}
    in_memory, in_files = [], TFRecordImages(Path(builder.data_dir)) if _stays_in_files(builder) else None
    modalities = builder.info.features["modality"].names
    for split in builder.info.splits:
        dataset = builder.as_dataset(
            split,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(add_tfds_id=in_files is not None),
        )
        for record in dataset.as_numpy_iterator():
            if in_files:
                in_files.find(record["tfds_id"].decode(), record["image"])
            else:
                in_memory.append(record["image"])
            columns["identity"].append(record["identity"])
            columns["camera"].append(record["camera"])
            columns["modality"].append(modalities[record["modality"]])
            columns["file"].append(record["file"].decode())
            columns["split"].append(split)
    metadata = builder.info.metadata
    return Records(
        builder.info.full_name,
        in_files.images() if in_files else np.array(in_memory, dtype=object),
        **{name: np.array(values) for name, values in columns.items()},
        protocols=metadata["protocols"],
        default_protocol=metadata["default_protocol"],
        population=builder.population,
        identity_labels={number: label for label, number in metadata.get("identities", {}).items()},
        camera_labels={number: label for label, number in metadata.get("cameras", {}).items()},
    )


def _stays_in_files(builder) -> bool:
    """Whether a data set is larger than `IN_MEMORY`, and its files are of a kind in which a record can be found."""
    is_local = "://" not in str(builder.data_dir)
    return builder.info.dataset_size > IN_MEMORY and is_local and builder.info.file_format.value == "tfrecord"


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
