"""The models that this user has named to the search commands. A gallery may name any model; only these are opened.

A gallery names the model that made its embeddings. Opening a model runs what its maker put into it, so a gallery that
somebody else made must not choose the model. Each model that the user names with --run or --model is remembered outside
of the galleries, as one small file in $XDG_STATE_HOME/tf_reid/known_models (~/.local/state/tf_reid/known_models).
"""

import contextlib
import hashlib
import os
from pathlib import Path

from tf_reid.config import ConfigError
from tf_reid.files import write_text
from tf_reid.gallery.base import Gallery


def remember(source: Path) -> None:
    """Keep that the user has named this model. Where this cannot be kept, the user has to name it again."""
    with contextlib.suppress(OSError, RuntimeError):
        path = _file_of(source)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_text(path, f"{source.resolve()}\n")


def known_source_of(gallery: Gallery) -> Path | None:
    """The model that built a gallery, or None where the user has not named it before."""
    source = Path(gallery.about["source"])
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        return source if _file_of(source).is_file() else None
    return None


def source_of(gallery: Gallery, place: str) -> Path:
    """The model that built a gallery.

    Args:
        place: names the gallery.

    Raises:
        ConfigError: the user has not named this model before.
    """
    source = known_source_of(gallery)
    if source is None:
        raise ConfigError(
            f"{place} was built by the model {gallery.about['source']}, which you have not named to a search command "
            "before. Opening a model runs what its maker put into it: name it with --run or --model if you trust it."
        )
    return source


def _file_of(source):
    """Raises RuntimeError where the user has no home."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():
        state = Path.home() / ".local" / "state"
    name = hashlib.sha256(os.fsencode(source.resolve())).hexdigest()
    return state / "tf_reid" / "known_models" / name
