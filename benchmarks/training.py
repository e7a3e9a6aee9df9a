"""Milliseconds, images a second and memory of a training step: every method and stage at the paper's batch.

python -m benchmarks.training [CONFIG ...] [--stages joint] [--variants plain compiled bfloat16 both] [--set key=value]
                              [--batch 8] [--steps 5] [--steps-per-call 10] [--rival] [--profile] [--to FILE.jsonl]

Random images, random weights, all losses and all updates, deterministic operations as in a run. The last column is the
rate of the step's multiply-adds (counted in its graph) beside that of one large matrix product of the same precision,
measured in the same run. On a CPU every stage has a process of its own, and its memory is that process's peak, which is
known of its first kind of step alone. On a GPU it is the peak of what TensorFlow held there. If something fails, the
others are measured all the same, and the exit status is 1.

`--rival` also times plain Keras, `compile` and `fit` of a ResNet-50 classifier, at the same batch and image size.
Its memory is not measured: the method's lies beside it.
`--profile` also says which operations a step's time goes to.
"""

import argparse
import collections
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from benchmarks import steps
from benchmarks.memory import peak_of_process
from benchmarks.steps import VARIANTS
from tf_reid.command_line import settings_option

# One full-size configuration a method. `identity` has a small one only.
CONFIGS = {
    "identity": ["method.backbone=ResNet50", "data.image_size=[256, 128]"],
    "simpgan_market_to_grid": [],
    "dgnet_market1501": [],
    "cmgan_sysu_mm01": [],
    "view_adaptation_market1501": [],
    "crossgan_market1501": [],
}
HEAD = "| configuration | step | batch | variant | ms | images/s | first step, s | GiB | of the product's rate |"
FAILED = " failed | | | | |"


def main() -> int:
    """Returns the exit status."""
    args = arguments()
    rows = Rows(args.to)
    gpus = tf.config.list_physical_devices("GPU")
    rates = {precision: matrix_rate(precision, 8192 if gpus else 2048) for precision in ("float32", "bfloat16")}
    shown = ", ".join(f"{precision} {rate / 1e12:.3g} TFLOP/s" for precision, rate in rates.items())
    print(f"{device_name(gpus)}; TensorFlow {tf.__version__}; matrix product: {shown}\n\n{HEAD}")
    print("|---" * HEAD.count(" | ") + "|---|", flush=True)
    failed = 0
    for config, variant in itertools.product(args.configs, args.variants):
        if args.here:
            rows.add_all(measured(args, config, variant, rates))
        elif gpus:
            failed += not tried(rows, measured(args, config, variant, rates), f"| {config} | | | {variant} |")
        else:
            failed += in_processes_of_their_own(args, config, variant)
    return 1 if failed else 0


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training")
    parser.add_argument("configs", nargs="*", default=list(CONFIGS), metavar="CONFIG", help=", ".join(CONFIGS))
    parser.add_argument("--stages", nargs="+", help="only these")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["plain"])
    settings_option(parser, "other settings")
    parser.add_argument("--batch", type=int, help="batch_size of every stage, where the configured one is too large")
    parser.add_argument("--steps", type=int, default=5, help="how many to measure, after the first")
    parser.add_argument("--steps-per-call", type=int, default=1)
    parser.add_argument("--rival", action="store_true", help="also plain Keras")
    parser.add_argument("--profile", action="store_true", help="also where a step's time goes")
    parser.add_argument("--to", type=Path, help="also write the rows here, a line of JSON each")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # all rows in this process
    return parser.parse_args(argv)


def tried(rows, measuring, start_of_row) -> bool:
    """Add all rows; whether nothing failed."""
    try:
        rows.add_all(measuring)
    except Exception:  # such as a step that is too large for the GPU
        traceback.print_exc()
        print(f"{start_of_row}{FAILED}", flush=True)
        return False
    return True


def in_processes_of_their_own(args, config, variant) -> int:
    """Measure every stage of a configuration in a process each, which prints its rows; how many failed."""
    failed = 0
    of_config = steps.settings(config, overrides_of(args, config, variant))
    for stage in args.stages or steps.stages_with_steps(of_config):
        options = [f"--{name}={getattr(args, name)}" for name in ("batch", "steps", "to") if getattr(args, name)]
        options += [f"--steps-per-call={args.steps_per_call}", *(["--set", *args.set] if args.set else [])]
        options += [f"--{name}" for name in ("rival", "profile") if getattr(args, name)]
        line = [sys.executable, "-m", "benchmarks.training", config, "--here", "--stages", stage, *options]
        done = subprocess.run([*line, "--variants", variant], stdout=subprocess.PIPE, text=True)
        print(done.stdout.partition("|---|\n")[2], end="", flush=True)
        if done.returncode:
            print(f"| {config} | {stage} | | {variant} |{FAILED}", flush=True)
            failed += 1
    return failed


def overrides_of(args, config, variant) -> list[str]:
    overrides = [*CONFIGS.get(config, []), *VARIANTS[variant], f"run.steps_per_call={args.steps_per_call}", *args.set]
    if args.batch:
        overrides += [f"stages.{name}.batch_size={args.batch}" for name in steps.settings(config, []).stages]
    return overrides


def measured(args, config, variant, rates) -> Iterator[dict[str, Any]]:
    """A row for every kind of step of the configuration's stages."""
    of_config = steps.settings(config, overrides_of(args, config, variant))
    model = steps.built(of_config)
    for stage in args.stages or steps.stages_with_steps(of_config):
        batch = steps.batch_of(model, of_config, stage)
        for number, kind in enumerate(steps.kinds_of_steps(model, stage)):
            operations = 2.0 * steps.multiply_adds(model, stage, batch, kind.at) if kind.period == 1 else None
            carry_out = steps.ready_steps(model, stage, batch, kind.at)
            forget_peak()
            first, seconds = timed(carry_out, max(args.steps, kind.period))
            images = sum(int(np.prod(value.shape[:-3])) for name, value in batch.items() if "identity" not in name)
            row = {"configuration": config, "step": kind.name, "batch": images, "variant": variant}
            row |= {"ms": 1000 * seconds, "images/s": images / seconds, "first step": first}
            if number == 0 or tf.config.list_logical_devices("GPU"):
                row["GiB"] = peak_memory()
            if operations:
                rate = rates["bfloat16" if of_config.run.precision == "bfloat16" else "float32"]
                row["fraction of rate"] = operations / seconds / rate
            yield row
            if args.profile:
                print_profile(carry_out)
        if args.rival:
            yield rival(of_config, stage, images, variant, args.steps)


def timed(carry_out: Callable[[int], dict[str, tf.Tensor]], count: int) -> tuple[float, float]:
    """Seconds of the first step, which compiles, and of a later one: the mean of `count`, read back at the end."""

    def steps_take(number):
        start = time.perf_counter()
        for loss in carry_out(number).values():
            np.asarray(loss)
        return time.perf_counter() - start

    first = steps_take(1)
    if count > 1:
        steps_take(count)  # kinds of steps that take turns are compiled one by one
    return first, steps_take(count) / count


def rival(config, stage, images, variant, count) -> dict[str, Any]:
    """Plain Keras: `compile` and `fit` of a ResNet-50 that classifies as many images of this size."""
    compiled, precision = config.run.jit_compile is True, config.run.precision
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    try:
        size = (*config.data.image_size, 3)
        model = keras.applications.ResNet50(weights=None, input_shape=size, classes=steps.IDENTITIES)
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=compiled)
    batch = (np.random.default_rng(0).uniform(-1, 1, (images, *size)).astype(np.float32), np.arange(images))
    batches = tf.data.Dataset.from_tensors(batch).repeat()
    start = time.perf_counter()
    model.fit(batches, steps_per_epoch=1, verbose=0)
    first, start = time.perf_counter() - start, time.perf_counter()
    model.fit(batches, steps_per_epoch=count, verbose=0)
    seconds = (time.perf_counter() - start) / count
    row = {"configuration": "plain Keras", "step": f"ResNet-50, as {stage}", "batch": images, "variant": variant}
    return row | {"ms": 1000 * seconds, "images/s": images / seconds, "first step": first}


class Rows:
    """Rows of the table, printed as they come and written to a file if asked."""

    def __init__(self, file: Path | None):
        self.file = file

    def add_all(self, measured: Iterator[dict[str, Any]]):
        for row in measured:
            self.add(row)

    def add(self, row: dict[str, Any]):
        memory = f"{row['GiB']:.1f}" if "GiB" in row else ""
        fraction = f"{row['fraction of rate']:.0%}" if "fraction of rate" in row else ""
        print(
            f"| {row['configuration']} | {row['step']} | {row['batch']} | {row['variant']} | {row['ms']:.4g} | "
            f"{row['images/s']:.3g} | {row['first step']:.1f} | {memory} | {fraction} |",
            flush=True,
        )
        if self.file:
            with self.file.open("a") as lines:
                lines.write(json.dumps(row) + "\n")


def matrix_rate(precision: str, n: int) -> float:
    """Floating-point operations a second of a product of two n x n matrices."""
    a = tf.cast(tf.random.uniform((n, n)), precision)
    product = tf.function(lambda: tf.reduce_sum(tf.cast(a @ a, tf.float32)))
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        float(product())
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds[1:])


def device_name(gpus) -> str:
    if gpus:
        return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    return f"{os.cpu_count()} CPU cores"


def forget_peak():
    for gpu in tf.config.list_logical_devices("GPU"):
        tf.config.experimental.reset_memory_stats(gpu.name.removeprefix("/device:"))


def peak_memory() -> float:
    """GiB: of the first GPU since `forget_peak`, or of this process since its start."""
    if gpus := tf.config.list_logical_devices("GPU"):
        return tf.config.experimental.get_memory_info(gpus[0].name.removeprefix("/device:"))["peak"] / 2**30
    return peak_of_process()


def print_profile(carry_out, kinds=8):
    """Fractions of the operations' time in one step, by kind; operations that run at once are each counted whole."""
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            carry_out(1)
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


if __name__ == "__main__":
    sys.exit(main())
