"""The stores of galleries side by side: adding, queries with and without filters, recall, size; and killed ones.

python -m benchmarks.stores [--images 100000] [--width 512] [--stores faiss postgres] [--kills]

The stores are FAISS in a folder, a PostgreSQL server with pgvector that is started here, and the Qdrant server that
TF_REID_QDRANT names (qdrant), or its client's local mode (qdrant_local), which is for few images. The embeddings are
those of `benchmarks.search`. Recall is of the ten nearest images by NumPy. A ratio is the time beside that of the first
store. With --kills, a client is killed while it adds, then, of PostgreSQL, the server; the same command follows, and
what the gallery holds then is compared with what was to be added.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import postgres_server
from benchmarks.memory import peak_of_process
from benchmarks.search import CAMERAS, embeddings_near_centres
from tf_reid.command_line import run_command
from tf_reid.config import ConfigError
from tf_reid.gallery.base import Gallery
from tf_reid.gallery.records import Filters, Record
from tf_reid.gallery.stores import open_gallery

STORES = ("faiss", "postgres", "qdrant", "qdrant_local")
BATCH, TOP = 1000, 10
TOLERANCE = 1e-6  # Qdrant scales embeddings to length 1 again


def main() -> None:
    args = arguments()
    if args.add_to:
        records, embeddings, _ = images(args)
        return add_all(open_gallery(args.add_to, about(args.width)), records, embeddings)
    print(f"{args.images} images of {args.width} numbers, {args.queries} queries, {os.cpu_count()} cores")
    if args.kills:
        for name in args.stores:
            with store(name) as (address, server):
                killed(name, address, server, args)
        return
    records, embeddings, queries = images(args)
    truth = {name: nearest(records, embeddings, queries, filters) for name, filters in all_filters(args.images).items()}
    first: dict[str, float] = {}
    for name in args.stores:
        with store(name) as (address, _):
            measure(name, address, args, records, embeddings, queries, truth, first)
    print(f"Peak memory of this process: {peak_of_process():.2f} GiB")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stores")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=["faiss", "postgres"])
    parser.add_argument("--kills", action="store_true", help="kill clients and servers instead of taking times")
    parser.add_argument("--add-to", help=argparse.SUPPRESS)  # what a client does that is killed
    return parser.parse_args(argv)


# --------------------------------------------------------------------- what is stored


def about(width: int) -> dict[str, Any]:
    return {"digest": "none", "distance": "cosine", "width": width, "source": "none"}


def images(args: argparse.Namespace) -> tuple[list[Record], np.ndarray, np.ndarray]:
    """Ten images of each identity, before eight cameras in turn, one a second; and further images as queries."""
    embeddings, queries = embeddings_near_centres(args.images, args.width, args.queries)
    records = [
        Record(f"c{n % CAMERAS}/{n:08}.jpg", f"p{n // 10}", f"c{n % CAMERAS}", 1e9 + n) for n in range(args.images)
    ]
    return records, embeddings, queries


def all_filters(count: int) -> dict[str, Filters]:
    return {
        "no filter": Filters(),
        "3 of 8 cameras": Filters(cameras=("c0", "c1", "c2")),
        "1 of 8 cameras": Filters(cameras=("c3",)),
        "not 1 camera": Filters(not_cameras=("c0",)),
        "1 % of the time": Filters(since=1e9 + 0.5 * count, until=1e9 + 0.51 * count),
    }


def passes(record: Record, filters: Filters) -> bool:
    """Whether a record, which has a camera and a time, passes."""
    is_in_time = (filters.since or 0.0) <= record.time <= (filters.until or np.inf)  # type: ignore[operator]
    return (
        is_in_time
        and record.camera not in filters.not_cameras
        and (not filters.cameras or record.camera in filters.cameras)
    )


def nearest(records, embeddings, queries, filters) -> list[set[str]]:
    """Paths of the images nearest to each query, each compared with each."""
    kept = np.flatnonzero([passes(record, filters) for record in records])
    part = embeddings[kept]
    rows = [np.argpartition(-(part @ query), TOP)[:TOP] for query in queries]
    return [{records[number].path for number in kept[row]} for row in rows]


@contextlib.contextmanager
def store(name: str) -> Iterator[tuple[Any, Any]]:
    """(address of an empty gallery, its server where it is started here)."""
    gallery = f"benchmark_{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="tf_reid_stores_") as folder:
        if name == "postgres":
            Path(folder).chmod(0o755)  # where root starts the server, it runs as another user
            server = postgres_server.start(Path(folder) / "postgres")
            try:
                yield f"{server.get_uri()}&gallery={gallery}", server
            finally:
                server.cleanup()
        elif name == "qdrant":
            address = f"{os.environ['TF_REID_QDRANT']}/{gallery}"
            try:
                yield address, None
            finally:
                opened: Any = open_gallery(address)
                opened.client.delete_collection(gallery)
        else:
            yield str(Path(folder) / name), None


def opener(name: str, address: str, width: int) -> Callable[[], Gallery]:
    if name != "qdrant_local":
        return lambda: open_gallery(address, about(width))
    from qdrant_client import QdrantClient

    from tf_reid.gallery.qdrant_gallery import QdrantGallery

    client = QdrantClient(":memory:")
    return lambda: QdrantGallery(client, "benchmark", about(width))


# --------------------------------------------------------------------- times


def measure(name, address, args, records, embeddings, queries, truth, first) -> None:
    """Print a store's times; `first` keeps those of the first store."""

    def shown(key: str, value: float, form: str, unit: str) -> str:
        ratio = value / (first.setdefault(key, value) or 1e-9)
        return f"{value:{form}} {unit} (x{ratio:.2f})"

    open_it = opener(name, address, args.width)
    gallery = open_it()
    start = time.perf_counter()
    add_all(gallery, records, embeddings)
    added = time.perf_counter() - start
    gallery.update_index()
    indexed = time.perf_counter() - start - added
    stats = gallery.stats()
    print(f"{name}: {stats['index']}, {stats.get('server', 'no server of its own')}")
    print(f"  added in {shown('added', added, '.1f', 's')}, {args.images / added:.0f} images/s")
    of_both = args.images / (added + indexed)
    print(f"  index made in {shown('indexed', indexed, '.1f', 's')}; with it {of_both:.0f} images/s")
    again = time.perf_counter()
    assert gallery.add(records[:BATCH], embeddings[:BATCH]) == 0
    print(f"  {BATCH} images that are there already: {shown('again', time.perf_counter() - again, '.3f', 's')}")
    if "bytes" in stats:
        size = stats["bytes"]
        print(f"  {shown('bytes', size / 2**20, '.0f', 'MiB')}, {size / args.images:.0f} bytes an image")
    if name != "qdrant_local":  # which would lose all
        gallery.close()
    start = time.perf_counter()
    gallery = open_it()
    gallery.search(queries[:1], TOP)
    print(f"  opened, first query answered in {shown('opened', time.perf_counter() - start, '.2f', 's')}")
    for kind, filters in all_filters(args.images).items():
        recall, of_one, of_batch, exact = query_times(gallery, queries, filters, truth[kind])
        print(
            f"  {kind:16} recall@10 {recall:.4f}, p50 {shown(kind, of_one, '.2f', 'ms')}, each of a batch "
            f"{shown(f'{kind}, batch', of_batch, '.2f', 'ms')}, exact {shown(f'{kind}, exact', exact, '.2f', 'ms')}"
        )
    gallery.close()


def query_times(gallery, queries, filters, truth) -> tuple[float, float, float, float]:
    """Recall, and milliseconds of a query: of one alone (the median), of each in a batch, of each where all compare."""
    seconds, hits = [], 0
    for query, right in zip(queries, truth, strict=True):
        start = time.perf_counter()
        (matches,) = gallery.search(query[None], TOP, filters)
        seconds.append(time.perf_counter() - start)
        assert len(matches) == TOP
        hits += len({match.record.path for match in matches} & right)
    start = time.perf_counter()
    gallery.search(queries, TOP, filters)
    of_batch = (time.perf_counter() - start) / len(queries)
    start = time.perf_counter()
    gallery.search(queries[:10], TOP, filters, exact=True)
    exact = (time.perf_counter() - start) / len(queries[:10])
    return hits / (TOP * len(queries)), 1000 * float(np.median(seconds)), 1000 * of_batch, 1000 * exact


def add_all(gallery: Gallery, records: Sequence[Record], embeddings: np.ndarray) -> None:
    for start in range(0, len(records), BATCH):
        gallery.add(records[start : start + BATCH], embeddings[start : start + BATCH])


# --------------------------------------------------------------------- killed ones


def killed(name, address, server, args) -> None:
    """Kill a client, then the server, while images are added; add them all, and compare."""
    victims = ["client"] + (["server"] if server else [])
    open_gallery(address, about(args.width)).close()
    for number, victim in enumerate(victims, 1):
        client = adding(address, args)
        wait_for(address, args.images * number // (len(victims) + 1), client)
        if victim == "client":
            client.kill()
        else:
            postgres_server.kill(server)
        _, errors = client.communicate(timeout=600)
        if server and victim == "server":
            server.ensure_postgres_running()
        with open_gallery(address) as gallery:
            print(f"{name}: {victim} killed by SIGKILL; the gallery holds {len(gallery)} images. {last_line(errors)}")
    client = adding(address, args)
    _, errors = client.communicate()
    if client.returncode:
        sys.exit(f"{name}: the same command failed: {last_line(errors)}")
    with open_gallery(address) as gallery:
        print(f"{name}: after the same command it holds {len(gallery)} of {args.images}; {compared(gallery, args)}")


def adding(address: str, args: argparse.Namespace) -> subprocess.Popen:
    command = [sys.executable, "-m", "benchmarks.stores", "--add-to", address]
    options = ["--images", str(args.images), "--width", str(args.width)]
    return subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)


def wait_for(address: str, count: int, client: subprocess.Popen) -> None:
    """Until the gallery holds so many images."""
    with open_gallery(address) as gallery:
        while len(gallery) < count:
            if client.poll() is not None:
                raise ConfigError(f"The client ended before it could be killed: {last_line(client.communicate()[1])}")
            time.sleep(0.05)


def compared(gallery: Gallery, args: argparse.Namespace) -> str:
    """Words on whether a gallery holds just what was to be added."""
    records, embeddings, _ = images(args)
    rows = {record.path: row for row, record in enumerate(records)}
    seen, differing = 0, 0
    for paths in gallery.paths():
        stored, vectors = gallery.read(paths)
        numbers = [rows.get(record.path, -1) for record in stored]
        seen += len(stored)
        differing += sum(record != records[number] for record, number in zip(stored, numbers, strict=True))
        differing += int((np.abs(vectors - embeddings[numbers]).max(axis=1) > TOLERANCE).sum())
    return f"{seen} were read, {differing} of them differ from what was to be added"


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return f"The client: {lines[-1]}" if lines else ""


if __name__ == "__main__":
    run_command(main)  # a signal, too, ends the server that was started
