"""Files by their URL, such as s3://bucket/crops/1.jpg: read and listed by fsspec. Loads fsspec only for such a name.

The store's own package of fsspec must be installed (s3fs, gcsfs, adlfs), and takes keys and addresses from where that
package takes them. Importing this module loads neither fsspec nor TensorFlow.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tf_reid.config import ConfigError
from tf_reid.files import write_bytes
from tfds_builders.images import MOST_FILE_BYTES, LimitError
from tfds_builders.listing import is_hidden, is_image, shown

PASSWORD = re.compile(r"[^:]+://[^/@]*:[^/]*@")
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # no single letter: C:// is a drive


def is_url(name: object) -> bool:
    """Whether a name is a URL and no path of this machine."""
    return isinstance(name, str) and URL.match(name) is not None


def place_of(image: object) -> Path | str | None:
    """The path of an image's file, or its URL as it is; None where it is no file but bytes or pixels."""
    if is_url(image):
        return str(image)
    return Path(image) if isinstance(image, str | os.PathLike) else None


def read_image(url: str) -> bytes:
    """An image file's bytes.

    Raises:
        ValueError: the rest of a sentence about the file: it is too large.
        OSError: it cannot be opened or read.
    """
    try:
        with opened(url) as file:
            content = file.read(MOST_FILE_BYTES + 1)
    except (ConfigError, OSError, MemoryError):
        raise
    except Exception as error:  # of the store's own package, or of the network
        raise OSError(f"{type(error).__name__}: {error}") from error
    if len(content) > MOST_FILE_BYTES:
        raise LimitError(f"has more than {MOST_FILE_BYTES} bytes, which are allowed")
    return content


def read(url: str) -> bytes:
    """A whole file's bytes.

    Raises:
        FileNotFoundError: there is none.
        ConfigError: the store cannot be reached, or refuses it.
    """
    with _errors_name(url), opened(url) as file:
        return file.read()


def write(url: str, content: bytes) -> None:
    """Write a whole file. Stores show it once all of it is there; a folder shows it under its name once it is whole.

    Raises:
        ConfigError: the store cannot be reached, or refuses it.
    """
    with _errors_name(url):
        system, path = system_of(url)
        if _is_folder_of_this_machine(system):
            write_bytes(path, content)
            return
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
        system.pipe_file(path, content)


def files_below(url: str) -> list[str]:
    """URLs of all files below a folder, in order; none where there is no such folder.

    Raises:
        ConfigError: the store cannot be reached, or refuses it.
    """
    with _errors_name(url):
        system, path = system_of(url)
        system.invalidate_cache()  # other processes write there
        base = path.rstrip("/")
        return [f"{url.rstrip('/')}/{name.removeprefix(base).lstrip('/')}" for name in sorted(system.find(path))]


def images_at(url: str) -> Iterator[tuple[str, str]]:
    """The file, or all images below the folder, that a URL names: (name below the folder, URL), in order.

    Hidden files and folders, and files without an image's suffix, are left out.

    Raises:
        FileNotFoundError: there is no image.
        ConfigError: the store cannot be reached, or refuses it.
    """
    with _errors_name(url):
        system, path = system_of(url)
        if system.isfile(path):
            yield path.rpartition("/")[2], url
            return
    count = 0
    for file in files_below(url):
        name = file.removeprefix(url.rstrip("/")).lstrip("/")
        if is_image(name.rpartition("/")[2]) and not any(map(is_hidden, name.split("/"))):
            count += 1
            yield name, file
    if not count:
        raise FileNotFoundError(f"There is no image in {shown(url)}.")


def joined(folder: str, name: str) -> str:
    """The path or URL of a name that is relative to a folder, itself a path or a URL."""
    if is_url(name) or not is_url(folder):
        return name if is_url(name) else os.path.join(folder, name)
    return f"{folder.rstrip('/')}/{name.lstrip('/')}"


def folder_of(name: str) -> str:
    """The folder that a file lies in, as a path or a URL."""
    return name.rpartition("/")[0] if is_url(name) else os.path.dirname(os.path.abspath(name))


def system_of(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        ConfigError: the package of its store is missing; it cannot be; it holds a password.
    """
    import fsspec

    if PASSWORD.match(url):
        raise ConfigError(
            "A URL must not hold a password: messages would show it, and a gallery would keep it with each image. Put "
            "it where the store's package looks for it, such as fsspec's configuration in ~/.config/fsspec."
        )
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:  # names the package to install
        raise ConfigError(f"{shown(url)}: {error}.") from None
    except ValueError as error:
        raise ConfigError(f"{shown(url)} cannot be opened: {error}.") from None


def opened(url: str) -> Any:
    """The file, open for reading at any place."""
    system, path = system_of(url)
    return system.open(path, "rb")


def _is_folder_of_this_machine(system: Any) -> bool:
    return "file" in ((system.protocol,) if isinstance(system.protocol, str) else system.protocol)


@contextlib.contextmanager
def _errors_name(url: str) -> Iterator[None]:
    """In this context, a store's error becomes one that names the URL."""
    try:
        yield
    except ConfigError:
        raise
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no {shown(url)}.") from None
    except Exception as error:  # of the store's own package, or of the network
        reason = str(error) or type(error).__name__
        raise ConfigError(f"{shown(url)} cannot be read or written: {reason}.") from error
