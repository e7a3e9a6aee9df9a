"""What one request to a server may hold, and the error of a request that cannot be answered."""

from typing import NamedTuple

from tf_reid.encoders import image_checks


class Limits(NamedTuple):
    """What one request may hold: bytes and pixels of an image, pixels of all its images, images."""

    image_bytes: int = image_checks.MOST_BYTES
    pixels: int = image_checks.MOST_PIXELS
    all_pixels: int = 2 * image_checks.MOST_PIXELS
    images: int = 64


class RequestError(Exception):
    """A request that cannot be answered. `code` is gRPC's name of the reason, such as INVALID_ARGUMENT."""

    def __init__(self, code: str, message: str):
        super().__init__(code, message)  # both: it may have to reach another process
        self.code = code

    def __str__(self):
        return self.args[1]
