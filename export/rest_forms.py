"""TensorFlow Serving's REST interface: the forms of its paths, requests and answers in JSON."""

import base64
import binascii
import collections
import json
from typing import Any, NamedTuple

import numpy as np
from google.protobuf import json_format

from export.limits import RequestError, quoted


class ModelPath(NamedTuple):
    """What the path of a request names."""

    model: str
    version: int | None
    label: str | None
    has_verb: bool


def parse_path(path: str, verb: str) -> ModelPath:
    """Read NAME[/versions/N | /labels/LABEL][verb].

    Raises:
        RequestError: NOT_FOUND, it has another form.
    """
    name, *parts = path.removesuffix(verb).split("/")
    version = label = None
    is_ascii = path.isascii()  # as all names are
    if is_ascii and len(parts) == 2 and parts[0] == "versions" and parts[1].isdecimal() and len(parts[1]) < 19:
        version = int(parts[1])
    elif is_ascii and len(parts) == 2 and parts[0] == "labels":
        label = parts[1]
    elif parts or not is_ascii:
        raise RequestError("NOT_FOUND", f"{quoted(path)} is not NAME, NAME/versions/N or NAME/labels/LABEL.")
    return ModelPath(name, version, label, path.endswith(verb))


def parse_body(body: bytes | bytearray) -> dict[str, Any]:
    """The request as a dict with either "instances" or "inputs", and perhaps a "signature_name" that is a string.

    Raises:
        RequestError: INVALID_ARGUMENT, it is not.
    """
    try:
        content = json.loads(body, object_pairs_hook=_object, parse_constant=_no_json)
    except (ValueError, RecursionError):  # also a number of more digits than Python reads
        raise RequestError("INVALID_ARGUMENT", "The request is not JSON.") from None
    if not isinstance(content, dict) or ("instances" in content) == ("inputs" in content):
        raise RequestError("INVALID_ARGUMENT", 'The request must be an object with either "instances" or "inputs".')
    if not isinstance(content.get("signature_name") or "", str):
        raise RequestError("INVALID_ARGUMENT", '"signature_name" must be a string.')
    return content


def _object(pairs):
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise RequestError("INVALID_ARGUMENT", f"The request has an object with the key {quoted(twice)} twice.")
    return content


def _no_json(constant):
    """NaN and Infinity, which Python would read."""
    raise ValueError(constant)


def inputs(body: dict[str, Any], name: str, most: int) -> dict[str, list[bytes] | np.ndarray]:
    """Input name -> values, of a request in rows ("instances") or in columns ("inputs").

    Args:
        name: of the one input, where the request does not name it.
        most: images in a request.

    Raises:
        RequestError: INVALID_ARGUMENT.
    """
    columns = _columns(body["inputs"], name) if "inputs" in body else _columns_of_rows(body["instances"], name)
    return {key: _decoded(key, values, most) for key, values in columns.items()}


def _columns(values, name):
    return values if isinstance(values, dict) and "b64" not in values else {name: values}


def _columns_of_rows(rows, name):
    if not isinstance(rows, list):
        raise RequestError("INVALID_ARGUMENT", '"instances" must be a list.')
    named = [row for row in rows if isinstance(row, dict) and "b64" not in row]
    if not named:
        return {name: rows}
    if len(named) < len(rows) or any(set(row) != set(rows[0]) for row in rows):
        raise RequestError("INVALID_ARGUMENT", "All instances must have the same keys.")
    return {key: [row[key] for row in rows] for key in rows[0]}


def _decoded(name, values, most):
    if not isinstance(values, list) or not 1 <= len(values) <= most:
        reason = "too_large" if isinstance(values, list) and values else "invalid"
        raise RequestError("INVALID_ARGUMENT", f"{quoted(name)} must be a list of 1 to {most} images.", reason)
    if all(isinstance(value, dict) and set(value) == {"b64"} for value in values):
        try:
            return [base64.b64decode(value["b64"], validate=True) for value in values]
        except (binascii.Error, TypeError, ValueError):
            raise RequestError("INVALID_ARGUMENT", f"{quoted(name)} holds b64 that cannot be decoded.") from None
    array = _numbers(values)
    if array is None or not ((array >= 0) & (array <= 255) & (array == np.floor(array))).all():
        raise RequestError(
            "INVALID_ARGUMENT",
            f'{quoted(name)} must be a list of {{"b64": ...}}, or of images of whole numbers from 0 to 255, of one '
            "shape.",
        )
    return array.astype(np.uint8)


def _numbers(values):
    """Lists in lists as float64, or None where they hold anything but numbers or are of different lengths."""
    cells = np.array(values, object)
    if not {type(cell) for cell in cells.ravel()} <= {int, float}:  # bool is none of them
        return None
    try:
        return cells.astype(np.float64)
    except OverflowError:  # an integer of 400 digits
        return None


def answer(outputs: dict[str, np.ndarray], in_rows: bool) -> dict[str, Any]:
    """The answer in the form of its request: {"predictions": rows} or {"outputs": columns}."""
    columns = {name: plain(name, values.tolist()) for name, values in outputs.items()}
    if len(columns) == 1:  # the one output stands without its name
        (values,) = columns.values()
        return {"predictions" if in_rows else "outputs": values}
    if not in_rows:
        return {"outputs": columns}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {"predictions": rows}


def plain(name: str, values: Any) -> Any:
    """Values as TensorFlow Serving writes them: bytes as text, or as b64 where the output's name ends in _bytes."""
    if isinstance(values, list):
        return [plain(name, value) for value in values]
    if not isinstance(values, bytes):
        return values
    return {"b64": base64.b64encode(values).decode()} if name.endswith("_bytes") else values.decode(errors="replace")


def as_json(message) -> dict[str, Any]:
    """A protocol buffer's message as TensorFlow Serving writes it."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
