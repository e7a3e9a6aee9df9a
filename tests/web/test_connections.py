"""Clients that stall, over real sockets: none keeps a connection, and others are answered meanwhile."""

import contextlib
import json
import socket
import threading
import time

import pytest
import uvicorn
from starlette.responses import JSONResponse

from tf_reid.web.connections import Connection
from tf_reid.web.guard import Guard, Rules

DEADLINE = 0.6  # a busy machine may hold this process up for some of it
HEADER = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
LARGE = 2**23  # bytes of an answer, more than sockets hold


class Impatient(Connection):
    seconds = DEADLINE
    most = 20


async def app(scope, receive, send):
    body = (await receive())["body"]
    if body == b"busy":  # the server takes up no connection meanwhile
        time.sleep(0.5)
    await JSONResponse("x" * LARGE if body == b"large" else len(body))(scope, receive, send)


@pytest.fixture(scope="module")
def port():
    guard = Guard(app, Rules(("localhost",), None, 2**21, seconds=DEADLINE, small_bytes=2**16, held_bytes=2**21))
    config = uvicorn.Config(guard, port=0, http=Impatient, ws="none", log_level="critical", timeout_keep_alive=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


@contextlib.contextmanager
def connected(port, *parts, every=0.0):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        for part in parts:
            client.sendall(part)
            time.sleep(every)
        yield client


def answer(client):
    """The status and JSON of an answer; None where the connection was closed without one."""
    content = b""
    with contextlib.suppress(ConnectionError):
        while b"\r\n\r\n" not in content and (part := client.recv(2**16)):
            content += part
    if not content:
        return None
    header, _, body = content.partition(b"\r\n\r\n")
    body = body or client.recv(2**16)
    return int(header.split()[1]), json.JSONDecoder().raw_decode(body.decode())[0]  # the next answer may be behind it


def good(port):
    """The seconds that a good request takes."""
    start = time.monotonic()
    with connected(port, HEADER + b"Content-Length: 4\r\n\r\nbody") as client:
        assert answer(client) == (200, 4)
    return time.monotonic() - start


@pytest.mark.parametrize("part", [b"", HEADER, HEADER + b"X: 1\r\n"])
def test_a_header_that_never_ends_loses_its_connection(port, part):
    start = time.monotonic()
    with connected(port, part) as client:
        assert answer(client) is None
    assert time.monotonic() - start < 10 * DEADLINE


def test_a_header_that_trickles_does_too(port):
    with pytest.raises(ConnectionError), connected(port, *[b"X"] * 99, every=DEADLINE / 4):
        pytest.fail("its connection lived on")


@pytest.mark.parametrize(
    "length", [b"Content-Length: 100\r\n", b"Content-Length: 1000000\r\n", b"Transfer-Encoding: chunked\r\n"]
)
def test_a_body_that_never_comes_is_answered_and_loses_its_connection(port, length):
    with connected(port, HEADER + length + b"\r\n") as client:
        status, body = answer(client)
        assert status == 408 and "came too slowly" in body["error"]
        assert client.recv(1) == b""


def test_who_does_not_read_its_answer_loses_its_connection(port):
    with connected(port, HEADER + b"Content-Length: 5\r\n\r\nlarge") as client:
        time.sleep(3 * DEADLINE)
        received = 0
        with contextlib.suppress(ConnectionError):
            while part := client.recv(2**20):
                received += len(part)
        assert received < LARGE


def test_stalled_clients_keep_no_good_one_waiting(port):
    stalled = [b"", HEADER, HEADER + b"Content-Length: 100\r\n\r\n", HEADER + b"Content-Length: 2000000\r\n\r\n"]
    with contextlib.ExitStack() as clients:
        for number in range(100):
            clients.enter_context(connected(port, stalled[number % 4]))
        assert max(good(port) for _ in range(20)) < 10 * DEADLINE


def test_no_more_connections_than_the_bound_stay_open(port, monkeypatch):
    monkeypatch.setattr(Impatient, "seconds", 10.0)  # so that the bound alone closes connections
    with contextlib.ExitStack() as clients:
        clients.enter_context(connected(port, HEADER + b"Content-Length: 4\r\n\r\nbusy"))
        time.sleep(0.1)
        waiting = [clients.enter_context(connected(port)) for _ in range(3 * Impatient.most)]  # taken up all at once
        assert good(port) < 10 * DEADLINE
        for client in waiting:
            client.setblocking(False)
        assert sum(map(is_open, waiting)) < Impatient.most


def is_open(client):
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_one_connection_carries_many_requests_with_pauses(port):
    with connected(port) as client:
        for pause in (0, 2 * DEADLINE, 0):
            client.sendall(HEADER + b"Content-Length: 4\r\n\r\nbody")
            assert answer(client) == (200, 4)
            time.sleep(pause)
        client.sendall(2 * (HEADER + b"Content-Length: 1\r\n\r\nb"))  # the second before the first is answered
        assert answer(client) == (200, 1)


@pytest.mark.parametrize(
    ("request_bytes", "statuses"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", {400}),  # TLS
        (b"POST /\r\n\r\n", {400}),
        (HEADER + b"Content-Length: -1\r\n\r\n", {400}),
        (HEADER + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", {400}),
        (HEADER + b"Content-Length: 99999999999999999999\r\n\r\n", {413}),
        (HEADER + b"Content-Length: 5000000\r\nExpect: 100-continue\r\n\r\n", {413}),
        (HEADER + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", {400, 408}),
        (HEADER + b"Transfer-Encoding: gzip\r\n\r\n", {400, 501}),
        (HEADER + b"X: " + 700_000 * b"x" + b"\r\n\r\n", {400}),
        (HEADER + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx", {200}),
        (b"POST / HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 9\r\n\r\n", {400}),
    ],
)
def test_requests_of_no_sound_form_get_a_status_and_a_sentence(port, request_bytes, statuses):
    with connected(port, request_bytes) as client:
        found = answer(client)
        # A connection closed with bytes unread may lose the answer on its way.
        assert (found is None and len(request_bytes) > 2**16) or found[0] in statuses
        assert found is None or found[0] == 200 or found[1]["error"].endswith(".")
    assert good(port) < 10 * DEADLINE
