"""Boxes of a frame, as a detector gives them, cut out of it."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from tf_reid.encoders.image_checks import ImageError, check_array

Boxes: TypeAlias = Sequence[Sequence[float]] | np.ndarray


def crops_of_boxes(frame: np.ndarray, boxes: Boxes) -> list[np.ndarray]:
    """The pixels of each box, uint8 [h, w, 3]; see `Encoder.embed_boxes`."""
    return [_crop(frame, index, box) for index, box in enumerate(_checked(frame, boxes))]


def _checked(frame: np.ndarray, boxes: Boxes) -> np.ndarray:
    """Boxes float64 [N, 4]."""
    check_array("The frame", frame)
    try:
        corners = np.asarray(boxes, np.float64)
    except (TypeError, ValueError):  # rows of several lengths, or no numbers
        raise ValueError("The boxes must be numbers [N, 4], each x1, y1, x2, y2.") from None
    if corners.size == 0:
        return corners.reshape(0, 4)
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise ValueError(f"The boxes must be numbers [N, 4], each x1, y1, x2, y2, not {list(corners.shape)}.")
    return corners


def _crop(frame: np.ndarray, index: int, box: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    if not np.isfinite(box).all():
        raise ImageError(index, None, f"is the box {box.tolist()}, which has numbers that are not finite")
    left, top = np.clip(np.floor(box[:2]), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(box[2:]), 0, (width, height)).astype(int)
    if left >= right or top >= bottom:
        raise ImageError(
            index,
            None,
            f"is the box {box.tolist()}, which has no pixel in the frame of {width} x {height} pixels (a box is left, "
            "top, right, bottom)",
        )
    return frame[top:bottom, left:right]
