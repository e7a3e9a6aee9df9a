"""A replica of Ray Serve that answers as TF Serving does, by gRPC and by REST."""

import asyncio
import logging
import threading
import time
from pathlib import Path
from typing import Any

import fastapi
import grpc
from fastapi.responses import JSONResponse
from ray import serve
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2

from export import grpc_forms, private_ray, rest_forms
from export.batching import Batcher
from export.limits import Limits, RequestError
from export.served_models import ModelVersion, ServedModels
from tf_reid.config import ConfigError
from tf_reid.gallery.loopback import is_loopback

HTTP_CODES = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "PERMISSION_DENIED": 403, "UNIMPLEMENTED": 501}
rest = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


class Server:
    """Ray calls its gRPC methods by their names and its REST methods by their routes; both answer by `_answer`.

    Args:
        folder: of exported models. limits: fields of `Limits`. batch: requests in one batch, at most.
        request_bytes: of a REST request, at most. local_only: refuse gRPC clients of other machines.
        poll_seconds: how often models.config is read.
    """

    def __init__(
        self, folder: str, limits: tuple, batch: int, request_bytes: int, local_only: bool, poll_seconds: float
    ):
        private_ray.keep_replica_here()
        self.models = ServedModels(Path(folder), Limits(*limits))
        self.batcher = Batcher(self.models.answer, batch)
        self.request_bytes, self.local_only = request_bytes, local_only
        threading.Thread(target=_follow_models_config, args=(self.models, poll_seconds), daemon=True).start()

    async def _answer(self, model: ModelVersion, endpoint: str, inputs: dict[str, Any]) -> dict[str, Any]:
        request = await asyncio.to_thread(self.models.check, model, endpoint, inputs)
        answer = await self.batcher(request)
        if isinstance(answer, RequestError):
            raise answer
        return answer

    # --------------------------------------------------------------------- gRPC

    async def Predict(self, request: predict_pb2.PredictRequest, grpc_context) -> predict_pb2.PredictResponse:
        with _GrpcErrors(grpc_context, self.local_only):
            model, endpoint = self._named(request.model_spec), request.model_spec.signature_name
            specs = self.models.inputs_of(model, endpoint)
            # An input that the endpoint does not have is not unpacked: `check` refuses it by its name.
            inputs = {
                name: grpc_forms.values(name, proto, specs[name]) if name in specs else []
                for name, proto in request.inputs.items()
            }
            outputs = await self._answer(model, endpoint, inputs)
            return grpc_forms.answer(outputs, request.output_filter, model, endpoint)

    async def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, grpc_context
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        with _GrpcErrors(grpc_context, self.local_only):
            return grpc_forms.metadata(self._named(request.model_spec))

    async def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest, grpc_context
    ) -> get_model_status_pb2.GetModelStatusResponse:
        with _GrpcErrors(grpc_context, self.local_only):
            return self._status(request.model_spec)

    async def _unimplemented(self, _request, grpc_context):
        with _GrpcErrors(grpc_context, self.local_only):
            raise RequestError("UNIMPLEMENTED", "These models answer Predict only.")

    Classify = Regress = MultiInference = HandleReloadConfigRequest = _unimplemented

    def _named(self, spec: model_pb2.ModelSpec) -> ModelVersion:
        """The version that a request names by its number, its label, or not at all."""
        choice = spec.WhichOneof("version_choice")
        return self.models.find(
            spec.name,
            spec.version.value if choice == "version" else None,
            spec.version_label if choice == "version_label" else None,
        )

    def _status(self, spec):
        model = self._named(spec)
        is_one = spec.WhichOneof("version_choice") is not None
        return grpc_forms.status([model.version] if is_one else self.models.versions_of(model.name))

    # --------------------------------------------------------------------- REST

    @rest.get("/v1/models/{path:path}")
    async def describe(self, path: str):
        """The status of a model's versions, or with /metadata its endpoints."""
        try:
            parsed = rest_forms.parse_path(path, "/metadata")
            spec = model_pb2.ModelSpec(name=parsed.model)
            if parsed.version is not None:
                spec.version.value = parsed.version
            if parsed.label is not None:
                spec.version_label = parsed.label
            if not parsed.has_verb:
                return JSONResponse(rest_forms.as_json(self._status(spec)))
            model = self._named(spec)
            signatures = rest_forms.as_json(grpc_forms.signatures(model))
            model_spec = {"name": model.name, "version": str(model.version)}
            return JSONResponse({"model_spec": model_spec, "metadata": {"signature_def": signatures}})
        except RequestError as error:
            return _http_error(error)

    @rest.post("/v1/models/{path:path}")
    async def predict(self, path: str, request: fastapi.Request):
        try:
            name, version, label, has_verb = rest_forms.parse_path(path, ":predict")
            if not has_verb:
                raise RequestError("NOT_FOUND", f"POST to /v1/models/{name}:predict.")
            model = self.models.find(name, version, label)
            body = await asyncio.to_thread(rest_forms.parse_body, await self._read(request))
            endpoint = body.get("signature_name") or ""
            only_input = next(iter(self.models.inputs_of(model, endpoint)))
            inputs = await asyncio.to_thread(rest_forms.inputs, body, only_input, self.models.limits.images)
            outputs = await self._answer(model, endpoint, inputs)
            return JSONResponse(rest_forms.answer(outputs, in_rows="instances" in body))
        except RequestError as error:
            return _http_error(error)

    async def _read(self, request):
        """The body; reading stops at the size that a request may have."""
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self.request_bytes:
                raise RequestError("INVALID_ARGUMENT", f"The request is larger than {self.request_bytes} bytes.")
        return body


def _follow_models_config(models: ServedModels, seconds: float):
    """Serve what models.config names from now on, whenever it changes."""
    while True:
        time.sleep(seconds)
        try:
            models.reload()
        except (ConfigError, OSError) as error:
            logging.getLogger("ray.serve").warning("models.config is not followed: %s", error)


class _GrpcErrors:
    """Inside, a `RequestError` becomes the status of a gRPC answer; entering fails where the client is not allowed."""

    def __init__(self, context, local_only: bool):
        self.context = context
        self.is_allowed = not local_only or _is_local(context.peer())

    def __enter__(self):
        if not self.is_allowed:
            self._set(RequestError("PERMISSION_DENIED", "This server answers its own machine only; see --host."))
            raise PermissionError("not a local client")

    def __exit__(self, _kind, error, _traceback):
        if isinstance(error, RequestError):
            self._set(error)

    def _set(self, error):
        self.context.set_code(grpc.StatusCode[error.code])
        self.context.set_details(str(error))


def _is_local(peer):
    """Of gRPC's name of a client, such as ipv4:127.0.0.1:5000 or ipv6:[::1]:5000."""
    kind, _, address = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind == "unix"
    return is_loopback(address.rpartition(":")[0].replace("%5B", "").replace("%5D", ""))


def _http_error(error):
    return JSONResponse({"error": str(error)}, HTTP_CODES.get(error.code, 500))


# Only here, below all that the server calls: this copies the module's names as they are now.
_Server = serve.ingress(rest)(Server)


def deployment(batch: int, queue: int) -> serve.Deployment:
    """The server as Ray Serve deploys it: one replica; `queue` requests may wait for it."""
    deployed = serve.deployment(
        max_ongoing_requests=4 * batch,
        max_queued_requests=queue,
        max_constructor_retry_count=1,  # its error is reported at once
        ray_actor_options={"num_cpus": 0},  # not a reservation: TensorFlow takes the cores it finds
    )
    return deployed(_Server)
