"""Malformed files on disk: images with a wrong suffix, tables beside images, folders that hold something odd."""

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.attack import images, material, tables
from benchmarks.attack.cases import ANSWER, EITHER, Case, choose

PATTERN = r"(?P<person>\d)(?P<camera>\d)\.\w+$"  # of the images in an odd folder


class Table(NamedTuple):
    """A table, which lies in the folder of images."""

    content: bytes


class Folder(NamedTuple):
    """A folder of sound images and one of `ODDITIES`."""

    oddity: str


def case(rng: np.random.Generator) -> Case:
    """An image (its content is bytes), a `Table` or a `Folder`."""
    choice = rng.random()
    if choice < 0.6:
        return images.case(rng)
    if choice < 0.95:
        table = tables.case(rng, material.FILES)
        return Case(f"table: {table.kind}", Table(table.content), table.demand)
    oddity = choose(rng, list(ODDITIES))
    return Case(f"folder: {oddity}", Folder(oddity), ODDITIES[oddity][1])


@contextlib.contextmanager
def image_in(folder: Path, case: Case) -> Iterator[Path]:
    """The file of an image; every fifth has the suffix of another format."""
    right = images.SUFFIXES.get(case.kind.split(",")[0].split()[-1].upper(), ".jpg")
    others = (".jpg", ".png", ".bmp", ".webp", ".tif")
    suffix = right if len(case.content) % 5 else others[len(case.content) % 7 % 5]
    with _file(folder / f"{os.urandom(8).hex()}{suffix}", case.content) as path:
        yield path


def table_beside(folder: Path, table: Table) -> contextlib.AbstractContextManager[Path]:
    return _file(folder / f"{os.urandom(8).hex()}.csv", table.content)


@contextlib.contextmanager
def _file(path, content):
    path.write_bytes(content)
    try:
        yield path
    finally:
        path.unlink()


@contextlib.contextmanager
def odd_folder(place: Path, source: Path, folder: Folder) -> Iterator[Path]:
    """A folder of eight of the source's images, of two identities and two cameras, and something odd."""
    path = place / os.urandom(8).hex()
    path.mkdir()
    for number in range(8):
        shutil.copy(source / material.FILES[number], path / f"{number}-{1 + number // 4}{1 + number % 2}.png")
    ODDITIES[folder.oddity][0](path)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def empty_folder(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def _bind_socket(folder):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{os.open(folder, os.O_RDONLY)}/11.jpg")  # a socket's path has 107 characters at most


def _link_in_a_circle(folder):
    (folder / "linked").mkdir()
    (folder / "linked" / "round").symlink_to(folder)


def _write(name, content=b""):
    def write(folder):
        path = os.path.join(os.fsencode(folder), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(content)

    return write


SOUND = images.plain("rgb")
ODDITIES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a folder named 11.jpg": (lambda folder: (folder / "11.jpg").mkdir(), EITHER),
    "a FIFO named 11.jpg": (lambda folder: os.mkfifo(folder / "11.jpg"), EITHER),
    "a socket named 11.jpg": (_bind_socket, EITHER),
    "a link to nowhere": (lambda folder: (folder / "11.jpg").symlink_to(folder / "gone.jpg"), EITHER),
    "a link to itself": (lambda folder: (folder / "11.jpg").symlink_to(folder / "11.jpg"), EITHER),
    "a link to /dev/zero": (lambda folder: (folder / "11.jpg").symlink_to("/dev/zero"), EITHER),
    "folders linked in a circle": (_link_in_a_circle, ANSWER),
    "a name that is no UTF-8": (_write(b"caf\xe9-11.png", SOUND), EITHER),
    "a name with escape sequences": (_write("\x1b[31m\n-11.png", SOUND), EITHER),
    "an empty image": (_write("11.png"), EITHER),
    "a hidden copy": (_write("._11.png", b"\x00\x05\x16\x07"), ANSWER),
    "a notebook's copies": (_write(".ipynb_checkpoints/11-checkpoint.png", b"none"), ANSWER),
    "Thumbs.db": (_write("Thumbs.db", b"\xd0\xcf\x11\xe0"), ANSWER),
    "a folder of another system": (_write("__MACOSX/._11.png", b"\x00\x05\x16\x07"), ANSWER),
}
