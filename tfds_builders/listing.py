"""Which image files lie below a folder: one reader for training, search and clients. Standard library only.

- Hidden files and folders and the copies that other programs leave (`.ipynb_checkpoints`, `._x`, `Thumbs.db`,
  `__MACOSX`) are left out. The folder that is named itself may be hidden.
- A file is an image by its suffix, in any case; a folder is a folder, whatever its name ends in.
- Linked folders are followed. A folder that is reached twice is read once: at its own place if it lies below the folder
  that is named, else by the first of its links. A link to a folder above it is not followed.
- Two names are two files, also where they look the same (an é of one character or of two).
"""

from __future__ import annotations

import dataclasses
import heapq
import os
import pathlib
import stat
import unicodedata
from collections.abc import Callable, Iterable
from typing import NamedTuple

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
COPIES = {"thumbs.db", "__macosx", "@eadir", "$recycle.bin"}  # beside all names that begin with a dot
MOST_SENTENCES = 5  # about single files and folders; the others are counted
LONGEST_SHOWN = 500  # characters of a name in a message
UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}  # control characters, bytes that are no UTF-8, line and paragraph separators
REORDERING = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they hide what a name ends in

Report = Callable[[str], object]  # takes a sentence that says what is left out and why


class Named(NamedTuple):
    """An image file, and the name by which a pattern sees it.

    This name is its path below the folder that is named, with `/` between folders; of a file that is named alone, the
    file's own name.
    """

    name: str
    path: pathlib.Path


@dataclasses.dataclass
class Listing:
    """What lies below a folder, as relative paths with `/` between folders, in order.

    Attributes:
      images: files whose suffix is an image's.
      others: files with another suffix.
      left_out: what cannot be listed, a sentence each.
    """

    images: list[str] = dataclasses.field(default_factory=list)
    others: list[str] = dataclasses.field(default_factory=list)
    left_out: list[str] = dataclasses.field(default_factory=list)


def walk(folder: str | os.PathLike) -> Listing:
    """Lists a folder and all folders below it. Nothing is opened: a pipe would wait for ever."""
    listing, seen, waiting, links = Listing(), set(), [""], []
    while waiting or links:
        if waiting:
            inside, is_link = waiting.pop(), False
        else:  # only now: a folder's own place goes before a link to it
            inside, is_link = heapq.heappop(links), True
        place = os.path.join(folder, inside) if inside else os.fspath(folder)
        try:
            status = os.stat(place)
            if is_link and _is_above(place):
                listing.left_out.append(f"{shown(place)} is a link to a folder above it and is left out")
                continue
            if (status.st_dev, status.st_ino) in seen:
                listing.left_out.append(f"{shown(place)} leads to a folder that is read already and is left out")
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(place) as entries:
                for entry in entries:
                    if not is_hidden(entry.name):
                        _sort_in(entry, f"{inside}/{entry.name}".lstrip("/"), listing, waiting, links)
        except OSError as error:
            listing.left_out.append(f"the folder {shown(place)} cannot be read and is left out: {error.strerror}")
    for names in (listing.images, listing.others, listing.left_out):
        names.sort()
    return listing


def _sort_in(entry: os.DirEntry, name: str, listing: Listing, waiting: list[str], links: list[str]) -> None:
    """Puts an entry of a folder where it belongs; `links` is a heap, so that the first by name comes first."""
    try:
        mode = entry.stat().st_mode  # of what a link leads to
    except OSError:
        reason = "is a link that leads nowhere" if entry.is_symlink() else "is no longer there"
        listing.left_out.append(f"{shown(entry.path)} {reason} and is left out")
        return
    if stat.S_ISDIR(mode):
        if entry.is_symlink():
            heapq.heappush(links, name)
        else:
            waiting.append(name)
    elif not is_image(entry.name):
        listing.others.append(name)
    elif stat.S_ISREG(mode):
        listing.images.append(name)
    else:
        listing.left_out.append(f"{shown(entry.path)} is no file but a pipe, socket or device and is left out")


def _is_above(link: str) -> bool:
    """Whether a link leads to a folder that holds it."""
    target, holder = os.path.realpath(link), os.path.realpath(os.path.dirname(link))
    return os.path.commonpath([target, holder]) == target


def images_below(folder: str | os.PathLike, report: Report) -> list[str]:
    """Returns the images below a folder, as relative paths with `/` between folders, in order.

    Args:
      report: takes, one after the other, what is left out: links, pipes and folders that cannot be read, and how many
        files are no images by their suffix.
    """
    listing = walk(folder)
    for sentence in listing.left_out[:MOST_SENTENCES]:
        report(sentence)
    if (more := len(listing.left_out) - MOST_SENTENCES) > 0:
        report(f"{more} more links, pipes or folders in {shown(folder)} are left out")
    if listing.others:
        files = "1 file is" if len(listing.others) == 1 else f"{len(listing.others)} files are"
        report(f"in {shown(folder)} {files} left out, without an image's suffix, such as {shown(listing.others[0])}")
    return listing.images


def named_images(paths: Iterable[str | os.PathLike], report: Report) -> list[Named]:
    """Returns the files that are named, whatever their suffix, and all images below folders that are named, in order.

    Args:
      report: as `images_below` takes it.

    Raises:
      FileNotFoundError: a path is neither file nor folder, or there is no image.
    """
    paths, found = [pathlib.Path(path) for path in paths], []
    for path in paths:
        if os.path.isdir(path):
            found += [Named(name, path / name) for name in images_below(path, report)]
        elif os.path.isfile(path):
            found.append(Named(path.name, path))
        elif os.path.exists(path):
            raise FileNotFoundError(f"{shown(path)} is no file but a pipe, socket or device: name an image file.")
        elif os.path.islink(path):
            raise FileNotFoundError(f"There is no {shown(path)}: it is a link that leads nowhere.")
        else:
            raise FileNotFoundError(f"There is no file or folder {shown(path)}.")
    if not found:
        raise FileNotFoundError(f"There is no image in {', '.join(map(shown, paths))}.")
    return found


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or a copy that another program left."""
    return name.startswith(".") or name.casefold() in COPIES


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image, and not hidden."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name)


def as_text(name: str) -> str:
    r"""Returns a file's name as UTF-8 can hold it: a byte that is no UTF-8 becomes \xff, and in such names \ is \\."""
    if all(not 0xD800 <= ord(letter) < 0xE000 for letter in name):
        return name
    escaped = name.replace("\\", "\\\\")
    try:
        return os.fsencode(escaped).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character that is from no file's name
        return escaped.encode("utf-8", "backslashreplace").decode()


def shown(name: str | os.PathLike) -> str:
    r"""Returns a path as it can be printed on one line: control characters are escaped (\n, \x1b), letters stay.

    Of one that is longer than `LONGEST_SHOWN`, the beginning and the end.
    """
    letters = as_text(os.fspath(name))
    if len(letters) > LONGEST_SHOWN:
        letters = f"{letters[: LONGEST_SHOWN // 2]}…{letters[-LONGEST_SHOWN // 2 :]}"
    return printable(letters)


def printable(text: str) -> str:
    r"""Returns a text on one line as a terminal can print it: control characters are escaped (\n, \x1b)."""
    return "".join(letter if _is_printable(letter) else letter.encode("unicode_escape").decode() for letter in text)


def _is_printable(letter: str) -> bool:
    return letter not in REORDERING and unicodedata.category(letter) not in UNPRINTABLE
