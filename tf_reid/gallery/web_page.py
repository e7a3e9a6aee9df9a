"""A web page that searches a gallery by an image dropped on it, and the interface that the page uses."""

import hmac
import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fastapi
import uvicorn
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from tf_reid.config import ConfigError
from tf_reid.encoders import image_checks
from tf_reid.gallery import embedding, report, times
from tf_reid.gallery.base import Gallery
from tf_reid.gallery.loopback import check_free, is_loopback
from tf_reid.gallery.records import Filters

PAGE = Path(__file__).with_name("web_page.html")
MOST_MATCHES = 50
POLICY = (
    "default-src 'none'; connect-src 'self'; img-src data: blob:; script-src 'nonce-{nonce}'; "
    "style-src 'nonce-{nonce}'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)


class RequestError(Exception):
    """A request that cannot be answered: an HTTP status and a sentence."""

    def __init__(self, status: int, message: str):
        super().__init__(status, message)
        self.status, self.message = status, message


def create(
    gallery: Gallery, encoder, read: Callable[[str], bytes | None], token: str | None, hosts: Sequence[str] = ("*",)
) -> fastapi.FastAPI:
    """The page's application.

    Args:
        encoder: the encoder that embedded the gallery's images. read: a record's path -> its bytes or None.
        token: what `Authorization: Bearer` has to hold; None: nothing.
        hosts: the names by which the page may be asked for.
    """
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    one_at_a_time = threading.Lock()  # images are decoded: many large ones at once would take all memory

    @app.get("/")
    async def page() -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        headers = {
            "Content-Security-Policy": POLICY.format(nonce=nonce),
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        return HTMLResponse(PAGE.read_text().replace("NONCE", nonce), headers=headers)

    @app.get("/api/about")
    async def about(request: fastapi.Request) -> dict[str, Any]:
        _check_token(request, token)
        return await run_in_threadpool(gallery.summary)

    @app.post("/api/search")
    async def search(request: fastapi.Request, top: str = "12", since: str = "", until: str = "") -> dict[str, Any]:
        _check_token(request, token)
        count, cameras = _count(top), tuple(request.query_params.getlist("camera"))
        filters = Filters(cameras, since=_time("since", since), until=_time("until", until))
        content = await _body(request)
        return await run_in_threadpool(nearest, content, count, filters)

    def nearest(content: bytes, count: int, filters: Filters) -> dict[str, Any]:
        with one_at_a_time:
            embeddings, errors = embedding.embed(encoder, [content], encoder.query_role)
        if errors:
            raise RequestError(415, f"The image {errors[0]}.")
        (matches,) = gallery.search(embeddings, count, filters)
        rows = []
        for rank, match in enumerate(matches, 1):
            shown = {"thumbnail": report.thumbnail(read(match.record.path)), "when": times.shown(match.record.time)}
            rows.append(report.as_dict(match, rank) | shown)
        return {"matches": rows, "unknown": report.is_unknown(matches)}

    @app.exception_handler(RequestError)
    async def in_json(_request: fastapi.Request, error: RequestError) -> JSONResponse:
        return JSONResponse({"error": error.message}, error.status)

    return app


def run(
    gallery: Gallery, encoder, read: Callable[[str], bytes | None], host: str, port: int, token: str | None
) -> None:
    """Serve the page until it is stopped.

    Raises:
        ConfigError: others could reach it and there is no token; the port is in use.
    """
    local = is_loopback(host)
    if not local and not token:
        raise ConfigError(
            f"--host {host} lets others reach the gallery: give a --token (or TF_REID_TOKEN) that they have to enter, "
            "and put a proxy that speaks TLS in front."
        )
    check_free(host, port, "--port")
    # A page of another site whose name leads to this machine is refused.
    hosts = ("127.0.0.1", "localhost", "[::1]") if local else ("*",)
    app = create(gallery, encoder, read, token, hosts)
    print(f"http://{host}:{port}/ searches {len(gallery)} images. Ctrl-C stops.", flush=True)
    uvicorn.run(app, host=host, port=port, log_level="warning")


def _check_token(request, token):
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token is not None and not hmac.compare_digest(given.encode(), token.encode()):
        raise RequestError(401, "This page needs its token; enter the right one.")


def _count(text):
    try:
        count = int(text)
    except ValueError:
        raise RequestError(400, f"top must be a number, not {text!r}.") from None
    if not 1 <= count <= MOST_MATCHES:
        raise RequestError(400, f"top must be 1 to {MOST_MATCHES}.")
    return count


def _time(name, text):
    try:
        return times.parse(text) if text else None
    except ValueError as error:
        raise RequestError(400, f"{name}: {error}.") from None


async def _body(request):
    """The image's bytes; reading stops at the size that an image may have."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > image_checks.MOST_BYTES:
            raise RequestError(413, f"The image is larger than {image_checks.MOST_BYTES} bytes.")
    return bytes(content)
