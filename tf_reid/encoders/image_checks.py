"""Whether an array can be embedded, and the error of an image that cannot; see `tfds_builders.images` for encoded ones.

Importing this module loads no TensorFlow.
"""

from pathlib import Path

import numpy as np

from tfds_builders.images import MOST_SIDE


class ImageError(ValueError):
    """An image that cannot be read.

    Attributes:
        index: its place among the images that were given, from 0.
        path: its file, a URL as a text, or None where it was given as bytes or pixels.
        reason: what is wrong, as the rest of a sentence about the image: "is damaged: it is cut off".
    """

    def __init__(self, index: int, path: Path | str | None, reason: str):
        place = f" ({path})" if path is not None else ""
        super().__init__(f"Image {index}{place} {reason}.")
        self.index, self.path, self.reason = index, path, reason

    def __reduce__(self):
        return type(self), (self.index, self.path, self.reason)


def check_array(name: str, image: object) -> None:
    """Check pixels that somebody hands over: uint8 [H, W, 3] in RGB, of any strides.

    Args:
        name: what the sentence calls the image, such as "Image 3".

    Raises:
        ValueError: a sentence that says what was given and how it is converted, or that a side is too long.
    """
    if not isinstance(image, np.ndarray):
        advice = (
            " np.asarray(image.convert('RGB')) makes one of an image of Pillow." if hasattr(image, "convert") else ""
        )
        raise ValueError(f"{name} is a {type(image).__name__}, not an array uint8 [H, W, 3] in RGB.{advice}")
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size:
        height, width, _ = image.shape
        if max(height, width) > MOST_SIDE:
            raise ValueError(f"{name} is {width} x {height} pixels; a side may have {MOST_SIDE}.")
        return
    if not image.size:
        advice = "It has no pixel."
    elif image.dtype.kind == "f":
        advice = "Floats from 0 to 1 are converted by np.round(255 * image).astype(np.uint8)."
    elif image.dtype != np.uint8:
        advice = "Convert the values to 0..255, and the array by astype(np.uint8)."
    elif image.ndim == 2:
        advice = "Grey is converted by np.repeat(image[..., None], 3, axis=2)."
    elif image.ndim == 3 and image.shape[2] == 1:
        advice = "Grey is converted by np.repeat(image, 3, axis=2)."
    elif image.ndim == 3 and image.shape[2] == 4:
        advice = "Give RGBA without its transparency, image[..., :3], or composited on a colour."
    else:
        advice = "Give one image at a time, with its channels last."
    raise ValueError(
        f"{name} is an array {image.dtype} {list(image.shape)}; an image as an array is uint8 [H, W, 3] in RGB, "
        f"with values from 0 to 255. {advice}"
    )
