"""Many images are rendered by processes of their own, each of which renders a block: `images_of` starts one.

The process reads from its input the calls that render, and writes to its output the encoded images, both pickled. It
imports no TensorFlow and takes half a second to start. A process made by `multiprocessing` would run the user's own
script again, if that has no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import os
import pathlib
import pickle
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfds_builders.images import rendered

if TYPE_CHECKING:
    from tfds_builders.base import Record

ROOT = pathlib.Path(__file__).parents[2]  # where the package is imported from


def images_of(records: Sequence[Record]) -> list[bytes]:
    """The encoded images of records that are rendered, in their order, made by another process.

    Raises:
        subprocess.CalledProcessError: it ended before its time; what it printed says why.
    """
    work = pickle.dumps([(record.image, record.file) for record in records])
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=work,
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "PYTHONPATH": search},
    )
    return pickle.loads(done.stdout)


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    work = pickle.load(sys.stdin.buffer)
    with answers:
        pickle.dump([rendered(image, file) for image, file in work], answers)


if __name__ == "__main__":
    main()
