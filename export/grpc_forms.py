"""TensorFlow Serving's gRPC interface: the forms of its requests and answers as protocol buffers."""

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2

from export.limits import RequestError, quoted
from export.served_models import DEFAULT_ENDPOINT, ModelVersion, Values


def values(name: str, proto, spec: tf.TensorSpec) -> Values:
    """A TensorProto as its input's specification has it: a list of bytes, or uint8.

    TensorFlow's own reader fills a tensor of too few numbers up with the last one, to any size that its shape names,
    and passes over a field that it does not look for. Here shape, fields and numbers must agree.

    Raises:
        RequestError: INVALID_ARGUMENT.
    """
    if proto.dtype != spec.dtype.as_datatype_enum:
        raise RequestError("INVALID_ARGUMENT", f"{name} must be of type {spec.dtype.name}.")
    sizes = [dimension.size for dimension in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or len(sizes) != spec.shape.rank:
        raise RequestError("INVALID_ARGUMENT", f"{name} must have {spec.shape.rank} dimensions.")
    shape = spec.shape.as_list()
    if sizes[1:] != shape[1:]:
        raise RequestError("INVALID_ARGUMENT", f"{name} must have the shape {shape}, not {sizes}.")
    given = [field.name for field, _ in proto.ListFields() if field.name in FIELDS_OF_VALUES]
    allowed = FIELDS[spec.dtype]
    if len(given) > 1 or not set(given) <= set(allowed):
        raise RequestError("INVALID_ARGUMENT", f"{name} must be given as {' or '.join(allowed)} alone.")
    found = _READERS[spec.dtype](name, proto)
    if len(found) != math.prod(sizes):
        raise RequestError("INVALID_ARGUMENT", f"{name} has the shape {sizes}, and {len(found)} values.")
    return found if spec.dtype == tf.string else found.reshape(sizes)


def _numbers(name, proto):
    if proto.tensor_content:
        return np.frombuffer(proto.tensor_content, np.uint8)
    numbers = np.array(proto.int_val, np.int64)
    if ((numbers < 0) | (numbers > 255)).any():
        raise RequestError("INVALID_ARGUMENT", f"{name} must hold numbers from 0 to 255.")
    return numbers.astype(np.uint8)


# What inputs of each type may come in: fields of a TensorProto.
FIELDS = {tf.string: ("string_val",), tf.uint8: ("tensor_content", "int_val")}
FIELDS_OF_VALUES = {
    field.name for field in tensor_pb2.TensorProto.DESCRIPTOR.fields if field.name.endswith(("_val", "_content"))
}
_READERS = {tf.string: lambda _, proto: list(proto.string_val), tf.uint8: _numbers}


def answer(outputs: dict[str, np.ndarray], wanted, model: ModelVersion, endpoint: str) -> predict_pb2.PredictResponse:
    """The outputs that a request wants; all where it names none.

    Raises:
        RequestError: INVALID_ARGUMENT, there is no output of a name that it wants.
    """
    if missing := set(wanted) - set(outputs):
        raise RequestError(
            "INVALID_ARGUMENT", f"There is no output {quoted(min(missing))}; the outputs are {', '.join(outputs)}."
        )
    response = predict_pb2.PredictResponse()
    for name in wanted or outputs:
        response.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name]))
    response.model_spec.CopyFrom(_model_spec(model))
    response.model_spec.signature_name = endpoint or DEFAULT_ENDPOINT
    return response


def status(versions: list[int]) -> get_model_status_pb2.GetModelStatusResponse:
    """All these versions are loaded and answer; the newest comes first."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in sorted(versions, reverse=True):
        response.model_version_status.add(version=version, state="AVAILABLE").status.error_code = 0
    return response


def metadata(model: ModelVersion) -> get_model_metadata_pb2.GetModelMetadataResponse:
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.CopyFrom(_model_spec(model))
    response.metadata["signature_def"].Pack(signatures(model))
    return response


def signatures(model: ModelVersion) -> get_model_metadata_pb2.SignatureDefMap:
    """Names, types and shapes of what each endpoint takes and gives."""
    by_name = get_model_metadata_pb2.SignatureDefMap()
    for name, function in model.endpoints.items():
        signature = by_name.signature_def[name]
        signature.method_name = "tensorflow/serving/predict"
        _describe(signature.inputs, name, function.structured_input_signature[1])
        _describe(signature.outputs, name, function.structured_outputs)
    return by_name


def _describe(tensors, endpoint, specs):
    for name, spec in specs.items():
        tensors[name].name, tensors[name].dtype = f"{endpoint}_{name}:0", spec.dtype.as_datatype_enum
        tensors[name].tensor_shape.CopyFrom(spec.shape.as_proto())


def _model_spec(model):
    spec = model_pb2.ModelSpec(name=model.name)
    spec.version.value = model.version
    return spec
