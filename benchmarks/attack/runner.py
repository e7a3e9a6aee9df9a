"""Attacks one surface in a process of its own, which may die or hang, while good requests go on beside."""

import faulthandler
import gc
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil

from benchmarks.attack.cases import Case, generator
from benchmarks.attack.verdicts import CRASH, HANG, Report, verdict

SPARE = 3 * 2**30  # bytes that an attacked process may take beside what it holds: the machine must not suffer
STALL = 20.0  # seconds that one input may take in a process, which is then ended; longer than a server's client waits
PAUSE = 0.02  # seconds between two good requests


class Surface(Protocol):
    """What is attacked. `send` returns where it is answered rightly, and else raises one of `verdicts` or anything."""

    senders: int  # threads that send at the same time

    def case(self, rng: np.random.Generator) -> Case: ...

    def send(self, case: Case) -> None: ...

    def good(self) -> None: ...


def attack(
    make_surface: Callable[[], Surface],
    name: str,
    seed: int,
    count: int,
    log: Path,
    process: int | None = None,
    alone: float = 2.0,
) -> Report:
    """Send inputs 0 to `count` and report.

    Args:
        make_surface: a function without arguments, which can be pickled; it is called in a process of its own.
        name: the surface's, which also seeds its inputs.
        log: the file that takes what the attacking process and its libraries print.
        process: whose memory, and that of its children, counts; None: that of the process that sends.
        alone: seconds of good requests before the attack.
    """
    report, start = Report(name), 0
    context = multiprocessing.get_context("spawn")
    while start < count:
        here, there = context.Pipe(duplex=False)
        arguments = (make_surface, name, seed, range(start, count), alone, process is None, log, there)
        child = context.Process(target=_attack, args=arguments, daemon=True)
        child.start()
        there.close()
        unanswered, is_hang = _follow(report, here, process or child.pid, start)
        if is_hang:
            child.kill()
        child.join()
        if not report.alone:
            raise RuntimeError(f"The attack on {name} did not begin: {log.read_text()[-2000:]}")
        if not unanswered:
            break
        # It hung or died: these inputs are to blame. The rest is sent by another process.
        for index, kind in unanswered.items():
            sentence = "no answer at all" if is_hang else f"the process ended with exit code {child.exitcode}"
            report.add(index, kind, HANG if is_hang else CRASH, sentence)
        start = max(unanswered) + 1
    return report


def _follow(report: Report, messages: Connection, process: int, start: int) -> tuple[dict[int, str], bool]:
    """Note what the attacking process reports, until it has sent all, died or hung.

    Returns:
        index -> kind of the inputs without an answer, none where all were sent; whether it hangs. Where it died while
        none was being answered, the next input is named.
    """
    waiting: dict[int, str] = {}
    since: dict[int, float] = {}
    last, stall = start - 1, STALL
    meter = Meter(process)
    while True:
        meter.look()
        if waiting and time.monotonic() - min(since[index] for index in waiting) > stall:
            return waiting, True
        try:
            message = messages.recv() if messages.poll(0.2) else None
        except EOFError:
            return waiting or {last + 1: "none in particular"}, False
        match message:
            case "sent", index, kind:
                waiting[index], since[index], last = kind, time.monotonic(), max(last, index)
            case "answered", index, what, sentence:
                report.add(index, waiting.pop(index), what, sentence)
            case "good", phase, seconds:
                getattr(report, phase).append(seconds)
            case "failed", why:
                report.failed.append(why)
            case "begins", stall:
                meter.begin(report)
            case ("ends",):
                meter.end(report)
                return {}, False


class Meter:
    """The memory of a process and its children: before, at most and after."""

    def __init__(self, process: int):
        self.process, self.last, self.peak, self.next_look = process, 0, 0, 0.0

    def look(self) -> None:
        """Measure, four times a second; a process that has just ended leaves the last measure."""
        if time.monotonic() >= self.next_look:
            self.last = self._now() or self.last
            self.peak = max(self.peak, self.last)
            self.next_look = time.monotonic() + 0.25

    def begin(self, report: Report) -> None:
        self.last = self.peak = self._now() or self.last
        if not report.memory:
            report.memory = [self.peak] * 3

    def end(self, report: Report) -> None:
        report.memory[1:] = max(self.peak, report.memory[1]), self.last

    def _now(self) -> int:
        try:
            root = psutil.Process(self.process)
            processes = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return 0
        return sum(map(_resident, processes))


def _resident(process):
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


# ------------------------------------------------------------------ in the attacking process


def _attack(make_surface, name, seed, numbers, alone, is_limited, log, messages):
    redirect_output(log)
    faulthandler.register(signal.SIGUSR1)
    surface = make_surface()
    outbox, done = Outbox(messages), threading.Event()
    for _ in range(3):  # what is made at first use
        surface.good()
    if numbers.start == 0:
        _good(surface, outbox, "alone", time.monotonic() + alone, done)
    gc.collect()
    if is_limited:
        _limit_memory()
    outbox("begins", getattr(surface, "stall", STALL))
    beside = threading.Thread(target=_good, args=(surface, outbox, "beside", float("inf"), done))
    beside.start()
    arguments = (surface, outbox, name, seed, iter(numbers), threading.Lock())
    senders = [threading.Thread(target=_send, args=arguments) for _ in range(surface.senders)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    done.set()
    beside.join()
    gc.collect()
    time.sleep(0.5)  # what is freed a little later
    outbox("ends")
    messages.close()
    os._exit(0)  # libraries' own threads may not keep the process


def redirect_output(log: Path) -> None:
    """Have a file take what this process prints, its libraries in C included."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


class Outbox:
    """Messages of several threads through one pipe."""

    def __init__(self, messages: Connection):
        self.messages, self.lock = messages, threading.Lock()

    def __call__(self, *message) -> None:
        with self.lock:
            self.messages.send(message)


def _send(surface, outbox, name, seed, indices: Iterator[int], lock):
    while True:
        with lock:
            index = next(indices, None)
        if index is None:
            return
        case = surface.case(generator(seed, name, index))
        outbox("sent", index, case.kind)
        began = time.perf_counter()
        error = None
        try:
            surface.send(case)
        except Exception as raised:
            error = raised
        outbox("answered", index, *verdict(case, error, time.perf_counter() - began))


def _good(surface, outbox, phase, until, done):
    while time.monotonic() < until and not done.is_set():
        began = time.perf_counter()
        try:
            surface.good()
        except Exception as error:
            outbox("failed", f"{type(error).__name__}: {error}")
        else:
            outbox("good", phase, time.perf_counter() - began)
        time.sleep(PAUSE)


def _limit_memory():
    held = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (held + SPARE, held + SPARE))
