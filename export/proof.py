"""What a SavedModel has to pass before it gets its name."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from export import loading, saving
from tf_reid.config import ConfigError
from tf_reid.data import pipeline
from tf_reid.data.records import Records
from tf_reid.encoders.servable import ImageServable, Servable
from tf_reid.evaluation.scoring import Trained
from tf_reid.files import without_pattern
from tf_reid.runs.splits import scored_domain

CROPS = 64  # real images that are compared
LEAST_COSINE = 0.99999
MOST_APART = 1e-3
LEAST_COSINE_INT8 = 0.999  # rounding of float32 can move an activation by one of 256 levels
MOST_APART_INT8 = 0.05
INVALID = re.compile("InvalidArgumentError|3:")  # as the loaders name INVALID_ARGUMENT
BAD_IMAGE = b"\xff\xd8\xff\xe0 no image"
# Operations that read or write files, run Python, or need a compiler: none belongs into a graph that is served.
FORBIDDEN = ("File", "Save", "Restore", "Checkpoint", "PyFunc", "Xla", "Print", "RemoteCall", "Dataset", "VarHandle")


def prove(folder: Path, role: str, chosen: saving.Chosen, run: Trained) -> None:
    """Compare a saved encoder with the Keras model, on images that the run is scored on, and print what was proved.

    A quantised one is compared with itself as it was before it was saved: its scores say what it lost.

    Raises:
        ConfigError: something does not hold.
    """
    records = run.domains[scored_domain(run.config)].take(slice(CROPS))
    servable = chosen.servables[role]
    if chosen.quantised:
        expected = servable.from_bytes(tf.constant(records.images.tolist()))["embedding"].numpy()
        least_cosine, most_apart, truth_is = LEAST_COSINE_INT8, MOST_APART_INT8, "those before it was saved"
    else:
        expected = chosen.encoder.embed(records.images, role)
        least_cosine, most_apart, truth_is = LEAST_COSINE, MOST_APART, "Keras's"

    def compare(answer, truth):
        lengths = np.linalg.norm(answer, axis=1) * np.linalg.norm(truth, axis=1)
        cosine = float(((answer * truth).sum(axis=1) / np.maximum(lengths, 1e-12)).min())
        if not cosine >= least_cosine:  # nor if it is no number
            return f"its embeddings have a cosine of only {cosine:.6f} with {truth_is}"
        apart = float(np.abs(answer - truth).max() / np.abs(truth).max())
        if not apart <= most_apart:
            return f"its embeddings differ from {truth_is} by {apart:.1e} of the largest number in them"

    _prove(folder, servable, records, expected, compare)


def prove_images(folder: Path, servable: ImageServable, run: Trained) -> None:
    """As `prove`, of a model that makes images: they may differ from Keras's by one level of 255."""
    records = run.domains[scored_domain(run.config)].take(slice(CROPS))
    images = pipeline.all_images(records, servable.image_size)
    expected = pipeline.to_uint8(servable.make(*([tf.constant(images)] * len(servable.names))))

    def compare(answer, truth):
        if (apart := int(np.abs(answer.astype(int) - truth).max())) > 1:
            return f"its images differ from Keras's by {apart} levels of 255"

    _prove(folder, servable, records, expected, compare)


def _prove(
    folder: Path,
    servable: Servable | ImageServable,
    records: Records,
    expected: np.ndarray,
    compare: Callable[[np.ndarray, np.ndarray], str | None],
) -> None:
    """Load the model in fresh processes and compare its answers.

    Every input is given the same images. An endpoint whose answers are bytes is run and not compared.

    Args:
        compare: (an answer, what is expected of it) -> what is wrong, or None.
    """
    endpoints, operations = read(folder)
    if bad := sorted(name for name in operations if any(part in name for part in FORBIDDEN)):
        raise _refused(folder, f"its graph has the operations {', '.join(bad)}")
    encoded = records.images.tolist()
    pixels = pipeline.to_uint8(pipeline.all_images(records, servable.image_size))

    def case(endpoint, values):
        inputs = endpoints[endpoint]["inputs"]
        given = values if isinstance(values, dict) else dict.fromkeys(inputs, values)
        return {"inputs": {inputs[name]: of for name, of in given.items()}, "output": endpoints[endpoint]["output"]}

    good = [("tensor", pixels), ("tensor", pixels[:1])]
    if endpoints["serving_default"]["compared"]:
        good += [("serving_default", encoded), ("serving_default", encoded[:1])]
    # After a bad image come the good ones: it harmed nothing.
    cases = [case("serving_default", [encoded[0], BAD_IMAGE]), *(case(*one) for one in good)]
    cases += [case(endpoint, values) for endpoint, values in saving.warm_up_requests(servable)]
    for loader in loading.LOADERS:
        refused, *answers = _answers(loader, folder, cases)
        if refused.dtype.kind != "U" or INVALID.match(str(refused)) is None:
            raise _refused(folder, f"loaded by {loader}, it answers {refused} to bytes that are no image")
        if failed := [str(answer) for answer in answers if answer.dtype.kind == "U"]:
            raise _refused(folder, f"loaded by {loader}, it answers {failed[0]}")
        for answer in answers[: len(good)]:
            if wrong := compare(answer, expected[: len(answer)]):
                raise _refused(folder, f"loaded by {loader}, {wrong}")
        worst = max(np.abs(a.astype(np.float64) - expected[: len(a)]).max() for a in answers[: len(good)])
        print(
            f"{folder.parent.name}, loaded by {loading.TITLES[loader]}: {len(encoded)} crops at batch 1 and "
            f"{len(encoded)}: largest difference {worst:.1e}; bad image refused; {len(answers) - len(good)} warm-up "
            "requests answered"
        )


def read(folder: Path) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """Read a SavedModel's graph.

    Returns:
        endpoint -> its inputs' tensors by name, its output's tensor, and whether that holds numbers to compare; and the
        names of all operations that the endpoints use, inside functions too. The operations by which every SavedModel
        restores its variables, of which there are none here, do not belong to them.
    """
    model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    (graph,) = model.meta_graphs
    endpoints = {}
    for name, signature in graph.signature_def.items():
        if not name.startswith("__"):
            numbers = [one for one in signature.outputs.values() if one.dtype != tf.string.as_datatype_enum]
            output = (numbers or list(signature.outputs.values()))[0]
            inputs = {key: tensor.name for key, tensor in signature.inputs.items()}
            endpoints[name] = {"inputs": inputs, "output": output.name, "compared": bool(numbers)}
    functions = {function.signature.name: function.node_def for function in graph.graph_def.library.function}
    nodes = {node.name: node for node in graph.graph_def.node}

    # From the outputs back: the nodes that they need.
    waiting = [endpoint["output"].split(":")[0] for endpoint in endpoints.values()]
    seen, operations, called = set(), set(), []
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        waiting += [given.lstrip("^").split(":")[0] for given in nodes[name].input]
        called.append(nodes[name])

    # Into the functions that these nodes call.
    looked_into = set()
    while called:
        node = called.pop()
        operations.add(node.op)
        operations |= {name.lstrip("_") for name in node.attr if name == "_XlaMustCompile" and node.attr[name].b}
        for value in node.attr.values():
            for function in (value.func.name, *(part.name for part in value.list.func)):
                if function in functions and function not in looked_into:
                    looked_into.add(function)
                    called += functions[function]
    return endpoints, operations


def _answers(loader: str, folder: Path, cases: Sequence[dict]) -> list[np.ndarray]:
    """What a fresh process answers to each case."""
    with tempfile.TemporaryDirectory() as beside, without_pattern(folder.absolute()) as model:
        given, made = Path(beside) / "cases.npz", Path(beside) / "answers.npz"
        loading.write_cases(given, cases)
        line = [sys.executable, "-m", "export.loading", loader, str(model), str(given), str(made)]
        done = subprocess.run(line, capture_output=True, text=True, cwd=Path(__file__).parents[1])
        if done.returncode:
            raise _refused(folder, f"a fresh process cannot load it by {loader}: {done.stderr.strip()[-2000:]}")
        with np.load(made) as file:
            return [file[str(number)] for number in range(len(cases))]


def _refused(folder, why):
    return ConfigError(f"{folder} is not fit to be served and gets no version number: {why}.")
