"""An exported encoder beside the Keras model and ONNX Runtime; latency and throughput of a server.

python -m benchmarks.serving forward [--backbone ResNet50] [--size 256 128] [--batches 1 8 32]
python -m benchmarks.serving model FOLDER [--backbone ResNet50] [--size 256 128]
python -m benchmarks.serving server localhost:8500 MODEL IMAGE [--bare VERSION] [--clients 1 8 32]
python -m benchmarks.serving server http://localhost:8501 MODEL IMAGE ANOTHER
python -m benchmarks.serving losses FOLDER MODEL IMAGE [--replicas 2] [--clients 32]

`forward`: milliseconds an image. The encoder has random weights, and random statistics in its batch normalisations:
biases of zero would be left out. ONNX Runtime has the same folded network and as many threads as there are cores. Each
is timed in turn, several times over, and the median stands.
`model`: writes a folder of such an encoder, named `reid`, in two versions, for a server to serve; beside it a crop, a
photograph of 12 megapixels and the same photograph as a progressive JPEG.
`server`: every client sends one image a request, by gRPC or REST, and waits for the answer; each image is timed by
itself; beside it the model's own time without any server, where its version's folder is given.
`losses`: starts a server, kills one of its replicas, then moves the label `stable` to another version and back, all
under load by gRPC; counts the requests that got no answer, of clients that try again and of those that do not.
"""

import argparse
import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np


def main():
    args = arguments()
    {"forward": forward, "model": model, "server": server, "losses": losses}[args.command](args)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving")
    commands = parser.add_subparsers(dest="command", required=True)
    forwards = commands.add_parser("forward")
    forwards.add_argument("--backbone", default="ResNet50")
    forwards.add_argument("--size", type=int, nargs=2, default=[256, 128])
    forwards.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    forwards.add_argument("--rounds", type=int, default=12)
    models = commands.add_parser("model")
    models.add_argument("folder", type=Path)
    models.add_argument("--backbone", default="ResNet50")
    models.add_argument("--size", type=int, nargs=2, default=[256, 128])
    servers = commands.add_parser("server")
    servers.add_argument("server", help="host:port of gRPC, or http://host:port of REST")
    servers.add_argument("model")
    servers.add_argument("images", nargs="+", metavar="IMAGE")
    servers.add_argument("--bare", metavar="VERSION", help="also time this version's folder, loaded here, by itself")
    servers.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    servers.add_argument("--seconds", type=float, default=10.0)
    lossy = commands.add_parser("losses")
    lossy.add_argument("folder", type=Path)
    lossy.add_argument("model")
    lossy.add_argument("image", type=Path)
    lossy.add_argument("--replicas", type=int, default=2)
    lossy.add_argument("--clients", type=int, default=32)
    lossy.add_argument("--seconds", type=float, default=15.0, help="after each event (default: 15)")
    lossy.add_argument("--port", type=int, default=8500, help="of gRPC; REST takes the next one")
    return parser.parse_args(argv)


def forward(args):
    import cv2
    import onnxruntime
    import tensorflow as tf

    from benchmarks.onnx_rival import onnx_model
    from tf_reid.data.pipeline import as_seen
    from tf_reid.encoders.servable import Servable

    encoder = random_encoder(args.backbone, tuple(args.size))
    servable = Servable(encoder, tuple(args.size), flip=False, unit=True)
    calibration = np.random.default_rng(1).integers(256, size=(16, *args.size, 3), dtype=np.uint8)
    in_int8 = Servable(encoder, tuple(args.size), flip=False, unit=True, calibration=calibration)
    keras_own = tf.function(lambda images: tf.math.l2_normalize(encoder(as_seen(images), training=False), axis=-1))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would take the others' time
    exported = onnx_model(servable.embedded.graph, servable.embedded.outputs[0].op.name)
    rival = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    print(f"{args.backbone}, {args.size[0]}x{args.size[1]}, {os.cpu_count()} cores; milliseconds an image")
    for batch in args.batches:
        images = np.random.default_rng(0).integers(256, size=(batch, *args.size, 3), dtype=np.uint8)
        pixels = tf.constant(images)
        encoded = tf.constant([cv2.imencode(".jpg", image)[1].tobytes() for image in images])
        timed = {
            "Keras model": lambda pixels=pixels: keras_own(pixels).numpy(),
            "ONNX Runtime": lambda images=images: rival.run(None, {rival.get_inputs()[0].name: images})[0],
            "served, pixels": lambda pixels=pixels: servable.from_pixels(pixels)["embedding"].numpy(),
            "served in int8": lambda pixels=pixels: in_int8.from_pixels(pixels)["embedding"].numpy(),
            "served, JPEG": lambda encoded=encoded: servable.from_bytes(encoded)["embedding"].numpy(),
        }
        seconds = collections.defaultdict(list)
        for turn in range(args.rounds + 2):
            for name, run in timed.items():
                start = time.perf_counter()
                run()
                if turn >= 2:
                    seconds[name].append(time.perf_counter() - start)
        median = {name: float(np.median(taken)) for name, taken in seconds.items()}
        apart = np.abs(timed["ONNX Runtime"]() - timed["served, pixels"]()).max()
        print(f"batch {batch}; largest difference of the served model to ONNX Runtime's {apart:.1e}")
        for name, taken in median.items():
            against = [f"{median[other] / taken:5.2f} x {other}" for other in ("Keras model", "ONNX Runtime")]
            print(f"  {name:16}{1000 * taken / batch:8.2f} ms   {'   '.join(against)}")


def random_encoder(name, size, last_stride=2):
    """A backbone whose weights and batch normalisations are random."""
    import keras

    from tf_reid.networks.backbones import build_backbone

    keras.utils.set_random_seed(0)
    encoder, rng = build_backbone(name, size, last_stride=last_stride), np.random.default_rng(0)
    for weight in encoder.weights:
        if weight.path.endswith(("beta", "moving_mean")):
            weight.assign(rng.normal(0.0, 0.1, weight.shape))
        elif weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(rng.uniform(0.8, 1.2, weight.shape))
    return encoder


def model(args):
    from PIL import Image

    from export import deployment, saving
    from tf_reid.encoders.servable import Servable

    servable = Servable(random_encoder(args.backbone, tuple(args.size)), tuple(args.size), flip=False, unit=True)
    saving.save(servable, args.folder / "reid" / "1")
    deployment.write(args.folder)
    saving.save(servable, args.folder / "reid" / "2")  # to which `losses` moves the label `stable`
    blocks = np.random.default_rng(0).integers(256, size=(30, 40, 3), dtype=np.uint8)
    photograph = Image.fromarray(blocks).resize((4000, 3000), Image.Resampling.BICUBIC)
    photograph.resize(tuple(args.size)[::-1]).save(args.folder / "crop.jpg")
    photograph.save(args.folder / "photograph.jpg")
    photograph.save(args.folder / "progressive.jpg", progressive=True)


def server(args):
    for path in args.images:
        image = Path(path).read_bytes()
        print(f"{Path(path).name}, {len(image)} bytes, {args.server}")
        alone = bare(args, image) if args.bare else {}
        for clients in args.clients:
            timed(args, image, clients, alone.get(clients))


def timed(args, image, clients, alone):
    """Print images a second and latency of so many clients, each of which sends one image at a time.

    `alone`: images a second of the model alone, or None.
    """
    from export.client import Client

    taken, ready = [], threading.Barrier(clients)

    def one():
        client = Client(args.server, args.model)
        list(client.embed_bytes([image]))  # the connection
        ready.wait()
        stop = time.monotonic() + args.seconds
        while time.monotonic() < stop:
            start = time.perf_counter()
            list(client.embed_bytes([image]))
            taken.append(time.perf_counter() - start)

    _together(one, clients)
    p50, p99 = np.percentile(taken, [50, 99]) * 1000
    rate = len(taken) / args.seconds
    beside = f", {rate / alone:.2f} of the model alone" if alone else ""
    print(f"{clients:3d} clients: {rate:7.1f} images/s, p50 {p50:7.1f} ms, p99 {p99:7.1f} ms{beside}", flush=True)


def bare(args, image):
    """Images a second of the model on as many images at once as there are clients, decoding included."""
    import tensorflow as tf

    from tf_reid.encoders.servable import endpoints

    model, rates = endpoints(Path(args.bare))["serving_default"], {}
    for images in args.clients:
        batch, taken = tf.constant([image] * images), []
        for _ in range(30):
            start = time.perf_counter()
            model(image_bytes=batch)["embedding"].numpy()
            taken.append(time.perf_counter() - start)
        p50 = float(np.median(taken))
        rates[images] = images / p50
        print(f"the model alone, {images:2d} images at once: {1000 * p50:6.1f} ms, {images / p50:7.1f} images/s")
    return rates


def losses(args):
    """Print how many requests were sent and lost while a replica was killed and a version replaced."""
    from export import label

    line = [sys.executable, "-m", "export.serve", str(args.folder), "--replicas", str(args.replicas)]
    line += ["--grpc-port", str(args.port), "--rest-port", str(args.port + 1), "--poll-seconds", "1"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as server:
        try:
            if "Ctrl-C stops" not in server.stdout.readline():
                raise RuntimeError("The server did not start.")
            for tries in (1, 5):
                with _load(args, tries) as count:
                    events = (
                        ("nothing", lambda: None),
                        ("a replica is killed (SIGKILL)", lambda: kill_a_replica(server.pid, args)),
                        (
                            "stable moves to version 2",
                            lambda: label.main([str(args.folder), args.model, "stable", "2"]),
                        ),
                        (
                            "stable moves to version 1",
                            lambda: label.main([str(args.folder), args.model, "stable", "1"]),
                        ),
                    )
                    for name, event in events:
                        event()
                        time.sleep(args.seconds)
                        print(f"clients that try {tries} times: {name}: {count()}", flush=True)
        finally:
            server.send_signal(signal.SIGINT)


def kill_a_replica(server: int, args: argparse.Namespace) -> None:
    """SIGKILL for one of the replicas of a server, which is given by its process, once all of them run."""
    import psutil

    page = f"http://localhost:{args.port + 1}/monitoring/prometheus/metrics"
    while f"tf_reid_running_replicas {args.replicas}.0" not in urllib.request.urlopen(page).read().decode():
        time.sleep(0.5)
    children = psutil.Process(server).children(recursive=True)
    next(child for child in children if "ServeReplica" in child.name()).kill()


@contextlib.contextmanager
def _load(args, tries):
    """Inside, clients send one image after another; yields what says how many were answered and lost since before."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    from export.client import RETRIES

    config = [("grpc.service_config", json.dumps(RETRIES))] if tries > 1 else [("grpc.enable_retries", 0)]
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.version_label = args.model, "stable"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([args.image.read_bytes()]))
    stopped, taken, lost = threading.Event(), [], []

    def send():
        stub = prediction_service_pb2_grpc.PredictionServiceStub(
            grpc.insecure_channel(f"localhost:{args.port}", [*config, ("grpc.use_local_subchannel_pool", 1)])
        )
        while not stopped.is_set():
            start = time.perf_counter()
            try:
                version = stub.Predict(request, timeout=60).model_spec.version.value
                taken.append((time.perf_counter() - start, version))
            except grpc.RpcError as error:
                lost.append(error.code().name)

    def count():
        answered, errors = list(taken), list(lost)
        del taken[: len(answered)], lost[: len(errors)]
        if not answered:
            return f"none answered, {len(errors)} lost"
        p50, p99 = np.percentile([seconds for seconds, _ in answered], [50, 99]) * 1000
        versions = dict(collections.Counter(version for _, version in answered))
        without = f"{len(errors)} lost" + (f" {dict(collections.Counter(errors))}" if errors else "")
        slowest = max(seconds for seconds, _ in answered)
        times = f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {slowest:.1f} s"
        return f"{len(answered)} answered by versions {versions}, {without}; {times}"

    threads = [threading.Thread(target=send) for _ in range(args.clients)]
    for thread in threads:
        thread.start()
    try:
        yield count
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def _together(run, count):
    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
