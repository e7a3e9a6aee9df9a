"""Convolutions in 8 bits: a frozen graph whose convolutions oneDNN computes from int8 weights and 8-bit activations.

Weights are quantised by output channel. Activations are quantised by tensor, between the extremes that they reach on
some images, the calibration. The rest of the graph stays float32: the convolution that reads the pixels, sums of
branches, pooling, dense layers.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

BATCH = 16  # images of the calibration at once
FLOAT = tf.float32.as_datatype_enum


class Site(NamedTuple):
    """A convolution, its bias and perhaps its ReLU, which become one operation.

    Attributes:
        kernel, bias: tensors.
        end: the last of the operations, whose place the quantised one takes.
        input_is_positive: the input is never negative, so that all 256 levels are above zero.
    """

    convolution: tf.Operation
    kernel: tf.Tensor
    bias: tf.Tensor
    end: tf.Operation
    input_is_positive: bool


def quantised(
    function: tf.types.experimental.ConcreteFunction, pixels: np.ndarray
) -> tuple[tf.types.experimental.ConcreteFunction, int, int]:
    """A frozen function of uint8 images [B, H, W, 3] with its convolutions in 8 bits.

    Args:
        function: of constants alone, with one input and one output.
        pixels: uint8 [N, H, W, 3], the images of the calibration.

    Returns:
        the function, how many convolutions are quantised, and how many are not.
    """
    graph = function.graph
    sites = _sites(graph)
    of_values = [site.convolution.inputs[0] for site in sites] + [site.end.outputs[0] for site in sites]
    extremes = _extremes(graph, list({tensor.name: tensor for tensor in of_values}.values()), function, pixels)
    with tf.compat.v1.Session(graph=graph) as session:
        values = session.run([(site.kernel, site.bias) for site in sites])
    made = _Nodes(graph)
    for site, (kernel, bias) in zip(sites, values, strict=True):
        made.add_site(site, kernel, bias, extremes)
    rewritten = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(made.graph_def(), name=""), [])
    names = function.inputs[0].name, [function.outputs[0].name]
    pruned = rewritten.prune(*(tf.nest.map_structure(rewritten.graph.get_tensor_by_name, part) for part in names))
    convolutions = sum(operation.type == "Conv2D" for operation in graph.get_operations())
    return pruned, len(sites), convolutions - len(sites)


def _sites(graph: tf.Graph) -> list[Site]:
    """The convolutions that can be quantised, in the order of the graph."""
    after_convolution, positive, sites = set(), set(), []
    for operation in graph.get_operations():
        given = [tensor.op.name for tensor in operation.inputs]
        if operation.type == "Relu" or (operation.type in ("MaxPool", "Identity", "Pad") and given[0] in positive):
            positive.add(operation.name)
        if operation.type == "Conv2D" or any(name in after_convolution for name in given):
            after_convolution.add(operation.name)
        if operation.type != "Conv2D" or given[0] not in after_convolution:
            continue
        maps, kernel = operation.inputs
        next_ones = operation.outputs[0].consumers()
        is_biased = len(next_ones) == 1 and next_ones[0].type == "BiasAdd"
        if is_biased and kernel.shape[2] == maps.shape[3] and operation.get_attr("padding") != b"EXPLICIT":
            after_bias = next_ones[0].outputs[0].consumers()
            has_relu = len(after_bias) == 1 and after_bias[0].type == "Relu"
            end = after_bias[0] if has_relu else next_ones[0]
            sites.append(Site(operation, kernel, next_ones[0].inputs[1], end, given[0] in positive))
    return sites


def _extremes(graph, tensors, function, pixels) -> dict[str, tuple[float, float]]:
    """Tensor's name -> the least and the largest number that it has on some images."""
    with tf.Graph().as_default() as measured:
        tf.graph_util.import_graph_def(graph.as_graph_def(), name="")
        values = [measured.get_tensor_by_name(tensor.name) for tensor in tensors]
        both = [(tf.reduce_min(value), tf.reduce_max(value)) for value in values]
        with tf.compat.v1.Session() as session:
            batches = [pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)]
            found = np.array([session.run(both, {function.inputs[0].name: batch}) for batch in batches])
    if not tensors:
        return {}
    least, most = found[:, :, 0].min(axis=0), found[:, :, 1].max(axis=0)
    return {tensor.name: (float(a), float(b)) for tensor, a, b in zip(tensors, least, most, strict=True)}


class _Nodes:
    """The nodes of a graph, in which some take the place of others."""

    def __init__(self, graph: tf.Graph):
        definition = graph.as_graph_def()
        self.library, self.versions = definition.library, definition.versions
        self.nodes = {node.name: node for node in definition.node}
        self.in_8_bits: dict[str, list[str]] = {}  # float tensor's operation -> its quantised values, least and most

    def graph_def(self) -> tf.compat.v1.GraphDef:
        return tf.compat.v1.GraphDef(node=self.nodes.values(), library=self.library, versions=self.versions)

    def add(self, kind, name, inputs, **attributes) -> str:
        node = tf.compat.v1.NodeDef(op=kind, name=name, input=inputs)
        for key, value in attributes.items():
            node.attr[key].CopyFrom(value)
        self.nodes[name] = node
        return name

    def constant(self, name, value, kind=tf.float32) -> str:
        if kind == tf.qint8:
            shape = tf.TensorShape(value.shape).as_proto()
            proto = tf.compat.v1.make_tensor_proto(0.0)
            proto.Clear()
            proto.dtype, proto.tensor_content = kind.as_datatype_enum, value.tobytes()
            proto.tensor_shape.CopyFrom(shape)
        else:
            proto = tf.make_tensor_proto(value, kind)
        return self.add("Const", name, [], dtype=_type(kind), value=tf.compat.v1.AttrValue(tensor=proto))

    def add_site(self, site: Site, kernel: np.ndarray, bias: np.ndarray, extremes: dict) -> None:
        """Put a quantised convolution in the place of a float one."""
        convolution, end = site.convolution, site.end.name
        maps = convolution.inputs[0]
        input_kind = tf.quint8 if site.input_is_positive else tf.qint8
        has_relu = site.end.type == "Relu"
        output_kind = tf.quint8 if has_relu else tf.qint8
        given = self.quantised_input(maps, input_kind, extremes[maps.name])
        largest = np.maximum(np.abs(kernel).max(axis=(0, 1, 2)), 1e-12)
        levels = np.clip(np.round(kernel / largest * 127.0), -127, 127).astype(np.int8)
        least, most = _bounds(extremes[site.end.outputs[0].name], output_kind)
        inputs = [
            given[0],
            self.constant(f"{end}/kernel", levels, tf.qint8),
            self.constant(f"{end}/bias", bias),
            given[1],
            given[2],
            self.constant(f"{end}/kernel_least", -largest),
            self.constant(f"{end}/kernel_most", largest),
            self.constant(f"{end}/least", least),
            self.constant(f"{end}/most", most),
        ]
        kept = {key: convolution.node_def.attr[key] for key in ("strides", "padding", "dilations")}
        types = {"Tinput": input_kind, "Tfilter": tf.qint8, "Tbias": tf.float32, "out_type": output_kind}
        kind = f"QuantizedConv2DWithBias{'AndRelu' * has_relu}AndRequantize"
        made = self.add(kind, f"{end}/int8", inputs, **kept, **{key: _type(value) for key, value in types.items()})
        results = [made, f"{made}:1", f"{made}:2"]
        if has_relu:
            self.in_8_bits[end] = results
        mode = tf.compat.v1.AttrValue(s=b"SCALED")
        self.add("Dequantize", end, results, T=_type(output_kind), dtype=_type(tf.float32), mode=mode)

    def quantised_input(self, maps: tf.Tensor, kind: tf.DType, extremes: tuple[float, float]) -> list[str]:
        name = maps.op.name
        if name not in self.in_8_bits:
            bounds = [self.constant(f"{name}/{end}", b) for end, b in zip("ab", _bounds(extremes, kind), strict=True)]
            attributes = {"mode": tf.compat.v1.AttrValue(s=b"SCALED"), "T": _type(kind)}
            attributes["round_mode"] = tf.compat.v1.AttrValue(s=b"HALF_TO_EVEN")
            made = self.add("QuantizeV2", f"{name}/8_bits", [maps.name, *bounds], **attributes)
            self.in_8_bits[name] = [made, f"{made}:1", f"{made}:2"]
        return self.in_8_bits[name]


def _bounds(extremes, kind) -> tuple[float, float]:
    """The least and the largest number that 8 bits stand for: from zero, or the same on both sides of it."""
    most = max(abs(extremes[0]), abs(extremes[1]), 1e-6)
    return (0.0, most) if kind == tf.quint8 else (-most, most)


def _type(kind: tf.DType):
    return tf.compat.v1.AttrValue(type=kind.as_datatype_enum)
