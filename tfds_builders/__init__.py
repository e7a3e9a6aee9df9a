"""Person re-identification data sets as TensorFlow Datasets builders; `python -m tfds_builders` lists them.

Importing this package is cheap: a builder's module, and TensorFlow Datasets with it, is imported when it is
asked for.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

DATASETS = (
    "synthetic_pedestrians",
    "viper",
    "grid",
    "market1501",
    "dukemtmc_reid",
    "msmt17",
    "cuhk01",
    "cuhk03",
    "prid2011",
    "three_dpes",
    "regdb",
    "sysu_mm01",
    "folder",
)
KINDS = ("images", "pairs", "triplets")


class DatasetError(ValueError):
    """A data set that cannot be found, read or built; its message is one sentence for the user."""


def builder(
    spec: str | dict, *, kind: str = "images", data_dir: str | os.PathLike | None = None
) -> tfds.core.DatasetBuilder:
    """Returns the builder of a data set; nothing is built yet, see `prepare`.

    Args:
      spec: "viper", "synthetic_pedestrians/street" or, for your own images,
        {"name": "folder", "root": FOLDER, "pattern": REGULAR_EXPRESSION} or {"name": "folder", "csv": FILE}, and
        perhaps "camera", "distractor" and "junk"; see the README in `tfds_builders/folder`.
      kind: "images" (one image an example), "pairs" or "triplets" (fixed, seeded sets for validation and
        tests).
      data_dir: where prepared data sets live; TFDS's own default when None.

    Raises:
      DatasetError (a ValueError): the name, variant, kind or an option is not known, or the name is missing.
    """
    name, variant, options = parts_of(spec)
    if kind not in KINDS:
        raise DatasetError(f"the kind {kind!r} is not known: choose one of {', '.join(KINDS)}")
    cls = builder_class(name)
    config = cls.config_for(kind, variant or None, **options)
    with _without_lines_of_tfds():
        return cls(config=config, data_dir=data_dir)


def parts_of(spec: str | dict) -> tuple[str, str, dict]:
    """Returns name, variant ("" for none) and options of a data set as `builder` takes it; no builder is imported.

    Raises:
      DatasetError: there is no name, or it is not known.
    """
    options = dict(spec) if isinstance(spec, dict) else {"name": spec}
    if "name" not in options:
        raise DatasetError(f"the data set with {', '.join(map(str, options))} has no name: write name: folder")
    name, _, variant = str(options.pop("name")).partition("/")
    _check_name(name)
    return name, variant, options


def builder_class(name: str) -> type:
    """Returns the builder class of the data set called `name`, one of `DATASETS`."""
    _check_name(name)
    return importlib.import_module(f"tfds_builders.{name}.{name}_dataset_builder").Builder


def _check_name(name: str) -> None:
    if name not in DATASETS:
        hint = did_you_mean(name, DATASETS)
        own = (
            "; a folder of yours is {name: folder, root: " + name + ", pattern: PATTERN}" if os.path.isdir(name) else ""
        )
        raise DatasetError(f"the data set {name!r} is not known{hint}: choose one of {', '.join(DATASETS)}{own}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns " (did you mean WORD?)" with the known word that is spelt most alike, "" where none is."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


@contextlib.contextmanager
def _without_lines_of_tfds() -> Iterator[None]:
    """In this context TFDS shows its progress bars alone: it says that it downloads, which it does not do here."""
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(before)


def prepare(
    builder: tfds.core.DatasetBuilder, manual_dir: str | os.PathLike | None = None, *, again: bool = False
) -> tfds.core.DatasetBuilder:
    """Builds the data set if it is not built yet, and returns its builder.

    Args:
      builder: what `builder` returned.
      manual_dir: the folder that holds the data set's archive or its unpacked folder; where None,
        DATA_DIR/downloads/manual. A data set that is built already, is rendered or is a folder of your own
        needs none.
      again: build it anew, in place of what is there: where its source, or the code that renders it, changed.

    Raises:
      DatasetError: the archive is missing, incomplete or damaged. Nothing half-built is left behind.
    """
    import tensorflow_datasets as tfds

    mode = tfds.GenerateMode.REUSE_CACHE_IF_EXISTS if again else tfds.GenerateMode.REUSE_DATASET_IF_EXISTS
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False, download_mode=mode)
    try:
        with _without_lines_of_tfds():
            builder.download_and_prepare(download_config=config)  # returns at once where it is built already
    except OSError:
        if again or not builder.data_path.exists():
            raise
        # Another process built it meanwhile, and its copy stands: read that.
        builder = type(builder)(config=builder.builder_config, data_dir=builder.data_dir_root)
    return builder
