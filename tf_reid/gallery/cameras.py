"""The cameras that a user names, as a gallery writes them."""

from collections.abc import Sequence

from tf_reid.config import ConfigError
from tf_reid.gallery.base import Gallery
from tfds_builders import labels


def known_cameras(
    gallery: Gallery, cameras: Sequence[str], not_cameras: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Both lists of cameras by the gallery's own names (01 may be 1).

    Raises:
        ConfigError: the gallery is empty, or has no camera of a name that was given.
    """
    if not len(gallery):
        raise ConfigError(f"{gallery.place} holds no image yet; add some with python -m tf_reid.search add.")
    known = gallery.summary()["cameras"] if cameras or not_cameras else []

    def as_known(name: str) -> str:
        return name if name in known else labels.normal(name) or name

    if missing := [name for name in (*cameras, *not_cameras) if as_known(name) not in known]:
        raise ConfigError(
            f"{gallery.place} has no camera {min(missing)}; its cameras are {', '.join(known) or 'not known'}."
        )
    return tuple(map(as_known, cameras)), tuple(map(as_known, not_cameras))
