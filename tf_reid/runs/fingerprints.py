"""What a run's data.json says of its training images, and whether they are still the same."""

import hashlib
import re
from typing import Any

from tf_reid.data.records import Records, content


def fingerprint(records: Records) -> dict[str, Any]:
    """What identifies a choice of images: their number, a hash of files, identities and cameras, one of the images too.

    The name is for messages: the same images keep their fingerprint where their folder is moved or touched.
    """
    lines = (f"{f}\t{p}\t{c}\n" for f, p, c in zip(records.file, records.identity, records.camera, strict=True))
    return {
        "name": records.name,
        "images": len(records),
        "identities": records.identities,
        "sha256": hashlib.sha256("".join(lines).encode()).hexdigest(),
        "content": content(records),
    }


def same_images(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether two fingerprints are of the same images.

    Older runs have no hash of the images; then the data set has to be of the same name, but for the mark of a folder's
    place and times.
    """
    keys = ["images", "identities", "sha256"]
    if "content" in before:
        return all(before[key] == now[key] for key in [*keys, "content"])
    names = [re.sub(r"-[0-9a-f]{12}(?=/|$)", "", fingerprint["name"]) for fingerprint in (before, now)]
    return all(before[key] == now[key] for key in keys) and names[0] == names[1]
