"""Which names models and labels may have: a name becomes a folder, a part of URLs, and a word in a server's files."""

import re
from pathlib import Path

from tf_reid.config import ConfigError

MOST_CHARACTERS = 100
FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SERVING = "serving"  # the folder of the server's own files, beside the models
OF_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # no folder of Windows can have them


def is_name(text: str) -> bool:
    """Whether a model or a label may have this name."""
    return len(text) <= MOST_CHARACTERS and FORM.fullmatch(text) is not None and OF_DEVICES.fullmatch(text) is None


def is_model_name(text: str) -> bool:
    return is_name(text) and text.lower() != SERVING


def check_model_name(text: str, source: str) -> None:
    """Raise a ConfigError where a model may not have this name.

    Args:
        source: what gave the name, the beginning of the error's sentence: "--name" or "the run's folder".
    """
    if not is_model_name(text):
        raise ConfigError(
            f"{source}: {text[:MOST_CHARACTERS]!r} cannot be a model's name. Letters A to Z and a to z, digits, '.', "
            f"'_' and '-' can, {MOST_CHARACTERS} at most, with a letter or digit first, but not {SERVING!r} and no "
            "name of a device such as 'con'; give another with --name."
        )


def check_label(text: str) -> None:
    """Raise a ConfigError where a label may not be called so."""
    if not is_name(text):
        raise ConfigError(
            f"{text[:MOST_CHARACTERS]!r} cannot be a label. Letters A to Z and a to z, digits, '.', '_' and '-' can, "
            f"{MOST_CHARACTERS} at most, with a letter or digit first."
        )


def check_folder(folder: Path, source: str) -> None:
    """Raise a ConfigError where a folder's path is no UTF-8, which TensorFlow's files need.

    Args:
        source: what gave it, such as "--to".
    """
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{source}: {str(folder)!r} is no UTF-8; choose a folder of another name.") from None


def version_number(text: str) -> int | None:
    """The number of a version by its folder's name, as TF Serving reads it; None where that is no such number."""
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,17}", text) else None
