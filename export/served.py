"""Exported models in memory, and what is asked of them: found, checked, answered together. Knows no protocol."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from export.deployment import read_models_config
from tf_reid.config import ConfigError
from tf_reid.encoders import image_checks
from tf_reid.encoders.servable import endpoints


class Refused(Exception):
    """A request that gets no answer. `code` is gRPC's name of the reason."""

    def __init__(self, code: str, message: str):
        super().__init__(code, message)  # both: it may have to reach another process
        self.code = code

    def __str__(self):
        return self.args[1]


class Limits(NamedTuple):
    """What one request may ask for: bytes and pixels of an image, pixels of all, images."""

    image_bytes: int = image_checks.MOST_BYTES
    pixels: int = image_checks.MOST_PIXELS
    all_pixels: int = 2 * image_checks.MOST_PIXELS
    images: int = 64


class Loaded(NamedTuple):
    """One version of a model, and its endpoints."""

    name: str
    version: int
    endpoints: dict


class Served:
    """All models of a folder that `python -m export` wrote: the versions that its models.config names.

    Raises:
        ConfigError: the folder has no model, or one that is not there.
    """

    def __init__(self, folder: Path, limits: Limits | None = None):
        self.limits = limits or Limits()
        self.versions, self.labels = {}, {}
        for name, (places, labels) in located(folder).items():
            self.labels[name] = labels
            self.versions[name] = {version: _load(place) for version, place in places.items()}

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Loaded:
        """A version by its number or label; by default the newest.

        Raises:
            Refused: NOT_FOUND.
        """
        if name not in self.versions:
            raise Refused("NOT_FOUND", f"There is no model {name!r}, but {', '.join(self.versions)}.")
        if label:
            if label not in self.labels[name]:
                raise Refused("NOT_FOUND", f"Model {name} has no label {label!r}, but {', '.join(self.labels[name])}.")
            version = self.labels[name][label]
        version = max(self.versions[name]) if version is None else version
        if version not in self.versions[name]:
            there = ", ".join(map(str, self.versions[name]))
            raise Refused("NOT_FOUND", f"Model {name} has no version {version} here, but {there}.")
        return self.versions[name][version]

    def check(self, model: Loaded, endpoint: str, inputs: dict) -> dict:
        """A request's inputs: name -> a list of bytes, or uint8 [B, H, W, 3].

        Args:
            inputs: name -> a list of bytes or an array, as the client sent them.

        Raises:
            Refused: NOT_FOUND or INVALID_ARGUMENT, by what is wrong.
        """
        specs = self.inputs_of(model, endpoint)
        if set(inputs) != set(specs):
            asked = " and ".join(map(repr, sorted(specs)))
            sent = ", ".join(map(repr, inputs)) or "nothing"
            raise Refused("INVALID_ARGUMENT", f"{endpoint or 'serving_default'} takes {asked}, not {sent}.")
        counts = {len(values) for values in inputs.values()}
        if len(counts) > 1:
            raise Refused("INVALID_ARGUMENT", f"{', '.join(inputs)} must hold as many images each.")
        if not 1 <= max(counts) <= self.limits.images:
            raise Refused("INVALID_ARGUMENT", f"A request holds 1 to {self.limits.images} images, not {max(counts)}.")
        return {name: self._checked(name, inputs[name], spec) for name, spec in specs.items()}

    def inputs_of(self, model: Loaded, endpoint: str) -> dict:
        """Name of an input of an endpoint -> its specification.

        Raises:
            Refused: NOT_FOUND, there is no such endpoint.
        """
        endpoint = endpoint or "serving_default"
        if not isinstance(endpoint, str) or endpoint not in model.endpoints:
            raise Refused("NOT_FOUND", f"There is no endpoint {endpoint!r}, but {', '.join(model.endpoints)}.")
        return model.endpoints[endpoint].structured_input_signature[1]

    def _checked(self, name, values, spec):
        if spec.dtype == tf.string:
            if isinstance(values, np.ndarray) or not all(isinstance(value, bytes) for value in values):
                raise Refused("INVALID_ARGUMENT", f"{name} must be a list of bytes.")
            pixels = 0
            for number, value in enumerate(values):
                try:
                    pixels += image_checks.check(value, self.limits.image_bytes, self.limits.pixels)
                except ValueError as error:
                    raise Refused("INVALID_ARGUMENT", f"Image {number} {error}.") from None
            if pixels > self.limits.all_pixels:
                said = f"The images have {pixels} pixels together; {self.limits.all_pixels} are allowed"
                raise Refused("INVALID_ARGUMENT", f"{said} in a request.")
            return list(values)
        shape = tuple(spec.shape[1:])
        if not isinstance(values, np.ndarray) or values.dtype != np.uint8 or values.shape[1:] != shape:
            raise Refused("INVALID_ARGUMENT", f"{name} must be uint8 of shape {[None, *shape]}.")
        return values

    def answer(self, asked: Sequence[tuple[Loaded, str, object]]) -> list:
        """Answers to several checked requests, computed together where they ask the same endpoint.

        Returns:
            of each request a dict of arrays, or `Refused`: a bad image takes nobody's answer but its own request's.
        """
        together = {}
        for number, (model, endpoint, _) in enumerate(asked):
            together.setdefault((model.name, model.version, endpoint or "serving_default"), []).append(number)
        found = [None] * len(asked)
        for (_, _, endpoint), numbers in together.items():
            function = asked[numbers[0]][0].endpoints[endpoint]
            for part in self._in_parts(numbers, asked):
                for number, answer in zip(part, _run(function, [asked[n][2] for n in part]), strict=True):
                    found[number] = answer
        return found

    def _in_parts(self, numbers, asked):
        """Requests whose images together are not more than one request may hold."""
        part, images = [], 0
        for number in numbers:
            count = _images_in(asked[number][2])
            if part and images + count > self.limits.images:
                yield part
                part, images = [], 0
            part.append(number)
            images += count
        yield part


def _run(function, requests) -> list:
    counts = [_images_in(request) for request in requests]
    try:
        made = function(**{name: _joined([request[name] for request in requests]) for name in requests[0]})
    except tf.errors.OpError as error:
        if len(requests) > 1:
            return [answer for request in requests for answer in _run(function, [request])]
        if isinstance(error, tf.errors.InvalidArgumentError):
            return [Refused("INVALID_ARGUMENT", f"An image cannot be decoded: {_plain(error)}")]
        return [Refused("INTERNAL", f"The model cannot answer: {_plain(error)}")]
    parts = {key: np.split(value.numpy(), np.cumsum(counts)[:-1]) for key, value in made.items()}
    return [{key: parts[key][number] for key in parts} for number in range(len(requests))]


def _images_in(request):
    return len(next(iter(request.values())))


def _joined(parts):
    if isinstance(parts[0], list):
        return tf.constant([value for values in parts for value in values])
    return tf.constant(np.concatenate(parts))


def _plain(error):
    """What a TensorFlow error says, without where in the graph."""
    about = ("[[", "Graph execution error", "Detected at", "<stack traces")
    lines = [line.strip() for line in error.message.splitlines()]
    return next((line for line in lines if line and not line.startswith(about)), "no reason given")


def located(folder: Path) -> dict[str, tuple[dict[int, Path], dict[str, int]]]:
    """Model -> its versions' folders, and its labels, as models.config names them.

    Raises:
        ConfigError: the folder has no model, or one that is not there.
    """
    found = {
        name: ({version: folder / name / str(version) for version in versions}, labels)
        for name, (versions, labels) in read_models_config(folder / "serving" / "models.config").items()
    }
    if not found:
        raise ConfigError(f"{folder} has no exported model; make one with python -m export --to {folder}.")
    for places, _ in found.values():
        for place in places.values():
            if not (place / "saved_model.pb").exists():
                raise ConfigError(
                    f"models.config names {place}, which is not there; bring it back, or name another version."
                )
    return found


def _load(folder: Path) -> Loaded:
    return Loaded(folder.parent.name, int(folder.name), endpoints(folder))
