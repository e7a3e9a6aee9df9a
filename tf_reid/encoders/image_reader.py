"""Images as people have them (paths, bytes, arrays of any size) -> pixels of the size that an encoder takes."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from tf_reid.data import decoding
from tf_reid.encoders import remote_files
from tf_reid.encoders.image_checks import ImageError, check_array
from tfds_builders import images

Image: TypeAlias = str | os.PathLike[str] | bytes | np.ndarray
MOST_THREADS = 8


class ImageReader:
    """Reads images just as evaluation does: an array gives the same pixels as a lossless file of it.

    Files are read by the rules of `tfds_builders/images.py`: upright, on white, and of JPEG, PNG, BMP, WebP, TIFF, GIF.

    It may be used by several threads at once.

    Args:
        image_size: (H, W), to which images are resized.
    """

    def __init__(self, image_size: tuple[int, int]):
        self.image_size = image_size
        content, pixels = tf.TensorSpec((), tf.string), tf.TensorSpec((None, None, 3), tf.uint8)
        self._decode = tf.function(decoding.plain_decoder(image_size), input_signature=[content])
        self._resize = tf.function(partial(decoding.resized, image_size=image_size), input_signature=[pixels])
        self._threads = ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1), "tf_reid_image_reader")

    def read(self, numbered: Iterable[tuple[int, Image]]) -> Iterator[np.ndarray | ImageError]:
        """Each image's pixels, uint8 [H, W, 3] in RGB, in order, or why it cannot be read.

        Args:
            numbered: (index, image); the index is for messages.

        Raises:
            TypeError, ValueError: an argument is no image at all, such as an array of another type or shape. This is
                a mistake in the program, not in a file.
        """
        return self._threads.map(lambda pair: self._pixels_or_error(*pair), numbered)

    def _pixels_or_error(self, index: int, image: Image) -> np.ndarray | ImageError:
        if isinstance(image, np.ndarray):
            check_array(f"Image {index}", image)
            return self._resized(image)
        path = remote_files.place_of(image)
        try:
            content = _bytes_of(index, image)
            plain = images.plain_or_pixels(content)
            if isinstance(plain, np.ndarray):
                return self._resized(plain)
            with tf.device("CPU:0"):  # where evaluation's pipeline also reads
                return self._decode(tf.constant(plain)).numpy()
        except OSError as error:
            return ImageError(index, path, f"cannot be read: {error.strerror or error}")
        except tf.errors.InvalidArgumentError:  # TensorFlow may be stricter
            return ImageError(index, path, "cannot be decoded")
        except ValueError as error:
            return ImageError(index, path, str(error))

    def _resized(self, image: np.ndarray) -> np.ndarray:
        with tf.device("CPU:0"):
            return self._resize(tf.constant(image)).numpy()


def _bytes_of(index: int, image: object) -> bytes:
    if remote_files.is_url(image):
        return remote_files.read_image(str(image))
    if isinstance(image, str | os.PathLike):
        return images.read_image(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    raise TypeError(
        f"Image {index} is a {type(image).__name__}; give a path, an encoded image's bytes, "
        "or an array uint8 [H, W, 3] in RGB."
    )
