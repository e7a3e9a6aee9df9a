"""Seconds and memory of scoring: distances and ranking together, beside the matrix product that they rest on.

python -m benchmarks.evaluation [--sizes market msmt17 distractors]

Every size runs in a process of its own, the first call included, on random features of 2,048 dimensions with as many
identities and cameras as the data set has. The references are measured in the same process: the matrix product alone,
below which no exact ranking can be, and plain NumPy that sorts each block of similarities (`sort`, which is several
times faster than `argsort`) and looks up the right images (`searchsorted`). Each is timed in turn, and the median
stands. Memory is the peak of the first call beyond that of the process with its features.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np

from tf_reid.metrics import ranking, similarity

DIMENSIONS = 2048
SIZES = {  # queries, gallery images, of which distractors, identities, cameras
    "market": (3368, 15913, 2798, 750, 6),
    "msmt17": (11659, 82161, 0, 3060, 15),
    "distractors": (3368, 519000, 505885, 750, 6),
}
ROUNDS = 3


def main():
    args = arguments()
    if args.here:
        measure(args.sizes[0])
        return
    print(f"{os.cpu_count()} cores, NumPy {np.__version__}")
    for size in args.sizes:
        subprocess.run([sys.executable, "-m", "benchmarks.evaluation", "--here", "--sizes", size], check=True)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["market", "msmt17"])
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # one size alone
    return parser.parse_args(argv)


def measure(size):
    queries, images, distractors, identities, cameras = SIZES[size]
    rng = np.random.default_rng(0)
    query = rng.standard_normal((queries, DIMENSIONS), dtype=np.float32)
    gallery = rng.standard_normal((images, DIMENSIONS), dtype=np.float32)
    labels = [rng.integers(1, identities + 1, queries), rng.integers(1, cameras + 1, queries)]
    labels += [rng.integers(1, identities + 1, images), rng.integers(1, cameras + 1, images)]
    labels[2][rng.permutation(images)[:distractors]] = 0

    ways = {
        "ours": lambda: ranking.score(similarity.ordering(query, gallery, "cosine"), *labels, same_camera_ignored=True),
        "product": lambda: product(query, gallery),
        "sorted": lambda: sorted_plainly(query, gallery, *labels),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ways["ours"]()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    seconds = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    ours, product_alone, plain = (float(np.median(seconds[name])) for name in ways)
    print(
        f"{size}: {queries} x {images} x {DIMENSIONS}: {ours:.2f} s, {memory / 1024:.0f} MiB beyond the features\n"
        f"  matrix product alone {product_alone:.2f} s; ours is {ours / product_alone:.2f} x that\n"
        f"  NumPy's sort and searchsorted {plain:.2f} s; ours is {ours / plain:.2f} x that",
        flush=True,
    )


def product(query, gallery):
    for block in blocks(query, gallery):
        query[block] @ gallery.T


def blocks(query, gallery):
    """Slices of the queries, whose similarities fit the memory that ours may take."""
    size = max(1, ranking.BLOCK_ENTRIES // len(gallery))
    return [slice(start, start + size) for start in range(0, len(query), size)]


def sorted_plainly(query, gallery, query_identity, query_camera, gallery_identity, gallery_camera):
    """Average precision of each query by a sort of its block's distances."""
    lengths, precisions = np.linalg.norm(gallery, axis=1), []
    for block in blocks(query, gallery):
        distances = query[block] @ gallery.T
        distances /= -lengths
        right = []
        for number, row in enumerate(distances, block.start):
            own = np.flatnonzero(gallery_identity == query_identity[number])
            same_camera = gallery_camera[own] == query_camera[number]
            right.append(np.sort(row[own[~same_camera]]))
            row[own[same_camera]] = np.inf
        distances.sort(axis=1)
        for row, values in zip(distances, right, strict=True):
            ranks = np.searchsorted(row, values) + 1
            precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks) if len(ranks) else 0.0)
    return precisions


if __name__ == "__main__":
    main()
