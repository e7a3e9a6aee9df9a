"""What one request to a server may hold, and the error of a request that cannot be answered.

The bounds of an image (bytes, pixels, scans of a JPEG) are those of `tfds_builders.images`. `export.serve` has an
option for most of the others; their defaults stand here.
"""

from itertools import islice
from typing import NamedTuple

from tfds_builders import images

REQUEST_BYTES = 32 * 2**20  # of a request, by gRPC or REST
WAITING = 256  # requests that may wait; more are refused
BATCH = 16  # requests that are answered together
SECONDS_PER_REQUEST = 60
REASONS = (
    "invalid",  # no request of the protocol, or none that fits the endpoint
    "too_large",  # a request, an image, or how many they are
    "undecodable",  # an image
    "unknown_model",
    "unknown_version",  # a version's number or label
    "unknown_signature",
    "too_many_waiting",  # the queue is full
    "too_many_slow",  # images that are slow to decode wait already
    "too_slow",  # its body, or its answer
    "client_left",
    "unauthorised",  # no token, another machine, another site
    "stopping",
    "no_replica",
    "failed",  # the server's own fault
)
QUOTED = 200  # characters of a request that an answer repeats


class Limits(NamedTuple):
    """What one request may hold: bytes and pixels of an image, pixels of all its images, images."""

    image_bytes: int = images.MOST_BYTES
    pixels: int = images.MOST_PIXELS
    all_pixels: int = 2 * images.MOST_PIXELS
    images: int = 64


class RequestError(Exception):
    """A request that cannot be answered.

    Attributes:
        code: gRPC's name of the status, such as INVALID_ARGUMENT.
        reason: by which refusals are counted, one of `REASONS`.
    """

    def __init__(self, code: str, message: str, reason: str = "invalid"):
        super().__init__(message)
        self.code, self.reason = code, reason


def quoted(*texts: str) -> str:
    """What a request named, as an answer may repeat it: in quotes, printable, `QUOTED` characters of it at most."""
    shown = ", ".join(repr(text[:QUOTED]) for text in islice(texts, QUOTED))
    return shown if len(shown) <= QUOTED else f"{shown[:QUOTED]}..."
