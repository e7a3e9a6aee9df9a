"""Serve a folder of exported models without containers: python -m export.serve models

Speaks TF Serving's gRPC PredictionService and ModelService, and its REST interface, on Ray Serve. What clients see is
what they would see of TF Serving; requests that come together are answered together.
"""

import argparse
import asyncio
import base64
import binascii
import json
import math
import os
import signal
import threading
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import fastapi
import grpc
import numpy as np
import ray
import tensorflow as tf
from fastapi.responses import JSONResponse
from google.protobuf import json_format
from ray import serve
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from export.served import Limits, Refused, Served, located
from tf_reid.loopback import is_loopback

SERVICERS = [
    "tensorflow_serving.apis.prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server",
    "tensorflow_serving.apis.model_service_pb2_grpc.add_ModelServiceServicer_to_server",
]
HTTP_CODES = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "PERMISSION_DENIED": 403, "UNIMPLEMENTED": 501}
rest = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


def arguments(argv=None):
    limits = Limits()
    parser = argparse.ArgumentParser(prog="python -m export.serve", description="Serve exported models.")
    parser.add_argument("folder", type=Path, help="where python -m export --to put them")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: all who reach this machine (default: it alone)")
    parser.add_argument("--grpc-port", type=int, default=8500)
    parser.add_argument("--rest-port", type=int, default=8501)
    parser.add_argument("--max-image-bytes", type=int, default=limits.image_bytes)
    parser.add_argument("--max-pixels", type=int, default=limits.pixels, help="of an image")
    parser.add_argument("--max-images", type=int, default=limits.images, help="in a request")
    parser.add_argument("--max-request-bytes", type=int, default=32 * 2**20)
    parser.add_argument("--queue", type=int, default=256, help="requests that may wait; others are told to come back")
    parser.add_argument("--batch", type=int, default=16, help="requests that are answered together")
    parser.add_argument("--wait", type=float, default=2.0, help="milliseconds that a request waits for others")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    stopped = threading.Event()
    try:
        start(args)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        where = f"gRPC on {args.host}:{args.grpc_port}, REST on http://{args.host}:{args.rest_port}/v1/models/NAME"
        print(f"Serving {args.folder}: {where}. Ctrl-C stops.", flush=True)
        stopped.wait()
    finally:
        stop()


def start(args):
    """Start Ray, its proxies and the models; returns once requests are answered.

    Raises:
        ConfigError: there is no model to serve.
    """
    limits = Limits(args.max_image_bytes, args.max_pixels, 2 * args.max_pixels, args.max_images)
    located(args.folder)  # what is wrong with the folder is told here, not by a replica's log
    os.environ["RAY_SERVE_GRPC_MAX_MESSAGE_SIZE"] = str(args.max_request_bytes)  # read by Ray's proxy
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": args.host, "port": args.rest_port, "request_timeout_s": 60},
        grpc_options={"port": args.grpc_port, "grpc_servicer_functions": SERVICERS, "request_timeout_s": 60},
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    deployment = serve.deployment(
        serve.ingress(rest)(Server),
        max_ongoing_requests=4 * args.batch,
        max_queued_requests=args.queue,
        ray_actor_options={"num_cpus": 0},  # not a reservation: TensorFlow takes the cores it finds
    )
    # Ray's gRPC port cannot be bound to one address, so others are turned away by where they come from.
    local_only = is_loopback(args.host)
    settings = {"batch": args.batch, "wait": args.wait / 1000.0, "most_bytes": args.max_request_bytes}
    bound = deployment.bind(str(args.folder.resolve()), tuple(limits), local_only=local_only, **settings)
    serve.run(bound, name="tf_reid", route_prefix="/")


def stop():
    serve.shutdown()
    ray.shutdown()


class Server:
    """One replica: gRPC methods by their names, REST by its routes, both by way of `_answer`."""

    def __init__(self, folder, limits, batch, wait, most_bytes, local_only):
        self.models = Served(Path(folder), Limits(*limits))
        self.most_bytes, self.local_only = most_bytes, local_only
        self._together.set_max_batch_size(batch)
        self._together.set_batch_wait_timeout_s(wait)

    @serve.batch
    async def _together(self, asked):
        return await asyncio.to_thread(self.models.answer, asked)

    async def _answer(self, model, endpoint, inputs) -> dict:
        values = await asyncio.to_thread(self.models.check, model, endpoint, inputs)
        answer = await self._together((model, endpoint, values))
        if isinstance(answer, Refused):
            raise answer
        return answer

    # --------------------------------------------------------------------- gRPC

    async def Predict(self, request, grpc_context):
        with _Told(grpc_context, self.local_only):
            model = self._specified(request.model_spec)
            specs = self.models.inputs_of(model, request.model_spec.signature_name)
            # What nobody asks for is not unpacked: `check` refuses it by its name.
            inputs = {
                name: _values(name, proto, specs[name]) if name in specs else []
                for name, proto in request.inputs.items()
            }
            found = await self._answer(model, request.model_spec.signature_name, inputs)
            if unknown := set(request.output_filter) - set(found):
                raise Refused("INVALID_ARGUMENT", f"There is no output {min(unknown)!r}, but {', '.join(found)}.")
            response = predict_pb2.PredictResponse()
            for name in request.output_filter or found:
                response.outputs[name].CopyFrom(tf.make_tensor_proto(found[name]))
            response.model_spec.name, response.model_spec.version.value = model.name, model.version
            response.model_spec.signature_name = request.model_spec.signature_name or "serving_default"
            return response

    async def GetModelMetadata(self, request, grpc_context):
        with _Told(grpc_context, self.local_only):
            model = self._specified(request.model_spec)
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            response.model_spec.name, response.model_spec.version.value = model.name, model.version
            response.metadata["signature_def"].Pack(_signatures(model))
            return response

    async def GetModelStatus(self, request, grpc_context):
        with _Told(grpc_context, self.local_only):
            return self._status(request.model_spec)

    async def _unknown(self, _request, grpc_context):
        with _Told(grpc_context, self.local_only):
            raise Refused("UNIMPLEMENTED", "These models answer Predict.")

    Classify = Regress = MultiInference = HandleReloadConfigRequest = _unknown

    def _specified(self, spec):
        choice = spec.WhichOneof("version_choice")
        return self.models.find(
            spec.name,
            spec.version.value if choice == "version" else None,
            spec.version_label if choice == "version_label" else None,
        )

    def _status(self, spec):
        response = get_model_status_pb2.GetModelStatusResponse()
        one = self._specified(spec)
        chosen = [one.version] if spec.WhichOneof("version_choice") else sorted(self.models.versions[one.name])
        for version in reversed(chosen):
            status = response.model_version_status.add(version=version, state="AVAILABLE")
            status.status.error_code = 0
        return response

    # --------------------------------------------------------------------- REST

    @rest.get("/v1/models/{path:path}")
    async def ask(self, path: str):
        try:
            name, version, label, verb = _place(path, "/metadata")
            spec = predict_pb2.PredictRequest().model_spec
            spec.name = name
            if version is not None:
                spec.version.value = version
            if label is not None:
                spec.version_label = label
            if not verb:
                return JSONResponse(_as_json(self._status(spec)))
            model = self._specified(spec)
            about = {"name": model.name, "version": str(model.version)}
            return JSONResponse({"model_spec": about, "metadata": {"signature_def": _as_json(_signatures(model))}})
        except Refused as refused:
            return _error(refused)

    @rest.post("/v1/models/{path:path}")
    async def predict(self, path: str, request: fastapi.Request):
        try:
            name, version, label, verb = _place(path, ":predict")
            if not verb:
                raise Refused("NOT_FOUND", f"POST to /v1/models/{name}:predict.")
            model = self.models.find(name, version, label)
            body = await asyncio.to_thread(_parsed, await self._read(request))
            endpoint = body.get("signature_name") or "serving_default"
            by_rows = "instances" in body
            asked = next(iter(self.models.inputs_of(model, endpoint)))
            inputs = await asyncio.to_thread(_inputs, body, asked, self.models.limits.images)
            found = await self._answer(model, endpoint, inputs)
            found = {name: _plain(name, values.tolist()) for name, values in found.items()}
            alone = next(iter(found.values())) if len(found) == 1 else None
            if not by_rows:
                return JSONResponse({"outputs": alone if alone is not None else found})
            rows = [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
            return JSONResponse({"predictions": alone if alone is not None else rows})
        except Refused as refused:
            return _error(refused)

    async def _read(self, request):
        """The body, as far as it may go."""
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self.most_bytes:
                raise Refused("INVALID_ARGUMENT", f"The request is larger than {self.most_bytes} bytes.")
        return body


class _Told:
    """Inside, what is refused becomes the status of a gRPC answer."""

    def __init__(self, context, local_only):
        self.context = context
        self.turned_away = local_only and not _is_local(context.peer())

    def __enter__(self):
        if self.turned_away:
            self._set(Refused("PERMISSION_DENIED", "This server answers its own machine; see --host."))
            raise PermissionError("not a local client")

    def __exit__(self, kind, error, _traceback):
        if isinstance(error, Refused):
            self._set(error)

    def _set(self, refused):
        self.context.set_code(grpc.StatusCode[refused.code])
        self.context.set_details(str(refused))


def _is_local(peer):
    """Of gRPC's name of a client, such as ipv4:127.0.0.1:5000 or ipv6:[::1]:5000."""
    kind, _, rest_of_it = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind == "unix"
    return is_loopback(rest_of_it.rpartition(":")[0].replace("%5B", "").replace("%5D", ""))


def _values(name, proto, spec):
    """A TensorProto, as the input's specification has it, -> a list of bytes, or uint8.

    A shape that says more numbers than there are would be filled up with the last one, to any size: it is refused.
    """
    if proto.dtype != spec.dtype.as_datatype_enum:
        raise Refused("INVALID_ARGUMENT", f"{name} must be of type {spec.dtype.name}.")
    sizes = [dimension.size for dimension in proto.tensor_shape.dim]
    if len(sizes) != spec.shape.rank or min(sizes) < 0:
        raise Refused("INVALID_ARGUMENT", f"{name} must have {spec.shape.rank} dimensions.")
    there = len(proto.string_val) or len(proto.tensor_content) or len(proto.int_val)
    if math.prod(sizes) != there:
        raise Refused("INVALID_ARGUMENT", f"{name} has the shape {sizes}, and {there} values.")
    return list(proto.string_val) if spec.dtype == tf.string else tf.make_ndarray(proto)


def _signatures(model):
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, function in model.endpoints.items():
        signature = signatures.signature_def[name]
        signature.method_name = "tensorflow/serving/predict"
        for side, specs in (
            (signature.inputs, function.structured_input_signature[1]),
            (signature.outputs, function.structured_outputs),
        ):
            for key, spec in specs.items():
                side[key].name, side[key].dtype = f"{name}_{key}:0", spec.dtype.as_datatype_enum
                side[key].tensor_shape.CopyFrom(spec.shape.as_proto())
    return signatures


def _place(path, verb):
    """NAME[/versions/N | /labels/L][verb] -> name, version, label, whether the verb is there.

    Raises:
        Refused: NOT_FOUND, it has another form.
    """
    has_verb = path.endswith(verb)
    name, *rest_of_it = path.removesuffix(verb).split("/")
    if not rest_of_it:
        return name, None, None, has_verb
    if len(rest_of_it) == 2 and rest_of_it[0] == "versions" and rest_of_it[1].isdecimal() and len(rest_of_it[1]) < 19:
        return name, int(rest_of_it[1]), None, has_verb
    if len(rest_of_it) == 2 and rest_of_it[0] == "labels":
        return name, None, rest_of_it[1], has_verb
    raise Refused("NOT_FOUND", f"/v1/models/{path} is not NAME, NAME/versions/N or NAME/labels/LABEL.")


def _parsed(body) -> dict:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused("INVALID_ARGUMENT", "The request is not JSON.") from None
    if not isinstance(found, dict) or ("instances" in found) == ("inputs" in found):
        raise Refused("INVALID_ARGUMENT", 'The request must be an object with either "instances" or "inputs".')
    return found


def _inputs(body, name, most) -> dict:
    """Of TF Serving's row or column form: input name -> values.

    Args:
        name: of the one input, where the request does not name it. most: images.
    """
    if "inputs" in body:
        given = body["inputs"]
        columns = given if isinstance(given, dict) and "b64" not in given else {name: given}
    else:
        rows = body["instances"]
        if not isinstance(rows, list):
            raise Refused("INVALID_ARGUMENT", '"instances" must be a list.')
        named = [row for row in rows if isinstance(row, dict) and "b64" not in row]
        if named and (len(named) < len(rows) or any(set(row) != set(rows[0]) for row in rows)):
            raise Refused("INVALID_ARGUMENT", "All instances must have the same keys.")
        columns = {key: [row[key] for row in rows] for key in rows[0]} if named else {name: rows}
    return {key: _decoded(key, values, most) for key, values in columns.items()}


def _decoded(name, values, most):
    if not isinstance(values, list) or not 1 <= len(values) <= most:
        raise Refused("INVALID_ARGUMENT", f"{name} must be a list of 1 to {most} images.")
    if all(isinstance(value, dict) and set(value) == {"b64"} for value in values):
        try:
            return [base64.b64decode(value["b64"], validate=True) for value in values]
        except (binascii.Error, TypeError, ValueError):
            raise Refused("INVALID_ARGUMENT", f"{name} holds b64 that cannot be decoded.") from None
    said = f'{name} must be a list of {{"b64": ...}}, or of images of whole numbers from 0 to 255, of one shape.'
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError):
        raise Refused("INVALID_ARGUMENT", said) from None
    if not ((array >= 0) & (array <= 255) & (array == np.floor(array))).all():
        raise Refused("INVALID_ARGUMENT", said)
    return array.astype(np.uint8)


def _plain(name, values):
    """What an array holds, as TensorFlow Serving writes it: bytes as text, or as b64 where the name ends in _bytes."""
    if isinstance(values, list):
        return [_plain(name, value) for value in values]
    if not isinstance(values, bytes):
        return values
    return {"b64": base64.b64encode(values).decode()} if name.endswith("_bytes") else values.decode(errors="replace")


def _as_json(message):
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _error(refused):
    return JSONResponse({"error": str(refused)}, HTTP_CODES.get(refused.code, 500))


if __name__ == "__main__":
    from tf_reid.train import run_command

    run_command(main)
