"""Backbones beside each other: weights, multiply-adds and milliseconds an image on this machine's CPU.

python -m benchmarks.backbones [NAME ...] [--size 256 128] [--last-stride 1] [--batches 1 8] [--served]
python -m benchmarks.backbones NAME ... --plot FILE.webp --scores NAME=RANK1 ...

Every backbone has random weights and is timed in inference, as Keras's model in a graph; the median of several rounds
stands. `--served` adds embeddings a second of the encoder as it is exported, from JPEG files in batches of the largest
size. `--plot` draws rank-1 over speed: of what is served where it is timed, otherwise images a second.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

NAMES = ("small", "MobileNetV2", "MobileNetV3Small", "EfficientNetV2B0", "DenseNet121", "ResNet50", "ConvNeXtTiny")


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    print(f"{args.size[0]}x{args.size[1]}, {os.cpu_count()} cores")
    titles = ["features", "weights, M", "multiply-adds, G"]
    titles += [f"ms an image, batch {batch}" for batch in args.batches]
    titles += ["embeddings/s"] if args.served else []
    print(f"| backbone | {' | '.join(titles)} |")
    print("|---|" + "---:|" * len(titles))
    speeds = {}
    for name in args.names:
        cells, speeds[name] = row(name, args)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    if args.plot:
        draw(args.plot, speeds, dict(args.scores), "embeddings/s" if args.served else "images/s")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backbones")
    parser.add_argument("names", nargs="*", default=list(NAMES), metavar="NAME", help=f"by default {' '.join(NAMES)}")
    parser.add_argument("--size", type=int, nargs=2, default=[256, 128], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--last-stride", type=int, choices=(1, 2), default=2, help="of the last stage of each")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--served", action="store_true", help="also embeddings/s of the exported encoder")
    parser.add_argument("--plot", type=Path, metavar="FILE.webp", help="draw rank-1 over speed")
    parser.add_argument("--scores", type=_score, nargs="+", default=[], metavar="NAME=RANK1", help="in per cent")
    args = parser.parse_args(argv)
    if args.plot and not args.scores:
        parser.error("--plot needs --scores NAME=RANK1 ...")
    for name, _ in args.scores:
        if name not in args.names:
            parser.error(f"--scores {name}: name it among the backbones that are timed: {' '.join(args.names)}")
    return args


def _score(text):
    name, _, rank1 = text.partition("=")
    return name, float(rank1)


def row(name, args):
    """What the table says of a backbone, and its speed in images or embeddings a second."""
    import tensorflow as tf

    from benchmarks.serving import random_encoder
    from benchmarks.steps import multiply_adds_of

    size = tuple(args.size)
    encoder = random_encoder(name, size, args.last_stride)
    forward = tf.function(lambda images: encoder(images, training=False))
    graph = forward.get_concrete_function(tf.TensorSpec((1, *size, 3))).graph
    weights, products = encoder.count_params() / 1e6, multiply_adds_of(graph) / 1e9
    cells = [str(encoder.output_shape[-1]), f"{weights:.2f}", f"{products:.3f}"]
    for batch in args.batches:
        images = tf.random.stateless_uniform((batch, *size, 3), [0, 1], -1, 1)
        seconds = median_seconds(lambda images=images: forward(images).numpy(), args.rounds)
        cells.append(f"{1000 * seconds / batch:.2f}")
        speed = batch / seconds
    if args.served:
        speed = embeddings_per_second(encoder, size, max(args.batches), args.rounds)
        cells.append(f"{speed:.1f}")
    return cells, speed


def median_seconds(run: Callable[[], object], rounds: int) -> float:
    """Of one call, after two that warm up."""
    taken = []
    for _ in range(rounds + 2):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken[2:]))


def embeddings_per_second(encoder, size, batch, rounds) -> float:
    """Of the encoder as `export` saves and loads it, from JPEG files, so many at once."""
    import tensorflow as tf

    from benchmarks.steps import noise_in_jpeg
    from export import saving
    from tf_reid.encoders.servable import Servable, endpoints

    files = tf.constant(list(noise_in_jpeg(size, batch)))
    with tempfile.TemporaryDirectory(prefix="backbone_") as folder:
        saving.save(Servable(encoder, size, flip=False, unit=True), Path(folder) / "1")
        served = endpoints(Path(folder) / "1")["serving_default"]
        return batch / median_seconds(lambda: served(image_bytes=files)["embedding"].numpy(), rounds)


def draw(path: Path, speeds: dict[str, float], scores: dict[str, float], across: str) -> None:
    """Rank-1 over speed, a dot for each backbone that has a score."""
    import cv2

    from tf_reid.pictures import curves

    dots = {name: ([speed], [scores[name]]) for name, speed in speeds.items() if name in scores}
    cv2.imwrite(str(path), curves.lines(dots, across, "rank-1, %")[..., ::-1])
    print(f"Drawn: {path}")


if __name__ == "__main__":
    main()
