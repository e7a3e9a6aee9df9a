"""Seconds and memory of scoring: distances and ranking together, beside the matrix product that they rest on.

python -m benchmarks.evaluation [--sizes market msmt17 distractors]

Every size runs in a process of its own, the first call included, on random features of 2,048 dimensions with as many
identities and cameras as the data set has. The references are measured in the same process: the matrix product of the
same blocks alone, below which no exact ranking can be, and sorting every row with plain NumPy, as most code does. The
latter is timed on some of the queries and scaled. Memory is the peak beyond that of the process with its features.
"""

import argparse
import os
import resource
import subprocess
import sys
import time

import numpy as np

from tf_reid.metrics import ranking, similarity

DIMENSIONS = 2048
SIZES = {  # queries, gallery images, of which distractors, identities, cameras
    "market": (3368, 15913, 2798, 750, 6),
    "msmt17": (11659, 82161, 0, 3060, 15),
    "distractors": (3368, 519000, 505885, 750, 6),
}
SORTED_QUERIES = 128


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["market", "msmt17"])
    parser.add_argument("--here", action="store_true", help="in this process, one size alone")
    args = parser.parse_args()
    if args.here:
        measure(args.sizes[0])
        return
    print(f"{os.cpu_count()} cores, NumPy {np.__version__}")
    for size in args.sizes:
        subprocess.run([sys.executable, "-m", "benchmarks.evaluation", "--here", "--sizes", size], check=True)


def measure(size):
    queries, images, distractors, identities, cameras = SIZES[size]
    rng = np.random.default_rng(0)
    query = rng.standard_normal((queries, DIMENSIONS), dtype=np.float32)
    gallery = rng.standard_normal((images, DIMENSIONS), dtype=np.float32)
    labels = [rng.integers(1, identities + 1, queries), rng.integers(1, cameras + 1, queries)]
    labels += [rng.integers(1, identities + 1, images), rng.integers(1, cameras + 1, images)]
    labels[2][rng.permutation(images)[:distractors]] = 0

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    ranking.score(similarity.ordering(query, gallery, "cosine"), *labels, same_camera_ignored=True)
    ours = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    block = max(1, ranking.BLOCK_ENTRIES // images)
    start = time.perf_counter()
    for at in range(0, queries, block):
        query[at : at + block] @ gallery.T
    product = time.perf_counter() - start
    start = time.perf_counter()
    sorted_plainly(query[:SORTED_QUERIES], gallery, *labels)
    plain = (time.perf_counter() - start) * queries / SORTED_QUERIES
    print(
        f"{size}: {queries} x {images} x {DIMENSIONS}: {ours:.2f} s, {memory / 1024:.0f} MiB beyond the features\n"
        f"  matrix product alone {product:.2f} s; ours is {ours / product:.2f} x that\n"
        f"  sorting every row {plain:.1f} s, scaled from {SORTED_QUERIES} queries; ours is {ours / plain:.2f} x that",
        flush=True,
    )


def sorted_plainly(query, gallery, query_identity, query_camera, gallery_identity, gallery_camera):
    """Average precision of each query by an argsort of its distances, without the normalisation of the gallery."""
    found = []
    for row, identity, camera in zip(1 - query @ gallery.T, query_identity, query_camera, strict=False):
        order = np.argsort(row)
        right, same_camera = gallery_identity[order] == identity, gallery_camera[order] == camera
        right = right[~(right & same_camera)]
        found.append(np.mean(np.cumsum(right)[right] / (np.flatnonzero(right) + 1)))
    return found


if __name__ == "__main__":
    main()
