"""Several data sets as one: identities and cameras of different ones are kept apart."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_reid.data.records import Origin, Records
from tf_reid.data.stored_images import StoredImages

MOST = np.iinfo(np.int64).max


def joined(sets: Sequence[Records]) -> Records:
    """The images of several data sets, one after the other, with numbers and names that are unique among them all.

    The first one's stay as they are, and its protocols are those of the result. Data sets of one population have the
    same identities and cameras: their numbers stay the same. To those of another population a number is added.
    Distractors (0) and junk (-1) stay what they are. The name of a file of the second data set begins with "2:", and so
    on: it does not depend on where a data set lies.

    Raises:
        ValueError: the numbers get too large.
    """
    added = _added(sets)
    columns = ("identity", "camera", "file", "modality", "split")
    of_each: dict[str, list[np.ndarray]] = {column: [] for column in columns}
    identity_labels: dict[int, str] = {}
    camera_labels: dict[int, str] = {}
    for place, one in enumerate(sets):
        to_identity, to_camera = added[one.population]
        of_each["identity"].append(np.where(one.identity > 0, one.identity + to_identity, one.identity))
        of_each["camera"].append(one.camera + to_camera)
        of_each["file"].append(np.char.add(f"{place + 1}:", one.file) if place else one.file)
        of_each["modality"].append(one.modality)
        of_each["split"].append(one.split)
        identity_labels |= {number + to_identity: label for number, label in one.identity_labels.items()}
        camera_labels |= {number + to_camera: label for number, label in one.camera_labels.items()}
    known: dict[str, Any] = {column: np.concatenate(values) for column, values in of_each.items()}
    return Records(
        " + ".join(one.name for one in sets),
        _images(sets),
        **known,
        protocols=sets[0].protocols,
        default_protocol=sets[0].default_protocol,
        population=sets[0].population,
        identity_labels=identity_labels,
        camera_labels=camera_labels,
        origins=tuple(Origin(one.name, one.population, added[one.population][0]) for one in sets),
        origin=np.repeat(np.arange(len(sets)), [len(one) for one in sets]),
    )


def _added(sets: Sequence[Records]) -> dict[str, tuple[int, int]]:
    """Population -> what is added to the numbers of its identities and of its cameras, so that no two meet."""
    highest: dict[str, tuple[int, int]] = {}
    for one in sets:
        identity, camera = highest.get(one.population, (0, 0))
        highest[one.population] = max(identity, int(one.identity.max())), max(camera, int(one.camera.max()))
    added, identities, cameras = {}, 0, 0
    for population, (identity, camera) in highest.items():
        added[population] = identities, cameras
        identities, cameras = identities + identity, cameras + camera + 1
    if max(identities, cameras) > MOST:
        names = " and ".join(one.name for one in sets)
        raise ValueError(
            f"The numbers of identities or cameras of {names} are too large to be kept apart; give smaller ones."
        )
    return added


def _images(sets: Sequence[Records]) -> np.ndarray | StoredImages:
    """All in memory or all in files, as `load_records` was asked for; no image is copied."""
    in_files = [one.images for one in sets if isinstance(one.images, StoredImages)]
    if len(in_files) == len(sets):
        return StoredImages.concatenated(in_files)
    return np.concatenate([np.asarray(one.images) for one in sets])
