"""Reading the MATLAB files that some data sets keep their official splits in."""

from __future__ import annotations

from typing import Any

import scipy.io

from tfds_builders.sources import DAMAGED, Location


def load(path: Location) -> dict[str, Any]:
    """Returns the variables of a MATLAB file up to version 7.2, on disk or in a zip archive.

    Raises:
      ValueError: it cannot be read, whatever SciPy, zlib or the disk say of it.
    """
    try:
        with path.open("rb") as file:
            return scipy.io.loadmat(file)
    except (*DAMAGED, scipy.io.matlab.MatReadError):
        raise ValueError(f"{path} is no readable MATLAB file") from None
