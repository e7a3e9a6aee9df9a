"""Exported models in memory: finds the version that a request names, checks the request, answers. Knows no protocol."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import tensorflow as tf

from export.deployment import Served, served_models
from export.limits import QUOTED, Limits, RequestError, quoted
from tf_reid.encoders.servable import endpoints
from tfds_builders import images

Values = list[bytes] | np.ndarray  # of one input: encoded images, or uint8 [B, H, W, 3]
DEFAULT_ENDPOINT = "serving_default"
BLANK = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()


class ModelVersion(NamedTuple):
    """One version of a model: its endpoints by their names."""

    name: str
    version: int
    endpoints: dict[str, Any]


class Request(NamedTuple):
    """A request that `ServedModels.check` has passed; `inputs`: name -> values."""

    model: ModelVersion
    endpoint: str
    inputs: dict[str, Values]


class _Model(NamedTuple):
    versions: dict[int, ModelVersion]
    labels: dict[str, int]


class ServedModels:
    """Models of a folder that `python -m export` wrote. It does not change; `moved` gives one of other versions.

    Args:
        served: model -> what of it is served; None: what the folder's models.config names.

    Raises:
        ConfigError: the folder has no model, or lacks one that models.config names.
    """

    def __init__(self, folder: Path, limits: Limits | None = None, served: Mapping[str, Served] | None = None):
        self.folder, self.limits = folder, limits or Limits()
        self.served = dict(served_models(folder) if served is None else served)
        self._load({})

    def moved(self, served: Mapping[str, Served]) -> "ServedModels":
        """The same folder with what is served then. Versions that are loaded here are not loaded again."""
        moved = copy.copy(self)
        moved.served = dict(served)
        moved._load(self._models)
        return moved

    def _load(self, loaded: dict[str, _Model]):
        self._models: dict[str, _Model] = {}
        for name, (numbers, labels) in self.served.items():
            present = loaded[name].versions if name in loaded else {}
            versions = {number: present.get(number) or self._loaded(name, number) for number in numbers}
            self._models[name] = _Model(versions, labels)

    def _loaded(self, name, number):
        return ModelVersion(name, number, endpoints(self.folder / name / str(number)))

    def warm_up(self, batch: int, warm: "ServedModels | None" = None) -> None:
        """Have every version answer encoded images once, `batch` of them and one alone: its first answers take longer.

        Args:
            warm: models whose versions have answered already.
        """
        for name, model in self._models.items():
            before = warm._models[name].versions if warm is not None and name in warm._models else {}
            for number in model.versions.keys() - before.keys():
                self._warm_up(model.versions[number], batch)

    def _warm_up(self, version, batch):
        for endpoint, function in version.endpoints.items():
            specs = self.inputs_of(version, endpoint)
            if all(spec.dtype == tf.string for spec in specs.values()):
                for count in (1, batch):
                    function(**{name: tf.constant([BLANK] * count) for name in specs})

    def versions_of(self, name: str) -> list[int]:
        """The versions of a model that are served, ascending."""
        return sorted(self._models[name].versions)

    def find(self, name: str, version: int | None = None, label: str | None = None) -> ModelVersion:
        """A version by its number or label; by default the newest.

        Raises:
            RequestError: NOT_FOUND.
        """
        models = self._models
        if name not in models:
            raise RequestError(
                "NOT_FOUND", f"There is no model {quoted(name)}; the models are {', '.join(models)}.", "unknown_model"
            )
        versions, labels = models[name]
        if label is not None:
            if label not in labels:
                raise RequestError(
                    "NOT_FOUND",
                    f"Model {name} has no label {quoted(label)}; its labels are {', '.join(labels)}.",
                    "unknown_version",
                )
            version = labels[label]
        version = max(versions) if version is None else version
        if version not in versions:
            raise RequestError(
                "NOT_FOUND",
                f"Model {name} has no version {version} here; its versions are {', '.join(map(str, versions))}.",
                "unknown_version",
            )
        return versions[version]

    # ------------------------------------------------------------------- checks

    def check(self, model: ModelVersion, endpoint: str, inputs: dict[str, Any]) -> Request:
        """A request that can be answered.

        Args:
            inputs: name -> a list of bytes or an array, as the client sent them.

        Raises:
            RequestError: NOT_FOUND or INVALID_ARGUMENT, by what is wrong.
        """
        specs = self.inputs_of(model, endpoint)
        endpoint = endpoint or DEFAULT_ENDPOINT
        if set(inputs) != set(specs):
            expected = " and ".join(map(repr, sorted(specs)))
            sent = quoted(*inputs) or "nothing"
            raise RequestError("INVALID_ARGUMENT", f"{endpoint} takes {expected}, not {sent}.")
        counts = {_count(values) for values in inputs.values()}
        if len(counts) > 1:
            raise RequestError("INVALID_ARGUMENT", f"{', '.join(inputs)} must hold equally many images.")
        if not 1 <= max(counts) <= self.limits.images:
            raise RequestError(
                "INVALID_ARGUMENT",
                f"A request holds 1 to {self.limits.images} images, not {max(counts)}.",
                "too_large" if max(counts) else "invalid",
            )
        pixels = 0
        for name, spec in specs.items():
            if spec.dtype == tf.string:
                pixels += self._check_encoded(name, inputs[name])
            else:
                _check_pixels(name, inputs[name], tuple(spec.shape[1:]))
        if pixels > self.limits.all_pixels:
            raise RequestError(
                "INVALID_ARGUMENT",
                f"The images have {pixels} pixels together; {self.limits.all_pixels} are allowed in a request.",
                "too_large",
            )
        return Request(model, endpoint, {name: inputs[name] for name in specs})

    def inputs_of(self, model: ModelVersion, endpoint: str) -> dict[str, tf.TensorSpec]:
        """Name of an input of an endpoint -> its specification.

        Raises:
            RequestError: NOT_FOUND, there is no such endpoint.
        """
        endpoint = endpoint or DEFAULT_ENDPOINT
        if endpoint not in model.endpoints:
            raise RequestError(
                "NOT_FOUND",
                f"There is no endpoint {quoted(endpoint)}; the endpoints are {', '.join(model.endpoints)}.",
                "unknown_signature",
            )
        return model.endpoints[endpoint].structured_input_signature[1]

    def _check_encoded(self, name, values):
        """How many pixels the images of an input have together."""
        if isinstance(values, np.ndarray) or not all(isinstance(value, bytes) for value in values):
            raise RequestError("INVALID_ARGUMENT", f"{name} must be a list of bytes.")
        pixels = 0
        for number, value in enumerate(values):
            try:
                pixels += images.check(value, self.limits.image_bytes, self.limits.pixels).pixels
            except ValueError as error:
                reason = "too_large" if isinstance(error, images.LimitError) else "undecodable"
                raise RequestError("INVALID_ARGUMENT", f"Image {number} {error}.", reason) from None
        return pixels

    # ------------------------------------------------------------------ answers

    def answer(self, requests: Sequence[Request]) -> list[dict[str, np.ndarray] | RequestError]:
        """Answer several requests; those to the same endpoint are computed in one batch.

        Returns:
            for each request a dict of arrays, or the error of this one alone: the others are answered all the same.
        """
        numbers_by_endpoint: dict[tuple[str, int, str], list[int]] = {}
        for number, request in enumerate(requests):
            key = (request.model.name, request.model.version, request.endpoint)
            numbers_by_endpoint.setdefault(key, []).append(number)

        answers: dict[int, dict[str, np.ndarray] | RequestError] = {}
        for (_, _, endpoint), numbers in numbers_by_endpoint.items():
            function = requests[numbers[0]].model.endpoints[endpoint]
            for part in self._in_batches(numbers, requests):
                answers |= zip(part, _run(function, [requests[number].inputs for number in part]), strict=True)
        return [answers[number] for number in range(len(requests))]

    def _in_batches(self, numbers, requests) -> Iterator[list[int]]:
        """Requests that together hold no more images than one request may hold."""
        batch: list[int] = []
        images = 0
        for number in numbers:
            count = images_in(requests[number].inputs)
            if batch and images + count > self.limits.images:
                yield batch
                batch, images = [], 0
            batch.append(number)
            images += count
        yield batch


def _count(values):
    """How many images an input holds; 0 of what is no list of them."""
    return 0 if isinstance(values, np.ndarray) and values.ndim == 0 else len(values)


def _check_pixels(name, values, shape):
    if not isinstance(values, np.ndarray) or values.dtype != np.uint8 or values.shape[1:] != shape:
        raise RequestError("INVALID_ARGUMENT", f"{name} must be uint8 of shape {[None, *shape]}.")


def _run(function, inputs_of_each):
    """The answer to each request. Where the batch fails, each is computed alone, so that only the bad one fails."""
    joined = {name: _joined([inputs[name] for inputs in inputs_of_each]) for name in inputs_of_each[0]}
    try:
        outputs = function(**joined)
    except tf.errors.OpError as error:
        if len(inputs_of_each) > 1:
            return [_run(function, [inputs])[0] for inputs in inputs_of_each]
        if isinstance(error, tf.errors.InvalidArgumentError):
            return [RequestError("INVALID_ARGUMENT", f"An image cannot be decoded: {_reason(error)}", "undecodable")]
        return [RequestError("INTERNAL", f"The model cannot answer: {_reason(error)}", "failed")]
    ends = np.cumsum([images_in(inputs) for inputs in inputs_of_each])
    parts = {name: np.split(values.numpy(), ends[:-1]) for name, values in outputs.items()}
    return [{name: parts[name][number] for name in parts} for number in range(len(inputs_of_each))]


def images_in(inputs):
    return len(next(iter(inputs.values())))


def _joined(values_of_each):
    if isinstance(values_of_each[0], list):
        return tf.constant([value for values in values_of_each for value in values])
    return tf.constant(np.concatenate(values_of_each))


def _reason(error):
    """The sentence of a TensorFlow error, without its place in the graph."""
    beside = ("[[", "Graph execution error", "Detected at", "<stack traces")
    lines = [line.strip() for line in error.message.splitlines()]
    return next((line[:QUOTED] for line in lines if line and not line.startswith(beside)), "no reason given")
