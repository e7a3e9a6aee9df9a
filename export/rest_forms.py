"""What TensorFlow Serving's REST interface asks and answers in JSON: places, requests in rows or columns, values."""

import base64
import binascii
import json

import numpy as np
from google.protobuf import json_format

from export.served import Refused


def place(path, verb):
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


def parsed(body) -> dict:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused("INVALID_ARGUMENT", "The request is not JSON.") from None
    if not isinstance(found, dict) or ("instances" in found) == ("inputs" in found):
        raise Refused("INVALID_ARGUMENT", 'The request must be an object with either "instances" or "inputs".')
    return found


def inputs(body, name, most) -> dict:
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


def plain(name, values):
    """What an array holds, as TensorFlow Serving writes it: bytes as text, or as b64 where the name ends in _bytes."""
    if isinstance(values, list):
        return [plain(name, value) for value in values]
    if not isinstance(values, bytes):
        return values
    return {"b64": base64.b64encode(values).decode()} if name.endswith("_bytes") else values.decode(errors="replace")


def as_json(message):
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
