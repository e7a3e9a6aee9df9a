"""A request of TensorFlow Serving's gRPC or REST interface -> what the models are asked, or at once its answer."""

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2

from export import grpc_forms, rest_forms
from export.calls import Call, Reply
from export.limits import RequestError, quoted
from export.served_models import ModelVersion, Request, ServedModels, images_in

MESSAGES = {  # gRPC's methods that are answered -> their requests
    "Predict": predict_pb2.PredictRequest,
    "GetModelMetadata": get_model_metadata_pb2.GetModelMetadataRequest,
    "GetModelStatus": get_model_status_pb2.GetModelStatusRequest,
}
BESIDE_PIXELS = 10_000  # values of a request in JSON that are no pixels: names, b64


class Asked(NamedTuple):
    """A request for an answer of a model; it has been checked, but for its images' data.

    `write`: outputs -> the answer's message or JSON; raises RequestError.
    """

    request: Request
    write: Callable[[dict[str, np.ndarray]], bytes]


def read(models: ServedModels, call: Call) -> Asked | Reply:
    """What a call asks the models; its answer where it asks only about them.

    Raises:
        RequestError: it cannot be answered.
    """
    return _read_grpc(models, call) if call.protocol == "grpc" else _read_rest(models, call)


def written(asked: Asked, outputs: dict[str, np.ndarray] | RequestError) -> Reply:
    """The reply to a request that the models have answered, or could not."""
    request = asked.request
    about = {"model": request.model.name, "version": request.model.version}
    try:
        if isinstance(outputs, RequestError):
            raise outputs
        return Reply("OK", asked.write(outputs), images=images_in(request.inputs), **about)
    except RequestError as error:
        return refused(error)._replace(**about)


def refused(error: RequestError) -> Reply:
    return Reply(error.code, sentence=str(error), reason=error.reason)


# ------------------------------------------------------------------------- gRPC


def _read_grpc(models, call):
    if call.target not in MESSAGES:
        raise RequestError("UNIMPLEMENTED", "These models answer Predict only.")
    try:
        message = MESSAGES[call.target].FromString(call.body)
    except DecodeError:
        raise RequestError(
            "INVALID_ARGUMENT", "The message is not a request of this method: its bytes cannot be parsed."
        ) from None
    model = _named(models, message.model_spec)
    if call.target == "Predict":
        return _predict(models, model, message)
    content = grpc_forms.metadata(model) if call.target == "GetModelMetadata" else _status(models, message.model_spec)
    return Reply("OK", content.SerializeToString(), model=model.name, version=model.version)


def _predict(models, model, message):
    endpoint = message.model_spec.signature_name
    specs = models.inputs_of(model, endpoint)
    # An input that the endpoint does not have is not unpacked: `check` refuses it by its name.
    inputs = {
        name: grpc_forms.values(name, proto, specs[name]) if name in specs else []
        for name, proto in message.inputs.items()
    }
    wanted = list(message.output_filter)

    def write(outputs):
        return grpc_forms.answer(outputs, wanted, model, endpoint).SerializeToString()

    return Asked(models.check(model, endpoint, inputs), write)


def _named(models: ServedModels, spec: model_pb2.ModelSpec) -> ModelVersion:
    """The version that a request names by its number, its label, or not at all."""
    choice = spec.WhichOneof("version_choice")
    return models.find(
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )


def _status(models, spec):
    model = _named(models, spec)
    is_one = spec.WhichOneof("version_choice") is not None
    return grpc_forms.status([model.version] if is_one else models.versions_of(model.name))


# ------------------------------------------------------------------------- REST


def _read_rest(models, call):
    verb, _, path = call.target.partition(" ")
    if verb != "POST":
        return _described(models, path)
    name, version, label, has_verb = rest_forms.parse_path(path, ":predict")
    if not has_verb:
        raise RequestError("NOT_FOUND", f"POST to /v1/models/NAME:predict, not to {quoted(path)}.")
    model = models.find(name, version, label)
    _check_values(call.body, model, models.limits.images)
    body = rest_forms.parse_body(call.body)
    endpoint = body.get("signature_name") or ""
    only_input = next(iter(models.inputs_of(model, endpoint)))
    inputs = rest_forms.inputs(body, only_input, models.limits.images)
    in_rows = "instances" in body
    return Asked(models.check(model, endpoint, inputs), lambda outputs: _json(rest_forms.answer(outputs, in_rows)))


def _described(models, path):
    """The status of a model's versions, or with /metadata its endpoints."""
    parsed = rest_forms.parse_path(path, "/metadata")
    spec = model_pb2.ModelSpec(name=parsed.model)
    if parsed.version is not None:
        spec.version.value = parsed.version
    if parsed.label is not None:
        spec.version_label = parsed.label
    model = _named(models, spec)
    if parsed.has_verb:
        signatures = rest_forms.as_json(grpc_forms.signatures(model))
        model_spec = {"name": model.name, "version": str(model.version)}
        content = {"model_spec": model_spec, "metadata": {"signature_def": signatures}}
    else:
        content = rest_forms.as_json(_status(models, spec))
    return Reply("OK", _json(content), model=model.name, version=model.version)


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _check_values(content, model, most_images):
    """Refuse JSON with more values than the largest request for a model has, before it takes 30 times its size.

    Values of a list are separated by commas, which b64 does not have.
    """
    most = BESIDE_PIXELS + most_images * max(map(_numbers_in_an_image, model.endpoints.values()))
    if content.count(b",") > most:
        raise RequestError(
            "INVALID_ARGUMENT",
            f"The request has more than {most} values; send images as b64, or fewer at once.",
            "too_large",
        )


def _numbers_in_an_image(endpoint):
    specs = endpoint.structured_input_signature[1].values()
    return sum(math.prod(spec.shape[1:]) for spec in specs)
