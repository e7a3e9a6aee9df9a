"""Requests to the search page that are malformed in many ways."""

import dataclasses

import numpy as np

from benchmarks.attack import images
from benchmarks.attack.cases import EITHER, REFUSE, Case, choose
from benchmarks.attack.http_requests import MIB, HttpRequest, no_http, odd_header

SEARCH = "/api/search"


def case(rng: np.random.Generator) -> Case:
    """One request; its content is an `HttpRequest`. Images are most of them."""
    makers = (with_image, with_query, with_path, with_header, other_protocol)
    return makers[int(rng.choice(len(makers), p=(0.6, 0.16, 0.08, 0.12, 0.04)))](rng)


def good() -> HttpRequest:
    """A request that has to be answered, whatever else goes on."""
    return search(images.plain("rgb"))


def with_header(rng: np.random.Generator) -> Case:
    return odd_header(rng, good())


def other_protocol(rng: np.random.Generator) -> Case:
    return no_http(rng, good())


def search(content: bytes, query: str = "?top=3") -> HttpRequest:
    return HttpRequest(path=SEARCH + query, body=content)


def with_image(rng: np.random.Generator) -> Case:
    if rng.random() < 0.01:
        content = choose(rng, (bytes, rng.bytes))(choose(rng, (7, 9, 32)) * MIB)
        return Case("an upload of up to 32 MiB", search(content), REFUSE)
    case = images.case(rng)
    return dataclasses.replace(case, content=search(case.content))


def with_query(rng: np.random.Generator) -> Case:
    """Parameters of a search that there are not or that are out of their range."""
    name = choose(rng, ("top", "since", "until", "camera", "other"))
    values = ["0", "-1", "51", "1e9", "1_0", "%D9%A3", "NaN", "", "%00", "%FF", "null", "[]", "3.7", "9" * 4000]
    values += ["1969-01-01", "2026-13-45", "2026-11-22T25:61", "2026-11-22T14:05%2B99:99", "'; drop table images;--"]
    query = "&".join(f"{name}={choose(rng, values)}" for _ in range(choose(rng, (1, 1, 2, 250))))
    return Case(f"query: {name}", search(images.plain("rgb"), f"?{query}".replace(" ", "+")), EITHER)


def with_path(rng: np.random.Generator) -> Case:
    method = choose(rng, ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "BREW"))
    paths = ("/", "/api/about", "/api", "/api/search/", "/api/..%2f..%2fetc/passwd", "//evil.example/", "/docs")
    path = choose(rng, (*paths, "/" + "a" * 5000, "/static/../../x", "/%00", "/api/about?" + "a=1&" * 3000))
    return Case(f"path: {method}", HttpRequest(method, path, may_be_dropped=True), EITHER)
