"""A gallery's building time, size, recall and latency, flat and HNSW, beside NumPy, which compares one by one.

python -m benchmarks.search [--images 100000] [--width 256]

Random unit embeddings around as many centres as there are identities (ten images each), as galleries have them;
queries are further images of some of them. Recall is of the ten nearest by NumPy, of all images and of some cameras'.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tf_reid.gallery import faiss_index
from tf_reid.gallery.faiss_gallery import FaissGallery
from tf_reid.gallery.records import Filters, Record

CAMERAS = 8
FILTERS = {
    f"{count} of {CAMERAS} cameras": Filters(cameras=tuple(f"c{n}" for n in range(count)) if count < CAMERAS else ())
    for count in (8, 7, 3, 1)
}


def main():
    args = arguments()
    embeddings, queries = embeddings_near_centres(args.images, args.width, args.queries)
    identities = np.repeat(np.arange(args.images // 10), 10)
    records = [
        Record(f"{n}.jpg", f"p{identity}", f"c{n % CAMERAS}", float(n))
        for n, identity in enumerate(identities.tolist())
    ]
    print(f"{args.images} images of {args.width} numbers, {os.cpu_count()} cores")
    truth = {}
    for name, filters in FILTERS.items():
        cameras = [n for n in range(CAMERAS) if not filters.cameras or f"c{n}" in filters.cameras]
        kept = np.flatnonzero(np.isin(np.arange(args.images) % CAMERAS, cameras))
        part, truth[name], seconds = embeddings[kept], [], []
        for query in queries:
            start = time.perf_counter()
            nearest = np.argsort(-(part @ query), kind="stable")[:10]
            seconds.append(time.perf_counter() - start)
            truth[name].append({records[n].path for n in kept[nearest]})
        print(f"NumPy, one by one, {name}: p50 {1000 * np.median(seconds):.2f} ms")
    for kind, flat_up_to in (("flat", args.images), ("HNSW", 0)):
        faiss_index.FLAT_UP_TO = flat_up_to
        with tempfile.TemporaryDirectory() as folder:
            measure(kind, Path(folder), args.width, records, embeddings, queries, truth)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--queries", type=int, default=200)
    return parser.parse_args(argv)


def measure(kind, folder, width, records, embeddings, queries, truth):
    gallery = FaissGallery(folder, {"digest": "none", "distance": "cosine", "width": width, "source": "none"})
    start = time.perf_counter()
    for first in range(0, len(records), 1024):
        gallery.add(records[first : first + 1024], embeddings[first : first + 1024])
    added = time.perf_counter() - start
    gallery.update_index(always=True)
    built = time.perf_counter() - start - added
    start = time.perf_counter()
    gallery = FaissGallery(folder)
    gallery.search(queries[:1])
    opened = time.perf_counter() - start
    size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    print(f"{kind}: added in {added:.1f} s, laid out in {built:.1f} s, opened in {opened:.2f} s, {size:.0f} MiB")
    for name, filters in FILTERS.items():
        seconds, hits = [], 0
        for query, nearest in zip(queries, truth[name], strict=True):
            start = time.perf_counter()
            (matches,) = gallery.search(query[None], 10, filters)
            seconds.append(time.perf_counter() - start)
            hits += len({match.record.path for match in matches} & nearest)
        recall = hits / sum(map(len, truth[name]))
        print(f"  {name}: recall@10 {recall:.3f}, a query p50 {1000 * np.median(seconds):.2f} ms")


def embeddings_near_centres(images: int, width: int, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings, float32 [images, width], ten around each of as many centres as there are identities; queries."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((images // 10, width), dtype=np.float32)
    embeddings = _near(rng, np.repeat(centres, 10, axis=0))
    return embeddings, _near(rng, centres[rng.integers(len(centres), size=queries)])


def _near(rng, centres):
    points = centres + 0.8 * rng.standard_normal(centres.shape, dtype=np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
