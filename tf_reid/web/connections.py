"""Connections of an HTTP server that no client can keep for itself."""

import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """uvicorn's connection, which ends when its client lets the server wait for a header, or does not read its answer.

    uvicorn waits for ever for both. The deadline of a body is `Guard`'s. h11 refuses headers beyond 64 KiB and lengths
    that are no numbers.

    Attributes:
        seconds: that a client may let the server wait.
        most: connections at once. One more takes the place of the one that lets the server wait longest, so that idle
            connections, however many, keep no client out.
    """

    seconds = 10.0
    most = 256

    def connection_made(self, transport):
        super().connection_made(transport)
        self._header_deadline = self._write_deadline = None
        self.waiting_since: float | None = None  # where it is the client's turn
        self._watch()
        if len(self.connections) > self.most:
            waiting = [one for one in self.connections if getattr(one, "waiting_since", None) is not None]
            longest = min(waiting, key=lambda one: one.waiting_since)
            longest.waiting_since = None  # it closes only later: the next new one must take another's place
            longest.transport.abort()

    def connection_lost(self, exc):
        self._header_deadline = _cancelled(self._header_deadline)
        self._write_deadline = _cancelled(self._write_deadline)
        super().connection_lost(exc)

    def handle_events(self):
        super().handle_events()
        self._watch()

    def on_response_complete(self):
        super().on_response_complete()
        self._watch()

    def _watch(self):
        """Start or stop the deadline of a header, after whatever may have begun or ended one."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        # Between two requests uvicorn's own timeout holds, until the next begins.
        is_between = self.cycle is not None and self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        if is_answering or is_between:
            self._header_deadline = _cancelled(self._header_deadline)
        elif self._header_deadline is None:
            self._header_deadline = self.loop.call_later(self.seconds, self.transport.abort)
        if not is_answering or self.cycle.more_body:
            self.waiting_since = self.waiting_since or self.loop.time()
        else:
            self.waiting_since = None

    def pause_writing(self):
        super().pause_writing()
        if self._write_deadline is None:
            self._write_deadline = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self):
        super().resume_writing()
        self._write_deadline = _cancelled(self._write_deadline)

    def _should_upgrade(self):
        return False  # no server here speaks anything but HTTP

    def send_400_response(self, msg: str) -> None:
        body = json.dumps({"error": f"{msg.rstrip('.')}."}).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("connection", "close"),
        ]
        try:
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
        except h11.LocalProtocolError:  # this request was answered already
            pass
        self.transport.close()


def _cancelled(timer):
    if timer is not None:
        timer.cancel()
