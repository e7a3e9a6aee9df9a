"""A gallery copied into another store. A copy that was cut short goes on, and is no gallery until it is whole."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tf_reid.config import ConfigError
from tf_reid.gallery.base import ABOUT_MODEL, Gallery

ROUNDING = 1e-6  # of an embedding's numbers: Qdrant scales embeddings to length 1 again


def about_of_copy(source: Gallery) -> dict[str, Any]:
    """What a new gallery that is to become a copy of another one is made with."""
    return {**{key: source.about[key] for key in ABOUT_MODEL}, "unfinished": source.place}


def copy(source: Gallery, target: Gallery, progress: Callable[[int], object] = lambda images: None) -> int:
    """Copy all images and the rejection threshold, compare, and only then mark the copy as finished.

    Args:
        target: made, or opened, with `about_of_copy`. Where it is finished already, it is compared alone.
        progress: called with a number of images whenever so many more are in the copy.

    Returns:
        How many images the copy holds.

    Raises:
        ConfigError: the copy does not hold the images of `source`: another process writes to one of them, or the
          target was another gallery from the beginning.
    """
    if target.place == source.place:
        raise ConfigError(f"{source.place} cannot be copied to itself; name another place.")
    is_finished = not target.about.get("unfinished")
    if not is_finished:
        for paths in source.paths():
            _add_missing(source, target, paths)
            progress(len(paths))
        _remove_others(source, target)
        target.update_index()
    difference = _difference(source, target)
    if difference and is_finished:
        raise ConfigError(
            f"{target.place} is a gallery, and no copy of {source.place}: {difference}. Name another one."
        )
    if difference:
        raise ConfigError(
            f"{target.place} is not yet a copy of {source.place}: {difference}. If another process writes to one of "
            "them, wait for its end; then run the same command again."
        )
    if not is_finished:
        target.write_about({"rejection": source.rejection, "unfinished": None})
    return len(target)


def _add_missing(source, target, paths):
    contained = target.contained(paths)
    target.add(*source.read([path for path in paths if path not in contained]))


def _remove_others(source, target):
    """Remove images that have left the source since an earlier command copied them."""
    if len(target) == len(source):
        return
    for paths in target.paths():
        contained = source.contained(paths)
        target.remove([path for path in paths if path not in contained])
    target.erase()


def _difference(source, target):
    """Words for what one holds and the other does not, or None."""
    if len(source) != len(target):
        return f"one holds {len(source)} images, the other {len(target)}"
    for paths in source.paths():
        of_source, of_target = source.read(paths), target.read(paths)
        if of_source[0] != of_target[0]:
            differing = min(set(of_source[0]) ^ set(of_target[0]), key=lambda record: record.path)
            return f"{differing.path} is not the same in both"
        apart = np.abs(of_source[1] - of_target[1]).max(axis=1, initial=0.0)
        if (apart > ROUNDING * np.abs(of_source[1]).max(initial=1.0)).any():
            return f"the embedding of {of_source[0][int(apart.argmax())].path} is not the same in both"
    return None
