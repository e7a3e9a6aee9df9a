"""Memory and speed of training and evaluation on a data set that is larger than memory should hold.

python -m benchmarks.big_data [--images 124068] [--kilobytes 19] [--folder DIR]

It builds a data set with as many images as MSMT17 has, of the usual size: a few JPEGs of 400x170 pixels, each with a
number of its own in a comment, so that no two are alike. One process reads it with all encoded images in memory, one
with the images in TFDS's files (`tf_reid.data.stored_images`). Each loads the records, hashes their content as every
run does, draws training batches of 64 at 256x128, each image decoded when it is drawn, and extracts features of all
images with an encoder that averages pixels. Memory is the peak beyond that of the process with its libraries, and
beyond the features. A third process draws batches and extracts features from both in turn: the speeds, whose reference
is memory.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from benchmarks.memory import peak_of_process
from tf_reid.data import pipeline, records, samplers
from tf_reid.evaluation import extraction
from tf_reid.settings import StageSettings
from tfds_builders import base

SIZE, BATCH = (256, 128), 64
DIFFERENT = 64  # pictures


class Large(base.PedestrianBuilder, skip_registration=True):
    """A data set of `images` images, four of each identity."""

    name = "large"
    pkg_dir_path = Path(base.__file__).parent  # where TFDS looks for a data set's texts
    images, kilobytes = 1000, 19

    def read(self, folder):
        found = [base.Record(1 + i // 4, 1 + i % 2, f"{i}.jpg", lambda: None) for i in range(self.images)]
        return found, {"market": {"kind": "market"}}

    def _encode(self, chosen):
        pictures = [jpeg(seed, self.kilobytes) for seed in range(DIFFERENT)]
        for number, record in enumerate(chosen):
            yield record, with_comment(pictures[number % DIFFERENT], b"%016d" % number)


def jpeg(seed, kilobytes) -> bytes:
    """About so many kilobytes: smooth colours, with as much noise as that takes."""
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.integers(256, size=(25, 10, 3), dtype=np.uint8), (170, 400), interpolation=cv2.INTER_CUBIC)
    noise = rng.normal(size=smooth.shape)
    for strength in range(0, 100, 2):
        noisy = np.clip(smooth + strength * noise, 0, 255).astype(np.uint8)
        encoded = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
        if len(encoded) >= 1000 * kilobytes:
            break
    return encoded


def with_comment(content: bytes, comment: bytes) -> bytes:
    """A JPEG with a comment behind its first marker."""
    return content[:2] + b"\xff\xfe" + (2 + len(comment)).to_bytes(2, "big") + comment + content[2:]


def main():
    args = arguments()
    if args.here:
        PARTS[args.here](built(args), args)
        return
    print(f"{os.cpu_count()} cores, TensorFlow {tf.__version__}; {args.images} images", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        options = sys.argv[1:] if args.folder else [*sys.argv[1:], "--folder", temporary]
        for part in PARTS:
            subprocess.run([sys.executable, "-m", "benchmarks.big_data", *options, "--here", part], check=True)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.big_data")
    parser.add_argument("--images", type=int, default=124_068)
    parser.add_argument("--kilobytes", type=int, default=19, help="of an image, about")
    parser.add_argument("--folder", help="where the data set is built and kept; by default it is removed at the end")
    parser.add_argument("--evaluated", type=int, help="images whose features are extracted; by default, all")
    parser.add_argument("--here", choices=PARTS, help=argparse.SUPPRESS)  # one part alone
    return parser.parse_args(argv)


def built(args):
    Large.images, Large.kilobytes = args.images, args.kilobytes
    builder = Large(config="images", data_dir=Path(args.folder) / f"{args.images}_{args.kilobytes}")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(compute_stats="skip"))
    return builder


def print_size(builder, args):
    print(f"{builder.info.dataset_size / 2**30:.2f} GiB in TFDS's files", flush=True)


def print_memory(builder, args):
    before = peak_of_process()
    loaded, load = timed(lambda: loaded_into(args.here, builder))
    _, hashing = timed(lambda: records.content(loaded))
    batches_a_second(loaded, steps=50)
    training = peak_of_process() - before
    features = extracted(loaded, args.evaluated)
    both = peak_of_process() - before - features.nbytes / 2**30
    print(
        f"in {args.here}: loaded in {load:.0f} s, hashed in {hashing:.0f} s; peak memory {training:.2f} GiB in "
        f"training, {both:.2f} GiB with evaluation, beyond {features.nbytes / 2**30:.2f} GiB of features",
        flush=True,
    )


def print_speed(builder, args):
    sides = {part: loaded_into(part, builder).take(slice(20_000)) for part in ("memory", "files")}
    training = {part: [] for part in sides}
    evaluation = {part: [] for part in sides}
    for _ in range(3):
        for part, loaded in sides.items():
            training[part].append(BATCH * batches_a_second(loaded, steps=60))
            evaluation[part].append(4000 / timed(lambda loaded=loaded: extracted(loaded, 4000))[1])
    for what, of_parts in (("training", training), ("evaluation", evaluation)):
        memory, files = max(of_parts["memory"]), max(of_parts["files"])
        print(f"{what}: {files:.0f} images/s from files, {memory:.0f} from memory; {files / memory:.2f} x", flush=True)


PARTS = {"size": print_size, "memory": print_memory, "files": print_memory, "speed": print_speed}


def loaded_into(part, builder):
    records.IN_MEMORY = 0 if part == "files" else 2**50
    return records.load_records(builder)


def batches_a_second(loaded, steps, warm_up=10) -> float:
    sampler = samplers.pairs(loaded, StageSettings(steps=steps, batch_size=BATCH, optimizers={}))
    options = {"seed": 0, "stage": 0, "start": 0, "steps": warm_up + steps, "image_size": SIZE, "flip": True, "pad": 10}
    drawn = iter(pipeline.training_batches({"source": loaded}, sampler, **options))
    for _ in range(warm_up):
        next(drawn)
    return steps / timed(lambda: [next(drawn) is None for _ in range(steps)])[1]


def extracted(loaded, count) -> np.ndarray:
    """Features of the first `count` images, float32 [count, 384]; None: of all."""
    images = keras.Input((*SIZE, 3))
    encoder = keras.Model(images, keras.layers.Flatten()(keras.layers.AveragePooling2D(16)(images)))
    return extraction.extract(encoder, loaded.take(slice(count)), SIZE, batch_size=BATCH)


def timed(action):
    start = time.perf_counter()
    result = action()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
