"""Files: written whole or not at all, and lists of image files. Importing this module loads no TensorFlow."""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from tfds_builders.listing import named_images


def write_text(path: str | Path, text: str) -> None:
    """As `write_bytes`, of text."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write beside, then rename: a reader never sees half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(content)
    os.replace(beside, path)


def to_stderr(sentence: str) -> None:
    """Print a sentence about what is left out."""
    print(f"Note: {sentence}.", file=sys.stderr)


def images_in(paths: Iterable[str | Path], report: Callable[[str], object] = to_stderr) -> list[Path]:
    """The files named, whatever their suffix, and all images below the folders named, in order.

    Args:
        report: takes, a sentence each, what is left out of folders: links that lead nowhere, pipes, folders that cannot
            be read, and how many files are no images by their suffix. See `tfds_builders.listing`.

    Raises:
        FileNotFoundError: one is neither file nor folder, or there is no image.
    """
    return [image.path for image in named_images(paths, report)]
