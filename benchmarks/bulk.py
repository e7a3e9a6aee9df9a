"""Embedding by workers on one and two Ray nodes beside one process: speed, memory, deaths, resumption.

python -m benchmarks.bulk crops FOLDER [--images 20000]
python -m benchmarks.bulk model FOLDER [--backbone MobileNetV2] [--size 128 64]
python -m benchmarks.bulk run MODEL FOLDER [--nodes 1 2] [--workers 1 2 4]

`crops`: renders crops of the synthetic street, which `--pattern '(?P<person>\\d+)_c(?P<camera>\\d)'` reads.
`model`: writes an exported model with random weights.
`run`: embeds them by one process; by each number of workers on each number of nodes, which are Ray nodes of this
machine; with one of two nodes killed in the middle; and by `python -m tf_reid.search add` with SIGKILL in the middle
and the same command again. Each time all embeddings are compared with those of the one process. "at work" leaves out
what comes before the first embeddings: workers that start, and models that they open.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from tf_reid.command_line import run_command

SHOTS = 10  # of each person by each camera
STORE = 100 * 2**20  # bytes of a node's object store
PATTERN = r"(?P<person>\d+)_c(?P<camera>\d)"


def main():
    args = arguments()
    {"crops": crops, "model": model, "run": run}[args.command](args)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bulk")
    commands = parser.add_subparsers(dest="command", required=True)
    rendering = commands.add_parser("crops")
    rendering.add_argument("folder", type=Path)
    rendering.add_argument("--images", type=int, default=20_000)
    models = commands.add_parser("model")
    models.add_argument("folder", type=Path)
    models.add_argument("--backbone", default="MobileNetV2")
    models.add_argument("--size", type=int, nargs=2, default=[128, 64])
    running = commands.add_parser("run")
    running.add_argument("model", type=Path, help="an exported model")
    running.add_argument("folder", type=Path, help="of images")
    running.add_argument("--nodes", type=int, nargs="*", default=[1, 2])
    running.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    return parser.parse_args(argv)


# ------------------------------------------------------------------ crops


def crops(args):
    args.folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        for _ in pool.map(_write_crop, [args.folder] * args.images, range(args.images), chunksize=100):
            pass


def _write_crop(folder, number):
    import cv2

    from tfds_builders.synthetic_pedestrians.rendering import DOMAINS, render

    cameras = DOMAINS["street"].cameras
    shot, rest = number % SHOTS, number // SHOTS
    camera, person = cameras[rest % len(cameras)], rest // len(cameras)
    image = render("street", person, camera, shot)
    cv2.imwrite(str(folder / f"{person + 1:05d}_c{camera}_{shot}.jpg"), image[..., ::-1])


def model(args):
    from benchmarks.serving import random_encoder
    from export import saving
    from tf_reid.encoders.servable import Servable

    encoder = random_encoder(args.backbone, tuple(args.size))
    saving.save(Servable(encoder, tuple(args.size), flip=False, unit=True), args.folder / "1")
    about = {"digest": "random", "role": "image", "distance": "cosine", "width": int(encoder.output_shape[-1])}
    extra = args.folder / "1" / "assets.extra"
    extra.mkdir(exist_ok=True)
    (extra / "model.json").write_text(json.dumps(about))


# ------------------------------------------------------------------ runs


def run(args):
    import tf_reid

    encoder = tf_reid.load(args.model)
    images = sorted(map(str, args.folder.resolve().glob("*.jpg")))
    start = time.perf_counter()
    expected = encoder.embed(images)
    seconds = time.perf_counter() - start
    print(f"{len(images)} images, {encoder.image_size}, {os.cpu_count()} cores")
    print(f"one process: {len(images) / seconds:.0f} images/s, {_memory([os.getpid()])} MiB", flush=True)
    for nodes in args.nodes:
        for workers in args.workers:
            with _cluster(nodes, -(-workers // nodes)) as (cluster, _):
                _measure(f"{nodes} nodes, {workers} workers", encoder, images, expected, workers, cluster)
    with _cluster(2, 1) as (cluster, other):
        _measure(
            "2 nodes, one killed", encoder, images, expected, 2, cluster, lambda: cluster.remove_node(other, False)
        )
    _kill_and_resume(args.model, args.folder, images, expected)


@contextlib.contextmanager
def _cluster(nodes, cpus):
    """Ray nodes, with room for so many workers each; and the last of them."""
    from ray.cluster_utils import Cluster

    settings = {"num_cpus": cpus, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=settings)
    try:
        others = [cluster.add_node(**settings) for _ in range(nodes - 1)]
        yield cluster, others[-1] if others else None
    finally:
        cluster.shutdown()


def _measure(name, encoder, images, expected, workers, cluster, in_the_middle=None):
    """Embed by workers, compare, print. `in_the_middle` is done once half of the images are embedded."""
    from tf_reid.encoders import workers as bulk

    found = np.full_like(expected, np.nan)
    count, times, memory = 0, [], _Memory()
    settings = {"source": encoder.source, "digest": encoder.digest, "role": encoder.roles[0], "width": encoder.width}
    start = time.perf_counter()
    with memory:
        for block in bulk.embed(images, workers=bulk.Workers(workers, cluster.address), **settings):
            assert not block.reasons, block.reasons
            found[block.numbers] = block.embeddings
            count += len(block.numbers)
            times.append((time.perf_counter() - start, len(block.numbers)))
            if in_the_middle is not None and 2 * count > len(images):
                in_the_middle()
                in_the_middle = None
    seconds = time.perf_counter() - start
    (first, of_first), last = times[0], times[-1][0]
    print(
        f"{name}: {count / seconds:.0f} images/s, at work {(count - of_first) / (last - first):.0f} images/s; "
        f"{memory.most} MiB a worker; embedded {count} of {len(images)}; {_difference(found, expected)}",
        flush=True,
    )


class _Memory:
    """Inside, looks every second how much memory the largest worker has."""

    def __enter__(self):
        self.most, self._end = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._end.set()
        self._thread.join()

    def _watch(self):
        import psutil

        while not self._end.wait(1):
            names = [(one.pid, " ".join(one.info["cmdline"] or ())) for one in psutil.process_iter(["cmdline"])]
            workers = [pid for pid, name in names if name.startswith("ray::") and "Worker" in name]
            self.most = max(self.most, _memory(workers))


def _memory(pids):
    """MiB of the largest of these processes, of which some may have ended."""
    import psutil

    most = 0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            most = max(most, psutil.Process(pid).memory_info().rss)
    return most // 2**20


def _difference(found, expected):
    equal = np.mean((found == expected).all(axis=1))
    return f"{100 * equal:.1f} % equal bit for bit, largest difference {np.abs(found - expected).max():.1e}"


def _kill_and_resume(model, folder, images, expected):
    """`search add` with two workers, killed once half of the images are in the gallery, and again."""
    from tf_reid.gallery.faiss_gallery import FaissGallery

    with tempfile.TemporaryDirectory(prefix="bulk_") as temporary:
        gallery = f"{temporary}/gallery"
        search = [sys.executable, "-m", "tf_reid.search"]
        some = f"{temporary}/some"
        Path(some).mkdir()
        shutil.copy(images[0], some)  # a gallery to add to
        subprocess.run([*search, "build", "--index", gallery, "--model", str(model), some], check=True)
        command = [*search, "add", "--index", gallery, str(folder), "--pattern", PATTERN, "--workers", "2"]
        start = time.perf_counter()
        with subprocess.Popen(command) as process:
            while process.poll() is None:
                time.sleep(0.5)
                with FaissGallery(gallery) as reading:
                    held = len(reading)
                if 2 * held > len(images):
                    process.send_signal(signal.SIGKILL)
                    break
        print(f"killed after {time.perf_counter() - start:.0f} s, with {held} images in the gallery", flush=True)
        subprocess.run(command, check=True)
        with FaissGallery(gallery) as reading:
            paths, embeddings = reading.paths_and_embeddings()
    rows = {path: row for row, path in enumerate(paths)}
    assert len(paths) == len(rows) == len(images) + 1, "an image is there twice, or lost"
    found = embeddings[[rows[path] for path in images]]
    print(f"resumed: {len(images)} of {len(images)} images, none twice; {_difference(found, expected)}")


if __name__ == "__main__":
    run_command(main)
