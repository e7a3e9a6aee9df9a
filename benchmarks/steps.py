"""Training steps to measure: a stage of a configuration at full width, on random images, from random weights."""

import collections
import gc
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import keras
import numpy as np
import tensorflow as tf

from tf_reid import config as configuration
from tf_reid.data import pipeline, samplers
from tf_reid.data.records import Records
from tf_reid.methods import METHODS
from tf_reid.methods.base import ReIDModel
from tf_reid.runs import reproducibility, run_folder
from tf_reid.settings import Config

IDENTITIES = 751  # Market-1501's, wherever a head has an output an identity
LONGEST_PERIOD = 12  # steps within which kinds of steps that take turns repeat
VARIANTS = {  # name -> settings
    "plain": ["run.jit_compile=false"],
    "compiled": ["run.jit_compile=true"],
    "bfloat16": ["run.jit_compile=false", "run.precision=bfloat16"],
    "both": ["run.jit_compile=true", "run.precision=bfloat16"],
}
WEIGHTS = ("weights", "teacher_weights", "probe_weights", "gallery_weights", "encoder_weights")


@dataclass(frozen=True)
class Kind:
    """A kind of step of a stage.

    Attributes:
        name: such as "joint, at step 99,999".
        at: a step of this kind.
        period: how many steps in a row repeat the pattern of kinds.
    """

    name: str
    at: int
    period: int


def settings(config: str, overrides: list[str]) -> Config:
    """A configuration with random weights in place of published ones, so that nothing has to be downloaded."""
    loaded = configuration.load(config, overrides, METHODS)
    random = [f"method.{key}=null" for key in WEIGHTS if loaded.method.get(key) == "imagenet"]
    return configuration.load(config, [*overrides, *random], METHODS)


def stages_with_steps(config: Config) -> list[str]:
    """The stages that the configuration trains."""
    return [name for name, stage in config.stages.items() if stage.steps]


def kinds_of_steps(model: ReIDModel, stage: str) -> list[Kind]:
    """The kinds of steps of a stage: one, or those before and after a warm-up; turns are measured together."""
    model.begin(stage)
    first, last = 0, model.steps_of_stage[stage] - 1
    phases = [model.phase_of(step) for step in range(LONGEST_PERIOD)]
    period = next((p for p in range(1, LONGEST_PERIOD) if phases[p:] == phases[:-p]), LONGEST_PERIOD)
    if period == 1 and model.phase_of(first) != model.phase_of(last):
        return [Kind(f"{stage}, first step", first, 1), Kind(f"{stage}, last step", last, 1)]
    return [Kind(stage, first, period)]


def built(config: Config) -> ReIDModel:
    """The method as a run builds it, deterministic by default; memory of an earlier one is given back first."""
    keras.backend.clear_session()
    gc.collect()
    reproducibility.make_deterministic(config)
    return run_folder.build_model(config, IDENTITIES)


def batch_of(model: ReIDModel, config: Config, stage: str) -> dict[str, tf.Tensor]:
    """The first batch of a stage, from records of random images of both modalities and of two cameras."""
    size = tuple(config.data.image_size)
    records = {domain: random_records(size) for domain in ("source", "target")}
    sampler = samplers.of_stage(model.STAGES[stage], config.stages[stage], records)
    drawn = sampler(np.random.default_rng(0))
    layout = {"seed": 0, "stage": 0, "start": 0, "steps": 1, "image_size": size}
    domains = {domain: records[domain] for domain in drawn}
    return next(iter(pipeline.training_batches(domains, sampler, **layout, **config.data.augment.model_dump())))


def random_records(size: tuple[int, int], identities: int = 256, each: int = 4) -> Records:
    """JPEG images of noise: every identity has `each` images, in turn of two cameras and both modalities."""
    count = identities * each
    second = np.arange(count) % 2
    text = np.full(count, "")
    return Records(
        "benchmark",
        images=np.resize(noise_in_jpeg(size, 64), count),
        identity=np.arange(count) // each + 1,
        camera=second + 1,
        modality=np.where(second, "infrared", "rgb"),
        file=text,
        split=text,
        protocols={},
        default_protocol="",
        population="benchmark",
    )


def noise_in_jpeg(size: tuple[int, int], count: int) -> np.ndarray:
    """So many JPEG files with coarse noise, objects [count]."""
    rng = np.random.default_rng(0)
    images = [cv2.resize(rng.integers(256, size=(16, 8, 3), dtype=np.uint8), size[::-1]) for _ in range(count)]
    return np.array([cv2.imencode(".jpg", image)[1].tobytes() for image in images], dtype=object)


def ready_steps(
    model: ReIDModel, stage: str, batch: dict[str, tf.Tensor], at: int
) -> Callable[[int], dict[str, tf.Tensor]]:
    """A function that carries out so many steps, from step `at` of the stage on, always on this batch."""
    begin(model, stage, at)
    batches: Iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())

    def carry_out(count: int) -> dict[str, tf.Tensor]:
        while count:
            done, losses = model.advance(batches, count)
            count -= done
        return losses

    return carry_out


def begin(model: ReIDModel, stage: str, at: int):
    """Train this stage from step `at` on."""
    model.step.assign(at)
    model.begin(stage)


def multiply_adds(model: ReIDModel, stage: str, batch: dict[str, tf.Tensor], at: int) -> int:
    """Multiply-adds of the convolutions and matrix products of a step, forward and backward, read from its graph."""
    begin(model, stage, at)
    model.phase = model.phase_of(at)
    graph = tf.function(model.train_step).get_concrete_function(batch).graph
    return multiply_adds_of(graph)


def multiply_adds_of(graph: tf.Graph) -> int:
    """Multiply-adds of the convolutions and matrix products of a graph, whose shapes are all known."""
    return sum(map(_of_operation, _operations(graph)))


def _operations(graph: tf.Graph) -> Iterator[tf.Operation]:
    """All operations of a graph and of the functions that it calls."""
    yield from graph.get_operations()
    called = collections.Counter(
        attribute.func.name
        for op in graph.get_operations()
        for attribute in op.node_def.attr.values()
        if attribute.HasField("func")
    )
    for name, times in called.items():
        inner = graph._get_function(name)
        if inner is not None and hasattr(inner, "graph"):
            yield from itertools.chain(*[list(_operations(inner.graph))] * times)


def _of_operation(op: tf.Operation) -> int:
    """Places of the convolution's output times the kernel; of a product of matrices, the three sides multiplied.

    The gradients of a convolution, and the transposed one, take as many as the convolution itself, whose output is the
    smaller image where it has a stride.
    """
    if op.type in ("Conv2D", "DepthwiseConv2dNative"):
        places, kernel = op.outputs[0].shape, op.inputs[1].shape
    elif op.type in ("Conv2DBackpropInput", "DepthwiseConv2dNativeBackpropInput"):
        places, kernel = op.inputs[2].shape, op.inputs[1].shape
    elif op.type in ("Conv2DBackpropFilter", "DepthwiseConv2dNativeBackpropFilter"):
        places, kernel = op.inputs[2].shape, op.outputs[0].shape
    elif op.type in ("MatMul", "BatchMatMulV2"):
        inner = op.inputs[0].shape[-2 if op.node_def.attr["transpose_a"].b else -1]
        return int(np.prod(op.outputs[0].shape)) * int(inner)
    else:
        return 0
    if None in (*places, *kernel):
        raise ValueError(f"{op.name} has a shape that is not known: its multiply-adds cannot be counted.")
    return int(np.prod(places[:3])) * int(np.prod(kernel))
