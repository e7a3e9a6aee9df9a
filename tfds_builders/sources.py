"""Finding a data set's files: an unpacked folder or a zip archive, read in place."""

from __future__ import annotations

import dataclasses
import pathlib
import posixpath
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence

from tfds_builders import listing

Location = pathlib.Path | zipfile.Path
# What reading a file may raise where it is not sound; RuntimeError: a zip archive with a password or another method.
DAMAGED = (ValueError, OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile)


@dataclasses.dataclass(frozen=True)
class Archive:
    """What a data set looks like on disk, where it comes from and on which terms.

    Attributes:
      folder: name of the unpacked folder.
      files: names the archive goes by.
      holds: paths inside the folder without which it is not this data set.
      origin: where the archive comes from.
      terms: the terms of use, in a few words.
    """

    folder: str
    files: tuple[str, ...]
    holds: tuple[str, ...]
    origin: str
    terms: str

    @property
    def instructions(self) -> str:
        source = f"from {self.origin}; {self.terms}"
        return f"put {self.files[0]} or its unpacked folder {self.folder}/ there ({source})"


def locate(archive: Archive, manual_dir: pathlib.Path, report: Callable[[str], None]) -> Location | None:
    """Returns the folder that holds everything in `archive.holds`, on disk or inside a zip archive.

    The archive is read in place: an unpacked copy would go stale when the archive is replaced.

    Args:
      report: takes what is wrong: `manual_dir` holds no copy, part of one or a damaged archive, or lies in the
        data set. Where it returns, so does this: with the folder of a partial copy, or None.
    """
    if not manual_dir.is_dir():
        return report(f"there is no folder {manual_dir}: create it and {archive.instructions}")
    roots: list[Location] = [manual_dir]
    for path in (manual_dir / file for file in archive.files):
        if path.exists():
            try:
                roots.append(zipfile.Path(path))
            except zipfile.BadZipFile:
                return report(f"{path} is not a whole zip archive; fetch it again")
    incomplete = None
    for candidate in (place for root in roots for place in (root, root / archive.folder)):
        missing = [part for part in archive.holds if not candidate.joinpath(part).exists()]
        if not missing:
            return candidate
        if len(missing) < len(archive.holds):
            incomplete = incomplete or (candidate, missing)
    if incomplete:
        candidate, missing = incomplete
        lacks = f"{candidate} has no {' and no '.join(missing)}"
        report(f"{lacks}; give a complete copy: {archive.instructions}")
        return candidate
    if manual_dir.name in [part.split("/")[-1] for part in archive.holds]:
        return report(f"{manual_dir} is one part of the data set; give the folder that holds {archive.folder}/")
    wanted = " nor ".join([f"{archive.folder}/", *archive.files])
    return report(f"found neither {wanted} in {manual_dir}: {archive.instructions}")


def a_few(names: Sequence[str], limit: int = 5) -> str:
    """Returns the first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def images_in(folder: Location) -> list[Location]:
    """Returns the images that lie directly in a folder, by name, hidden and other files left out."""
    found = (path for path in folder.iterdir() if listing.is_image(path.name) and path.is_file())
    return sorted(found, key=lambda path: path.name)


def images_below(folder: Location) -> dict[str, list[Location]]:
    """Returns the images in each of a folder's subfolders, by the subfolder's relative path (cam1/0001) and by name.

    A folder that is not there has none. Of a zip archive the table of contents is read once, where `images_in` of
    every subfolder would read it as often as there are subfolders.
    """
    if isinstance(folder, zipfile.Path):
        inside = (name.removeprefix(folder.at) for name in folder.root.namelist() if name.startswith(folder.at))
        files = sorted(file for file in inside if not any(map(listing.is_hidden, file.split("/"))))
    else:
        files = listing.walk(folder).images
    found = defaultdict(list)
    for file in files:
        subfolder, name = posixpath.split(file)
        if listing.is_image(name):
            found[subfolder].append(folder / file)
    return found
