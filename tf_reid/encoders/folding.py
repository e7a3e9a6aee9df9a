"""Batch normalisation folded into the layer before it: the same features from fewer operations."""

import keras
import numpy as np
from keras import layers


def folded(model: keras.Model) -> tuple[keras.Model, int, int]:
    """A copy of a model in which no batch normalisation is left that directly follows a convolution or dense layer.

    In inference it is an affine map a channel, gamma (x - mean) / sqrt(variance + epsilon) + beta: the layer before
    takes its factor into its kernel and the rest into its bias. Models inside the model are gone through as well.

    Returns:
        the copy, how many were folded, and how many are left, since what is before them is used elsewhere, is no such
        layer, or has an activation of its own.
    """
    follows = _follows(model)
    taken = {id(norm) for norm in follows.values()}
    copies = {}

    def copy(layer):
        if not isinstance(layer, layers.Layer):  # an operation, such as a slice: it has no state
            return layer
        if id(layer) in taken:
            return Nothing(name=layer.name)
        settings = layer.get_config()
        if id(layer) in follows:
            settings["use_bias"] = True
        copies[id(layer)] = layer, layer.__class__.from_config(settings)
        return copies[id(layer)][1]

    found = keras.models.clone_model(model, clone_function=copy, recursive=True)
    for original, made in copies.values():
        weights = original.get_weights()
        made.set_weights(_with_norm(original, follows[id(original)]) if id(original) in follows else weights)
    left = sum(isinstance(made, layers.BatchNormalization) for _, made in copies.values())
    return found, len(follows), left


class Nothing(layers.Layer):
    """Where a batch normalisation was: it is called as one."""

    def call(self, inputs, training=None, mask=None):
        return inputs


def _follows(model) -> dict:
    """id of a convolution or dense layer -> the batch normalisation that alone sees its output."""
    found = {}
    for part in _parts(model):
        readers = {}  # of each tensor, layers and operations; one that is called twice reads at each of its nodes
        for operation in getattr(part, "operations", part.layers):  # a Sequential has layers alone
            for node in operation._inbound_nodes:
                for seen in node.input_tensors:
                    readers.setdefault(id(seen), []).append(operation)
        kept = {id(tensor) for tensor in part.outputs}
        for layer in part.layers:
            if not isinstance(layer, layers.Conv2D | layers.Dense) or layer.activation is not keras.activations.linear:
                continue
            made = [tensor for node in layer._inbound_nodes for tensor in node.output_tensors]
            seen_by = readers.get(id(made[0]), []) if len(made) == 1 and id(made[0]) not in kept else []
            if len(seen_by) == 1 and isinstance(seen_by[0], layers.BatchNormalization):
                found[id(layer)] = seen_by[0]
    return found


def _parts(model):
    """The model and all models inside it."""
    yield model
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _parts(layer)


def _with_norm(layer, norm):
    """Kernel and bias of the layer and the normalisation after it."""
    kernel = np.asarray(layer.kernel, np.float64)
    bias = np.asarray(layer.bias, np.float64) if layer.use_bias else 0.0
    mean, variance = (np.asarray(v, np.float64) for v in (norm.moving_mean, norm.moving_variance))
    factor = 1.0 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        factor = factor * np.asarray(norm.gamma, np.float64)
    shift = np.asarray(norm.beta, np.float64) if norm.center else 0.0
    # The last axis of a kernel is of what comes out, for a convolution as for a dense layer.
    return [(kernel * factor).astype(np.float32), ((bias - mean) * factor + shift).astype(np.float32)]
