"""Serve a folder of exported models without containers: python -m export.serve models

Speaks TF Serving's gRPC PredictionService and ModelService, and its REST interface, on Ray Serve. What clients see is
what they would see of TF Serving; requests that come together are answered together.
"""

import argparse
import asyncio
import math
import os
import signal
import threading
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import fastapi
import grpc
import ray
import tensorflow as tf
from fastapi.responses import JSONResponse
from ray import serve
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from export import rest_forms
from export.served import Limits, Refused, Served, located
from export.together import Together
from tf_reid.gallery.loopback import check_free, is_loopback

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
    parser.add_argument("--batch", type=int, default=16, help="requests that are answered together, at most")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    located(args.folder)  # what is wrong with the folder is told here, not by a replica's log
    check_free(args.host, args.grpc_port, "--grpc-port")
    check_free(args.host, args.rest_port, "--rest-port")
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
    """Start Ray, its proxies and the models; returns once requests are answered."""
    limits = Limits(args.max_image_bytes, args.max_pixels, 2 * args.max_pixels, args.max_images)
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
    folder = str(args.folder.resolve())
    bound = deployment.bind(folder, tuple(limits), args.batch, args.max_request_bytes, local_only=local_only)
    serve.run(bound, name="tf_reid", route_prefix="/")


def stop():
    serve.shutdown()
    ray.shutdown()


class Server:
    """One replica: gRPC methods by their names, REST by its routes, both by way of `_answer`."""

    def __init__(self, folder, limits, batch, most_bytes, local_only):
        self.models = Served(Path(folder), Limits(*limits))
        self.together = Together(self.models.answer, batch)
        self.most_bytes, self.local_only = most_bytes, local_only

    async def _answer(self, model, endpoint, inputs) -> dict:
        values = await asyncio.to_thread(self.models.check, model, endpoint, inputs)
        answer = await self.together((model, endpoint, values))
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
            name, version, label, verb = rest_forms.place(path, "/metadata")
            spec = predict_pb2.PredictRequest().model_spec
            spec.name = name
            if version is not None:
                spec.version.value = version
            if label is not None:
                spec.version_label = label
            if not verb:
                return JSONResponse(rest_forms.as_json(self._status(spec)))
            model = self._specified(spec)
            about = {"name": model.name, "version": str(model.version)}
            return JSONResponse(
                {"model_spec": about, "metadata": {"signature_def": rest_forms.as_json(_signatures(model))}}
            )
        except Refused as refused:
            return _error(refused)

    @rest.post("/v1/models/{path:path}")
    async def predict(self, path: str, request: fastapi.Request):
        try:
            name, version, label, verb = rest_forms.place(path, ":predict")
            if not verb:
                raise Refused("NOT_FOUND", f"POST to /v1/models/{name}:predict.")
            model = self.models.find(name, version, label)
            body = await asyncio.to_thread(rest_forms.parsed, await self._read(request))
            endpoint = body.get("signature_name") or "serving_default"
            by_rows = "instances" in body
            asked = next(iter(self.models.inputs_of(model, endpoint)))
            inputs = await asyncio.to_thread(rest_forms.inputs, body, asked, self.models.limits.images)
            found = await self._answer(model, endpoint, inputs)
            found = {name: rest_forms.plain(name, values.tolist()) for name, values in found.items()}
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


def _error(refused):
    return JSONResponse({"error": str(refused)}, HTTP_CODES.get(refused.code, 500))


if __name__ == "__main__":
    from tf_reid.command_line import run_command

    run_command(main)
