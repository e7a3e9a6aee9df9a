"""Workers without a network for the tests of bulk embedding: an image's embedding is the number in its name."""

import os
import time
from pathlib import Path

import numpy as np

from tf_reid.config import ConfigError
from tf_reid.encoders.workers import Worker


class FakeWorker(Worker):
    """Keeps in the folder `source` what it embedded, a file for each process; `unreadable` cannot be read.

    It ends its process at an image called `deadly`, and fails at one called `failing`.
    """

    def __init__(self, source, digest, role, batch_size, threads):
        if (Path(source) / "absent").exists():
            raise ConfigError("this node has no model")
        self.journal = Path(source) / f"{os.getpid()}"

    def embed(self, images):
        names = [image.decode() if isinstance(image, bytes) else Path(image).name for image in images]
        if "deadly" in names:
            os._exit(1)
        if "failing" in names:
            raise MemoryError("no room for it")
        time.sleep(0.02)
        with self.journal.open("a") as journal:
            journal.writelines(f"{name}\n" for name in names)
        numbers = [float(name) for name in names if name != "unreadable"]
        reasons = {row: "is no image" for row, name in enumerate(names) if name == "unreadable"}
        return np.array([[number, number / 2] for number in numbers], np.float32).reshape(-1, 2), reasons


def embedded(journal):
    """What the workers of a journal embedded."""
    return [name for path in Path(journal).iterdir() for name in path.read_text().split()]
