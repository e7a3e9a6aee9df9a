"""Images a second of the input pipeline, beside a plain OpenCV loop.

python -m benchmarks.pipeline

JPEG of 128x64 -> flip, pad 10, crop -> batches of 64: as with many images, where each is decoded whenever it is drawn,
and as with few, which are decoded once.
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import numpy as np

from benchmarks.steps import noise_in_jpeg
from tf_reid.data import pipeline, samplers
from tf_reid.data.records import Records
from tf_reid.settings import StageSettings

SIZE, IMAGES = (128, 64), 1024


def main():
    reference = reference_images_a_second()
    for kept, when in ((0, "when drawn"), (pipeline.DECODED_BYTES, "once")):
        pipeline.DECODED_BYTES = kept
        ours = images_a_second()
        print(
            f"input pipeline, decoded {when}: {ours:.0f} images/s; {ours / reference:.2f} x a plain OpenCV loop "
            f"({reference:.0f} images/s)"
        )


def images_a_second(steps=150, batch=64) -> float:
    encoded = noise_in_jpeg(SIZE, IMAGES)
    camera = np.arange(len(encoded)) % 2
    identity = np.arange(len(encoded)) // 4 + 1
    text = np.full(len(encoded), "")
    records = Records("benchmark", encoded, identity, camera, text, text, text, {}, "", "benchmark")
    options = {"seed": 0, "stage": 0, "start": 0, "steps": 20 + steps, "image_size": SIZE, "flip": True, "pad": 10}
    sampler = samplers.pairs(records, StageSettings(steps=steps, batch_size=batch, optimizers={}))
    batches = iter(pipeline.training_batches({"source": records}, sampler, **options))
    for _ in range(20):
        next(batches)
    start = time.perf_counter()
    for _ in range(steps):
        next(batches)
    return batch * steps / (time.perf_counter() - start)


def reference_images_a_second(steps=40, batch=64) -> float:
    encoded, rng = noise_in_jpeg(SIZE, IMAGES), np.random.default_rng(0)
    start = time.perf_counter()
    for _ in range(steps):
        np.stack([loaded_plainly(encoded[i], rng) for i in rng.integers(len(encoded), size=batch)])
    return steps * batch / (time.perf_counter() - start)


def loaded_plainly(blob, rng):
    image = cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    if rng.random() < 0.5:
        image = image[:, ::-1]
    y, x = rng.integers(21, size=2)
    padded = cv2.copyMakeBorder(np.ascontiguousarray(image), 10, 10, 10, 10, cv2.BORDER_REPLICATE)
    return padded[y : y + SIZE[0], x : x + SIZE[1]].astype(np.float32) / 127.5 - 1.0


if __name__ == "__main__":
    main()
