"""Milliseconds of a training step at full width, and images a second of the input pipeline.

python -m benchmarks.training [--only simpgan dgnet crossgan pipeline] [--rows 2 4] [--steps 5] [--xla] [--profile]

SimPGAN: 2 source + 2 target images of 128x64, generators of 64 filters and 6 blocks, ResNet-50 classifier. DG-Net:
`rows` of 4 images of 256x128 (2 rows are 2 + 2 images and 2 + 2 positives), ResNet-50 encoder and teacher, before and
after the warm-up. Cross-GAN: 128 + 128 images of 128x64, the joint stage. All losses and all updates. The reference of
a step is the time that the same multiply-adds (counted from the networks) take at the rate of a large float32 matrix
product measured in the same run: no implementation can be faster than that. `--profile` also says which operations a
step's time goes to, forward and backward.

The pipeline: JPEG of 128x64 -> flip, pad 10, crop -> batches of 64, as with many images, where each is decoded whenever
it is drawn, and as with few, which are decoded once. The reference is a plain OpenCV loop that decodes.
"""

import argparse
import collections
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import keras
import numpy as np
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from tf_reid.data import pipeline, samplers
from tf_reid.data.records import Records
from tf_reid.methods import METHODS
from tf_reid.settings import Optimizer, StageSettings

SIZE = (128, 64)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training")
    known = ["simpgan", "dgnet", "crossgan", "pipeline"]
    parser.add_argument("--only", nargs="+", choices=known, default=known)
    parser.add_argument("--rows", type=int, nargs="+", default=[2], help="of DG-Net's batch")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--xla", action="store_true", help="also compile the steps by XLA, which takes minutes")
    parser.add_argument("--profile", action="store_true", help="also say where a step's time goes")
    args = parser.parse_args()
    rate = matrix_rate()
    print(f"{os.cpu_count()} cores, TensorFlow {tf.__version__}, matrix product {rate / 1e9:.0f} GFLOP/s", flush=True)
    for xla in (False, True) if args.xla else (False,):
        for name, ready_step in steps_of(args, xla):
            step, operations = ready_step()
            seconds = fastest(step, args.steps)
            print(
                f"{name + (' with XLA' if xla else ''):36} {1000 * seconds:6.0f} ms, {operations / 1e9:.0f} GFLOP; "
                f"{seconds / (operations / rate):.2f} x the time at the matrix product's rate",
                flush=True,
            )
            if args.profile:
                print_profile(step)
    if "pipeline" not in args.only:
        return
    reference = reference_images_a_second()
    for kept, when in ((0, "when drawn"), (pipeline.DECODED_BYTES, "once")):
        pipeline.DECODED_BYTES = kept
        ours = images_a_second()
        print(
            f"input pipeline, decoded {when}: {ours:.0f} images/s; {ours / reference:.2f} x a plain OpenCV loop "
            f"({reference:.0f} images/s)"
        )


def steps_of(args, xla):
    """Name, and a function that makes it ready, of each step that is asked for."""
    if "simpgan" in args.only:
        yield "SimPGAN", partial(simpgan_step, xla)
    if "dgnet" in args.only:
        for rows in args.rows:
            for fed, when in ((False, "before"), (True, "after")):
                yield f"DG-Net, {rows} rows, {when} the warm-up", partial(dgnet_step, xla, rows, fed)
    if "crossgan" in args.only:
        yield "Cross-GAN", partial(crossgan_step, xla)


def matrix_rate(n=2048) -> float:
    """Floating-point operations a second of a float32 matrix product."""
    a = tf.random.uniform((n, n))
    product = tf.function(lambda: tf.reduce_sum(a @ a))
    return 2 * n**3 / fastest(lambda: product().numpy(), 5)


def simpgan_step(xla) -> tuple[Callable, float]:
    """-> a training step, and its floating-point operations."""
    model = ready("simpgan", SIZE, "translation", xla, weights=None)
    step = on_random_images(model, {"source": (1, 2, *SIZE, 3), "target": (1, 2, *SIZE, 3)})
    # A backward pass costs twice its forward pass where weights learn, once where only the image does.
    generator, discriminator = multiply_adds(model.G), multiply_adds(model.D_S)
    classifier = multiply_adds(model.classifier.backbone)
    return step, 2.0 * (4 * (2 * generator * 3) + 4 * discriminator * 2 + 2 * classifier * 2 + 8 * discriminator * 3)


def dgnet_step(xla, rows, fed) -> tuple[Callable, float]:
    """-> a training step with so many rows of four images, and its floating-point operations."""
    size = (256, 128)
    warm_up = 0 if fed else 10**6
    model = ready("dgnet", size, "joint", xla, weights=None, teacher_weights=None, warm_up=warm_up, erasing=0.5)
    step = on_random_images(model, {"source": (rows, 4, *size, 3)})
    encoder, teacher = multiply_adds(model.E_a), multiply_adds(model.teacher.backbone)
    structure, decoder, discriminator = (multiply_adds(network) for network in (model.E_s, model.G, model.D))
    pair, images = 2 * rows, 4 * rows
    done = images * encoder * (1 + 3) + pair * encoder * 2  # codes, identities, and what swaps show a frozen encoder
    done += pair * structure * 3 + 3 * pair * decoder * 3
    done += pair * discriminator * (2 * 3 + 3 + 2)  # D: real ones twice for the penalty, swaps; G: swaps
    if fed:
        done += (
            pair * encoder * 2 + 2 * pair * teacher
        )  # one look at swaps serves both; identities of them, as the teacher says
        done += pair * structure * 2 + pair * decoder * 3  # the structure found again, the cycle
    return step, 2.0 * done


def crossgan_step(xla) -> tuple[Callable, float]:
    """-> a joint training step, and its floating-point operations; the perceptrons' are left out."""
    model = ready("crossgan", SIZE, "joint", xla)
    step = on_random_images(model, {"source": (128, 2, *SIZE, 3)})
    generators = multiply_adds(model.g1) + multiply_adds(model.g2)
    discriminators = multiply_adds(model.f1) + multiply_adds(model.f2)
    return step, 2.0 * 128 * (generators * 3 + discriminators * (2 * 3 + 1 + 2))


def ready(name, size, stage, xla, **settings):
    """A method with Adam everywhere, at the beginning of a stage."""
    keras.utils.set_random_seed(0)
    model = METHODS[name](size, 751, 0, **settings)
    adam = Optimizer(learning_rate=1.0e-4, beta_1=0.5)
    stages = {
        name: StageSettings(steps=100, batch_size=8, optimizers=dict.fromkeys(about.players, adam))
        for name, about in model.STAGES.items()
    }
    model.compile(stages, jit_compile=xla)
    model.begin(stage)
    return model


def on_random_images(model, shapes):
    """A training step on random images of these shapes, [rows, images of a row, height, width, 3]."""
    rng = np.random.default_rng(0)
    batch = {domain: rng.uniform(-1, 1, shape).astype(np.float32) for domain, shape in shapes.items()}
    batch["source_identity"] = np.broadcast_to(np.arange(shapes["source"][1]) % 2 + 3, shapes["source"][:2]).copy()
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    return lambda: [float(loss) for loss in model.train_function(batches).values()]


def print_profile(step, kinds=8):
    """Shares of the operations' time in one step, by kind; operations that run at once are each counted whole."""
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            step()
        space = xplane_pb2.XSpace()
        (written,) = Path(folder).rglob("*.xplane.pb")
        space.ParseFromString(written.read_bytes())
    spent = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                about = plane.event_metadata[event.metadata_id]
                if ":" in about.name and about.display_name:  # an operation of the graph: scope/name:kind
                    spent[about.display_name.removeprefix("_Mkl").removeprefix("Native")] += event.duration_ps
    for kind, time_spent in spent.most_common(kinds):
        print(f"    {time_spent / spent.total():4.0%}  {kind}", flush=True)


def multiply_adds(network) -> int:
    """Of the convolutions of one image's forward pass, read from its graph."""
    inputs = [tf.TensorSpec((1, *tensor.shape[1:])) for tensor in network.inputs]
    graph = (
        tf.function(lambda *parts: network(list(parts) if len(parts) > 1 else parts[0]))
        .get_concrete_function(*inputs)
        .graph
    )
    total = 0
    for op in graph.get_operations():
        if op.type in ("Conv2D", "Conv2DBackpropInput"):  # the latter is what a transposed convolution is made of
            places = op.outputs[0] if op.type == "Conv2D" else op.inputs[2]
            total += int(np.prod(places.shape[1:3])) * int(np.prod(op.inputs[1].shape))
    return total


def jpeg_files(count=1024):
    rng = np.random.default_rng(0)
    images = [cv2.resize(rng.integers(256, size=(16, 8, 3), dtype=np.uint8), SIZE[::-1]) for _ in range(count)]
    return np.array([cv2.imencode(".jpg", image)[1].tobytes() for image in images], dtype=object)


def images_a_second(steps=150, batch=64) -> float:
    encoded = jpeg_files()
    camera = np.arange(len(encoded)) % 2
    identity = np.arange(len(encoded)) // 4 + 1
    text = np.full(len(encoded), "")
    records = Records("benchmark", encoded, identity, camera, text, text, text, {}, "", "benchmark")
    options = {"seed": 0, "stage": 0, "start": 0, "steps": 20 + steps, "image_size": SIZE, "flip": True, "pad": 10}
    sampler = samplers.pairs(records, StageSettings(steps=steps, batch_size=batch, optimizers={}))
    batches = iter(pipeline.training_batches({"source": records}, sampler, **options))
    for _ in range(20):
        next(batches)
    start = time.perf_counter()
    for _ in range(steps):
        next(batches)
    return batch * steps / (time.perf_counter() - start)


def reference_images_a_second(steps=40, batch=64) -> float:
    encoded, rng = jpeg_files(), np.random.default_rng(0)
    start = time.perf_counter()
    for _ in range(steps):
        np.stack([loaded_plainly(encoded[i], rng) for i in rng.integers(len(encoded), size=batch)])
    return steps * batch / (time.perf_counter() - start)


def loaded_plainly(blob, rng):
    image = cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    if rng.random() < 0.5:
        image = image[:, ::-1]
    y, x = rng.integers(21, size=2)
    padded = cv2.copyMakeBorder(np.ascontiguousarray(image), 10, 10, 10, 10, cv2.BORDER_REPLICATE)
    return padded[y : y + SIZE[0], x : x + SIZE[1]].astype(np.float32) / 127.5 - 1.0


def fastest(action, repeats) -> float:
    """Seconds of the fastest of several calls, after one that compiles."""
    action()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
