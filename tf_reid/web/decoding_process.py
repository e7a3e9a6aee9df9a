"""The process in which `bounded_decoding.Decoder` tries images that could be slow.

Its arguments: MODULE:NAME MOST_PIXELS SECONDS.
It reads from its input a size (uint64) and as many bytes, again and again; it writes to its output a letter, a size and
as many bytes: the new image (N), that it is the old one (O), or the reason of an error (E). It imports no TensorFlow,
takes 0.2 s to start and about 50 MB.
"""

import importlib
import os
import signal
import struct
import sys
from collections.abc import Callable


def main() -> None:
    module, _, name = sys.argv[1].partition(":")
    work = getattr(importlib.import_module(module), name)
    most_pixels, seconds = int(sys.argv[2]), float(sys.argv[3])
    pipe, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while size := pipe.read(8):
        content = pipe.read(*struct.unpack("<Q", size))
        # At the deadline the kernel ends this process, whatever code it runs, and whether or not its parent lives.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        letter, given = answer(work, content, most_pixels)
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(struct.pack("<cQ", letter, len(given)) + given)
        answers.flush()


def answer(work: Callable[[bytes, int], bytes], content: bytes, most_pixels: int) -> tuple[bytes, bytes]:
    """What the work gives: the letter of its kind, and its bytes."""
    try:
        given = work(content, most_pixels)
    except ValueError as error:
        return b"E", str(error).encode()
    except MemoryError:
        return b"E", b"takes too much memory to decode"
    return (b"O", b"") if given == content else (b"N", given)


if __name__ == "__main__":
    main()
