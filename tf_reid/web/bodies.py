"""Bodies of requests: read whole before anything else is done, within a deadline, and within a bound on memory."""

import collections
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import anyio

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Refused(Exception):
    """A request that is not answered: an HTTP status and a sentence."""

    def __init__(self, status: int, message: str):
        super().__init__(status, message)
        self.status, self.message = status, message


class ClientLeft(Exception):
    """The client closed its connection before its request was whole."""


class Body:
    """The body of a request, which is read in one part or in several.

    Args:
        receive: of ASGI.
        most_bytes: that it may have.
        bytes_per_second: a part of n bytes may take n / `bytes_per_second` more than a client may wait.

    Attributes:
        content: what has come.
        is_whole: whether that is all.
    """

    def __init__(self, receive: Receive, most_bytes: int, bytes_per_second: float):
        self.receive, self.most_bytes, self.bytes_per_second = receive, most_bytes, bytes_per_second
        self.content, self.is_whole = bytearray(), False

    async def read(self, seconds: float, enough: float = math.inf) -> None:
        """Read on, until more than `enough` bytes are there or the body is whole.

        Args:
            seconds: that a client may wait. One that sends nothing has this time; one that sends faster than
                `bytes_per_second` has all the time it needs.

        Raises:
            Refused: 413, the body is too large; 408, it takes too long.
            ClientLeft: it never becomes whole.
        """
        start, before = anyio.current_time(), len(self.content)
        with anyio.CancelScope(deadline=start + seconds) as scope:
            while not self.is_whole and len(self.content) <= enough:
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                self.content += message.get("body", b"")
                if len(self.content) > self.most_bytes:
                    raise too_large(self.most_bytes)
                self.is_whole = not message.get("more_body", False)
                scope.deadline = start + seconds + (len(self.content) - before) / self.bytes_per_second
        if scope.cancelled_caught:
            raise Refused(408, "The body of the request came too slowly.")


async def discard(receive: Receive, most_bytes: int, seconds: float) -> None:
    """Read over what a client still sends, up to `most_bytes`, as long as it does not pause for half a second.

    A connection that is closed before that is reset, and the client does not see the answer.
    """
    left, more = most_bytes, True
    with anyio.move_on_after(seconds):
        while more and left > 0:
            more = False
            with anyio.move_on_after(0.5):
                message = await receive()
                more = message.get("more_body", False)
                left -= len(message.get("body", b""))


def too_large(most_bytes: int) -> Refused:
    return Refused(413, f"The request is larger than {most_bytes} bytes.")


class Budget:
    """A number of bytes that may be held at once. Who needs more than is left waits; the first to come is the first."""

    def __init__(self, most: int):
        self.most = self._left = most
        self._waiting: collections.deque[tuple[int, anyio.Event]] = collections.deque()

    @contextlib.asynccontextmanager
    async def holding(self, count: int, seconds: float = math.inf) -> AsyncIterator[None]:
        """Hold so many bytes; a count above the whole budget counts as the whole of it.

        Raises:
            Refused: 503, they were not free within `seconds`.
        """
        count = min(count, self.most)
        await self._take(count, seconds)
        try:
            yield
        finally:
            self._left += count
            self._hand_out()

    async def _take(self, count, seconds):
        turn = anyio.Event()
        self._waiting.append((count, turn))
        self._hand_out()
        try:
            with anyio.move_on_after(seconds):
                await turn.wait()
        except BaseException:  # cancelled: its place in the queue, or what it was handed, is for others
            self._give_up(count, turn)
            raise
        if not turn.is_set():
            self._give_up(count, turn)
            raise Refused(503, "The server is busy with other large requests; send this one again later.")

    def _give_up(self, count, turn):
        if turn.is_set():
            self._left += count
        else:
            self._waiting.remove((count, turn))
        self._hand_out()

    def _hand_out(self):
        while self._waiting and self._waiting[0][0] <= self._left:
            count, turn = self._waiting.popleft()
            self._left -= count
            turn.set()
