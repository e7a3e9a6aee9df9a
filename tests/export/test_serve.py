"""The server as its clients see it: gRPC by the unmodified stub, REST, and export.client by either."""

import asyncio
import base64
import contextlib
import http.client
import io
import itertools
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import grpc
import numpy as np
import prometheus_client.parser
import psutil
import pytest
import tensorflow as tf
from conftest import SIZE, make_records
from PIL import Image
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from export import client, cluster, deployment, label, monitoring, serve
from export.calls import Call, Reply
from export.front import Front
from export.grpc_front import GrpcFront
from tf_reid.config import ConfigError
from tf_reid.encoders.servable import Servable
from tf_reid.web.guard import Rules
from tf_reid.web.loopback import is_loopback

IMAGES = make_records([1, 1, 2, 2], [1, 2, 1, 2], size=(40, 30)).images.tolist()


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


class Running(NamedTuple):
    """A server of two replicas: its ports, the embeddings of IMAGES, its folder, its process, its access log."""

    grpc_port: int
    rest_port: int
    embeddings: np.ndarray
    folder: Path
    process: psutil.Process
    log: Path


@contextlib.contextmanager
def ended(process):
    """The process; where the block fails it is stopped, since waiting for it would never end."""
    with process:
        try:
            yield process
        except BaseException:
            process.send_signal(signal.SIGINT)
            raise


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    import keras

    folder = tmp_path_factory.mktemp("models")
    keras.utils.set_random_seed(0)
    images = keras.Input((*SIZE, 3))
    encoder = keras.Model(images, keras.layers.Dense(5)(keras.layers.Flatten()(images)))
    servable = Servable(encoder, SIZE, False, unit=True)
    own = servable.from_bytes(tf.constant(IMAGES))["embedding"].numpy()
    servable.search_in([f"{n}.png" for n in range(4)], own, top=2)
    for version in (1, 2, 3):
        tf.saved_model.save(servable, str(folder / "reid" / str(version)), signatures=servable.signatures())
    deployment.write(folder)
    label.main([str(folder), "reid", "stable", "1"])
    label.main([str(folder), "reid", "canary", "1"])
    ports = free_port(), free_port()
    line = [
        sys.executable,
        "-m",
        "export.serve",
        str(folder),
        "--grpc-port",
        str(ports[0]),
        "--rest-port",
        str(ports[1]),
    ]
    log = folder / "access.log"
    line += ["--max-images", "8", "--max-pixels", "100000", "--poll-seconds", "0.2", "--replicas", "2"]
    line += ["--access-log", str(log)]
    with ended(subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)) as process:
        lines = []
        for text in process.stdout:
            lines.append(text)
            if "Ctrl-C stops" in text:
                break
        assert process.poll() is None, "".join(lines)
        assert lines[-1].startswith(f"Serving {folder}: gRPC on ") and len(lines) == 1, lines
        running = Running(*ports, own, folder, psutil.Process(process.pid), log)
        token = token_file(running)
        yield running
        process.send_signal(signal.SIGINT)
        remaining = process.stdout.read().splitlines()
        # A test kills a replica, of which there is a report; all else would be news.
        reports = ("has died", "died or was killed", "A replica is lost")
        assert not [line for line in remaining if not any(report in line for report in reports)]
        assert process.wait(60) == 0
        assert not token.parent.exists()


def replicas_of(server):
    """The processes of the server's replicas."""
    return [child for child in server.process.children(recursive=True) if "ServeReplica" in child.name()]


def token_file(server):
    """The file of Ray's token, by a replica's environment."""
    return Path(replicas_of(server)[0].environ()["RAY_AUTH_TOKEN_PATH"])


def rest(port, path, body=None):
    """-> status, answer."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models/{path}", data, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def rows(images):
    return [{"b64": base64.b64encode(image).decode()} for image in images]


def test_the_stub_of_tensorflow_serving_is_answered(server):
    channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}")
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "reid"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(IMAGES))
    answer = stub.Predict(request, timeout=60)
    np.testing.assert_allclose(tf.make_ndarray(answer.outputs["embedding"]), server.embeddings, atol=1e-6)
    assert answer.model_spec.version.value == 1

    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    metadata.model_spec.name = "reid"
    signatures = get_model_metadata_pb2.SignatureDefMap()
    stub.GetModelMetadata(metadata, timeout=60).metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def) == {"serving_default", "tensor", "search"}

    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "reid"
    service = model_service_pb2_grpc.ModelServiceStub(channel)
    (version,) = service.GetModelStatus(status, timeout=60).model_version_status
    assert version.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE

    for change, code in (("name", "NOT_FOUND"), ("image", "INVALID_ARGUMENT"), ("type", "INVALID_ARGUMENT")):
        bad = predict_pb2.PredictRequest()
        bad.CopyFrom(request)
        if change == "name":
            bad.model_spec.name = "other"
        values = {"image": [IMAGES[0], b"no image"], "type": np.zeros(3, np.float32), "name": IMAGES}[change]
        bad.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(values))
        with pytest.raises(grpc.RpcError) as error:
            stub.Predict(bad, timeout=60)
        assert error.value.code().name == code, error.value.details()
    # A shape without as many numbers, of another type, of none at all.
    bad.model_spec.signature_name = "tensor"
    for values, sizes, message in (
        (np.zeros((1, *SIZE, 3), np.uint8), [2**20, *SIZE, 3], "and 1536 values"),
        (np.zeros((1, 1), np.float64), [2**28, 1], "must be of type uint8"),
        (np.uint8(1), [], "must have 4 dimensions"),
    ):
        bad.inputs.clear()
        bad.inputs["images"].CopyFrom(tf.make_tensor_proto(values))
        for dimension, size in zip(bad.inputs["images"].tensor_shape.dim, sizes, strict=True):
            dimension.size = size
        with pytest.raises(grpc.RpcError, match=message) as error:
            stub.Predict(bad, timeout=60)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    # A message that is no protocol buffer is the client's mistake.
    with pytest.raises(grpc.RpcError, match="cannot be parsed") as error:
        channel.unary_unary("/tensorflow.serving.PredictionService/Predict")(b"\xff" * 50, timeout=60)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    request.model_spec.signature_name = "search"
    request.output_filter.append("ids")
    outputs = stub.Predict(request, timeout=60).outputs
    assert set(outputs) == {"ids"}
    assert tf.make_ndarray(outputs["ids"])[:, 0].tolist() == [b"0.png", b"1.png", b"2.png", b"3.png"]
    request.output_filter.append("names")
    with pytest.raises(grpc.RpcError, match="no output 'names'"):
        stub.Predict(request, timeout=60)
    del request.output_filter[:]
    request.model_spec.signature_name = ""
    assert stub.Predict(request, timeout=60).outputs  # none of it harmed the server


def test_rest_answers_as_tensorflow_serving_does(server):
    expected = server.embeddings
    code, answer = rest(server.rest_port, "reid:predict", {"instances": rows(IMAGES)})
    assert code == 200
    np.testing.assert_allclose(answer["predictions"], expected, atol=1e-6)
    for inputs in (rows(IMAGES), {"image_bytes": rows(IMAGES)}):
        code, answer = rest(server.rest_port, "reid/versions/1:predict", {"inputs": inputs})
        np.testing.assert_allclose(answer["outputs"], expected, atol=1e-6)
    pixels = np.zeros((1, *SIZE, 3), int).tolist()
    code, answer = rest(
        server.rest_port, "reid/labels/stable:predict", {"signature_name": "tensor", "instances": pixels}
    )
    assert code == 200 and len(answer["predictions"][0]) == 5
    assert rest(server.rest_port, "reid")[1]["model_version_status"][0]["state"] == "AVAILABLE"
    signatures = rest(server.rest_port, "reid/metadata")[1]["metadata"]["signature_def"]["signature_def"]
    assert signatures["tensor"]["inputs"]["images"]["tensor_shape"]["dim"][1]["size"] == "32"
    code, answer = rest(server.rest_port, "reid:predict", {"signature_name": "search", "instances": rows(IMAGES[:3])})
    assert code == 200 and [row["ids"][0] for row in answer["predictions"]] == ["0.png", "1.png", "2.png"]
    assert len(answer["predictions"][0]["scores"]) == 2
    code, answer = rest(server.rest_port, "reid:predict", {"signature_name": "search", "inputs": rows(IMAGES[:1])})
    assert answer["outputs"]["ids"][0][0] == "0.png" and len(answer["outputs"]["scores"][0]) == 2


@contextlib.contextmanager
def load(server, clients=4):
    """Inside, clients send one image after another by gRPC, each once; yields errors and the versions of answers."""
    stub = prediction_service_pb2_grpc.PredictionServiceStub(
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", [("grpc.enable_retries", 0)])
    )
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.version_label = "reid", "stable"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(IMAGES[:1]))
    errors, versions, stopped = [], [], threading.Event()

    def send():
        while not stopped.is_set():
            try:
                answer = stub.Predict(request, timeout=60)
                np.testing.assert_allclose(
                    tf.make_ndarray(answer.outputs["embedding"]), server.embeddings[:1], atol=1e-6
                )
                versions.append(answer.model_spec.version.value)
            except Exception as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=send) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield errors, versions
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def test_a_version_is_replaced_and_a_replica_killed_under_load_and_no_request_is_lost(server):
    with load(server) as (errors, versions):
        for version in (2, 1):
            label.main([str(server.folder), "reid", "stable", str(version)])
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not errors and versions[-1:] != [version]:
                time.sleep(0.05)
            assert versions[-1] == version
        code, answer = rest(server.rest_port, "reid/labels/stable")
        assert code == 200 and [status["version"] for status in answer["model_version_status"]] == ["1"]
        replicas_of(server)[0].kill()
        answered = len(versions)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not errors and len(versions) < answered + 100:
            time.sleep(0.05)
    assert not errors and len(versions) >= answered + 100
    # Once a version is replaced, no replica answers by the old one.
    changes = sum(before != after for before, after in itertools.pairwise(versions))
    assert changes < 20 and versions[0] == versions[-1] == 1


def test_metrics_and_the_access_log_tell_what_was_asked_and_hold_no_image(server):
    def values():
        with urllib.request.urlopen(f"http://127.0.0.1:{server.rest_port}/monitoring/prometheus/metrics") as answer:
            families = list(prometheus_client.parser.text_string_to_metric_families(answer.read().decode()))
        samples = [sample for family in families for sample in family.samples]
        return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}

    before, lines = values(), server.log.read_text().count("\n")
    assert rest(server.rest_port, "reid:predict", {"instances": rows(IMAGES)})[0] == 200
    for body, path in (
        ({"instances": rows([b"no image"])}, "reid:predict"),
        ({"instances": rows([IMAGES[0]])}, "other:predict"),
        ({"instances": rows(IMAGES * 3)}, "reid:predict"),
        ({"signature_name": "other", "instances": rows(IMAGES)}, "reid:predict"),
        (b" " * (33 * 2**20), "reid:predict"),
    ):
        assert rest(server.rest_port, path, body)[0] in (400, 404, 413)
    after = values()

    def risen(name, **labels):
        key = (name, tuple(sorted(labels.items())))
        return after[key] - before.get(key, 0)

    assert risen("tf_reid_images_total", model="reid", version="1") == 4
    assert risen("tf_reid_requests_total", protocol="rest", model="reid", version="1", status="OK") == 1
    for reason, count in (("undecodable", 1), ("unknown_model", 1), ("too_large", 2), ("unknown_signature", 1)):
        assert risen("tf_reid_refusals_total", protocol="rest", reason=reason) == count
    assert risen("tf_reid_request_seconds_count", protocol="rest", model="reid") == 1
    assert risen("tf_reid_batch_images_sum") == 4 and risen("tf_reid_batch_seconds_count", part="model") >= 1
    assert after["tf_reid_ready", ()] == 1 and after["tf_reid_waiting_requests", ()] == 0
    assert after["tf_reid_label_version", (("label", "stable"), ("model", "reid"))] == 1

    written = [json.loads(line) for line in server.log.read_text().splitlines()[lines:]]
    answered = written[0]
    assert answered["status"] == "OK" and answered["images"] == 4 and answered["model"] == "reid"
    assert answered["protocol"] == "rest" and answered["milliseconds"] > 0 and "address" not in answered
    assert [line["reason"] for line in written[1:]] == [
        "undecodable",
        "unknown_model",
        "too_large",
        "unknown_signature",
        "too_large",
    ]
    assert max(map(len, server.log.read_text().splitlines())) < 400
    for path in ("readyz", "livez"):
        assert urllib.request.urlopen(f"http://127.0.0.1:{server.rest_port}/{path}").status == 200


@pytest.mark.parametrize(
    ("path", "body", "code", "message"),
    [
        ("other:predict", {"instances": []}, 404, "no model"),
        ("reid/versions/9:predict", {"instances": []}, 404, "no version 9"),
        ("reid/somewhere:predict", {"instances": []}, 404, "is not NAME"),
        ("reid:predict", b"{", 400, "not JSON"),
        ("reid:predict", [], 400, "must be an object"),
        ("reid:predict", {"instances": 5}, 400, "must be a list"),
        ("reid:predict", {"instances": [{"b64": "!"}]}, 400, "cannot be decoded"),
        ("reid:predict", {"instances": [{"b64": "aaaa"}]}, 400, "Image 0 is not a"),
        ("reid:predict", {"instances": [{"image": {"b64": "aaaa"}}]}, 400, "takes 'image_bytes'"),
        ("reid:predict", {"instances": [{"b64": "aaaa"}] * 9}, 400, "1 to 8 images"),
        ("reid:predict", {"signature_name": "other", "instances": []}, 404, "no endpoint 'other'"),
        ("reid:predict", {"signature_name": ["tensor"], "instances": []}, 400, "must be a string"),
        ("reid/versions/99999999999999999999:predict", {"instances": []}, 404, "is not NAME"),
        ("reid:predict", {"instances": ["x" * 100_000, ""]}, 400, "must be a list of"),
        ("reid:predict", {"signature_name": "tensor", "instances": [[[[0.5, 0, 0]]]]}, 400, "from 0 to 255"),
        ("reid:predict", {"signature_name": "tensor", "instances": [[[[300, 0, 0]]]]}, 400, "from 0 to 255"),
    ],
)
def test_what_is_wrong_gets_a_status_and_a_sentence(server, path, body, code, message):
    status, answer = rest(server.rest_port, path, body)
    assert status == code and message in answer["error"]


def test_no_client_stops_the_server(server):
    # Other names, other addresses, other routes.
    foreign = urllib.request.Request(f"http://127.0.0.1:{server.rest_port}/-/routes", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(foreign, timeout=60)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", server.grpc_port), timeout=10)
    assert rest(server.rest_port, "reid", {}) == (404, {"error": "POST to /v1/models/NAME:predict, not to 'reid'."})
    assert rest(server.rest_port, "../../nowhere")[0] == 404
    # What would take long, or much memory.
    many = b'{"signature_name": "tensor", "instances": [' + b"0," * 100_000 + b"0]}"
    assert "more than 22288 values" in rest(server.rest_port, "reid:predict", many)[1]["error"]
    slow = {"instances": rows([progressive_with_scans(20)])}
    start = time.monotonic()
    status, answer = rest(server.rest_port, "reid:predict", slow)
    assert status == 400 and "Image 0" in answer["error"] and time.monotonic() - start < 10
    # Clients that send half a request take no place from others.
    half = b"POST /v1/models/reid:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n{"
    with contextlib.ExitStack() as clients:
        for _ in range(200):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", server.rest_port), timeout=10))
            client.sendall(half)
        start = time.monotonic()
        assert rest(server.rest_port, "reid:predict", {"instances": rows(IMAGES)})[0] == 200
        assert time.monotonic() - start < 5


def progressive_with_scans(more):
    """A progressive JPEG whose last scan is there so many more times."""
    file = io.BytesIO()
    Image.effect_noise((300, 300), 50).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    return content[:-2] + more * content[content.rindex(b"\xff\xda") : -2] + content[-2:]


class Context:
    """Of a gRPC request."""

    def __init__(self, metadata=(), peer="ipv4:127.0.0.1:5000"):
        self.metadata, self.peer = metadata, lambda: peer

    def invocation_metadata(self):
        return self.metadata


def grpc_front(rules, local_only=False, handler=None):
    """A gRPC front whose calls are answered by `handler`, an asynchronous function of a call."""
    replicas = SimpleNamespace(running=1)
    front = Front(replicas, {}, 1, 1, monitoring.Monitoring())
    front.answer = handler
    return GrpcFront(front, rules, local_only)


def test_grpc_asks_for_the_token_and_for_a_local_client():
    def status(token, local_only=False, **context):
        refused = grpc_front(Rules((), token, 100), local_only).refusal(Context(**context))
        return refused and refused.code

    assert status(None) is None
    assert status("secret", metadata=[("authorization", "Bearer secret")]) is None
    for values in ((), ("Bearer other",), ("Bearer secret", "Bearer secret"), ("secret",)):
        assert status("secret", metadata=[("authorization", value) for value in values]) == "UNAUTHENTICATED"
    assert status(None, local_only=True, peer="ipv4:192.0.2.1:5000") == "PERMISSION_DENIED"
    assert status(None, local_only=True, peer="ipv6:%5B::ffff:127.0.0.1%5D:5000") is None


def test_large_grpc_messages_are_answered_one_at_a_time_and_many_are_refused():
    at_once, most = 0, 0

    async def handler(call):
        nonlocal at_once, most
        at_once += len(call.body) > 10
        most = max(most, at_once)
        await asyncio.sleep(0.05)
        at_once -= len(call.body) > 10
        return Reply("OK", b"answer")

    async def run():
        front = grpc_front(Rules((), None, most_bytes=100, small_bytes=10, held_bytes=250), handler=handler)
        asked = [front._answer(Call("grpc", "Predict", bytes(size))) for size in (100, 100, 100, 5)]
        return [(reply.content, reply.code) for reply in await asyncio.gather(*asked)]

    answered = (b"answer", "OK")
    assert asyncio.run(run()) == [answered, answered, (b"", "RESOURCE_EXHAUSTED"), answered] and most == 1


def test_the_token_and_the_names_become_rules(monkeypatch, tmp_path):
    monkeypatch.setenv("TF_REID_TOKEN", "secret")
    args = serve.arguments([str(tmp_path), "--allowed-host", "reid.example"])
    found = serve.rules(args, "127.0.0.1")
    assert found.token == "secret" and "reid.example" in found.hosts and found.most_bytes == args.max_request_bytes
    with pytest.raises(ConfigError, match=r"--host 0\.0\.0\.0 lets others reach the models: give a --token"):
        monkeypatch.delenv("TF_REID_TOKEN")
        serve.main([str(tmp_path), "--host", "0.0.0.0"])


def test_an_access_log_that_cannot_be_written_is_refused_at_start(monkeypatch, tmp_path):
    monkeypatch.setattr(serve, "served_models", lambda folder: None)
    with pytest.raises(ConfigError, match=r"--access-log .*none/log: the file cannot be written: No such file"):
        serve.main([str(tmp_path), "--access-log", str(tmp_path / "none" / "log")])


def test_ray_listens_on_this_machine_alone_and_asks_for_its_token(server):
    processes = [server.process, *server.process.children(recursive=True)]
    listening = [
        (process.name(), connection.laddr)
        for process in processes
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {server.grpc_port, server.rest_port} < {address.port for _, address in listening}
    assert not [each for each in listening if not is_loopback(each[1].ip)]
    token = token_file(server)
    assert token.stat().st_mode & 0o777 == 0o600 and token.parent.stat().st_mode & 0o777 == 0o700

    # Neither the jobs of the dashboard's agent nor the port that unpickles what it gets takes a call without it.
    answers = set()
    for name, address in listening:
        place = f"127.0.0.1:{address.port}"
        if "DashboardAgent" in name:
            with pytest.raises((urllib.error.URLError, http.client.HTTPException, OSError)) as error:
                urllib.request.urlopen(f"http://{place}/api/job_agent/jobs/", b'{"entrypoint": "id"}', timeout=10)
            assert getattr(error.value, "code", 401) in (401, 404, 405)
        if "ServeReplica" in name:
            call = grpc.insecure_channel(place).unary_unary("/ray.serve.ASGIService/HandleRequest")
            with pytest.raises(grpc.RpcError) as error:
                call(b"", timeout=10)
            answers.add(error.value.code().name)
    assert "UNAUTHENTICATED" in answers and answers <= {"UNAUTHENTICATED", "UNIMPLEMENTED"}


HOSTS = {"127.0.0.1": "127.0.0.1", "127.0.0.2": "127.0.0.2", "localhost": "127.0.0.1", "127.1": "127.0.0.1"}
HOSTS |= {"0.0.0.0": "0.0.0.0"} | ({"::1": "::1", "[::1]": "::1"} if socket.has_dualstack_ipv6() else {})


@pytest.mark.parametrize(("host", "address"), HOSTS.items())
def test_a_host_becomes_an_address_of_this_machine(host, address):
    assert serve.address_of(host) == address


@pytest.mark.parametrize("host", ["203.0.113.7", "", "a" * 70, "no-such-name.invalid", "1.2.3.4.5"])
def test_a_host_that_cannot_be_served_is_refused(host):
    with pytest.raises(ConfigError, match=r"^--host .* is (not an address of this machine; |neither an address nor )"):
        serve.address_of(host)


def test_ports_that_cannot_be_served_are_refused_at_start(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(serve, "served_models", lambda _folder: None)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = str(held.getsockname()[1])
        for option in ("--grpc-port", "--rest-port"):
            with pytest.raises(
                ConfigError, match=f"Port {port} of 127.0.0.1 cannot be used .*; choose another {option}"
            ):
                serve.main([str(tmp_path), option, port])
    with pytest.raises(ConfigError, match="cannot both use port 9000; choose another --rest-port"):
        serve.main([str(tmp_path), "--grpc-port", "9000", "--rest-port", "9000"])
    for option, value in (("--rest-port", "0"), ("--grpc-port", "70000"), ("--batch", "0"), ("--poll-seconds", "nan")):
        with pytest.raises(SystemExit):
            serve.arguments([str(tmp_path), option, value])
        assert f"argument {option}: {value} is not between" in capsys.readouterr().err


def test_the_pod_would_be_ready(server):
    command = deployment.ready(["reid"], server.rest_port)
    assert subprocess.run(["bash", "-c", command]).returncode == 0
    assert subprocess.run(["bash", "-c", deployment.ready(["other"], server.rest_port)]).returncode != 0


@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_the_client_embeds_files_folders_and_frames(server, tmp_path, kind, capsys):
    where = f"127.0.0.1:{server.grpc_port}" if kind == "grpc" else f"http://127.0.0.1:{server.rest_port}"
    (tmp_path / "crops").mkdir()
    for number, image in enumerate(IMAGES):
        (tmp_path / "crops" / f"{number}.png").write_bytes(image)
    (tmp_path / "crops" / "notes.txt").write_text("no image")
    client.main([where, "reid", str(tmp_path / "crops"), "--to", str(tmp_path / "embeddings.npz"), "--batch", "3"])
    assert "1 file is left out, without an image's suffix, such as notes.txt" in capsys.readouterr().err
    with np.load(tmp_path / "embeddings.npz") as written:
        np.testing.assert_allclose(written["embedding"], server.embeddings, atol=1e-6)
        assert [name[-5:] for name in written["path"]] == ["0.png", "1.png", "2.png", "3.png"]
    one = client.Client(where, "reid", label="stable")
    frames = [tf.io.decode_image(image).numpy() for image in IMAGES]
    np.testing.assert_allclose(list(one.embed_frames(frames)), server.embeddings, atol=1e-6)
    (tmp_path / "crops" / "9.png").write_text("no image either")
    client.main([where, "reid", str(tmp_path / "crops"), "--to", str(tmp_path / "embeddings.npz")])
    assert f"Left out: {tmp_path / 'crops' / '9.png'}: " in capsys.readouterr().out
    with np.load(tmp_path / "embeddings.npz") as written:
        np.testing.assert_allclose(written["embedding"], server.embeddings, atol=1e-6)
    with pytest.raises(client.ServerError, match="no model 'none'"):
        list(client.Client(where, "none").embed_bytes(IMAGES))
    with pytest.raises(FileNotFoundError, match=r"There is no .*nowhere"):
        client.images_in([tmp_path / "nowhere"])


def test_a_server_that_is_not_there_is_tried_again_and_then_named():
    for where in (f"127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"):
        start = time.monotonic()
        with pytest.raises(client.ServerError, match=r"127\.0\.0\.1"):
            list(client.Client(where, "reid", timeout=20).embed_bytes(IMAGES))
        assert time.monotonic() - start > 0.3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, as it is imported
@pytest.mark.parametrize("message", ["The deployment failed.\n  File x\nOSError: Cannot parse file.\n", ""])
def test_a_replica_that_does_not_start_is_reported_by_its_own_error(tmp_path, monkeypatch, message):
    """Ray's own error names the deployment only."""

    def run(*_args, **_options):
        raise RuntimeError("Failed to update the deployments ['Server'].")

    replica = SimpleNamespace(message=message)
    application = SimpleNamespace(deployments={"Server": replica})
    # It would be of this process, whose other tests start Ray, too.
    monkeypatch.setattr("tf_reid.encoders.private_ray.set_environment", lambda _folder: None)
    monkeypatch.setattr("ray.init", lambda **_: None)
    monkeypatch.setattr("ray.serve.start", lambda **_: None)
    monkeypatch.setattr("ray.serve.run", run)
    monkeypatch.setattr("ray.serve.status", lambda: SimpleNamespace(applications={"tf_reid": application}))
    expected = "OSError: Cannot parse file" if message else "Failed to update the deployments"
    with pytest.raises(RuntimeError, match=f"{tmp_path} cannot be served: {expected}"):
        cluster.start(serve.wanted_replicas(serve.arguments([str(tmp_path)])), tmp_path)


def test_a_start_that_failed_is_what_is_reported_and_ray_is_shut_down(monkeypatch):
    import ray
    import ray.serve

    def delete(_name):
        raise RuntimeError("There is no Serve instance.")

    ended = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append("ray"))
    monkeypatch.setattr(ray.serve, "delete", delete)
    with pytest.raises(OSError, match="the first error"):
        try:
            raise OSError("the first error")
        finally:
            cluster.stop(serve.wanted_replicas(serve.arguments(["models"])))
    assert ended == ["ray"]
