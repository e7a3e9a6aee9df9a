"""What an address says of a Qdrant server's collection, and the server's errors as one sentence."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from tf_reid.config import ConfigError
from tf_reid.web.loopback import bracketed


class Unavailable(ConfigError):
    """The server, or a node of it, does not answer now."""


class Layout(NamedTuple):
    """How a collection lies on the nodes of a cluster, as its address says (None: as the server does by itself).

    Attributes:
        shards: the parts that its points are spread over. replication: the nodes that keep a copy of each part.
        write_consistency: the copies that have to be written before a write counts as done.
    """

    shards: int | None = None
    replication: int | None = None
    write_consistency: int | None = None


class Place(NamedTuple):
    """Where a collection lies: qdrant or qdrants, host:port, the collection's name."""

    scheme: str
    host: str
    collection: str


def place_of(address: str) -> Place:
    """What stands before ? in the address of a collection.

    Raises:
        ConfigError: it cannot be. The message does not repeat it: it may hold a key.
    """
    try:
        parts = urlsplit(address)
        host, port, collection = parts.hostname, parts.port or 6333, parts.path.strip("/")
    except ValueError:  # a port that is no number
        host = None
    if not host or not collection or "@" in parts.netloc:
        raise ConfigError(
            "The address of a Qdrant gallery must be qdrant://HOST:PORT/COLLECTION; put a key into QDRANT_API_KEY."
        )
    return Place(parts.scheme, f"{bracketed(host)}:{port}", collection)


def layout_of(address: str) -> Layout:
    """What stands behind ? in the address of a collection.

    Raises:
        ConfigError: it cannot be. Of what is unknown, which may be a key, the message has only the name.
    """
    place, values = address.partition("?")[0], dict(parse_qsl(urlsplit(address).query, keep_blank_values=True))
    for name, value in values.items():
        if name not in Layout._fields or not value.isdecimal() or int(value) < 1:
            given = f"{name}={value}" if name in Layout._fields or value.isdecimal() else name
            raise ConfigError(
                f"{place}: {given} cannot be; behind ? stand {', '.join(Layout._fields)}, each 1 or more."
            )
    layout = Layout(**{name: int(value) for name, value in values.items()})
    if (layout.write_consistency or 1) > (layout.replication or layout.write_consistency or 1):
        raise ConfigError(f"{place}: write_consistency cannot be more than replication.")
    return layout


@contextlib.contextmanager
def errors_of_the_server(collection: str) -> Iterator[None]:
    """Inside, what the server refuses becomes a ConfigError, or Unavailable where it may not refuse it later."""
    try:
        yield
    except ResponseHandlingException as error:
        raise Unavailable(f"Qdrant does not answer for collection {collection}: {error}") from None
    except ApiException as error:
        kind = Unavailable if isinstance(error, UnexpectedResponse) and (error.status_code or 0) >= 500 else ConfigError
        raise kind(f"Qdrant does not answer for collection {collection}: {error}") from None
