"""A gallery's building time, size, recall and latency, flat and HNSW, beside comparing one by one in NumPy.

python -m benchmarks.search [--images 100000] [--width 256]

Random unit embeddings around as many centres as there are persons (ten images each), which is what galleries look like;
queries are further images of some of them. Recall is of the ten nearest by NumPy.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from tf_reid import gallery as galleries
from tf_reid.gallery import Filters, Gallery, Record


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--queries", type=int, default=200)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((args.images // 10, args.width), dtype=np.float32)
    persons = np.repeat(np.arange(len(centres)), 10)
    embeddings = _near(rng, centres[persons])
    asked = rng.integers(len(centres), size=args.queries)
    queries = _near(rng, centres[asked])
    records = [Record(f"{n}.jpg", f"p{person}", f"c{n % 8}", float(n)) for n, person in enumerate(persons.tolist())]
    truth, reference = [], []
    for query in queries:
        start = time.perf_counter()
        truth.append(np.argsort(-(embeddings @ query), kind="stable")[:10])
        reference.append(time.perf_counter() - start)
    print(f"{args.images} images of {args.width} numbers, {os.cpu_count()} cores")
    print(f"NumPy, one by one: p50 {1000 * np.median(reference):.2f} ms")
    for kind, flat_up_to in (("flat", args.images), ("HNSW", 0)):
        galleries.FLAT_UP_TO = flat_up_to
        with tempfile.TemporaryDirectory() as folder:
            measure(kind, Path(folder), args.width, records, embeddings, queries, truth, np.median(reference))


def measure(kind, folder, width, records, embeddings, queries, truth, reference):
    gallery = Gallery(folder, {"digest": "none", "distance": "cosine", "width": width, "source": "none"})
    start = time.perf_counter()
    for first in range(0, len(records), 1024):
        gallery.add(records[first : first + 1024], embeddings[first : first + 1024])
    added = time.perf_counter() - start
    gallery.lay_out(always=True)
    built = time.perf_counter() - start - added
    start = time.perf_counter()
    gallery = Gallery(folder)
    gallery.search(queries[:1])
    opened = time.perf_counter() - start
    taken, filtered, hits = [], [], 0
    for query, nearest in zip(queries, truth, strict=True):
        start = time.perf_counter()
        (found,) = gallery.search(query[None], 10)
        taken.append(time.perf_counter() - start)
        hits += len({match.record.path for match in found} & {f"{n}.jpg" for n in nearest})
        start = time.perf_counter()
        gallery.search(query[None], 10, Filters(not_cameras=("c1",)))
        filtered.append(time.perf_counter() - start)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    p50, with_filter = (1000 * np.median(found) for found in (taken, filtered))
    print(f"{kind}: added in {added:.1f} s, laid out in {built:.1f} s, opened in {opened:.2f} s, {size:.0f} MiB")
    print(
        f"  recall@10 {hits / 10 / len(queries):.3f}; a query p50 {p50:.2f} ms, {1000 * reference / p50:.1f} x NumPy's "
        f"speed; with seven cameras of eight {with_filter:.2f} ms"
    )


def _near(rng, centres):
    found = centres + 0.8 * rng.standard_normal(centres.shape, dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
