"""What an address says of a Qdrant server's collection, and the server's errors as one sentence."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from tf_reid.config import ConfigError


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


def layout_of(address: str) -> Layout:
    """What stands behind ? in the address of a collection.

    Raises:
        ConfigError: it cannot be.
    """
    values = dict(parse_qsl(urlsplit(address).query, keep_blank_values=True))
    for name, value in values.items():
        if name not in Layout._fields or not value.isdecimal() or int(value) < 1:
            raise ConfigError(
                f"{address}: {name}={value} cannot be; behind ? stand {', '.join(Layout._fields)}, each 1 or more."
            )
    layout = Layout(**{name: int(value) for name, value in values.items()})
    if (layout.write_consistency or 1) > (layout.replication or layout.write_consistency or 1):
        raise ConfigError(f"{address}: write_consistency cannot be more than replication.")
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
