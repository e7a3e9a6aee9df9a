"""Images that somebody sends, decoded under a deadline. What could be slow is tried in a process that is given up.

A decoder of images cannot be stopped from within a process, and a progressive JPEG of a few KB may keep one busy for
minutes. So such an image goes to a process of its own, which the kernel ends at the deadline.
"""

import contextlib
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

from tfds_builders import images

PROCESSES = 2
WAITING = 30  # images that may wait for a process; more are refused as too many
SECONDS = 2.0
PATIENCE = 2 * SECONDS  # that one waits for a process, at most
# Pixels times scans that are decoded in place. One core takes about 10 ns a pixel, 5 ns more a pixel of each further
# scan, and 40 ns a byte (libjpeg-turbo on noise; flat areas take a tenth of it). An image of 8 MiB within this bound
# takes at most 25e6 * 15 ns + 8 MiB * 40 ns = 0.7 s, and 0.7 s more where it is turned and made a PNG; a crop of 256 x
# 128 pixels and 10 KB takes 1 ms. A photograph of 12 megapixels is within it, unless it is progressive.
IN_PLACE = 25_000_000
WEIGHT = 8  # of a pixel of other formats: up to 150 ns, for most are made a PNG
SLOW_FORMATS = ("TIFF", "GIF")  # may hold more than their headers tell: other formats, other frames
ROOT = Path(__file__).parent.parent.parent


class Busy(RuntimeError):
    """Too many images that could be slow wait already."""


class Decoder:
    """`tfds_builders.images.plain` under a deadline. Threads may share one.

    Its processes start with the first image that could be slow. None outlives this process by more than the deadline:
    each ends with the pipe to it, and while it decodes, with its timer.

    Args:
        most_pixels: that an image may have.
        seconds: of an image that could be slow.
        processes, waiting: so many images that could be slow are decoded at once, and so many more may wait.
        work: the function that a process runs, MODULE:NAME, from bytes and `most_pixels` to bytes or a ValueError.
    """

    def __init__(
        self,
        most_pixels: int = images.MOST_PIXELS,
        seconds: float = SECONDS,
        processes: int = PROCESSES,
        waiting: int = WAITING,
        work: str = "tfds_builders.images:plain",
    ):
        self.most_pixels, self.seconds, self.work = most_pixels, seconds, work
        self._places = threading.BoundedSemaphore(processes + waiting)
        self._free: queue.LifoQueue[subprocess.Popen | None] = queue.LifoQueue()
        for _ in range(processes):
            self._free.put(None)  # not started yet

    def is_slow(self, content: bytes) -> bool:
        """Whether an image could be slow to decode, by its header."""
        try:
            header = images.check(content, None, self.most_pixels)
        except ValueError:  # `plain` refuses it at once
            return False
        cost = header.pixels * (header.scans if header.format == "JPEG" else WEIGHT)
        return header.format in SLOW_FORMATS or cost > IN_PLACE

    def plain(self, content: bytes) -> bytes:
        """An image as `tfds_builders.images.plain` gives it. Its header has been checked.

        Raises:
            ValueError: the rest of a sentence about the image: it is damaged, or takes too long.
            Busy: it could be slow, and too many such images wait already.
        """
        return self.abandonable(content) if self.is_slow(content) else images.plain(content, self.most_pixels)

    def abandonable(self, content: bytes) -> bytes:
        """Do the work in a process, which is given up at the deadline. Raises as `plain`."""
        busy = Busy("Too many large images are being decoded; send this one again later.")
        if not self._places.acquire(blocking=False):
            raise busy
        try:
            try:
                process = self._free.get(timeout=PATIENCE)
            except queue.Empty:
                raise busy from None
            try:
                if process is None or process.poll() is not None:
                    process = self._start()
                return self._ask(process, content)
            finally:
                self._free.put(process)
        finally:
            self._places.release()

    def _start(self):
        settings = [self.work, str(self.most_pixels), str(self.seconds)]
        line = [sys.executable, "-m", "tf_reid.web.decoding_process", *settings]
        # Its own session: Ctrl-C in a terminal is for the server, which ends its processes by closing their pipes.
        return subprocess.Popen(
            line,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        )

    def _ask(self, process, content):
        try:
            process.stdin.write(struct.pack("<Q", len(content)))
            process.stdin.write(content)
            process.stdin.flush()
            answer, size = struct.unpack("<cQ", _read(process.stdout, 9))
            given = _read(process.stdout, size)
        except (OSError, EOFError):  # it has ended
            with contextlib.suppress(OSError):
                process.stdin.close()  # what was not sent
            process.stdout.close()
            is_late = process.wait() == -signal.SIGALRM
            reason = f"takes more than {self.seconds:g} seconds to decode" if is_late else "cannot be decoded"
            raise ValueError(reason) from None
        if answer == b"E":
            raise ValueError(given.decode())
        return given if answer == b"N" else content

    def close(self) -> None:
        """End the processes that are free."""
        while not self._free.empty():
            process = self._free.get()
            if process is not None and process.poll() is None:
                process.kill()
                process.communicate()


def _read(pipe, size):
    content = pipe.read(size)
    if len(content) < size:
        raise EOFError
    return content
