"""Images a second of `Encoder.embed` beside evaluation's extraction: python -m benchmarks.embedding RUN [--model MODEL]

Both embed the same images of the run's data set, by the same networks and in batches of the same size, in this process.
Each is timed in turn, several times over, and the median stands. With --model, so is an exported model.
"""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np


def main():
    args = arguments()
    measure(args.run, args.model, args.images, args.rounds)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedding")
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("--model", type=Path, help="its exported model")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args(argv)


def measure(run: Path, model: Path | None, images: int, rounds: int) -> None:
    import tensorflow as tf

    import tf_reid
    from tf_reid.encoders.encoder import unit_length
    from tf_reid.evaluation import extraction
    from tf_reid.runs import run_folder, splits

    # The run's network twice: as evaluation opens it, and as the API does.
    config = run_folder.load_run(run)
    evaluated, _ = run_folder.restored(run, config)
    network = evaluated.encoders()["image"]
    encoder = tf_reid.load(run)
    records = splits.load_data(config)[splits.scored_domain(config)].take(slice(-images, None))
    encoded = records.images.tolist()
    arrays = [tf.io.decode_image(image, channels=3).numpy() for image in encoded]
    size, settings = config.data.image_size, config.evaluate
    options = {"batch_size": settings.batch_size, "flip": settings.flip}
    timed = {
        "evaluation": lambda: extraction.extract(network, records, size, **options),
        "embed, bytes": lambda: encoder.embed(encoded, batch_size=settings.batch_size),
        "embed, arrays": lambda: encoder.embed(arrays, batch_size=settings.batch_size),
    }
    if model is not None:
        exported = tf_reid.load(model)
        timed["exported, bytes"] = lambda: exported.embed(encoded, batch_size=settings.batch_size)

    seconds: dict[str, list[float]] = {name: [] for name in timed}
    results = {name: embed() for name, embed in timed.items()}  # the first call traces
    for _ in range(rounds):
        for name, embed in timed.items():
            start = time.perf_counter()
            embed()
            seconds[name].append(time.perf_counter() - start)

    kept = unit_length(results["evaluation"]) if settings.distance == "cosine" else results["evaluation"]
    reference = np.median(seconds["evaluation"])
    print(f"{len(records)} images, {size[0]}x{size[1]}, batch {settings.batch_size}, {os.cpu_count()} cores")
    for name, taken in seconds.items():
        median = np.median(taken)
        line = f"{name:16}{len(records) / median:8.1f} images/s   {reference / median:5.2f} x evaluation"
        if name != "evaluation":
            line += f"   largest difference {np.abs(results[name] - kept).max():.1e}"
        print(line)


if __name__ == "__main__":
    main()
