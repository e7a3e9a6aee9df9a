"""HTTP requests as they go over the wire, and what may be wrong with their headers, whatever server they go to."""

import dataclasses

import numpy as np

from benchmarks.attack.cases import ANSWER, EITHER, REFUSE, Case, choose

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class HttpRequest:
    """A request as it goes over the wire.

    Attributes:
        headers: more of them; a name of the usual ones (Host, Content-Length) takes their place, None leaves it out.
        raw: where given, it is sent as it is in place of all the rest.
        half_closes: nothing more is sent after it, and the other side is told so.
        may_be_dropped: the connection may be closed without an answer, for it is no HTTP.
        may_be_put_off: it is so large that the server may say 503, which asks to send it again later.
    """

    method: str = "POST"
    path: str = "/"
    headers: tuple[tuple[str, str | None], ...] = ()
    body: bytes = b""
    raw: bytes | None = None
    half_closes: bool = False
    may_be_dropped: bool = False
    may_be_put_off: bool = False

    def wire(self, host: str) -> bytes:
        if self.raw is not None:
            return self.raw
        usual = {"Host": host, "Connection": "close", "Content-Length": str(len(self.body))}
        for name, _ in self.headers:
            usual.pop(name, None)
        lines = [f"{name}: {value}" for name, value in [*usual.items(), *self.headers] if value is not None]
        head = "\r\n".join([f"{self.method} {self.path} HTTP/1.1", *lines, "", ""])
        return head.encode("utf-8", "surrogateescape") + self.body


def odd_header(rng: np.random.Generator, good: HttpRequest) -> Case:
    """A good request with a header that is wrong or unusual."""
    path, body = good.path, good.body
    kind = choose(rng, list(HEADERS))
    headers, demand = HEADERS[kind]
    if kind == "wrong Content-Length":
        length = choose(rng, ("-1", "1e3", "abc", "99999999999999999999", str(len(body) * 2), "0", "7", "+5", ""))
        shorter = length.isdigit() and int(length) <= len(body)
        request = HttpRequest(
            path=path, headers=(("Content-Length", length),), body=body, half_closes=True, may_be_dropped=True
        )
        return Case(f"header: Content-Length {length}", request, EITHER if shorter else REFUSE)
    if kind == "half-closed":
        request = HttpRequest(
            path=path, headers=(("Content-Length", "100000"),), body=body, half_closes=True, may_be_dropped=True
        )
        return Case(f"header: {kind}", request, REFUSE)
    may_stall = demand == EITHER  # where the server then waits for more; there is none
    request = HttpRequest(path=path, headers=headers, body=body, half_closes=may_stall, may_be_dropped=may_stall)
    return Case(f"header: {kind}", request, demand)


HEADERS: dict[str, tuple[tuple[tuple[str, str | None], ...], str]] = {
    "another Host": ((("Host", "evil.example"),), REFUSE),
    "a Host that begins like ours": ((("Host", "127.0.0.1.evil.example"),), REFUSE),
    "no Host": ((("Host", None),), REFUSE),
    "an empty Host": ((("Host", ""),), EITHER),  # no browser sends it
    "two Hosts": ((("Host", "127.0.0.1"), ("Host", "evil.example")), REFUSE),
    "another site's Origin": ((("Origin", "https://evil.example"),), REFUSE),
    "Origin null": ((("Origin", "null"),), REFUSE),
    "a cross-site fetch": ((("Sec-Fetch-Site", "cross-site"),), REFUSE),
    "a same-site fetch": ((("Sec-Fetch-Site", "same-site"),), REFUSE),
    "the page's own fetch": ((("Sec-Fetch-Site", "same-origin"),), ANSWER),
    "a header of 200 KB": ((("X-Long", "a" * 200_000),), EITHER),
    "5,000 headers": (tuple((f"X-{number}", "a") for number in range(5000)), EITHER),
    "a header with control characters": ((("X-Odd", "a\x00\x07\x1b[31m"),), EITHER),
    "a folded header": ((("X-Odd", "a\r\n b"),), EITHER),
    "an odd Content-Type": ((("Content-Type", "text/html; charset=utf-99"),), EITHER),
    "a multipart body that is none": ((("Content-Type", "multipart/form-data; boundary="),), EITHER),
    "Content-Encoding": ((("Content-Encoding", "gzip, br"),), EITHER),
    "Transfer-Encoding that is not kept to": ((("Transfer-Encoding", "chunked"),), EITHER),
    "Transfer-Encoding unknown": ((("Transfer-Encoding", "identity, cow"),), EITHER),
    "Expect": ((("Expect", "100-continue"),), EITHER),
    "Expect unknown": ((("Expect", "a miracle"),), EITHER),
    "Upgrade": ((("Upgrade", "websocket"), ("Connection", "Upgrade")), EITHER),
    "a Range": ((("Range", "bytes=5-1"),), EITHER),
    "an odd Authorization": ((("Authorization", "Bearer \udcff\udcfe"),), EITHER),
    "wrong Content-Length": ((), EITHER),
    "half-closed": ((), EITHER),
}


def no_http(rng: np.random.Generator, good: HttpRequest) -> Case:
    """Bytes that are another protocol or none; the connection may simply be closed."""
    start = f"POST {good.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()
    lines = {
        "noise": rng.bytes(int(rng.integers(1, 3000))),
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.bytes(500),
        "HTTP/0.9": b"GET /\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(40),
        "HTTP/9.9": b"GET / HTTP/9.9\r\n\r\n",
        "line ends of one kind": start.replace(b"\r\n", b"\n") + b"\n",
        "chunks of wrong length": start + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n0\r\n\r\n",
        "a chunk of 2^64": start + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nabc",
        "two lengths": start + b"Content-Length: 5\r\nContent-Length: 50\r\n\r\nhello",
        "length and chunks": start
        + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "a line of 300 KB": b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\n\r\n",
        "nothing": b"",
        "NULs": bytes(2000),
    }
    kind = choose(rng, list(lines))
    return Case(f"no HTTP: {kind}", HttpRequest(raw=lines[kind], half_closes=True, may_be_dropped=True), EITHER)
