"""What every HTTP request passes before a server sees it: who asks, and whether its body is whole, bounded and in time.

Both HTTP servers stand behind it: the search page, and REST of `export.serve`, where it runs in Ray's proxy, so that a
request takes a place at the model only once its body is there.
"""

import hmac
import http
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tf_reid.web import bodies
from tf_reid.web.bodies import Budget, ClientLeft, Refused
from tf_reid.web.loopback import bracketed, is_loopback

# The rest is dropped: a client has no say in what Ray reads from headers, such as how long a request may take.
FORWARDED = (b"accept", b"content-type", b"host")
OF_EVERY_ANSWER = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
OF_A_BODY = (b"content-type", b"content-length", b"transfer-encoding")
SENTENCES = {  # of errors that another program has put in its own words
    408: "The request took too long.",
    500: "The server failed; its log says why.",
    503: "The server is busy; send the request again later.",
}
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


class Rules(NamedTuple):
    """What is let in. Plain values, which can be sent to another process.

    Attributes:
        hosts: the names by which the server may be asked for; none: any name.
        token: what `Authorization: Bearer` has to hold; None: nothing.
        most_bytes: of a body.
        open_paths: what is answered without a token.
        seconds: that a client may let the server wait for its body; see `bodies.Body`. Once the beginning of a large
            body is there, it is a fifth of that.
        bytes_per_second: a body that comes slower than this gets no more time for it.
        small_bytes: a body of up to so many bytes waits for no other; of larger ones `held_bytes` are held in all, and
            as many as `most_bytes` are given to the server at once.
    """

    hosts: tuple[str, ...]
    token: str | None
    most_bytes: int
    open_paths: tuple[str, ...] = ()
    seconds: float = 10.0
    bytes_per_second: float = 2**20
    small_bytes: int = 2**20
    held_bytes: int = 2**28


def names(host: str, allowed: Iterable[str]) -> tuple[str, ...]:
    """The names by which a server that listens on `host` may be asked for; none: any name.

    A page of another site can have its own name lead to this machine (DNS rebinding); its name is not among these.

    Args:
        allowed: further names, without ports; of a server that others reach they are all.
    """
    own = (*LOOPBACK_NAMES, bracketed(host)) if is_loopback(host) else ()
    return tuple(dict.fromkeys(name.lower() for name in (*own, *allowed)))


class Guard:
    """ASGI middleware that refuses what `Rules` do not let in, by a status and {"error": a sentence}."""

    def __init__(self, app: ASGIApp, rules: Rules):
        self.app, self.rules = app, rules
        self.read = Budget(max(rules.held_bytes, rules.most_bytes))
        self.given = Budget(rules.most_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})

        async def send_marked(message: Message) -> None:
            await send({**message, "headers": _marked(message["headers"])} if "headers" in message else message)

        try:
            check_sender(scope, self.rules)
            await self._answer(scope, receive, _in_json(send_marked))
        except Refused as error:
            if error.status < 500 and error.status != 408 and (b"connection", b"close") in scope["headers"]:
                await bodies.discard(receive, 2 * self.rules.most_bytes, self.rules.seconds)
            # One that let the server wait is not waited for again.
            headers = {401: {"WWW-Authenticate": "Bearer"}, 408: {"Connection": "close"}, 503: {"Retry-After": "1"}}
            answer = JSONResponse({"error": error.message}, error.status, headers.get(error.status))
            await answer(scope, receive, send_marked)
        except ClientLeft:
            pass

    async def _answer(self, scope, receive, send):
        rules = self.rules
        announced = announced_bytes(scope, rules.most_bytes)
        body = bodies.Body(receive, announced, rules.bytes_per_second)
        await body.read(rules.seconds, enough=rules.small_bytes)
        if body.is_whole and len(body.content) <= rules.small_bytes:
            return await self._give(scope, receive, send, bytes(body.content))
        # Only a client that has sent the beginning of a large body gets a place for it, in which it may hardly wait.
        # It is held until it is answered, as long as it lies in memory.
        async with self.read.holding(announced, rules.seconds):
            await body.read(rules.seconds / 5)
            async with self.given.holding(len(body.content), 3 * rules.seconds):
                await self._give(scope, receive, send, bytes(body.content))

    async def _give(self, scope, receive, send, body):
        parts = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_once() -> Message:
            return parts.pop() if parts else await receive()  # then: whether the client leaves

        headers = [(name, value) for name, value in scope["headers"] if name in FORWARDED]
        headers.append((b"content-length", str(len(body)).encode()))
        await self.app({**scope, "headers": headers}, receive_once, send)


def _marked(headers):
    present = {name for name, _ in headers}
    return [*headers, *((name, value) for name, value in OF_EVERY_ANSWER if name not in present)]


def _in_json(send):
    """`send` of a server whose errors may be plain text, such as Ray's own: they become {"error": a sentence}."""
    is_text = False

    async def send_in_json(message: Message) -> None:
        nonlocal is_text
        if message["type"] == "http.response.start" and message["status"] >= 400:
            kinds = [value for name, value in message["headers"] if name.lower() == b"content-type"]
            is_text = b"application/json" not in kinds
            if is_text:
                status = message["status"]
                body = json.dumps({"error": SENTENCES.get(status, http.HTTPStatus(status).phrase + ".")}).encode()
                kept = [(name, value) for name, value in message["headers"] if name.lower() not in OF_A_BODY]
                headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
                await send({**message, "headers": [*kept, *headers]})
                return await send({"type": "http.response.body", "body": body})
        if not is_text:
            await send(message)

    return send_in_json


def check_sender(scope: Scope, rules: Rules) -> None:
    """Check who sends a request.

    Raises:
        Refused: 400, the server is not known by the name that it is asked for; 403, a page of another site asks; 401,
            the token is missing or wrong.
    """
    host = _header(scope, b"host")
    if rules.hosts and host and _name(host) not in rules.hosts:  # browsers always name it
        raise Refused(400, f"This server is not known as {host[:50]!r}; --allowed-host can add a name.")
    is_open = scope["path"] in rules.open_paths and scope["method"] in ("GET", "HEAD")
    origin, site = _header(scope, b"origin"), _header(scope, b"sec-fetch-site")
    origin_host = origin.rpartition("://")[2].lower()
    # A proxy may ask by another name than the page's; other servers of this machine have its names too, though.
    is_named = _name(origin_host) in rules.hosts and not is_loopback(_name(origin_host))
    if origin and origin_host != host.lower() and not is_named:
        raise Refused(403, "A page of another site may not ask this server.")
    # A link of another site may lead to the page; only what the page then asks for has to come from the page itself.
    follows_link = is_open and _header(scope, b"sec-fetch-mode") == "navigate"
    if site not in ("", "none", "same-origin") and not follows_link:
        raise Refused(403, "A page of another site may not ask this server.")
    if rules.token is not None and not is_open and not is_token(_header(scope, b"authorization"), rules.token):
        raise Refused(401, "This server needs its token; send it as Authorization: Bearer TOKEN.")


def is_token(authorization: str, token: str) -> bool:
    """Whether the value of an `Authorization` header, or of gRPC's metadata, is a token; in constant time."""
    scheme, _, given = authorization.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(
        given.strip().encode("latin-1", "replace"), token.encode()
    )


def announced_bytes(scope: Scope, most_bytes: int) -> int:
    """How many bytes a body will have at most, by its header.

    Raises:
        Refused: 400, that is no number; 413, it is more than `most_bytes`.
    """
    values: dict[bytes, Any] = dict(scope["headers"])
    if b"transfer-encoding" in values:
        return most_bytes
    length = values.get(b"content-length", b"0")
    if not length.isdigit():
        raise Refused(400, "The Content-Length of the request is not a number.")
    if len(length) > 19 or int(length) > most_bytes:
        raise bodies.too_large(most_bytes)
    return int(length)


def _header(scope, name):
    """The value of a header; "" where it is missing.

    Raises:
        Refused: 400, it is there more than once, so that another program may have read another value.
    """
    values = [value for key, value in scope["headers"] if key == name]
    if len(values) > 1:
        raise Refused(400, f"The header {name.decode()} is there {len(values)} times.")
    return values[0].decode("latin-1") if values else ""


def _name(host):
    """Of a Host header, which may name a port."""
    name = host.lower()
    return name[: name.find("]") + 1] if name.startswith("[") else name.rpartition(":")[0] or name
