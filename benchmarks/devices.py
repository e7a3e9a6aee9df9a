"""One training step of every method and stage on a GPU, beside the same step on the CPU: how far the updates differ.

python -m benchmarks.devices [METHOD[:STAGE] ...] [--variants plain compiled bfloat16 both] [--set key=value]

The networks of the small configurations, with the same weights and the same batch. The update is SGD's, the gradient
times the rate, read before it is added to the weights and rounded. The reference is the plain step on the CPU. The
figure is the norm of the difference of a player's update over the norm of its update on the CPU, the largest of all
players. Products are true float32 ones here, not TF32. The exit status is 1 if a figure is beyond its variant's bound.
"""

import argparse
import itertools
import os
import sys
import time
from collections.abc import Iterator, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from benchmarks import steps
from benchmarks.steps import VARIANTS
from tf_reid.command_line import settings_option
from tf_reid.methods import METHODS
from tf_reid.runs import run_folder

CPU = "/device:CPU:0"
# Sums in another order differ by about 1e-7 of their terms. Norms over a batch and the kinks of ReLU make more of it:
# 6e-3 was measured, of view adaptation's mappings compiled on a CPU. bfloat16 keeps 8 bits, 4e-3, of each factor: 0.2
# was measured. A loss that is missing or has the wrong sign gives about 1.
BOUNDS = {"plain": 5.0e-2, "compiled": 5.0e-2, "bfloat16": 0.5, "both": 0.5}


def main() -> int:
    """Returns the exit status."""
    args = arguments()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    gpus = tf.config.list_logical_devices("GPU")
    device = gpus[0].name if gpus else CPU
    print(f"{device} beside the CPU\n\n| step | {' | '.join(args.variants)} | seconds |")
    print("|---" * (len(args.variants) + 2) + "|", flush=True)
    largest = dict.fromkeys(args.variants, 0.0)
    for name in args.methods:
        method, _, stage = name.partition(":")
        for figures in compared(args, method, stage, device):
            largest = {variant: np.max([largest[variant], figure]) for variant, figure in figures.items()}
    beyond = [variant for variant, figure in largest.items() if not figure <= BOUNDS[variant]]
    for variant in beyond:
        print(f"{variant}: {largest[variant]:.1e} is beyond its bound, {BOUNDS[variant]:.1e}")
    return 1 if beyond else 0


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.devices")
    parser.add_argument("methods", nargs="*", default=list(METHODS), metavar="METHOD[:STAGE]")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["plain", "compiled"])
    settings_option(parser, "other settings")
    return parser.parse_args(argv)


def compared(args, method, only, device) -> Iterator[dict[str, float]]:
    """Print a row for every kind of step of a method, or of only one stage; yields variant -> figure of each."""
    config = sgd(steps.settings(method, [*args.set, *VARIANTS["plain"]]))
    with tf.device(CPU):
        reference = steps.built(config)
    for stage in [only] if only else steps.stages_with_steps(config):
        batch = steps.batch_of(reference, config, stage)
        for kind in steps.kinds_of_steps(reference, stage):
            for at in range(kind.at, kind.at + kind.period):
                if at > kind.at and reference.phase_of(at) == reference.phase_of(at - 1):
                    continue
                start = time.perf_counter()
                on_cpu = updates(reference, stage, batch, at, CPU)
                figures = {}
                for variant in args.variants:
                    config_of_variant = sgd(steps.settings(method, [*args.set, *VARIANTS[variant]]))
                    with tf.device(device):
                        model = run_folder.build_model(config_of_variant, steps.IDENTITIES)
                        copy_state(reference, model)
                    figures[variant] = furthest(on_cpu, updates(model, stage, batch, at, device))
                title = f"{method}, {kind.name}" + (f", step {at}" if kind.period > 1 else "")
                cells = " | ".join(f"{figure:.1e}" for figure in figures.values())
                print(f"| {title} | {cells} | {time.perf_counter() - start:.0f} |", flush=True)
                yield figures


def sgd(config):
    """Every player with SGD at rate 1e-3, without decay or schedule; its momentum keeps the update."""
    for stage in config.stages.values():
        for player, optimizer in stage.optimizers.items():
            stage.optimizers[player] = type(optimizer)(name="sgd", learning_rate=1.0e-3, momentum=0.9)
    return config


def copy_state(source, target):
    for there, here in zip(source.variables, target.variables, strict=True):
        here.assign(there.numpy())


def updates(model, stage, batch, at, device) -> dict[str, np.ndarray]:
    """Player -> what one step adds to its weights, which are put back.

    It is read from SGD's momentum, which begins at zero: the difference of the weights is rounded to their precision.
    """
    before = [variable.numpy() for variable in model.variables]
    momenta = {player: optimizer.momentums for player, optimizer in model.optimizers_of[stage].items()}
    for variable in itertools.chain(*momenta.values()):
        variable.assign(tf.zeros_like(variable))
    with tf.device(device):
        carry_out = steps.ready_steps(model, stage, batch, at)
        for name, loss in carry_out(1).items():
            if not np.isfinite(loss.numpy()).all():
                raise ValueError(f"{stage}: {name} is {loss.numpy()}.")
    changes = {player: np.concatenate([v.numpy().ravel() for v in variables]) for player, variables in momenta.items()}
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    return changes


def furthest(reference, changes) -> float:
    """The largest difference of a player's update, relative to the reference's.

    NaN if one is NaN; infinite if a player moves that rests in the reference.
    """
    return float(np.max([difference(changes[player], update) for player, update in reference.items()]))


def difference(update, reference) -> float:
    apart, norm = np.linalg.norm(update - reference), np.linalg.norm(reference)
    if norm == 0:
        return apart if apart == 0 or np.isnan(apart) else np.inf
    return apart / norm


if __name__ == "__main__":
    sys.exit(main())
