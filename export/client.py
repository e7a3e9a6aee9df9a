"""Embeddings from a server, TF Serving or `export.serve`, by gRPC or REST.

python -m export.client localhost:8500 simpgan crops/ --to embeddings.npz

As a library: `Client("localhost:8500", "simpgan").embed(files)`, or `.embed_frames(arrays)`. Importing this module
loads no TensorFlow.
"""

import argparse
import base64
import io
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from tqdm import tqdm

from tf_reid.command_line import positive, run_command
from tf_reid.encoders.image_checks import ImageError, check_array
from tf_reid.files import images_in, write_bytes
from tfds_builders import images
from tfds_builders.listing import shown

Value = TypeVar("Value")
Ask = Callable[[list[bytes]], np.ndarray]  # encoded images -> embeddings float32 [B, D]

RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.5s",
                "maxBackoff": "10s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            },
        }
    ]
}
MESSAGE_BYTES = 2**28


class ServerError(RuntimeError):
    """The server gave no embedding; the message is the server's.

    Attributes:
        refused: whether it refused what it was sent, such as bytes that are no image.
    """

    def __init__(self, message: str, refused: bool = False):
        super().__init__(message)
        self.refused = refused


class Client:
    """Embeds images by one model of one server. It sends a request up to five times to a server that is busy.

    Args:
        server: "host:port" of gRPC, or "http://host:port" of REST.
        model: its name.
        version: the number of the model's version.
        label: the label of the version, where no number is given; None: the newest version.
        batch_size: images in one request.
        timeout: seconds that a request may take.
        token: of the server; default: the variable TF_REID_TOKEN, or none.
    """

    def __init__(
        self,
        server: str,
        model: str,
        *,
        version: int | None = None,
        label: str | None = "stable",
        batch_size: int = 32,
        timeout: float = 60.0,
        token: str | None = None,
    ):
        token = token or os.environ.get("TF_REID_TOKEN")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self.model, self.version, self.batch_size, self.timeout = model, version, batch_size, timeout
        self.label = label if version is None else None
        self._ask = self._by_rest(server) if server.startswith(("http://", "https://")) else self._by_grpc(server)

    def embed_bytes(self, encoded: Iterable[bytes]) -> Iterator[np.ndarray]:
        """The embedding of each encoded image (JPEG, PNG, BMP or WebP), float32 [D], in order.

        Raises:
            ServerError: the server refused a request, or cannot be reached.
        """
        for batch in _batched(encoded, self.batch_size):
            yield from self._ask(batch)

    def embed(self, files: Iterable[str | Path]) -> Iterator[np.ndarray]:
        """As `embed_bytes`, of files, also TIFF and GIF. What not every decoder reads alike is sent as a PNG.

        Raises:
            ImageError: a file cannot be read or is no sound image.
        """
        return self.embed_bytes(_plain(index, Path(file)) for index, file in enumerate(files))

    def embed_frames(self, frames: Iterable[np.ndarray], bgr: bool = False) -> Iterator[np.ndarray]:
        """As `embed_bytes`, of arrays, such as crops of a video's frames; sent without loss.

        Args:
            frames: uint8 [H, W, 3] in RGB, each of any size and strides.
            bgr: the colours are in the order blue, green, red, in which OpenCV reads them.

        Raises:
            ValueError: a frame has another type or shape, or no pixel; the message has its index.
        """
        return self.embed_bytes(_png(index, frame, bgr) for index, frame in enumerate(frames))

    def _by_grpc(self, server: str) -> Ask:
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

        options = [
            ("grpc.service_config", json.dumps(RETRIES)),
            # More than this is not kept to be sent again; gRPC's own 256 KiB are a few crops.
            ("grpc.per_rpc_retry_buffer_size", MESSAGE_BYTES),
            ("grpc.max_send_message_length", MESSAGE_BYTES),
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ]
        stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server, options))

        def ask(images):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = self.model
            if self.version is not None:
                request.model_spec.version.value = self.version
            if self.label is not None:
                request.model_spec.version_label = self.label
            encoded = request.inputs["image_bytes"]
            encoded.dtype = tf.string.as_datatype_enum
            encoded.tensor_shape.dim.add(size=len(images))
            encoded.string_val.extend(images)
            try:
                metadata = list(self._headers.items())
                outputs = stub.Predict(request, timeout=self.timeout, metadata=metadata).outputs
            except grpc.RpcError as error:
                refused = error.code() is grpc.StatusCode.INVALID_ARGUMENT
                message = f"{server}: {error.code().name}: {error.details()}"
                if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    message += (
                        " (Is the server up, and is this its gRPC port? Give HOST:PORT, such as localhost:8500, or for "
                        "REST http://HOST:PORT.)"
                    )
                raise ServerError(message, refused) from None
            if "embedding" not in outputs:
                raise ServerError(f"{server}: {self.model} answers {', '.join(sorted(outputs))}, and no embedding.")
            return tf.make_ndarray(outputs["embedding"])

        return ask

    def _by_rest(self, server: str) -> Ask:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry

        retries = Retry(4, backoff_factor=0.5, status_forcelist=(429, 502, 503, 504), allowed_methods=None)
        session = requests.Session()
        session.headers.update(self._headers)
        session.mount(server, HTTPAdapter(max_retries=retries))
        chosen = ""  # the newest version
        if self.version is not None:
            chosen = f"/versions/{self.version}"
        elif self.label is not None:
            chosen = f"/labels/{self.label}"
        url = f"{server.rstrip('/')}/v1/models/{self.model}{chosen}:predict"

        def ask(images):
            rows = [{"b64": base64.b64encode(image).decode()} for image in images]
            try:
                answer = session.post(url, json={"instances": rows}, timeout=self.timeout)
            except requests.RequestException as error:
                raise ServerError(f"{server}: {error}") from None
            if answer.status_code != 200:
                raise ServerError(f"{url}: {answer.status_code}: {_begin(answer)}", answer.status_code in (400, 413))
            try:
                return np.array(answer.json()["predictions"], np.float32)
            except (ValueError, KeyError, TypeError):  # another server's page, or another model's answer
                raise ServerError(f"{url} answers no embeddings but {_begin(answer)} (Is it a REST port?)") from None

        return ask


def _plain(index: int, file: Path) -> bytes:
    try:
        return images.plain(images.read_image(file))
    except OSError as error:
        raise ImageError(index, file, f"cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ImageError(index, file, str(error)) from None


def _png(index: int, frame: np.ndarray, bgr: bool) -> bytes:
    check_array(f"Frame {index}", frame)
    return cv2.imencode(".png", np.ascontiguousarray(frame if bgr else frame[..., ::-1]))[1].tobytes()


def _begin(answer):
    """How a server's answer begins, on one line."""
    return " ".join(answer.text[:500].split())


def _batched(values: Iterable[Value], size: int) -> Iterator[list[Value]]:  # itertools has it from Python 3.12 on
    values = iter(values)
    while batch := list(itertools.islice(values, size)):
        yield batch


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m export.client", description="Embed images by a server.")
    parser.add_argument("server", help="host:port of gRPC, or http://host:port of REST")
    parser.add_argument("model", help="the served model's name")
    parser.add_argument("paths", nargs="+", type=Path, help="images, and folders of images")
    parser.add_argument("--to", type=Path, required=True, help="the .npz file to write: embedding [N, D], path [N]")
    parser.add_argument("--version", type=int, help="the number of the model's version (default: by --label)")
    parser.add_argument("--label", default="stable", help="the label of the model's version (default: stable)")
    parser.add_argument("--token", help="the server's token (default: the variable TF_REID_TOKEN)")
    parser.add_argument("--batch", type=positive, default=32, help="images in one request (default: 32)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    files = images_in(args.paths)
    chosen = {"version": args.version, "label": args.label}
    client = Client(args.server, args.model, **chosen, batch_size=args.batch, token=args.token)
    paths, embeddings = [], []
    with tqdm(total=len(files), unit="image") as bar:
        for batch in _batched(files, args.batch):
            for path, embedding in embed_or_leave_out(client, batch):
                paths.append(str(path))
                embeddings.append(embedding)
            bar.update(len(batch))
    if not embeddings:
        raise ServerError(f"{args.server} embedded none of {len(files)} images.")
    content = io.BytesIO()
    np.savez(content, embedding=np.stack(embeddings), path=np.array(paths))
    write_bytes(args.to, content.getvalue())
    print(f"{len(embeddings)} embeddings of {len(embeddings[0])} numbers: {args.to}")


def embed_or_leave_out(client: Client, files: list[Path]) -> list[tuple[Path, np.ndarray]]:
    """The files that the server embeds, with their embeddings. The others are named on the screen, with the reason."""
    sound, contents = [], []
    for index, file in enumerate(files):
        try:
            contents.append(_plain(index, file))
            sound.append(file)
        except ImageError as error:
            print(f"Left out: {shown(file)}: It {error.reason}.")
    try:
        return list(zip(sound, client.embed_bytes(contents), strict=True))
    except ServerError as error:
        if not error.refused:
            raise
    embedded = []
    for file, content in zip(sound, contents, strict=True):
        try:
            (embedding,) = client.embed_bytes([content])
            embedded.append((file, embedding))
        except ServerError as error:
            if not error.refused:
                raise
            print(f"Left out: {shown(file)}: {error}")
    return embedded


if __name__ == "__main__":
    run_command(main)
