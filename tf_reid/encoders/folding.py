"""Batch normalisation folded into the layer before it: the same features from fewer operations."""

from collections.abc import Iterator

import keras
import numpy as np
from keras import layers

FOLDABLE = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Dense)


def folded(model: keras.Model) -> tuple[keras.Model, int, int]:
    """A copy of a model in which no batch normalisation is left that directly follows a convolution or dense layer.

    In inference a batch normalisation is an affine map of each channel, gamma (x - mean) / sqrt(variance + epsilon) +
    beta. The layer before it takes the factor into its kernel and the rest into its bias. Models inside the model are
    folded as well.

    Returns:
        the copy, how many were folded, and how many are left. One is left where the layer before it is used elsewhere,
        is no such layer, or has an activation of its own.
    """
    norm_after = _norm_after(model)
    folded_norms = {id(norm) for norm in norm_after.values()}
    copies: dict[int, tuple[layers.Layer, layers.Layer]] = {}

    def copy(layer):
        if not isinstance(layer, layers.Layer):  # an operation, such as a slice: it has no state
            return layer
        if id(layer) in folded_norms:
            return PassThrough(name=layer.name)
        settings = layer.get_config()
        if id(layer) in norm_after:
            settings["use_bias"] = True
        copies[id(layer)] = layer, layer.__class__.from_config(settings)
        return copies[id(layer)][1]

    clone = keras.models.clone_model(model, clone_function=copy, recursive=True)
    for layer, copied in copies.values():
        norm = norm_after.get(id(layer))
        copied.set_weights(layer.get_weights() if norm is None else _with_norm(layer, norm))
    left = sum(isinstance(copied, layers.BatchNormalization) for _, copied in copies.values())
    return clone, len(norm_after), left


class PassThrough(layers.Layer):
    """In the place of a folded batch normalisation: it takes the same arguments and returns its inputs."""

    def call(self, inputs, training=None, mask=None):
        return inputs


def _norm_after(model: keras.Model) -> dict[int, layers.BatchNormalization]:
    """id of a convolution or dense layer -> the batch normalisation that alone reads its output."""
    norms = {}
    for part in _models_in(model):
        # Which layers and operations read each tensor. One that is called twice reads at each of its nodes.
        readers: dict[int, list] = {}
        for operation in getattr(part, "operations", part.layers):  # a Sequential has layers alone
            for node in operation._inbound_nodes:
                for tensor in node.input_tensors:
                    readers.setdefault(id(tensor), []).append(operation)
        outputs = {id(tensor) for tensor in part.outputs}

        for layer in part.layers:
            if not isinstance(layer, FOLDABLE) or layer.activation is not keras.activations.linear:
                continue
            results = [tensor for node in layer._inbound_nodes for tensor in node.output_tensors]
            if len(results) != 1 or id(results[0]) in outputs:
                continue
            read_by = readers.get(id(results[0]), [])
            if len(read_by) == 1 and isinstance(read_by[0], layers.BatchNormalization):
                norms[id(layer)] = read_by[0]
    return norms


def _models_in(model: keras.Model) -> Iterator[keras.Model]:
    """The model and all models inside it."""
    yield model
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _models_in(layer)


def _with_norm(layer: layers.Layer, norm: layers.BatchNormalization) -> list[np.ndarray]:
    """Kernels and bias of one layer that does what this layer and the normalisation after it do."""
    kernels = [np.asarray(v, np.float64) for v in layer.weights[: len(layer.weights) - layer.use_bias]]
    bias = np.asarray(layer.bias, np.float64) if layer.use_bias else 0.0
    mean, variance = (np.asarray(v, np.float64) for v in (norm.moving_mean, norm.moving_variance))
    factor = 1.0 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        factor = factor * np.asarray(norm.gamma, np.float64)
    shift = np.asarray(norm.beta, np.float64) if norm.center else 0.0
    # The last axis of the last kernel is that of its outputs; a depthwise one has two, inputs and outputs of each.
    of_kernel = factor.reshape(kernels[-1].shape[2:]) if isinstance(layer, layers.DepthwiseConv2D) else factor
    kernels[-1] = kernels[-1] * of_kernel
    return [array.astype(np.float32) for array in (*kernels, (bias - mean) * factor + shift)]
