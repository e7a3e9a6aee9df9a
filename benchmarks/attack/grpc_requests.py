"""gRPC requests that are malformed in many ways, as bytes: most of them no client library would send."""

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from benchmarks.attack import images, material
from benchmarks.attack.cases import ANSWER, EITHER, REFUSE, Case, choose, damaged

PREDICT = "/tensorflow.serving.PredictionService/Predict"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
OTHERS = (
    "/tensorflow.serving.PredictionService/Classify",
    "/tensorflow.serving.PredictionService/Regress",
    "/tensorflow.serving.PredictionService/MultiInference",
    "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
)
NOWHERE = ("/tensorflow.serving.PredictionService/None", "/none.Service/Predict", "/", "//", "/a" * 2000)
MIB = 2**20


class GrpcRequest(NamedTuple):
    """A call: the method's path, the message, what goes with it, and after how many seconds the caller leaves."""

    message: bytes
    method: str = PREDICT
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    timeout: float = 30.0


def case(rng: np.random.Generator) -> Case:
    makers = (sound, image, shape, odd_input, model_spec, broken, method, big)
    return makers[int(rng.choice(len(makers), p=(0.15, 0.25, 0.2, 0.12, 0.1, 0.1, 0.07, 0.01)))](rng)


def predict(inputs: dict[str, object], endpoint: str = "") -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = material.MODEL
    request.model_spec.signature_name = endpoint
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return request


def good() -> GrpcRequest:
    return GrpcRequest(predict({"image_bytes": [images.plain("rgb")]}).SerializeToString())


def sound(rng: np.random.Generator) -> Case:
    kind = choose(rng, ("bytes", "pixels", "search", "metadata", "status"))
    content = [images.plain("rgb")]
    if kind == "bytes":
        return Case("sound: bytes", good(), ANSWER, "rgb")
    if kind == "metadata":
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = material.MODEL
        return Case("sound: metadata", GrpcRequest(request.SerializeToString(), METADATA), ANSWER)
    if kind == "status":
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = material.MODEL
        return Case("sound: status", GrpcRequest(request.SerializeToString(), STATUS), ANSWER)
    pixels = {"images": np.zeros((2, *material.IMAGE_SIZE, 3), np.uint8)}
    request = predict(pixels, "tensor") if kind == "pixels" else predict({"image_bytes": content}, "search")
    return Case(f"sound: {kind}", GrpcRequest(request.SerializeToString()), ANSWER)


def image(rng: np.random.Generator) -> Case:
    one = images.case(rng)
    request = GrpcRequest(predict({"image_bytes": [one.content]}).SerializeToString())
    return dataclasses.replace(one, content=request)


def shape(rng: np.random.Generator) -> Case:
    """Pixels whose shape, type and values do not fit together."""
    height, width = material.IMAGE_SIZE
    request = predict({"images": np.zeros((1, height, width, 3), np.uint8)}, "tensor")
    tensor = request.inputs["images"]
    kind = choose(rng, ("sizes", "rank", "type", "field", "unknown rank", "values out of range"))
    demand = REFUSE
    if kind == "sizes":
        of_one = choose(rng, ((height, width, 4), (width, height, 3), (height, 3, width)))
        wild = ((0, 2**62, 3, 3), (2**62, 4, 4, 4), (2**63 - 1,) * 4, (-(2**63), 1, 1, 1))
        count = choose(rng, (-1, 0, 2, 2**40, 2**62))
        sizes = choose(rng, (*wild, (1, *of_one), (count, height, width, 3)))
        for dimension, size in zip(tensor.tensor_shape.dim, sizes, strict=True):
            dimension.size = size
    elif kind == "rank":
        del tensor.tensor_shape.dim[:]
        for _ in range(choose(rng, (0, 1, 3, 5, 254, 255, 5000))):
            tensor.tensor_shape.dim.add(size=choose(rng, (0, 1, 2**62)))
    elif kind == "type":
        tensor.dtype = choose(rng, (0, 1, 3, 7, 9, 14, 20, 21, 23, 104, 999, 2**31 - 1))
    elif kind == "field":
        field = choose(rng, ("float_val", "double_val", "string_val", "bool_val", "half_val", "scomplex_val"))
        tensor.ClearField("tensor_content")
        value = {"string_val": b"a", "bool_val": True}.get(field, 1)
        getattr(tensor, field).extend([value] * (height * width * 3))
    elif kind == "unknown rank":
        tensor.tensor_shape.unknown_rank = True
        demand = EITHER
    else:
        tensor.ClearField("tensor_content")
        tensor.int_val.extend([choose(rng, (-1, 256, 2**31 - 1, -(2**31)))] * (height * width * 3))
    return Case(f"pixels: {kind}", GrpcRequest(request.SerializeToString()), demand)


def odd_input(rng: np.random.Generator) -> Case:
    """Inputs of wrong names, types or numbers, and outputs that there are not."""
    content = images.plain("rgb")
    odd = {
        "no input": {},
        "wrong name": {"image": [content]},
        "an odd name": {choose(rng, ("", "\x1b[31m", "n" * 5000, "\x00")): [content]},
        "one too many": {"image_bytes": [content], "images": np.zeros((1, 2), np.uint8)},
        "floats": {"image_bytes": np.zeros((1, 3), np.float32)},
        "no image": {"image_bytes": np.array([], object).astype(bytes)},
        "65 images": {"image_bytes": [content] * 65},
        "5,000 images": {"image_bytes": [b""] * 5000},
        "a matrix of images": {"image_bytes": [[content]]},
        "one image without a list": {"image_bytes": content},
        "pixels to bytes": {"image_bytes": np.zeros((1, *material.IMAGE_SIZE, 3), np.uint8)},
        "1,000 inputs": {f"i{number}": 1 for number in range(1000)},
    }
    kind = choose(rng, [*odd, "an output that there is not", "strings by count"])
    request = predict(odd.get(kind, {"image_bytes": [content]}))
    if kind.startswith("an output"):
        outputs = (["none"], ["embedding", "none"], [""], ["o" * 5000], ["\x1b[2J"] * 1000)
        request.output_filter.extend(choose(rng, outputs))
    if kind == "strings by count":
        request.inputs["image_bytes"].tensor_shape.dim[0].size = choose(rng, (0, 2, 2**31, 2**62, -5))
    return Case(f"inputs: {kind}", GrpcRequest(request.SerializeToString()), REFUSE)


def model_spec(rng: np.random.Generator) -> Case:
    """Models, versions, labels and endpoints that there are not."""
    request = predict({"image_bytes": [images.plain("rgb")]})
    spec = request.model_spec
    kind = choose(rng, ("model", "version", "label", "endpoint", "none"))
    texts = ("other", "../reid", "\x00", "\x1b[31m", "n" * 5000, "名", "reid/1", "-")
    if kind == "model":
        spec.name = choose(rng, texts)
    elif kind == "version":
        spec.version.value = choose(rng, (0, -1, 9, 2**62, 2**63 - 1, -(2**63)))
    elif kind == "label":
        spec.version_label = choose(rng, texts)
    elif kind == "endpoint":
        spec.signature_name = choose(rng, texts)
    else:
        request.ClearField("model_spec")
    metadata = choose(rng, ((), (), (("x-odd", "a" * 4000),), (("x-odd-bin", b"\x00\xff"),)))
    return Case(f"model: {kind}", GrpcRequest(request.SerializeToString(), metadata=metadata), REFUSE)


def broken(rng: np.random.Generator) -> Case:
    """Messages that are no protocol buffers, or only just."""
    message = good().message
    if rng.random() < 0.3:
        texts = (b"", rng.bytes(int(rng.integers(1, 3000))), b"\xff" * 50, b"\x0a" * 5000, b"{}", bytes(1000))
        return Case("message: noise", GrpcRequest(choose(rng, texts)), REFUSE)
    done, message = damaged(rng, message)
    return Case(f"message: {done}", GrpcRequest(message))


def method(rng: np.random.Generator) -> Case:
    """Methods that there are not or that are not answered, and callers that leave at once."""
    if rng.random() < 0.3:
        return Case("a caller that leaves", good()._replace(timeout=choose(rng, (0.0005, 0.002, 0.005))))
    name = choose(rng, OTHERS + NOWHERE)
    return Case("a method that is not answered", GrpcRequest(choose(rng, (b"", good().message)), name), REFUSE)


def big(rng: np.random.Generator) -> Case:
    """A message of up to 32 MiB, and of a little more."""
    size = choose(rng, (8, 16, 31, 33)) * MIB
    content = choose(rng, (bytes(size), images.plain("rgb") + bytes(size)))
    return Case(f"{size // MIB} MiB", GrpcRequest(predict({"image_bytes": [content]}).SerializeToString()), REFUSE)
