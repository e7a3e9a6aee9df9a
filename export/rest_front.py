"""The REST port of a server: behind `Guard`, the models, whether they are ready, and the metrics."""

import asyncio
import http
import json
import time
import uuid
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from export.calls import Call, Reply
from export.front import Front
from export.monitoring import CONTENT_TYPE
from tf_reid.web.bodies import ClientLeft
from tf_reid.web.guard import Guard, Rules

MODELS, LIVE, READY, METRICS = "/v1/models/", "/livez", "/readyz", "/monitoring/prometheus/metrics"
OPEN = (LIVE, READY)  # what asks for them, such as Kubernetes, has no token
HTTP_CODES = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "DEADLINE_EXCEEDED": 408,
    "RESOURCE_EXHAUSTED": 503,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
}
REASONS_OF_GUARD = {  # what `Guard` refused, by its status
    400: ("INVALID_ARGUMENT", "invalid"),
    401: ("UNAUTHENTICATED", "unauthorised"),
    403: ("PERMISSION_DENIED", "unauthorised"),
    404: ("NOT_FOUND", "invalid"),
    405: ("UNIMPLEMENTED", "invalid"),
    408: ("DEADLINE_EXCEEDED", "too_slow"),
    413: ("RESOURCE_EXHAUSTED", "too_large"),
    503: ("RESOURCE_EXHAUSTED", "too_many_waiting"),
}
SEEN = "tf_reid.seen"  # in a request's scope: what is counted of it


class RestFront:
    """TensorFlow Serving's REST interface, as an ASGI application."""

    def __init__(self, front: Front, rules: Rules):
        self.front = front
        self.guarded: ASGIApp = Guard(self.answer, rules._replace(open_paths=OPEN))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it, and count it if it asks the models."""
        if scope["type"] != "http" or scope["path"] in (*OPEN, METRICS):
            return await self.guarded(scope, receive, send)
        start, identifier, seen, status = time.monotonic(), uuid.uuid4().hex, {}, 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", identifier.encode())]}
            await send(message)

        await self.guarded({**scope, SEEN: seen}, receive, send_named)
        reply = seen.get("reply") or _refused(status)
        seconds, address = time.monotonic() - start, ":".join(map(str, scope.get("client") or ()))
        size = seen.get("bytes", 0)
        self.front.monitoring.request(identifier, "rest", scope["method"], reply, size, seconds, address)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What stands behind `Guard`, which has read the body."""
        path, method = scope["path"], scope["method"]
        if method in ("GET", "HEAD") and path == LIVE:
            return await _send_json(send, 200, {"live": True})
        if method in ("GET", "HEAD") and path == READY:
            reason = self.front.why_not_ready()
            return await _send_json(send, 503 if reason else 200, {"ready": not reason, "reason": reason})
        if method == "GET" and path == METRICS:
            return await _send(send, 200, self.front.monitoring.metrics(), CONTENT_TYPE)
        if not path.startswith(MODELS) or method not in ("GET", "POST"):
            status = 405 if path.startswith(MODELS) else 404
            return await _send_json(send, status, {"error": f"{http.HTTPStatus(status).phrase}; see {MODELS}NAME."})
        body = (await receive())["body"]
        call = Call("rest", f"{method} {path.removeprefix(MODELS)}", body)
        reply = await _unless_left(self.front.answer(call), receive)
        if SEEN in scope:
            scope[SEEN].update(reply=reply, bytes=len(body))
        if reply.code == "OK":
            return await _send(send, 200, reply.content, "application/json")
        status = 429 if reply.reason == "too_many_slow" else HTTP_CODES.get(reply.code, 500)
        await _send_json(send, status, {"error": reply.sentence}, [(b"retry-after", b"1")] if status == 503 else [])


async def _unless_left(answer, receive):
    """The reply, which is no longer waited for where the client leaves."""
    replied, left = asyncio.ensure_future(answer), asyncio.ensure_future(receive())
    try:
        await asyncio.wait({replied, left}, return_when=asyncio.FIRST_COMPLETED)
        if not replied.done():
            raise ClientLeft
        return replied.result()
    finally:
        replied.cancel()
        left.cancel()


def _refused(status):
    """The reply that stands for what `Guard` answered; status 0: the client left."""
    code, reason = REASONS_OF_GUARD.get(status, ("CANCELLED", "client_left") if status == 0 else ("INTERNAL", "failed"))
    return Reply(code, reason=reason)


async def _send_json(send: Send, status: int, content: dict[str, Any], headers=()):
    await _send(send, status, json.dumps(content).encode(), "application/json", headers)


async def _send(send, status, content, kind, headers=()):
    about = [(b"content-type", kind.encode()), (b"content-length", str(len(content)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": about})
    await send({"type": "http.response.body", "body": content})
