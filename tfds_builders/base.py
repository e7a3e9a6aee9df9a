"""What every data set here shares: its records, its kinds of examples, its checks and how it is written."""

from __future__ import annotations

import abc
import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders import KINDS, DatasetError, images
from tfds_builders.listing import shown
from tfds_builders.pairs import draw_pairs, draw_triplets
from tfds_builders.sources import DAMAGED, Archive, Location, a_few, images_below, images_in, locate

SPLITS = ("train", "query", "gallery")
MULTI_QUERY = "multi_query"  # a fourth split, of variants that have more images of each query's identity and camera
MODALITIES = ("rgb", "infrared")
LIMIT = 2000  # pairs, or triplets, a split: enough for a stable figure, small enough to build in seconds


@dataclasses.dataclass(frozen=True)
class Record:
    """One image: who is seen, where, and in which split.

    Attributes:
      identity: 1 or more; 0 is a distractor, which is never a query.
      camera: 1 or more.
      file: the image's name in its data set, unique.
      image: where the image lies, or a function that renders or reads it as uint8 RGB [height, width, 3]; such
        an image is stored in the format that the end of `file` names, .jpg or .png.
      split: "train", "query", "gallery" or, in a variant that has it, "multi_query".
      modality: "rgb" or "infrared".
    """

    identity: int
    camera: int
    file: str
    image: Location | Callable[[], np.ndarray]
    split: str = "train"
    modality: str = "rgb"


@dataclasses.dataclass(eq=False)
class PedestrianConfig(tfds.core.BuilderConfig):
    """A data set's variant (None where it has only one) and the kind of its examples."""

    kind: str = "images"
    variant: str | None = None


def configs(variants: tuple[str | None, ...] = (None,)) -> list[PedestrianConfig]:
    """The configs of a data set: images, pairs, triplets; of its variants: street, street-pairs and so on."""
    return [
        PedestrianConfig(_config_name(variant, kind), kind=kind, variant=variant)
        for variant in variants
        for kind in KINDS
    ]


def _config_name(variant: str | None, kind: str) -> str:
    if variant is None:
        return kind
    return variant if kind == "images" else f"{variant}-{kind}"


class PedestrianBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of the builders: a subclass says where its files are, how many, and how to read them.

    Examples of the kind `images` have image (uint8 RGB [height, width, 3]), identity, camera (int64), modality
    (0 rgb, 1 infrared) and file (text), in the splits train, query and gallery, in some variants also
    multi_query. `pairs` have image_a,
    identity_a, camera_a, file_a, the same with _b, and same (1 or 0); `triplets` have image_anchor and so on,
    with _positive and _negative; both have the splits train (its identities) and test (of query and gallery).
    `info.metadata` holds {"protocols": {name: values}, "default_protocol": name}.
    """

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "2.0.0": "A person's label is called identity.",
        "1.0.0": "First version.",
    }
    BUILDER_CONFIGS = configs()
    VARIANTS: ClassVar[tuple[str | None, ...]] = (None,)  # None: what the data set's name alone stands for
    ARCHIVE: ClassVar[Archive | None] = None  # None: needs no files
    TERMS: ClassVar[str] = ""  # of a data set without archive
    COUNTS: ClassVar[dict[str, int]] = {}  # part of the data set: its official number of images
    problems: list[str] | None = None  # where `report` collects; None: it raises

    @abc.abstractmethod
    def read(self, folder: Location | None) -> tuple[list[Record], dict[str, dict[str, Any]]]:
        """Returns the records and the protocols, the default protocol first, given what `locate` found.

        What is wrong with the files goes to `report`; DatasetError is raised only where reading cannot go on.
        """

    @classmethod
    def config_for(cls, kind: str, variant: str | None, **options) -> PedestrianConfig:
        """Returns the config that `tfds_builders.builder` asks for."""
        if options:
            raise DatasetError(f"{cls.name}: it has no option {', '.join(options)}")
        if cls.VARIANTS == (None,) and variant:
            raise DatasetError(f"{cls.name}: it has no variants: write {cls.name} without /{variant}")
        if variant not in cls.VARIANTS:
            choice = ", ".join(cls.specs())
            wrong = f"there is no variant {variant}" if variant else "it comes in variants"
            raise DatasetError(f"{cls.name}: {wrong}: choose one of {choice}")
        return next(config for config in cls.BUILDER_CONFIGS if (config.kind, config.variant) == (kind, variant))

    @classmethod
    def specs(cls) -> list[str]:
        """Returns what `tfds_builders.builder` knows the data set and its variants by: name, name/variant."""
        return [f"{cls.name}/{variant}" if variant else cls.name for variant in cls.VARIANTS]

    @property
    def population(self) -> str:
        """Which people the identities are of: in two data sets of one population, a number is one person."""
        return self.name

    @property
    def archive(self) -> Archive | None:
        """What to look for on disk: `ARCHIVE`, unless a variant is an archive of its own."""
        return self.ARCHIVE

    def report(self, problem: str) -> None:
        """Raises DatasetError with the problem, or notes it in `problems`, if that is a list, and returns.

        `read` says in this way what is wrong with the files wherever it can go on, so that the doctor hears of
        all of it and not of the first thing only.
        """
        if self.problems is None:
            raise DatasetError(f"{self.name}: {problem}")
        self.problems.append(problem)

    def images(self, folder: Location, pattern: str = ".*", example: str = "") -> list[tuple[Location, re.Match]]:
        """Returns the images that lie directly in a folder, by name, with what their names say.

        Args:
          folder: reported where it is not there.
          pattern: regular expression for the whole of a file's name; images of other names are reported.
          example: a name that fits, for the report.
        """
        if not folder.is_dir():
            self.report(f"there is no folder {folder}: the copy is incomplete")
            return []
        found = [(path, re.fullmatch(pattern, path.name)) for path in images_in(folder)]
        if misnamed := [path.name for path, match in found if not match]:
            images = "1 image is" if len(misnamed) == 1 else f"{len(misnamed)} images are"
            self.report(f"in {folder} {images} not named like {example}: {a_few(misnamed)}")
        return [(path, match) for path, match in found if match]

    def images_of_identities(self, folder: Location, example: str) -> Iterator[tuple[str, list[Location]]]:
        """Yields each subfolder's name, a person's number, and its images; reports those that have another name."""
        for subfolder, paths in images_below(folder).items():
            if subfolder.isdecimal():
                yield subfolder, paths
            else:
                self.report(f"the folder {folder / subfolder} is not named by its person, like {example}")

    def text(self, table: Location) -> str | None:
        """Returns what a list says, None where it is not there or cannot be read, which is reported."""
        try:
            return table.read_text(encoding="utf-8")
        except (FileNotFoundError, KeyError):  # on disk, within a zip archive
            return self.report(f"there is no list {table}: the copy is incomplete")
        except DAMAGED:
            return self.report(f"the list {table} is damaged or may not be read: replace it with a sound copy")

    def check_counts(self, found: dict[str, int]) -> None:
        """Reports the parts whose number of images differs from `COUNTS`."""
        for part, count in found.items():
            if count != self.COUNTS[part]:
                self.report(
                    f"expected {self.COUNTS[part]} images in {part}, found {count}: "
                    "the copy is incomplete or not the official one"
                )

    def _info(self) -> tfds.core.DatasetInfo:
        kind = self.builder_config.kind
        if kind == "images":
            features = self._features() | {"modality": tfds.features.ClassLabel(names=MODALITIES)}
        elif kind == "pairs":
            features = self._features("_a") | self._features("_b") | {"same": np.int64}
        else:
            features = self._features("_anchor") | self._features("_positive") | self._features("_negative")
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), metadata=tfds.core.MetadataDict()
        )

    @staticmethod
    def _features(role: str = "") -> dict[str, Any]:
        return {
            f"image{role}": tfds.features.Image(shape=(None, None, 3)),
            f"identity{role}": np.int64,
            f"camera{role}": np.int64,
            f"file{role}": tfds.features.Text(),
        }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        folder = None
        if self.archive:
            try:
                manual_dir = dl_manager.manual_dir
            except AssertionError as error:  # TFDS's own check: its first sentence names the folder
                reason = str(error).split(". ")[0]
                named = "; data.manual_dir or --manual-dir names another folder"
                raise DatasetError(f"{self.name}: {reason}: {self.archive.instructions}{named}") from None
            except NotADirectoryError as error:
                raise DatasetError(f"{self.name}: {error.filename} is a file: give its folder") from None
            folder = locate(self.archive, pathlib.Path(manual_dir), self.report)
        records, protocols = self.read(folder)
        if not records:
            raise DatasetError(f"{self.name}: there is no image to build it from")
        self.info.metadata.update(protocols=protocols, default_protocol=next(iter(protocols)))
        if self.builder_config.kind == "images":
            splits = {split: [r for r in records if r.split == split] for split in (*SPLITS, MULTI_QUERY)}
            return {split: self._generate_examples(chosen) for split, chosen in splits.items() if chosen}

        parts = {
            "train": [r for r in records if r.split == "train"],
            "test": [r for r in records if r.split != "train"],
        }
        if self.builder_config.kind == "pairs":
            draw, generate = draw_pairs, self._generate_pairs
        else:
            draw, generate = draw_triplets, self._generate_triplets
        return {
            part: generate(draw(chosen, LIMIT, name=f"{self.name}, split {part}"))
            for part, chosen in parts.items()
            if chosen
        }

    def _generate_examples(self, records: list[Record]) -> Iterator[tuple[str, dict[str, Any]]]:
        for record, image in self._encode(records):
            yield record.file, _example(record, image) | {"modality": record.modality}

    def _generate_pairs(self, pairs: list[tuple]) -> Iterator[tuple[int, dict[str, Any]]]:
        images = dict(self._encode([record for a, b, _ in pairs for record in (a, b)]))
        for key, (a, b, same) in enumerate(pairs):
            yield key, _example(a, images[a], "_a") | _example(b, images[b], "_b") | {"same": same}

    def _generate_triplets(self, triplets: list[tuple]) -> Iterator[tuple[int, dict[str, Any]]]:
        images = dict(self._encode([record for triplet in triplets for record in triplet]))
        for key, triplet in enumerate(triplets):
            example = {}
            for record, role in zip(triplet, ("_anchor", "_positive", "_negative"), strict=True):
                example |= _example(record, images[record], role)
            yield key, example

    def _encode(self, records: list[Record]) -> Iterator[tuple[Record, bytes]]:
        records = list(dict.fromkeys(records))  # a record may be part of several pairs
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # OpenCV decodes outside the interpreter's lock
            for start in range(0, len(records), 256):  # bounds what waits in memory for the writer
                batch = records[start : start + 256]
                yield from zip(batch, pool.map(self.encoded, batch), strict=True)

    def encoded(self, record: Record) -> bytes:
        """Returns a record's image as it is stored, a plain JPEG or PNG; DatasetError names a damaged one."""
        if callable(record.image):
            return images.rendered(record.image, record.file)
        name = f"{self.name}: the image {shown(str(record.image))}"
        try:
            return images.plain(_content(record.image))
        except PermissionError:
            raise DatasetError(f"{name} may not be read: change its permissions") from None
        except FileNotFoundError:
            raise DatasetError(f"{name} is no longer there: put it back, or try again") from None
        except images.LimitError as error:
            raise DatasetError(f"{name} {error}: replace it with a sound copy within this limit") from None
        except ValueError as error:
            raise DatasetError(f"{name} {error}: replace it with a sound copy") from None
        except DAMAGED:
            raise DatasetError(f"{name} is damaged: replace it with a sound copy") from None


def _content(image: Location) -> bytes:
    return images.read_image(image) if isinstance(image, pathlib.Path) else image.read_bytes()


def _example(record: Record, image: bytes, role: str = "") -> dict[str, Any]:
    return {
        f"image{role}": image,
        f"identity{role}": record.identity,
        f"camera{role}": record.camera,
        f"file{role}": record.file,
    }
