"""Tiny images and a reader of what was built, for the builders' tests."""

import zlib

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds


@pytest.fixture
def write_image():
    """A function that writes a small random image, the same for the same file name, and returns its bytes."""

    def write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(zlib.crc32(path.name.encode())).integers(0, 256, (16, 8, 3), np.uint8)
        assert cv2.imwrite(str(path), pixels)
        return path.read_bytes()

    return write


@pytest.fixture
def read_back():
    """A function that reads every split of a builder as {split: {file: example}}, images still encoded."""

    def read(builder):
        decoders = {"image": tfds.decode.SkipDecoding()}
        splits = builder.as_dataset(decoders=decoders)
        return {
            split: {example["file"].decode(): example for example in examples.as_numpy_iterator()}
            for split, examples in splits.items()
        }

    return read
