"""What the guard of both HTTP servers lets in, and in which form the server behind it sees it."""

import anyio
import pytest
from fastapi.testclient import TestClient
from starlette.responses import JSONResponse, PlainTextResponse

from tf_reid.web.guard import Guard, Rules, is_token, names

LOCAL = Rules(names("127.0.0.1", ["reid.example"]), token=None, most_bytes=1000, open_paths=("/",))


async def echo(scope, receive, send):
    """Answers with what it sees of a request."""
    message = await receive()
    headers = {key.decode(): value.decode() for key, value in scope["headers"]}
    await JSONResponse({"body": message["body"].decode(), "headers": headers})(scope, receive, send)


def ask(rules=LOCAL, method="GET", path="/api", content=b"", host="127.0.0.1:80", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    client = TestClient(Guard(echo, rules), base_url=f"http://{host}")
    return client.request(method, path, content=content, headers=headers)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8501", "LOCALHOST", "[::1]:80", "reid.example:443"])
def test_the_names_of_this_machine_are_let_in(host):
    assert ask(host=host).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.", "[::2]", "x" * 2000])
def test_other_names_are_refused(host):
    answer = ask(host=host)
    assert answer.status_code == 400 and "not known as" in answer.json()["error"] and len(answer.content) < 300


def test_names():
    assert names("127.0.0.1", []) == ("127.0.0.1", "localhost", "[::1]")
    assert names("127.0.0.2", [])[-1] == "127.0.0.2" and names("::1", [])[-1] == names("[::1]", [])[-1] == "[::1]"
    assert names("0.0.0.0", []) == () and names("0.0.0.0", ["Reid.example"]) == ("reid.example",)
    assert ask(LOCAL._replace(hosts=()), host="any.example").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:81"},
        {"origin": "http://[", "sec_fetch_site": "none"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "navigate"},
    ],
)
def test_pages_of_other_sites_are_refused(headers):
    answer = ask(**headers)
    assert answer.status_code == 403 and answer.json() == {"error": "A page of another site may not ask this server."}


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://127.0.0.1", "sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
        {"origin": "https://reid.example"},  # its proxy names another host to this server
    ],
)
def test_its_own_page_is_let_in(headers):
    assert ask(host="127.0.0.1", **headers).status_code == 200


def test_a_link_of_another_site_may_lead_to_the_page():
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert ask(path="/", **link).status_code == 200 and ask(path="/", method="POST", **link).status_code == 403


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Bearer secre", "Basic secret", "secret", "Bearer sécret"])
def test_a_token_is_asked_for(value):
    rules = LOCAL._replace(token="secret")
    for headers in ({"authorization": value.encode()}, {}):
        answer = ask(rules, **headers)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert ask(rules, authorization="Bearer secret").status_code == 200
    assert ask(rules, path="/").status_code == 200 and ask(rules, path="/", method="POST").status_code == 401
    assert is_token("bearer  secret", "secret") and not is_token(value, "secret")


@pytest.mark.parametrize("path", ["/", "/api"])
def test_every_answer_is_marked(path):
    for answer in (ask(path=path), ask(path=path, host="evil.example")):
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"


def test_the_server_sees_the_body_whole_and_few_headers():
    seen = ask(method="POST", content=b"body", content_type="a/b", x_request_timeout_seconds="-1", x_request_id=b"\xff")
    assert seen.json()["body"] == "body"
    assert seen.json()["headers"].keys() == {"accept", "host", "content-type", "content-length"}


@pytest.mark.parametrize("length", ["1001", "9" * 500, "-1", "1e3", "", "+5"])
def test_a_length_beyond_the_bound_or_that_is_none(length):
    answer = ask(method="POST", content_length=length)
    assert answer.status_code == (413 if length.isdigit() else 400) and answer.json()["error"].endswith(".")


def test_a_body_without_a_length_is_bounded_too():
    def parts(count):
        yield from [b"x" * 100] * count

    assert len(ask(method="POST", content=parts(10)).json()["body"]) == 1000
    assert ask(method="POST", content=parts(11)).status_code == 413


def test_who_closes_its_connection_after_its_request_sees_why_it_is_refused():
    sent = []

    def parts():
        for _ in range(15):
            sent.append(1)
            yield b"x" * 100

    client = TestClient(Guard(echo, LOCAL), base_url="http://127.0.0.1")
    assert client.post("/api", content=parts(), headers={"connection": "close"}).status_code == 413
    assert len(sent) == 15


def test_headers_that_are_there_twice_are_refused():
    client = TestClient(Guard(echo, LOCAL._replace(token="secret")), base_url="http://127.0.0.1")
    twice = [("authorization", "Bearer secret"), ("authorization", "Bearer other")]
    assert client.get("/api", headers=twice).status_code == 400


def test_large_bodies_are_given_to_the_server_one_at_a_time_and_small_ones_meanwhile():
    at_once, most, ends = 0, 0, []

    async def slow(scope, receive, send):
        nonlocal at_once, most
        size = len((await receive())["body"])
        at_once += size > 10
        most = max(most, at_once)
        await anyio.sleep(0.05 if size > 10 else 0)
        at_once -= size > 10
        ends.append(size)

    async def run():
        guard = Guard(slow, LOCAL._replace(small_bytes=10))
        async with anyio.create_task_group() as group:
            for size in (900, 900, 900, 5):
                group.start_soon(send, guard, size)

    async def send(guard, size):
        parts = [{"type": "http.request", "body": b"x" * size}]
        headers = [(b"content-length", str(size).encode())]
        scope = {"type": "http", "method": "POST", "path": "/api", "headers": headers}

        async def receive():
            return parts.pop()

        await guard(scope, receive, None)

    anyio.run(run)
    assert most == 1 and ends == [5, 900, 900, 900]


def test_clients_that_stall_in_a_large_body_take_no_place_from_a_good_one():
    async def stalls():
        await anyio.sleep_forever()

    async def whole():
        return {"type": "http.request", "body": b"x" * 900}

    async def run():
        guard = Guard(echo, LOCAL._replace(small_bytes=10, held_bytes=1000, seconds=5.0))
        statuses = []
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(guard, scope, stalls, None)  # each has announced all that may be held
            await anyio.sleep(0)
            with anyio.fail_after(4):
                await guard(scope, whole, answer(statuses))
            group.cancel_scope.cancel()
        return statuses

    def answer(statuses):
        async def send(message):
            statuses.append(message.get("status"))

        return send

    scope = {"type": "http", "method": "POST", "path": "/api", "headers": [(b"content-length", b"1000")]}
    assert anyio.run(run)[0] == 200


def test_errors_in_plain_text_become_a_sentence_in_json():
    async def failing(scope, receive, send):
        await PlainTextResponse("Traceback: of another program", 500, {"x-more": "1"})(scope, receive, send)

    answer = TestClient(Guard(failing, LOCAL), base_url="http://127.0.0.1").get("/api")
    assert answer.status_code == 500 and answer.json() == {"error": "The server failed; its log says why."}
    assert answer.headers["x-more"] == "1" and answer.headers["x-content-type-options"] == "nosniff"


def test_no_websocket_is_opened():
    sent = []

    async def send(message):
        sent.append(message["type"])

    anyio.run(Guard(echo, LOCAL), {"type": "websocket"}, None, send)
    assert sent == ["websocket.close"]
