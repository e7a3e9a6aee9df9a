"""What came of each input, of all inputs of a surface, and whether the surface passes."""

import collections
import dataclasses
import re
from collections.abc import Iterable

import numpy as np

from benchmarks.attack.cases import ANSWER, EITHER, REFUSE, Case

SECONDS = 2.0  # that an answer or a refusal may take
RIGHT, READ, REFUSED, WRONG, CRASH, HANG, FAULT = "right", "read", "refused", "wrong", "crash", "hang", "5xx"
PASSES = (RIGHT, READ, REFUSED)
VERDICTS = (*PASSES, WRONG, CRASH, HANG, FAULT)
LONGEST_SENTENCE = 1200  # characters; a request of which more is quoted could flood a log
GROWTH = 768 * 2**20  # bytes that a process may hold more after an attack than before
PEAK = 2 * 2**30  # and during one


class Refused(Exception):
    """The input was refused, by this sentence."""


class WrongAnswer(Exception):
    """It was answered, and the answer is not right."""


class ServerFault(Exception):
    """The server calls it its own fault: 5xx of HTTP; INTERNAL, UNKNOWN and the like of gRPC."""


def verdict(case: Case, error: BaseException | None, seconds: float) -> tuple[str, str]:
    """(one of `VERDICTS`, the sentence).

    Args:
        error: what sending it raised; None: it was answered, and rightly where a picture is known.
        seconds: how long it took.
    """
    limit = case.seconds or SECONDS
    sentence = f"{type(error).__name__}: {error}" if error is not None else ""
    if seconds > limit:
        return HANG, f"{seconds:.1f} s; {sentence or 'answered'}"
    if error is None:
        answered = {ANSWER: (RIGHT, ""), EITHER: (READ, ""), REFUSE: (WRONG, "answered, and should be refused")}
        return answered[case.demand]
    if isinstance(error, ServerFault):
        return FAULT, str(error)
    if isinstance(error, WrongAnswer):
        return WRONG, str(error)
    if not isinstance(error, Refused):
        return CRASH, sentence
    sentence = str(error)
    if case.demand == ANSWER:
        return WRONG, f"sound, and refused: {sentence}"
    if not sentence.strip() or len(sentence) > LONGEST_SENTENCE or "Traceback" in sentence:
        return WRONG, f"refused without a sentence ({len(sentence)} characters): {sentence[:200]!r}"
    return REFUSED, sentence


@dataclasses.dataclass
class Report:
    """What came of an attack on one surface.

    Attributes:
        counts: verdict -> inputs.
        examples: (verdict, the sentence without its numbers) -> index, kind and sentence, of each such input.
        alone, beside: seconds of each good request, before and during the attack. failed: why good ones failed.
        memory: bytes before, at most during and after the attack.
        tracebacks: that a server printed during the attack.
    """

    surface: str
    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    examples: dict[tuple[str, str], list[tuple[int, str, str]]] = dataclasses.field(default_factory=dict)
    alone: list[float] = dataclasses.field(default_factory=list)
    beside: list[float] = dataclasses.field(default_factory=list)
    failed: list[str] = dataclasses.field(default_factory=list)
    memory: list[int] = dataclasses.field(default_factory=list)
    tracebacks: int = 0

    def add(self, index: int, kind: str, what: str, sentence: str) -> None:
        self.counts[what] += 1
        if what not in PASSES:
            without_numbers = re.sub(r"0x\w+|'[^']*'|[\d.-]+|/\S+", "#", sentence)
            self.examples.setdefault((what, without_numbers), []).append((index, kind, sentence))

    def failures(self) -> list[str]:
        """Why the surface does not pass, a line a reason; none where it passes."""
        lines = []
        for (what, _), inputs in sorted(self.examples.items()):
            (index, _, sentence), kinds = inputs[0], list(dict.fromkeys(kind for _, kind, _ in inputs))
            others = f" and {len(kinds) - 6} more kinds" if len(kinds) > 6 else ""
            lines.append(
                f"{self.surface}: {len(inputs)} x {what}: {sentence[:400]} (the first is input {index}; "
                f"{'; '.join(kinds[:6])}{others})"
            )
        if self.failed:
            lines.append(
                f"{self.surface}: {len(self.failed)} good requests failed, one of them: {self.failed[0][:300]}"
            )
        if self.tracebacks:
            lines.append(f"{self.surface}: the server printed {self.tracebacks} tracebacks")
        if not self.beside and sum(self.counts.values()):
            lines.append(f"{self.surface}: no good request was answered during the attack")
        if self.memory:
            before, peak, after = self.memory
            if after - before > GROWTH or peak - before > PEAK:
                grown, kept = (peak - before) >> 20, (after - before) >> 20
                lines.append(f"{self.surface}: memory grew by {grown} MiB, and {kept} MiB stayed")
        return lines


def table(reports: Iterable[Report]) -> str:
    """The reports side by side, and a line with the sums."""
    reports = list(reports)
    head = ("surface", "sent", *VERDICTS, "MiB before/peak/after", "good", "failed", "p50/p99 alone", "under attack")
    rows = [head, *(_row(report) for report in reports)]
    if len(reports) > 1:
        total = sum((report.counts for report in reports), collections.Counter())
        good = [str(sum(len(report.beside) for report in reports)), str(sum(len(report.failed) for report in reports))]
        counts = [str(total.total()), *(str(total[what]) for what in VERDICTS)]
        rows.append(("all", *counts, "", *good, "", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(lines)


def _row(report):
    memory = "/".join(str(size >> 20) for size in report.memory) or "-"
    counts = [str(report.counts[what]) for what in VERDICTS]
    good = [str(len(report.beside)), str(len(report.failed)), _milliseconds(report.alone), _milliseconds(report.beside)]
    return (report.surface, str(report.counts.total()), *counts, memory, *good)


def _milliseconds(seconds):
    if not seconds:
        return "-"
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return f"{p50:.0f}/{p99:.0f} ms"
