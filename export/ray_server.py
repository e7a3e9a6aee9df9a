"""A replica of Ray Serve that answers as TF Serving does, by gRPC and by REST."""

import asyncio
import http
import logging
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fastapi
import grpc
from fastapi.responses import JSONResponse
from ray import serve
from starlette.exceptions import HTTPException
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2

from export import grpc_forms, private_ray, rest_forms
from export.batching import Batcher
from export.limits import Limits, RequestError, quoted
from export.served_models import ModelVersion, ServedModels
from tf_reid.web.bounded_decoding import Busy, Decoder
from tf_reid.web.guard import is_token
from tf_reid.web.loopback import is_loopback

HTTP_CODES = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
}
BESIDE_PIXELS = 10_000  # values of a request in JSON that are no pixels: names, b64
rest = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


class Server:
    """Ray calls its gRPC methods by their names and its REST methods by their routes; both answer by `_answer`.

    Args:
        folder: of exported models. limits: fields of `Limits`. batch: requests in one batch, at most.
        local_only: refuse gRPC clients of other machines. token: what gRPC clients have to send; REST asks for it in
            the proxy. poll_seconds: how often models.config is read.
    """

    def __init__(
        self, folder: str, limits: tuple, batch: int, local_only: bool, token: str | None, poll_seconds: float
    ):
        private_ray.keep_replica_here()
        self.models = ServedModels(Path(folder), Limits(*limits))
        self.batcher = Batcher(self.models.answer, batch)
        self.decoder = Decoder(self.models.limits.pixels)
        # Requests that wait for a slow image must not take the threads of the others.
        self.slow_threads = ThreadPoolExecutor(_most_ongoing(batch))
        self.local_only, self.token = local_only, token
        threading.Thread(target=_follow_models_config, args=(self.models, poll_seconds), daemon=True).start()

    async def _answer(self, model: ModelVersion, endpoint: str, inputs: dict[str, Any]) -> dict[str, Any]:
        request = await asyncio.to_thread(self.models.check, model, endpoint, inputs)
        request = request._replace(inputs={name: await self._sound(values) for name, values in request.inputs.items()})
        answer = await self.batcher(request)
        if isinstance(answer, RequestError):
            raise answer
        return answer

    async def _sound(self, values):
        """Encoded images as the model reads them, or pixels as they are."""
        if not isinstance(values, list):
            return values
        is_slow = any(await asyncio.to_thread(lambda: [self.decoder.is_slow(value) for value in values]))
        threads = self.slow_threads if is_slow else None
        return await asyncio.get_running_loop().run_in_executor(threads, self._plain, values)

    def _plain(self, values):
        images = []
        for number, value in enumerate(values):
            try:
                images.append(self.decoder.plain(value))
            except ValueError as error:
                raise RequestError("INVALID_ARGUMENT", f"Image {number} {error}.") from None
            except Busy as error:
                raise RequestError("RESOURCE_EXHAUSTED", str(error)) from None
        return images

    # --------------------------------------------------------------------- gRPC

    async def Predict(self, request: predict_pb2.PredictRequest, grpc_context) -> predict_pb2.PredictResponse:
        with self._grpc_errors(grpc_context):
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
        with self._grpc_errors(grpc_context):
            return grpc_forms.metadata(self._named(request.model_spec))

    async def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest, grpc_context
    ) -> get_model_status_pb2.GetModelStatusResponse:
        with self._grpc_errors(grpc_context):
            return self._status(request.model_spec)

    async def _unimplemented(self, _request, grpc_context):
        with self._grpc_errors(grpc_context):
            raise RequestError("UNIMPLEMENTED", "These models answer Predict only.")

    Classify = Regress = MultiInference = HandleReloadConfigRequest = _unimplemented

    def _grpc_errors(self, context):
        return _GrpcErrors(context, self.local_only, self.token)

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
                raise RequestError("NOT_FOUND", f"POST to /v1/models/NAME:predict, not to {quoted(path)}.")
            model = self.models.find(name, version, label)
            content = await request.body()  # whole and bounded: the proxy has read it
            _check_values(content, model, self.models.limits.images)
            body = await asyncio.to_thread(rest_forms.parse_body, content)
            endpoint = body.get("signature_name") or ""
            only_input = next(iter(self.models.inputs_of(model, endpoint)))
            inputs = await asyncio.to_thread(rest_forms.inputs, body, only_input, self.models.limits.images)
            outputs = await self._answer(model, endpoint, inputs)
            return JSONResponse(rest_forms.answer(outputs, in_rows="instances" in body))
        except RequestError as error:
            return _http_error(error)


@rest.exception_handler(HTTPException)
async def _no_such_route(_request, error):
    """A path or method that the server does not have."""
    sentence = f"{http.HTTPStatus(error.status_code).phrase}; see /v1/models/NAME."
    return JSONResponse({"error": sentence}, error.status_code, error.headers)


@rest.exception_handler(Exception)
async def _failed(_request, _error):
    return JSONResponse({"error": "The server failed; its log says why."}, 500)


def _check_values(content, model, most_images):
    """Refuse JSON with more values than the largest request for a model has, before it takes 30 times its size.

    Values of a list are separated by commas, which b64 does not have.
    """
    most = BESIDE_PIXELS + most_images * max(map(_numbers_in_an_image, model.endpoints.values()))
    if content.count(b",") > most:
        raise RequestError(
            "INVALID_ARGUMENT", f"The request has more than {most} values; send images as b64, or fewer at once."
        )


def _numbers_in_an_image(endpoint):
    specs = endpoint.structured_input_signature[1].values()
    return sum(math.prod(spec.shape[1:]) for spec in specs)


def _follow_models_config(models: ServedModels, seconds: float):
    """Serve what models.config names from now on, whenever it changes."""
    while True:
        time.sleep(seconds)
        try:
            models.reload()
        except Exception as error:  # whatever a broken or half-copied version raises: the next look may succeed
            logging.getLogger("ray.serve").warning("models.config is not followed: %s", error)


class _GrpcErrors:
    """Inside, a `RequestError` becomes the status of a gRPC answer; entering fails where the client is not allowed."""

    def __init__(self, context, local_only: bool, token: str | None):
        self.context, self.token = context, token
        self.is_allowed = not local_only or _is_local(context.peer())

    def __enter__(self):
        if not self.is_allowed:
            self._set(RequestError("PERMISSION_DENIED", "This server answers its own machine only; see --host."))
            raise PermissionError("not a local client")
        if self.token is not None and not is_token(_authorization(self.context), self.token):
            self._set(RequestError("UNAUTHENTICATED", "This server needs its token; send authorization: Bearer TOKEN."))
            raise PermissionError("no token")

    def __exit__(self, _kind, error, _traceback):
        if isinstance(error, RequestError):
            self._set(error)

    def _set(self, error):
        self.context.set_code(grpc.StatusCode[error.code])
        self.context.set_details(str(error))


def _authorization(context):
    """Of a gRPC request; "" where it names none, or several."""
    values = [value for key, value in context.invocation_metadata() if key == "authorization"]
    return values[0] if len(values) == 1 else ""


def _is_local(peer):
    """Of gRPC's name of a client, such as ipv4:127.0.0.1:5000 or ipv6:[::1]:5000."""
    kind, _, address = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind == "unix"
    return is_loopback(address.rpartition(":")[0].replace("%5B", "").replace("%5D", ""))


def _http_error(error):
    return JSONResponse({"error": str(error)}, HTTP_CODES.get(error.code, 500))


def _most_ongoing(batch):
    """Requests that the server works on at once; the next batches gather while one is computed."""
    return 4 * batch


# Only here, below all that the server calls: this copies the module's names as they are now.
_Server = serve.ingress(rest)(Server)


def deployment(batch: int, queue: int) -> serve.Deployment:
    """The server as Ray Serve deploys it: one replica; `queue` requests may wait for it."""
    deployed = serve.deployment(
        max_ongoing_requests=_most_ongoing(batch),
        max_queued_requests=queue,
        max_constructor_retry_count=1,  # its error is reported at once
        ray_actor_options={"num_cpus": 0},  # not a reservation: TensorFlow takes the cores it finds
    )
    return deployed(_Server)
