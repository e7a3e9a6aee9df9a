"""A frozen TensorFlow graph of a convolutional network as an ONNX model, so that ONNX Runtime can be timed beside it.

It knows the operations of the networks that are served here and says which one it does not know.
"""

import numpy as np
import onnx
import tensorflow as tf
from onnx import helper, numpy_helper

SAME = {"Identity": "Identity", "Relu": "Relu", "AddV2": "Add", "Sub": "Sub", "Mul": "Mul", "RealDiv": "Div"}
SAME |= {"Maximum": "Max", "BiasAdd": "Add"}


def onnx_model(graph: tf.Graph, output: str) -> bytes:
    """A graph of constants, from uint8 [B, H, W, 3] to [B, D], as an ONNX model. Maps lie [B, C, H, W] inside.

    Args:
        output: the name of the output's operation.

    Raises:
        NotImplementedError: it has an operation that is not known here.
    """
    known, nodes = _constants(graph), []
    weights: dict[str, onnx.TensorProto] = {}
    placeholder = next(operation for operation in graph.get_operations() if operation.type == "Placeholder")
    for operation in graph.get_operations():
        if operation.type not in ("Placeholder", "NoOp") and operation.name not in known:
            nodes += _converted(operation, known, weights)
    shape = [None, *placeholder.outputs[0].shape[1:]]
    images = helper.make_tensor_value_info(placeholder.name, onnx.TensorProto.UINT8, shape)
    width = graph.get_operation_by_name(output).outputs[0].shape[-1]
    answer = helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, [None, width])
    made = helper.make_graph(nodes, "network", [images], [answer], list(weights.values()))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def _constants(graph) -> dict[str, np.ndarray]:
    """Operation -> its value, of constants and of what is computed from constants alone."""
    tensors: dict[str, tf.Tensor] = {}
    for operation in graph.get_operations():
        given = [tensor.op.name for tensor in operation.inputs]
        if operation.type == "Const" or (given and all(name in tensors for name in given)):
            tensors[operation.name] = operation.outputs[0]
    with tf.compat.v1.Session(graph=graph) as session:
        return session.run(tensors)


def _converted(operation, known, weights) -> list[onnx.NodeProto]:
    """The ONNX nodes of one operation; its constants are added to `weights`."""
    name, kind = operation.name, operation.type
    given = [tensor.op.name for tensor in operation.inputs]
    are_maps = operation.outputs[0].shape.rank == 4

    def weight(key, value):
        weights[key] = numpy_helper.from_array(np.ascontiguousarray(value), key)
        return key

    def operand(key):
        if key not in known:
            return key
        value = known[key]
        return weight(f"{name}/{key}", value.reshape(1, -1, 1, 1) if are_maps and value.ndim else value)

    if kind in SAME:
        return [helper.make_node(SAME[kind], [operand(key) for key in given], [name])]
    if kind == "Cast":
        pixels = helper.make_node("Cast", given, [f"{name}/pixels"], to=onnx.TensorProto.FLOAT)
        return [pixels, helper.make_node("Transpose", [f"{name}/pixels"], [name], perm=[0, 3, 1, 2])]
    if kind == "StridedSlice":  # the order of the channels
        return [helper.make_node("Gather", [given[0], weight(f"{name}/order", np.array([2, 1, 0]))], [name], axis=1)]
    if kind == "Pad":
        pads = known[given[1]][[0, 3, 1, 2]].T.ravel()
        return [helper.make_node("Pad", [given[0], weight(f"{name}/pads", pads.astype(np.int64))], [name])]
    if kind == "Conv2D":
        kernel = weight(f"{name}/kernel", known[given[1]].transpose(3, 2, 0, 1))
        return [helper.make_node("Conv", [given[0], kernel], [name], **_window(operation, known[given[1]].shape[:2]))]
    if kind == "MaxPool":
        size = operation.get_attr("ksize")[1:3]
        return [helper.make_node("MaxPool", [given[0]], [name], kernel_shape=size, **_window(operation, size))]
    if kind == "Mean":  # of whole maps
        return [helper.make_node("ReduceMean", [given[0]], [name], axes=[2, 3], keepdims=0)]
    if kind == "Sum":
        return [helper.make_node("ReduceSum", [given[0], weight(f"{name}/axes", np.array([-1]))], [name])]
    if kind == "Square":
        return [helper.make_node("Mul", [given[0], given[0]], [name])]
    if kind == "Rsqrt":
        root = helper.make_node("Sqrt", given, [f"{name}/root"])
        return [root, helper.make_node("Reciprocal", [f"{name}/root"], [name])]
    raise NotImplementedError(f"{kind} ({name}) is not known to benchmarks.onnx_rival.")


def _window(operation, size) -> dict:
    """Strides and padding of a convolution or a pooling."""
    strides = operation.get_attr("strides")[1:3]
    same = operation.get_attr("padding") == b"SAME" and tuple(size) != (1, 1)
    return {"strides": strides, "auto_pad": "SAME_UPPER" if same else "VALID"}
