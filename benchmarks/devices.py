"""One training step of every method and stage on a GPU, beside the same step on the CPU: how far the updates differ.

python -m benchmarks.devices [METHOD ...] [--variants plain compiled bfloat16 both] [--stages joint] [--set key=value]

The networks of the small configurations, with the same weights and the same batch; plain SGD, whose update is the
gradient. The reference is the plain step on the CPU. The figure is the norm of the difference of a player's update over
the norm of its update on the CPU, the largest of all players. Products are true float32 ones here, not TF32.
"""

import argparse
import os
import time
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from benchmarks import steps
from benchmarks.steps import VARIANTS
from tf_reid.methods import METHODS
from tf_reid.runs import run_folder

CPU = "/device:CPU:0"


def main():
    args = arguments()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    gpus = tf.config.list_logical_devices("GPU")
    device = gpus[0].name if gpus else CPU
    print(f"{device} beside the CPU\n\n| step | {' | '.join(args.variants)} | seconds |")
    print("|---" * (len(args.variants) + 2) + "|", flush=True)
    for method in args.methods:
        compare(args, method, device)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.devices")
    parser.add_argument("methods", nargs="*", default=list(METHODS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["plain", "compiled"])
    parser.add_argument("--stages", nargs="+", help="only these")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="key=value", help="other settings")
    return parser.parse_args(argv)


def compare(args, method, device):
    """Print a row for every kind of step of a method."""
    config = plain_sgd(steps.settings(method, [*args.set, *VARIANTS["plain"]]))
    with tf.device(CPU):
        reference = steps.built(config)
    for stage in args.stages or [name for name, stage in config.stages.items() if stage.steps]:
        batch = steps.batch_of(reference, config, stage)
        for kind in steps.kinds_of_steps(reference, stage):
            for at in range(kind.at, kind.at + kind.period):
                if at > kind.at and reference.phase_of(at) == reference.phase_of(at - 1):
                    continue
                start = time.perf_counter()
                on_cpu = updates(reference, stage, batch, at, CPU)
                cells = []
                for variant in args.variants:
                    config_of_variant = plain_sgd(steps.settings(method, [*args.set, *VARIANTS[variant]]))
                    with tf.device(device):
                        model = run_folder.build_model(config_of_variant, steps.IDENTITIES)
                        copy_state(reference, model)
                    cells.append(f"{furthest(on_cpu, updates(model, stage, batch, at, device)):.1e}")
                title = f"{method}, {kind.name}" + (f", step {at}" if kind.period > 1 else "")
                print(f"| {title} | {' | '.join(cells)} | {time.perf_counter() - start:.0f} |", flush=True)


def plain_sgd(config):
    """Every player with SGD at rate 1e-3, without momentum, decay or schedule."""
    for stage in config.stages.values():
        for player, optimizer in stage.optimizers.items():
            stage.optimizers[player] = type(optimizer)(name="sgd", learning_rate=1.0e-3)
    return config


def copy_state(source, target):
    for there, here in zip(source.variables, target.variables, strict=True):
        here.assign(there.numpy())


def updates(model, stage, batch, at, device) -> dict[str, np.ndarray]:
    """Player -> the change of its weights in one step; the weights are put back."""
    before = [variable.numpy() for variable in model.variables]
    with tf.device(device):
        carry_out = steps.ready_steps(model, stage, batch, at)
        players = model.STAGES[stage].players
        old = {player: [variable.numpy() for variable in model.variables_of(player)] for player in players}
        for name, loss in carry_out(1).items():
            if not np.isfinite(loss.numpy()).all():
                raise ValueError(f"{stage}: {name} is {loss.numpy()}.")
    changes = {}
    for player, values in old.items():
        pairs = zip(model.variables_of(player), values, strict=True)
        changes[player] = np.concatenate([(variable.numpy() - value).ravel() for variable, value in pairs])
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    return changes


def furthest(reference, changes) -> float:
    """The largest difference of a player's update, relative to the reference's."""
    norms = {player: np.linalg.norm(update) for player, update in reference.items()}
    return max(np.linalg.norm(changes[p] - reference[p]) / norm for p, norm in norms.items() if norm)


if __name__ == "__main__":
    main()
