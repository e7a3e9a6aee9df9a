"""Requests in every wrong form, by gRPC and REST: each is refused with a code of the client's and a short sentence."""

import base64
import io
import json
import random
import re
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, make_records
from PIL import Image
from tensorflow_serving.apis import predict_pb2

from export import deployment, grpc_forms, limits, rest_forms
from export.limits import Limits, RequestError
from export.served_models import ServedModels

CODES = {"INVALID_ARGUMENT", "NOT_FOUND"}
(GOOD,) = make_records([1], [1], size=(40, 30)).images.tolist()
MOST = 3
ENCODED = tf.TensorSpec((None,), tf.string, name="image_bytes")
PIXELS = tf.TensorSpec((None, *SIZE, 3), tf.uint8, name="images")


class Model(tf.Module):
    """The inputs of an exported model, and no network."""

    @tf.function(input_signature=[ENCODED])
    def of_bytes(self, image_bytes):
        return {"embedding": tf.zeros((tf.shape(image_bytes)[0], 1))}

    @tf.function(input_signature=[PIXELS])
    def of_pixels(self, images):
        return {"embedding": tf.zeros((tf.shape(images)[0], 1))}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("models"), Model()
    signatures = {"serving_default": model.of_bytes, "tensor": model.of_pixels}
    tf.saved_model.save(model, str(folder / "reid" / "1"), signatures=signatures)
    deployment.write(folder)
    return ServedModels(folder, Limits(images=MOST))


def by_rest(served, path, body):
    """A REST request, up to the model."""
    name, version, label, _ = rest_forms.parse_path(path, ":predict")
    model = served.find(name, version, label)
    content = rest_forms.parse_body(body)
    endpoint = content.get("signature_name") or ""
    only = next(iter(served.inputs_of(model, endpoint)))
    return served.check(model, endpoint, rest_forms.inputs(content, only, served.limits.images))


def by_grpc(served, request):
    """A gRPC request, up to the model."""
    named = request.model_spec
    choice = named.WhichOneof("version_choice")
    version = named.version.value if choice == "version" else None
    model = served.find(named.name, version, named.version_label if choice == "version_label" else None)
    specs = served.inputs_of(model, named.signature_name)
    inputs = {
        name: grpc_forms.values(name, proto, specs[name]) if name in specs else []
        for name, proto in request.inputs.items()
    }
    return served.check(model, named.signature_name, inputs)


def refused(call, *args):
    """The sentence with which a request is refused."""
    with pytest.raises(RequestError) as error:
        call(*args)
    assert error.value.code in CODES
    sentence = str(error.value)
    assert len(sentence) < 500 and sentence.isprintable()
    json.dumps(sentence, ensure_ascii=False).encode()
    return sentence


def large_png():
    header = struct.pack(">IIBBBBB", 14_000, 14_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + bytes(20)


ROWS = b'{"instances": [%s]}'
TENSOR = b'{"signature_name": "tensor", "instances": [[[[%s, 0, 0]]]]}'
LONG = "x" * 100_000


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe\xfd", "is not JSON"),
        (b'"\xe9"', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"instances": ' * 50_000, "is not JSON"),
        (TENSOR % (b"9" * 5000), "is not JSON"),
        (TENSOR % b"NaN", "is not JSON"),
        (TENSOR % b"-Infinity", "is not JSON"),
        *((body, "must be an object") for body in (b"null", b"[]", b"1", b'"instances"', b"{}")),
        (b'{"instances": [], "inputs": []}', "must be an object with either"),
        (b'{"instances": [], "instances": []}', "key 'instances' twice"),
        (ROWS % b'{"b64": "", "b64": ""}', "key 'b64' twice"),
        (b'{"instances": [], "signature_name": 1}', "must be a string"),
        (b'{"instances": [], "signature_name": ["tensor"]}', "must be a string"),
        (b'{"instances": [], "signature_name": "\\ud800"}', "no endpoint '.ud800'"),
        (b'{"instances": [], "signature_name": "%s"}' % LONG.encode(), "no endpoint 'xxx"),
        (b'{"inputs": {"%s": [{"b64": ""}]}}' % LONG.encode(), "takes 'image_bytes', not 'xxx"),
        (b'{"inputs": {"%s": 1}}' % LONG.encode(), "must be a list of 1 to 3"),
        (b'{"inputs": {"\\ud800\\n": []}}', "must be a list of 1 to 3"),
        (b'{"inputs": {}}', "not nothing"),
        (b'{"inputs": null}', "must be a list"),
        (b'{"instances": {}}', '"instances" must be a list'),
        (ROWS % b"", "must be a list of 1 to 3"),
        (ROWS % b'{"b64": null}', "cannot be decoded"),
        (ROWS % b'{"b64": "\xc3\xa9\xc3\xa9"}', "cannot be decoded"),
        (ROWS % b'{"b64": {"b64": ""}}', "cannot be decoded"),
        (ROWS % b'{"b64": "AAAA"}, 1', "must be a list of"),
        (ROWS % b"{}", "takes 'image_bytes', not nothing"),
        (ROWS % b'{"a": 1}, {"b": 1}', "the same keys"),
        (ROWS % b'{"b64": ""}', "Image 0 is empty"),
        (TENSOR % (b"9" * 400), "from 0 to 255"),
        (TENSOR % b"1e999", "from 0 to 255"),
        (TENSOR % b"-1", "from 0 to 255"),
        (TENSOR % b"true", "from 0 to 255"),
        (TENSOR % b'"1"', "from 0 to 255"),
        (TENSOR % b"null", "from 0 to 255"),
        (TENSOR % b"[1]", "from 0 to 255"),
        (TENSOR % b"-0.0", "of shape .None, 32, 16, 3."),
        (TENSOR % (b"[" * 500 + b"]" * 500), "from 0 to 255"),
        (b'{"signature_name": "tensor", "instances": %s1%s}' % (b"[" * 40, b"]" * 40), "of shape .None, 32, 16, 3."),
        (b'{"signature_name": "tensor", "instances": %s1%s}' % (b"[" * 500, b"]" * 500), "from 0 to 255"),
        (ROWS % b"1", "must be a list of bytes"),
        (
            ROWS % (b'{"b64": "%s"}' % base64.b64encode(large_png())),
            "Image 0 has 14000 x 14000 pixels; 25000000 are",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_rest_request_in_a_wrong_form_is_refused(served, body, message):
    sentence = refused(by_rest, served, "reid:predict", body)
    assert re.search(message, sentence), sentence


PATHS = ["", "/", "other:predict", f"{LONG}:predict", "reid/versions/1/2", "reid/versions/-1", "reid/versions/\u0661"]
PATHS += [
    "reid/versions/99999999999999999999",
    "reid/labels/:predict",
    f"reid/labels/{LONG}",
    "reid/versions/1/labels/a",
]
PATHS += ["r\u00e9id", "\ud800", "../reid", "reid\n"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ascii(path)[:40])
def test_a_path_that_names_no_model_is_refused(served, path):
    assert len(refused(by_rest, served, path, b'{"instances": []}')) < 300


def tensor(dtype=4, sizes=(1, *SIZE, 3), **values):
    proto = tf.make_tensor_proto(0)
    proto.Clear()
    proto.dtype = dtype
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    for field, value in values.items():
        getattr(proto, field).extend(value) if isinstance(value, list) else setattr(proto, field, value)
    return proto


COUNT = 3 * SIZE[0] * SIZE[1]


@pytest.mark.parametrize(
    ("spec", "proto", "message"),
    [
        (PIXELS, tensor(sizes=(0, 2**62, 3)), "must have 4 dimensions"),
        (PIXELS, tensor(sizes=(0, 2**62, 16, 3)), "must have the shape"),
        (PIXELS, tensor(sizes=(2**62, *SIZE, 3), int_val=[1]), "and 1 values"),
        (PIXELS, tensor(sizes=(-1, *SIZE, 3), int_val=[1]), "and 1 values"),
        (PIXELS, tensor(sizes=(1, -32, -16, 3), int_val=[1] * COUNT), "must have the shape"),
        (PIXELS, tensor(tensor_content=bytes(COUNT - 1)), f"and {COUNT - 1} values"),
        (PIXELS, tensor(tensor_content=bytes(COUNT + 1)), f"and {COUNT + 1} values"),
        (PIXELS, tensor(int_val=[256] * COUNT), "numbers from 0 to 255"),
        (PIXELS, tensor(int_val=[-1] * COUNT), "numbers from 0 to 255"),
        (PIXELS, tensor(tensor_content=bytes(COUNT), int_val=[1]), "tensor_content or int_val alone"),
        (PIXELS, tensor(float_val=[1.0] * COUNT), "tensor_content or int_val alone"),
        (PIXELS, tensor(dtype=1), "must be of type uint8"),
        (PIXELS, tensor(dtype=104), "must be of type uint8"),
        (PIXELS, tensor(dtype=999), "must be of type uint8"),
        (PIXELS, tensor(), "and 0 values"),
        (ENCODED, tensor(7, (), string_val=[GOOD]), "must have 1 dimensions"),
        (ENCODED, tensor(7, (1, 1), string_val=[GOOD]), "must have 1 dimensions"),
        (ENCODED, tensor(7, (2,), string_val=[GOOD]), "and 1 values"),
        (ENCODED, tensor(7, (4,), tensor_content=b"\x03abc"), "string_val alone"),
    ],
)
def test_a_tensor_whose_parts_disagree_is_refused(spec, proto, message):
    sentence = refused(grpc_forms.values, spec.name, proto, spec)
    assert message in sentence


def test_a_tensor_is_read_from_its_content_or_its_numbers():
    pixels = np.arange(COUNT, dtype=np.uint8).reshape(1, *SIZE, 3)
    for proto in (tensor(tensor_content=pixels.tobytes()), tensor(int_val=pixels.ravel().tolist())):
        np.testing.assert_array_equal(grpc_forms.values("images", proto, PIXELS), pixels)
    assert grpc_forms.values("image_bytes", tensor(7, (1,), string_val=[GOOD]), ENCODED) == [GOOD]


def test_no_more_pixels_are_allowed_over_two_inputs_than_in_one(tmp_path):
    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name=f"{name}_bytes") for name in "ab"])
        def of_two(self, a, b):
            return {"image_bytes": a + b}

    module = Two()
    tf.saved_model.save(module, str(tmp_path / "two" / "1"), signatures={"serving_default": module.of_two})
    deployment.write(tmp_path)
    served = ServedModels(tmp_path, Limits(all_pixels=1500))
    model = served.find("two")
    sentence = refused(served.check, model, "", {"a_bytes": [GOOD], "b_bytes": [GOOD]})
    assert "have 2400 pixels together; 1500 are allowed" in sentence


def test_what_a_request_named_is_quoted_short_and_printable():
    for text in ("\x1b[2J", "\u202e", "\ud800", "\0", "'\"", "\n" * 1000, "\U0010ffff" * 1000):
        shown = limits.quoted(text, *["y" * 1000] * 1000)
        assert shown.isprintable() and shown.encode() and len(shown) <= limits.QUOTED + 3


def small_png():
    written = io.BytesIO()
    Image.fromarray(np.zeros((4, 3, 3), np.uint8)).save(written, "PNG")
    return written.getvalue()


B64 = {"b64": base64.b64encode(small_png()).decode()}
BODIES = [
    {"instances": [B64, B64]},
    {"signature_name": "serving_default", "inputs": {"image_bytes": [B64]}},
    {"signature_name": "tensor", "instances": np.zeros((2, 2, 2, 3), int).tolist()},
]
ODD_VALUES = [10**400, -(2**63), 1e400, float("nan"), -0.0, 256, 0.5, True, None, "", "1", "\ud800", "x" * 1000, [], {}]
ODD_VALUES += [[[]], {"b64": 1}, {"b64": "\u00e9"}, {"b64": []}, {"": {}}, [1, [2]]]
TENSORS = [("", tensor(7, (2,), string_val=[small_png()] * 2)), ("tensor", tensor(tensor_content=bytes(COUNT)))]
ODD_FIELDS = {
    "dtype": [0, 1, 3, 4, 7, 104, 999],
    "tensor_content": [b"", b"x", bytes(COUNT), bytes(COUNT + 1)],
    "int_val": [[], [256], [-1], [1] * COUNT, [2**31 - 1] * COUNT],
    "string_val": [[], [b""], [b"x"] * 70],
    "float_val": [[1.0], [1.0] * COUNT],
}
ODD_SIZES = [-1, 0, 1, 2, 3, 16, 32, COUNT, 2**31, 2**62]


def test_random_requests_are_answered_or_refused(served):
    """Of each random change of a good request comes a sound request or a refusal, never another error."""
    randomly = random.Random(0)
    outcomes = Counter()
    for _ in range(2000):
        body = json.dumps(_changed_value(randomly.choice(BODIES), randomly))
        outcomes["JSON", _outcome(by_rest, served, "reid:predict", body.encode())] += 1
        outcomes["bytes", _outcome(by_rest, served, "reid:predict", _changed_bytes(body.encode(), randomly))] += 1
        endpoint, proto = randomly.choice(TENSORS)
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "reid", endpoint
        request.inputs["images" if endpoint else "image_bytes"].CopyFrom(_changed_tensor(proto, randomly))
        outcomes["tensor", _outcome(by_grpc, served, request)] += 1
    assert len(outcomes) == 6 and min(outcomes.values()) >= 10, outcomes


def _outcome(call, *args):
    try:
        call(*args)
    except RequestError as error:
        assert error.code in CODES and len(str(error)) < 1000
        return "refused"
    return "answered"


def _changed_value(value, randomly):
    """JSON with one value in it replaced by an odd one, or a key by another."""
    if not value or not isinstance(value, dict | list) or randomly.random() < 0.1:
        return randomly.choice(ODD_VALUES)
    if isinstance(value, list):
        place = randomly.randrange(len(value))
        return [*value[:place], _changed_value(value[place], randomly), *value[place + 1 :]]
    key = randomly.choice(list(value))
    if randomly.random() < 0.1:
        return {**value, randomly.choice(["inputs", "signature_name", "\n", "x" * 1000]): value[key]}
    return {**value, key: _changed_value(value[key], randomly)}


def _changed_bytes(content, randomly):
    """Bytes with some of them changed, cut out, doubled or put in."""
    start = randomly.randrange(len(content) + 1)
    end = min(len(content), start + randomly.choice((1, 8, 100)))
    new = randomly.choice((b"", content[start:end] * 2, bytes([randomly.randrange(256)]), b"9999", b"[", b"-"))
    return content[:start] + new + content[end:]


def _changed_tensor(proto, randomly):
    """A tensor with one to three of its fields or sizes replaced."""
    changed = type(proto)()
    changed.CopyFrom(proto)
    for _ in range(randomly.randint(1, 3)):
        if randomly.random() < 0.5:
            randomly.choice(changed.tensor_shape.dim).size = randomly.choice(ODD_SIZES)
            continue
        field = randomly.choice(list(ODD_FIELDS))
        value = randomly.choice(ODD_FIELDS[field])
        changed.ClearField(field)
        getattr(changed, field).extend(value) if isinstance(value, list) else setattr(changed, field, value)
    return changed
