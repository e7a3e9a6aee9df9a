"""What the front and the replicas of a server hand to each other: requests as they came, and their answers as sent."""

from typing import NamedTuple


class Call(NamedTuple):
    """A request as it came.

    Attributes:
        protocol: "grpc" or "rest".
        target: the method's name, such as Predict; of REST the verb and what follows /v1/models/, such as
            "POST reid:predict".
        body: a message or JSON.
    """

    protocol: str
    target: str
    body: bytes


class Reply(NamedTuple):
    """The answer to a request.

    Attributes:
        code: gRPC's name of its status: OK, or that of an error.
        content: of an answered request: a message or JSON.
        sentence: of a refused one: what is wrong.
        reason: of a refused one: one of `limits.REASONS`.
        model, version, images: what answered how many; "" and 0 where it did not come so far.
    """

    code: str
    content: bytes = b""
    sentence: str = ""
    reason: str = ""
    model: str = ""
    version: int = 0
    images: int = 0


class Seconds(NamedTuple):
    """What a replica spent on a batch: reading and decoding, waiting for the model, the model, writing answers."""

    read: float
    wait: float
    model: float
    write: float
