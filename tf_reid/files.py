"""Files: written whole or not at all, and lists of image files. Importing this module loads no TensorFlow."""

import os
from collections.abc import Iterable
from pathlib import Path

from tfds_builders.sources import IMAGE_SUFFIXES


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


def images_in(paths: Iterable[Path]) -> list[Path]:
    """The files named, and all images in the folders named, in order.

    Raises:
        FileNotFoundError: one is neither, or there is no image.
    """
    found = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"There is no {path}.")
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES) if path.is_dir() else [path]
        found += inside
    if not found:
        raise FileNotFoundError(f"There is no image in {', '.join(map(str, paths))}.")
    return found
