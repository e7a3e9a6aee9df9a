"""A web page to search a gallery by dropping a crop on it, and the interface that the page uses."""

import hmac
import secrets
import threading
from pathlib import Path

import fastapi
import uvicorn
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from tf_reid.config import ConfigError
from tf_reid.encoders import image_checks
from tf_reid.encoders.encoder import SEARCHING
from tf_reid.gallery import report
from tf_reid.gallery.crops import seconds
from tf_reid.gallery.faiss_gallery import Filters
from tf_reid.gallery.loopback import check_free, is_loopback

PAGE = Path(__file__).with_name("web_page.html")
MOST_MATCHES = 50


def create(gallery, embedder, read, token: str | None, hosts=("*",)) -> fastapi.FastAPI:
    """The page's application.

    Args:
        gallery: a `Gallery`. embedder: an `Embedder` of the same model. read: a record's path -> bytes or None.
        token: what `Authorization: Bearer` has to say; None: nothing.
        hosts: by which names the page may be asked for.
    """
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @app.get("/")
    async def page():
        nonce = secrets.token_urlsafe(16)
        allowed = f"default-src 'none'; connect-src 'self'; img-src data: blob:; script-src 'nonce-{nonce}'; "
        allowed += f"style-src 'nonce-{nonce}'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
        headers = {"Content-Security-Policy": allowed, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        return HTMLResponse(PAGE.read_text().replace("NONCE", nonce), headers=headers)

    @app.get("/api/about")
    async def about(request: fastapi.Request):
        _check(request, token)
        return await run_in_threadpool(gallery.summary)

    @app.post("/api/search")
    async def search(request: fastapi.Request, top: str = "12", since: str = "", until: str = ""):
        _check(request, token)
        try:
            limit = int(top)
            span = [seconds(time) if time else None for time in (since, until)]
        except ValueError:
            raise Refused(400, "top must be a number, since and until times such as 2026-11-22T14:05.") from None
        if not 1 <= limit <= MOST_MATCHES:
            raise Refused(400, f"top must be 1 to {MOST_MATCHES}.")
        content = await _body(request)
        filters = Filters(tuple(request.query_params.getlist("camera")), (), *span)
        return await run_in_threadpool(answer, content, limit, filters)

    one_at_a_time = threading.Lock()  # images are decoded: many large ones at once would take all memory

    def answer(content, limit, filters):
        with one_at_a_time:
            embedded, refused = embedder.embed([content], SEARCHING)
        if refused:
            raise Refused(415, f"The image {refused[0]}.")
        (matches,) = gallery.search(embedded, limit, filters)
        lines = [
            report.line_of(match, rank)
            | {"thumbnail": report.thumbnail(read(match.record.path)), "when": report.when(match.record.time)}
            for rank, match in enumerate(matches, 1)
        ]
        return {"matches": lines, "nobody": report.nobody(matches)}

    @app.exception_handler(Refused)
    async def refused(_request, error):
        return JSONResponse({"error": error.message}, error.status)

    return app


def run(gallery, embedder, read, host, port, token):
    """Serve the page until it is stopped.

    Raises:
        ConfigError: others could reach it and there is no token; the port is in use.
    """
    local = is_loopback(host)
    if not local and not token:
        raise ConfigError(
            f"--host {host} lets others reach the gallery: give a --token (or TF_REID_TOKEN) that they have to know, "
            "and put a proxy that speaks TLS in front."
        )
    check_free(host, port, "--port")
    hosts = (
        ("127.0.0.1", "localhost", "[::1]") if local else ("*",)
    )  # a foreign page that borrows our address is refused
    app = create(gallery, embedder, read, token, hosts)
    print(f"http://{host}:{port}/ searches {len(gallery)} images. Ctrl-C stops.", flush=True)
    uvicorn.run(app, host=host, port=port, log_level="warning")


class Refused(Exception):
    """A request that gets no answer: an HTTP status and a sentence."""

    def __init__(self, status, message):
        super().__init__(status, message)
        self.status, self.message = status, message


def _check(request, token):
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token is not None and not hmac.compare_digest(given.encode(), token.encode()):
        raise Refused(401, "A token is needed, and the right one.")


async def _body(request):
    """The image's bytes; more than an image may have are not read."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > image_checks.MOST_BYTES:
            raise Refused(413, f"The image is larger than {image_checks.MOST_BYTES} bytes.")
    return bytes(content)
