"""The client asks something that is no server of models: the error is one sentence that names the server."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from export import client


@pytest.fixture
def server():
    """An HTTP server that answers every POST with `server.answer`: status, body."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            status, body = self.server.answer
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, b"<html>\n<body>Welcome</body>\n</html>", "answers no embeddings but <html> <body>Welcome"),
        (200, b"[]", "answers no embeddings but"),
        (200, b'{"outputs": 1}', "answers no embeddings but"),
        (200, b'{"predictions": [{"image_bytes": {"b64": "AAAA"}}]}', "answers no embeddings but"),
        (200, b'{"predictions": [[1], [1, 2]]}', "answers no embeddings but"),
        (404, b"<html>\n<h1>Not\nfound</h1>" + b" x" * 1000, "404: <html> <h1>Not found</h1> x x"),
    ],
)
def test_what_is_no_server_of_models_is_named_in_a_sentence(server, status, body, message):
    server.answer = status, body
    url = f"http://127.0.0.1:{server.server_port}"
    with pytest.raises(client.ServerError) as error:
        list(client.Client(url, "reid").embed_bytes([b"image"]))
    sentence = str(error.value)
    assert sentence.startswith(url) and message in sentence and len(sentence) < 700 and sentence.isprintable()


def test_grpc_sent_to_an_http_server_is_named_in_a_sentence(server):
    server.answer = 200, b""
    with pytest.raises(client.ServerError, match=r"^127.0.0.1:\d+: .*is this its gRPC port\? Give HOST:PORT"):
        list(client.Client(f"127.0.0.1:{server.server_port}", "reid", timeout=1).embed_bytes([b"image"]))
