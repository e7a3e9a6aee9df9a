"""A training that gets a signal to stop saves a checkpoint after the present step.

Ctrl-C (SIGINT), SIGTERM, which Slurm and Kubernetes send before they kill, and SIGHUP of a terminal that closes are
such requests. A second one stops at once. TensorFlow's own PreemptionCheckpointHandler is not used: it works with the
manager of checkpoints that `tf_reid.runs.checkpoints` replaces.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import tensorflow as tf

from tf_reid.command_line import SIGNALS, Terminated
from tf_reid.runs.cluster import sum_over_replicas

STDERR = 2  # the number of its file


class Requested(BaseException):
    """Raised between two steps of a training that is to stop; caught by the training loop, which saves."""


class StopRequests:
    """Whether this process got a signal to stop; with several workers, whether one of them did.

    Use it as a context: outside, signals do what they did before.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self.several_workers = strategy.cluster_resolver is not None
        self.received: int | None = None
        self._raises = False
        self._before: dict[int, Any] = {}
        self._number_of_workers = sum_over_replicas(strategy)

    def __enter__(self) -> "StopRequests":
        if threading.current_thread() is threading.main_thread():  # no other may change what signals do
            for number in SIGNALS:
                # A signal that is ignored, as by nohup, stays ignored.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self.__exit__()  # so that the next signal stops at once
        self.received = number
        name = signal.Signals(number).name
        sentence = f"\n{name}: a checkpoint is saved after this step. A second signal stops at once.\n"
        with contextlib.suppress(OSError):
            # Not by print: the signal may have come while another print writes to the same stream.
            os.write(STDERR, sentence.encode())
        if self._raises:
            raise Requested

    def check(self) -> None:
        """Call it between two steps; with several workers, all of them at the same step.

        Raises:
            Requested: the training is to stop.
        """
        if self.several_workers:
            own = tf.constant(self.received is not None, tf.int64)
            if self._number_of_workers(own).numpy() and self.received is None:
                self.received = signal.SIGTERM
        if self.received is not None:
            raise Requested

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """In this context a request is raised at once: around what takes long and changes no weight.

        With several workers it is not, because the others would wait.
        """
        self._raises = not self.several_workers
        try:
            yield
        finally:
            self._raises = False

    def end(self, where: str) -> BaseException:
        """What ends the process after the checkpoint: exit status 143 for SIGTERM; for Ctrl-C as everywhere.

        Args:
            where: the stage and step that were saved, for the message.
        """
        assert self.received is not None
        if self.several_workers:
            self._number_of_workers(tf.constant(0, tf.int64)).numpy()  # ends where all workers have saved
        sentence = f"Stopped by {signal.Signals(self.received).name}: {where} is saved. The same command resumes there."
        return KeyboardInterrupt(sentence) if self.received == signal.SIGINT else Terminated(self.received, sentence)
