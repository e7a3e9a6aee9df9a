"""Surfaces that are servers: the search page, REST and gRPC of the Ray server, the client's frames, stalled clients."""

import contextlib
import dataclasses
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.attack import frames, images, material, page_requests, rest_requests
from benchmarks.attack.cases import ANSWER, REFUSE, Case, choose
from benchmarks.attack.http_requests import HttpRequest
from benchmarks.attack.in_process import CLOSE, check_embedding
from benchmarks.attack.verdicts import Refused, ServerFault, WrongAnswer

PATIENCE = 15.0  # seconds that the client waits at most


class Address(NamedTuple):
    """A running server: its process, the file that takes what it prints, and its ports (the page has one)."""

    process: int
    log: Path
    http: int
    grpc: int = 0

    def tracebacks(self) -> int:
        """How many it has printed."""
        return self.log.read_text(errors="replace").count("Traceback (most recent call last)")


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@contextlib.contextmanager
def serving(place: Path) -> Iterator[Address]:
    """`python -m export.serve` on ports that are free."""
    http_port, grpc_port = free_port(), free_port()
    words = ["export.serve", str(place / "models"), "--rest-port", str(http_port), "--grpc-port", str(grpc_port)]
    log = place / "serve.log"
    with _running(words, log, http_port) as process:
        yield Address(process, log, http_port, grpc_port)


@contextlib.contextmanager
def searching(place: Path) -> Iterator[Address]:
    """`python -m tf_reid.search serve` on a port that is free."""
    port = free_port()
    model = str(place / "models" / material.MODEL / "1")
    words = ["tf_reid.search", "serve", "--index", str(place / "gallery"), "--model", model, "--port", str(port)]
    log = place / "page-server.log"
    with _running(words, log, port) as process:
        yield Address(process, log, port)


@contextlib.contextmanager
def _running(words, log, port):
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", *words], stdout=file, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + 180
        while "Ctrl-C stops" not in log.read_text(errors="replace") or not _listens(port):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"python -m {words[0]} did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.2)
        yield process.pid
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# ------------------------------------------------------------------ HTTP


class Reply(NamedTuple):
    status: int
    content: bytes


def exchange(port: int, request: HttpRequest, seconds: float = PATIENCE) -> Reply | None:
    """What the server answers; None where it closes the connection without an answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        with contextlib.suppress(ConnectionError):  # it may answer, and close, before all is sent
            connection.sendall(request.wire(f"127.0.0.1:{port}"))
            if request.half_closes:
                connection.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(connection, method=request.method)
        try:
            answer.begin()
            return Reply(answer.status, answer.read(64 * 2**20))
        except (http.client.HTTPException, ConnectionError, ValueError):
            return None


def checked(reply: Reply | None, request: HttpRequest) -> Reply:
    """The reply of an answered request; raises what `verdicts` has for all others."""
    if reply is None:
        if request.may_be_dropped:
            raise Refused("the connection was closed")
        raise WrongAnswer("the connection was closed without an answer")
    is_put_off = reply.status == 503 and request.may_be_put_off
    is_no_method = reply.status == 501 and request.method not in ("GET", "POST")
    if reply.status >= 500 and not is_put_off and not is_no_method:
        raise ServerFault(f"{reply.status}: {reply.content[:300].decode(errors='replace')}")
    if reply.status >= 300:
        needs_a_sentence = request.method != "HEAD" and reply.status >= 400
        sentence = reply.content.decode(errors="replace")
        raise Refused(f"{reply.status}: {sentence}" if sentence or not needs_a_sentence else "")
    return reply


class _Http:
    senders = 4

    def __init__(self, address: Address):
        self.port = address.http

    def send(self, case: Case) -> None:
        reply = exchange(self.port, case.content, max(PATIENCE, case.seconds or 0))
        content = checked(reply, case.content).content
        if case.picture is not None:
            self.check(case, json.loads(content))

    def good(self) -> None:
        reply = exchange(self.port, self.good_request)
        if reply is None or reply.status != 200:
            raise WrongAnswer(f"a good request was answered by {reply and (reply.status, reply.content[:300])}")
        self.check(Case("good", None, ANSWER, "rgb"), json.loads(reply.content))


class Rest(_Http):
    """The Ray server's REST interface."""

    good_request = rest_requests.good()

    def __init__(self, address: Address):
        super().__init__(address)
        self.references = {}
        for name in images.pictures():
            request = HttpRequest(path=rest_requests.PREDICT, body=rest_requests.body_of([images.plain(name)]))
            self.references[name] = _embedding(json.loads(checked(exchange(self.port, request), request).content))

    def case(self, rng: np.random.Generator) -> Case:
        return rest_requests.case(rng)

    def check(self, case, answer):
        check_embedding(case, _embedding(answer), self.references)


class Large(Rest):
    """Bodies of 31 MiB, eight at once; each may wait for others, and all together may not take the memory."""

    senders, stall = 8, 90.0

    def case(self, rng: np.random.Generator) -> Case:
        return dataclasses.replace(rest_requests.with_big_body(rng, sizes=(31,)), seconds=30.0)


def _embedding(answer):
    return np.array(answer["predictions"][0], np.float32)


class Page(_Http):
    """The search page, by the interface that the page itself uses."""

    good_request = page_requests.good()

    def case(self, rng: np.random.Generator) -> Case:
        return page_requests.case(rng)

    def check(self, case, answer):
        nearest = answer["matches"][0]
        expected = f"{case.picture.replace(' ', '_')}.png"
        if Path(nearest["path"]).name != expected or nearest["distance"] > (1e-4 if case.is_exact else 1 - CLOSE):
            raise WrongAnswer(f"read as another picture: the nearest is {nearest['path']} at {nearest['distance']:.4f}")


# ------------------------------------------------------------------ gRPC


OF_THE_CLIENT = {"CANCELLED", "DEADLINE_EXCEEDED"}
REFUSALS = {"INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "OUT_OF_RANGE", "FAILED_PRECONDITION"}
REFUSALS |= {"PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED"}


class Grpc:
    """The Ray server's gRPC interface, by raw messages."""

    senders = 4

    def __init__(self, address: Address):
        import grpc

        from benchmarks.attack import grpc_requests

        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{address.grpc}", options)
        self.requests, self.good_request = grpc_requests, grpc_requests.good()
        self.references = {}
        for name in images.pictures():
            message = grpc_requests.predict({"image_bytes": [images.plain(name)]}).SerializeToString()
            self.references[name] = self._embedding(self._call(grpc_requests.GrpcRequest(message)))

    def case(self, rng: np.random.Generator) -> Case:
        return self.requests.case(rng)

    def send(self, case: Case) -> None:
        import grpc

        try:
            answer = self._call(case.content)
        except grpc.RpcError as error:
            code, details = error.code().name, error.details() or ""
            if code in OF_THE_CLIENT and case.content.timeout < 1:
                raise Refused(f"{code}: the caller left") from None
            if code not in REFUSALS:
                raise ServerFault(f"{code}: {details[:300]}") from None
            raise Refused(details) from None
        if case.picture is not None:
            check_embedding(case, self._embedding(answer), self.references)

    def good(self) -> None:
        answer = self._call(self.good_request)
        check_embedding(Case("good", None, ANSWER, "rgb"), self._embedding(answer), self.references)

    def _call(self, request):
        return self.channel.unary_unary(request.method)(
            request.message, timeout=request.timeout, metadata=request.metadata
        )

    def _embedding(self, message):
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        return tf.make_ndarray(predict_pb2.PredictResponse.FromString(message).outputs["embedding"])[0]


class Frames(Grpc):
    """`export.client`: arrays that a program has by mistake, and sound ones however they lie in memory."""

    senders = 2

    def __init__(self, address: Address):
        super().__init__(address)
        from export.client import Client

        self.client = Client(f"127.0.0.1:{address.grpc}", material.MODEL, timeout=PATIENCE)

    def case(self, rng: np.random.Generator) -> Case:
        return frames.case(rng)

    def send(self, case: Case) -> None:
        from export.client import ServerError

        try:
            (embedding,) = self.client.embed_frames([case.content])
        except ServerError as error:
            if not error.refused:
                raise
            raise Refused(str(error)) from None
        except (TypeError, ValueError) as error:  # as `embed` raises them for an argument that is no image
            if "uint8" not in str(error) and "pixel" not in str(error):
                raise
            raise Refused(str(error)) from None
        check_embedding(case, embedding, self.references)


# ------------------------------------------------------------------ clients that stall


class Slow:
    """Clients that stall at once, in a crowd; each has to be closed in time, and good ones are answered meanwhile.

    One input is one client. It is `refused` where the server ends it, whatever it says.
    """

    senders = 100
    deadline = 45.0  # seconds until every one of them has to be closed
    stall = 90.0

    def __init__(self, address: Address, good: type[_Http]):
        self.port, self.server = address.http, good(address)

    def case(self, rng: np.random.Generator) -> Case:
        path = self.server.good_request.path
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
        with_length = f"{head}Content-Length: 100000\r\n\r\n".encode()
        starts = {
            "half a body": with_length + b"a" * 50_000,
            "no body": with_length,
            "a chunk": f"{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".encode(),
            "a byte a second": with_length,
            "half a header": head.encode(),
            "nothing": b"",
        }
        kind = choose(rng, list(starts))
        return Case(f"stalled: {kind}", (kind, starts[kind]), REFUSE, seconds=self.deadline)

    def send(self, case: Case) -> None:
        kind, start = case.content
        until = time.monotonic() + self.deadline
        with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
            connection.sendall(start)
            while time.monotonic() < until + 1:
                try:
                    if kind == "a byte a second":
                        connection.sendall(b"a")
                    content = connection.recv(65_536)
                except TimeoutError:
                    continue
                except ConnectionError:
                    content = b""
                raise Refused(content[:500].decode(errors="replace") or "the connection was closed")
        raise WrongAnswer("still open")

    def good(self) -> None:
        self.server.good()
