"""A web page that searches a gallery by an image dropped on it, and the interface that the page uses."""

import http
import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fastapi
import uvicorn
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from tf_reid.gallery import embedding, report, times
from tf_reid.gallery.base import Gallery
from tf_reid.gallery.records import Filters
from tf_reid.web.bounded_decoding import Busy, Decoder
from tf_reid.web.connections import Connection
from tf_reid.web.guard import Guard, Rules, names
from tf_reid.web.loopback import check_free, check_token
from tfds_builders import images

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
    gallery: Gallery, encoder, read: Callable[[str], bytes | None], token: str | None, hosts: Sequence[str] = ()
) -> Guard:
    """The page's application.

    Args:
        encoder: the encoder that embedded the gallery's images. read: a record's path -> its bytes or None.
        token: what `Authorization: Bearer` has to hold; None: nothing.
        hosts: the names by which the page may be asked for; none: any name.
    """
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    decoder = Decoder()
    one_at_a_time = threading.Lock()  # images are decoded: many large ones at once would take all memory

    @app.get("/")
    async def page() -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        headers = {"Content-Security-Policy": POLICY.format(nonce=nonce)}
        return HTMLResponse(PAGE.read_text().replace("NONCE", nonce), headers=headers)

    @app.get("/api/about")
    async def about() -> dict[str, Any]:
        return await run_in_threadpool(gallery.summary)

    @app.post("/api/search")
    async def search(request: fastapi.Request, top: str = "12", since: str = "", until: str = "") -> dict[str, Any]:
        count, cameras = _count(top), tuple(request.query_params.getlist("camera"))
        filters = Filters(cameras, since=_time("since", since), until=_time("until", until))
        content = await request.body()
        return await run_in_threadpool(nearest, content, count, filters)

    def nearest(content: bytes, count: int, filters: Filters) -> dict[str, Any]:
        try:
            images.check(content)
            content = decoder.plain(content)
        except ValueError as error:
            raise RequestError(415, f"The image {error}.") from None
        except Busy as error:
            raise RequestError(429, str(error)) from None
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

    @app.exception_handler(HTTPException)
    async def no_such_route(_request: fastapi.Request, error: HTTPException) -> JSONResponse:
        sentence = f"{http.HTTPStatus(error.status_code).phrase}; the page is at /."
        return JSONResponse({"error": sentence}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(_request: fastapi.Request, _error: Exception) -> JSONResponse:
        return JSONResponse({"error": "The search failed; the server's own messages say why."}, 500)

    return Guard(app, Rules(tuple(hosts), token, images.MOST_BYTES, open_paths=("/",)))


def run(
    gallery: Gallery,
    encoder,
    read: Callable[[str], bytes | None],
    host: str,
    port: int,
    token: str | None,
    allowed_hosts: Sequence[str] = (),
) -> None:
    """Serve the page until it is stopped.

    Args:
        allowed_hosts: names by which the page may be asked for; on loopback, further ones.

    Raises:
        ConfigError: others could reach it and there is no token; the port is in use.
    """
    check_token(host, token, "the gallery")
    check_free(host, port, "--port")
    app = create(gallery, encoder, read, token or None, names(host, allowed_hosts))
    print(f"http://{host}:{port}/ searches {len(gallery)} images. Ctrl-C stops.", flush=True)
    uvicorn.run(app, host=host, port=port, log_level="warning", http=Connection, ws="none")


def _count(text):
    try:
        count = int(text)
    except ValueError:
        raise RequestError(400, f"top must be a number, not {text[:50]!r}.") from None
    if not 1 <= count <= MOST_MATCHES:
        raise RequestError(400, f"top must be 1 to {MOST_MATCHES}.")
    return count


def _time(name, text):
    try:
        return times.parse(text[:50]) if text else None
    except ValueError as error:
        raise RequestError(400, f"{name}: {error}.") from None
