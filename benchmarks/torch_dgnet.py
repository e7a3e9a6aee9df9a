"""Seconds of DG-Net's joint step in plain PyTorch, as a rival of `benchmarks.training dgnet_market1501 --stages joint`.

python -m benchmarks.torch_dgnet [--rows 2] [--steps 3] [--threads 2]        needs PyTorch: pip install torch

`--rows 2` is `--batch 8` there. Images and weights are random.
"""

import argparse
import time
from collections.abc import Sequence

from tf_reid.command_line import run_command
from tf_reid.config import ConfigError

SIZE = (256, 128)


def main() -> None:
    args = arguments()
    try:
        import torch
    except ImportError:
        raise ConfigError("PyTorch is not installed: pip install torch.") from None
    from benchmarks.torch_step import Step

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    step = Step()
    images, erased = ([torch.randn(args.rows, 3, *SIZE) for _ in range(4)] for _ in range(2))
    labels = torch.arange(args.rows), torch.arange(args.rows) + args.rows
    for feeds_swaps in (False, True):
        seconds = []
        for _ in range(1 + args.steps):
            start = time.perf_counter()
            step(images, erased, labels, feeds_swaps)
            seconds.append(time.perf_counter() - start)
        first, *later = seconds
        print(
            f"PyTorch {torch.__version__}, {args.threads} threads, {args.rows} rows of 4, "
            f"{'after' if feeds_swaps else 'before'} the warm-up: {sum(later) / len(later):.2f} s a step, the mean of "
            f"{len(later)}; the first {first:.2f} s",
            flush=True,
        )


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torch_dgnet")
    parser.add_argument("--rows", type=int, default=2, help="2 or more, since a row is normalised among others")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_command(main)
