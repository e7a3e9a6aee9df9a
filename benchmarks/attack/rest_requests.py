"""Requests to the server's REST interface that are malformed in many ways."""

import base64
import dataclasses
import gzip
import json
from collections.abc import Callable

import numpy as np

from benchmarks.attack import images, material
from benchmarks.attack.cases import ANSWER, EITHER, REFUSE, Case, choose, damaged
from benchmarks.attack.http_requests import MIB, HttpRequest, no_http, odd_header

PREDICT = f"/v1/models/{material.MODEL}:predict"


def case(rng: np.random.Generator) -> Case:
    """One request; its content is an `HttpRequest`. Images and bodies are most of them."""
    makers = (sound, with_image, with_body, with_big_body, with_path, with_header, other_protocol)
    return makers[int(rng.choice(len(makers), p=(0.15, 0.2, 0.35, 0.01, 0.12, 0.12, 0.05)))](rng)


def good() -> HttpRequest:
    """A request that has to be answered, whatever else goes on."""
    return HttpRequest(path=PREDICT, body=body_of([images.plain("rgb")]))


def with_header(rng: np.random.Generator) -> Case:
    return odd_header(rng, good())


def other_protocol(rng: np.random.Generator) -> Case:
    return no_http(rng, good())


def body_of(contents: list[bytes], **more) -> bytes:
    rows = [{"b64": base64.b64encode(content).decode()} for content in contents]
    return json.dumps({"instances": rows, **more}).encode()


def sound(rng: np.random.Generator) -> Case:
    content = images.plain("rgb")
    row = {"b64": base64.b64encode(content).decode()}
    pixels = np.zeros((1, *material.IMAGE_SIZE, 3), int).tolist()
    kinds = ("rows", "columns", "named columns", "named rows", "pixels", "search", "version", "label", "GET")
    kind = choose(rng, kinds)
    path = {"version": f"/v1/models/{material.MODEL}/versions/1:predict"}.get(kind, PREDICT)
    path = f"/v1/models/{material.MODEL}/labels/stable:predict" if kind == "label" else path
    bodies = {
        "columns": {"inputs": [row]},
        "named columns": {"inputs": {"image_bytes": [row]}},
        "named rows": {"instances": [{"image_bytes": row}]},
        "pixels": {"signature_name": "tensor", "instances": pixels},
        "search": {"signature_name": "search", "instances": [row]},
    }
    if kind == "GET":
        path = choose(rng, (f"/v1/models/{material.MODEL}", f"/v1/models/{material.MODEL}/metadata"))
        return Case("sound: GET", HttpRequest("GET", path), ANSWER)
    body = json.dumps(bodies.get(kind, {"instances": [row]})).encode()
    picture = "rgb" if kind in ("rows", "version", "label") else None
    return Case(f"sound: {kind}", HttpRequest(path=path, body=body), ANSWER, picture)


def with_image(rng: np.random.Generator) -> Case:
    """An image, mostly malformed, in a request that is right."""
    case = images.case(rng)
    return dataclasses.replace(case, content=HttpRequest(path=PREDICT, body=body_of([case.content])))


def with_body(rng: np.random.Generator) -> Case:
    """A body that is no JSON, or is JSON of another form."""
    sound = body_of([images.plain("rgb")])
    if rng.random() < 0.3:
        done, body = damaged(rng, sound)
        return Case(f"body, {done}", HttpRequest(path=PREDICT, body=body), EITHER)
    kind = choose(rng, list(BODIES))
    body, demand = BODIES[kind]
    return Case(f"body: {kind}", HttpRequest(path=PREDICT, body=body(rng) if callable(body) else body), demand)


def _pixels(value: str) -> bytes:
    """Pixels of the right shape, all of one value as JSON writes it."""
    height, width = material.IMAGE_SIZE
    row = "[" + ",".join([f"[{','.join([value] * 3)}]"] * width) + "]"
    return f'{{"signature_name": "tensor", "instances": [[{",".join([row] * height)}]]}}'.encode()


def _instances(value: str) -> bytes:
    return f'{{"instances": {value}}}'.encode()


def _b64(rng: np.random.Generator) -> bytes:
    texts = ("=", "a", "%%%%", "AAAA\\n", "\\u0000", "Zoë", "", "A" * 99_999)
    values = (*(f'"{text}"' for text in texts), "null", "5", "[]", "{}")
    return _instances(f'[{{"b64": {choose(rng, values)}}}]')


def _nested(rng: np.random.Generator) -> bytes:
    depth = choose(rng, (50, 500, 5000, 100_000))
    opening, closing = choose(rng, (("[", "]"), ('{"a":', "}"), ('{"b64":', "}"), ('[{"inputs":', "}]")))
    return _instances(opening * depth + "1" + (closing * depth if rng.random() < 0.7 else ""))


def _other_endpoint(rng: np.random.Generator) -> bytes:
    names = ("none", "", "__init__", "tensor\x00", "a" * 5000, "\x1b[31m", 5, None, [], {}, True, 1.5, ["tensor"])
    name = choose(rng, names)
    return body_of([images.plain("rgb")], signature_name=name)


BODIES: dict[str, tuple[bytes | Callable[[np.random.Generator], bytes], str]] = {
    "empty": (b"", REFUSE),
    "spaces": (b" " * 3000, REFUSE),
    "noise": (lambda rng: rng.bytes(1000), REFUSE),
    "null": (b"null", REFUSE),
    "a number": (b"5", REFUSE),
    "a string": (b'"instances"', REFUSE),
    "a list": (b"[]", REFUSE),
    "an empty object": (b"{}", REFUSE),
    "both forms": (b'{"instances": [], "inputs": []}', REFUSE),
    "instances twice": (b'{"instances": [], "instances": 5}', REFUSE),
    "no instance": (_instances("[]"), REFUSE),
    "null instances": (_instances("null"), REFUSE),
    "null in instances": (_instances("[null]"), REFUSE),
    "true in instances": (_instances("[true]"), REFUSE),
    "an object of instances": (_instances('{"a": 1}'), REFUSE),
    "instances of several forms": (_instances('[{"b64": ""}, 5, "a", null, [1]]'), REFUSE),
    "instances of several names": (_instances('[{"image_bytes": {"b64": ""}}, {"images": 5}]'), REFUSE),
    "instances without names": (_instances("[{}, {}]"), REFUSE),
    "wrong names": (_instances('[{"\\u0000": {"b64": ""}, "' + "n" * 3000 + '": 5}]'), REFUSE),
    "nested b64": (_instances('[{"b64": {"b64": "AAAA"}}]'), REFUSE),
    "wrong b64": (_b64, REFUSE),
    "too many instances": (_instances("[" + ",".join(['{"b64": ""}'] * 5000) + "]"), REFUSE),
    "NaN": (_pixels("NaN"), REFUSE),
    "Infinity": (_pixels("-Infinity"), REFUSE),
    "1e999": (_pixels("1e999"), REFUSE),
    "256": (_pixels("256"), REFUSE),
    "-1": (_pixels("-1"), REFUSE),
    "half numbers": (_pixels("0.5"), REFUSE),
    "400 digits": (_pixels("9" * 400), REFUSE),
    "5,000 digits": (_instances("[" + "9" * 5000 + "]"), REFUSE),
    "texts as pixels": (_pixels('"7"'), REFUSE),
    "pixels as objects": (_pixels('{"b64": "AAAA"}'), REFUSE),
    "ragged pixels": (b'{"signature_name": "tensor", "instances": [[[1, 2, 3], [1, 2]], [[1]]]}', REFUSE),
    "one number": (b'{"signature_name": "tensor", "instances": [1]}', REFUSE),
    "empty rows": (b'{"signature_name": "tensor", "instances": [[[], []]]}', REFUSE),
    "40 dimensions": (b'{"signature_name": "tensor", "instances": ' + b"[" * 40 + b"1" + b"]" * 40 + b"}", REFUSE),
    "pixels to another endpoint": (_pixels("1").replace(b"tensor", b"search"), REFUSE),
    "columns that are no lists": (b'{"inputs": {"image_bytes": {"b64": "AAAA"}}}', REFUSE),
    "columns of numbers": (b'{"inputs": 5}', REFUSE),
    "lone surrogates": (b'{"inputs": {"\\ud800": [{"b64": "AAAA"}]}}', REFUSE),
    "deep": (_nested, REFUSE),
    "UTF-16": (lambda rng: body_of([images.plain("rgb")]).decode().encode("utf-16"), EITHER),
    "BOM": (lambda rng: b"\xef\xbb\xbf" + body_of([images.plain("rgb")]), EITHER),
    "no UTF-8": (b'{"instances": [{"b64": "\xff\xfe"}]}', REFUSE),
    "gzip": (lambda rng: gzip.compress(body_of([images.plain("rgb")])), REFUSE),
    "two documents": (lambda rng: body_of([b""]) * 2, REFUSE),
    "another endpoint": (_other_endpoint, EITHER),
}


def with_big_body(rng: np.random.Generator, sizes: tuple[int, ...] = (8, 16, 31, 33)) -> Case:
    """A body of up to 32 MiB, and of a little more."""
    size = choose(rng, sizes) * MIB
    kind = choose(rng, ("numbers", "lists", "a string", "b64", "spaces", "objects"))
    units = {"numbers": b"1,", "lists": b"[],", "a string": b"a", "b64": b"A", "spaces": b" ", "objects": b'{"a":1},'}
    start, end = {"a string": (b'"', b'"'), "b64": (b'[{"b64":"', b'"}]')}.get(kind, (b"[", b"1]"))
    body = b'{"instances":' + start + units[kind] * (size // len(units[kind])) + end + b"}"
    request = HttpRequest(path=PREDICT, body=body, may_be_put_off=True)
    return Case(f"body of {size // MIB} MiB: {kind}", request, REFUSE)


def with_path(rng: np.random.Generator) -> Case:
    """A path, a version, a label, a verb or a method that there is not."""
    body = body_of([images.plain("rgb")])
    if rng.random() < 0.3:
        methods = ("PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "CONNECT", "BREW", "post", "P\x00ST")
        method = choose(rng, methods)
        return Case(f"method {method!r}", HttpRequest(method, PREDICT, body=body, may_be_dropped=True), REFUSE)
    names = ("other", "", "..", "%2e%2e%2f", "reid%00", "reid/../reid", "a" * 5000, "%F0%9F", "名")
    versions = ("0", "-1", "9", "99999999999999999999", "²", "1/2", "")
    labels = ("none", "", "%00", "l" * 3000, "a/b", "stable/versions/1")
    verbs = ("", ":classify", ":regress", ":", ":predict:predict", ":predict/", "/metadata", ":predict?x=1#y")
    kind, model = choose(rng, ("model", "version", "label", "verb", "root")), f"/v1/models/{material.MODEL}"
    paths = {
        "model": f"/v1/models/{choose(rng, names)}:predict",
        "version": f"{model}/versions/{choose(rng, versions)}:predict",
        "label": f"{model}/labels/{choose(rng, labels)}:predict",
        "verb": f"{model}{choose(rng, verbs)}",
        "root": choose(
            rng, ("/", "/v1", "/v1/models", "/v2/models/reid", "/-/healthz", "/-/routes", "//", "/docs", "*")
        ),
    }
    return Case(f"path: {kind}", HttpRequest(path=paths[kind], body=body, may_be_dropped=True), EITHER)
