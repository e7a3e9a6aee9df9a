"""What is sent to a surface, what a right answer to it is, and how bytes are damaged."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

ANSWER, REFUSE, EITHER = "an answer", "a refusal", "either"
EXTREMES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclasses.dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        kind: what was done to it, for the report.
        content: the input itself, in the form that its surface takes.
        demand: `ANSWER` where it is sound by construction, `REFUSE` where nothing right can be answered, else `EITHER`.
        picture: of a sound image the name of the picture (`images.pictures`) that every surface must see.
        is_exact: the picture is stored without loss.
        seconds: how long its answer may take, where that differs from the limit of all others.
    """

    kind: str
    content: Any
    demand: str = EITHER
    picture: str | None = None
    is_exact: bool = True
    seconds: float | None = None


def generator(seed: int, surface: str, index: int) -> np.random.Generator:
    """The source of one case: seed, surface and index alone make it again."""
    return np.random.default_rng([seed, *surface.encode(), index])


def choose(rng: np.random.Generator, options):
    """One of a sequence, as it is: NumPy's own choice would make an array of it."""
    return options[int(rng.integers(len(options)))]


# ------------------------------------------------------------------ damage


def flip_bits(rng: np.random.Generator, content: bytes, within: int | None = None) -> bytes:
    """1 to 20 bits flipped, among the first `within` bytes or anywhere."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 21))):
        place = int(rng.integers(min(len(data), within or len(data))))
        data[place] ^= 1 << int(rng.integers(8))
    return bytes(data)


def flip_header(rng: np.random.Generator, content: bytes) -> bytes:
    return flip_bits(rng, content, within=64)


def punch_hole(rng: np.random.Generator, content: bytes) -> bytes:
    """A range of zeros, of 0xFF or of noise."""
    start, end = _range(rng, content)
    length = end - start
    filling = choose(rng, (bytes(length), b"\xff" * length, rng.bytes(length)))
    return content[:start] + filling + content[end:]


def remove_range(rng: np.random.Generator, content: bytes) -> bytes:
    start, end = _range(rng, content)
    return content[:start] + content[end:]


def repeat_range(rng: np.random.Generator, content: bytes) -> bytes:
    start, end = _range(rng, content)
    return content[:end] + content[start:end] * int(rng.integers(1, 50)) + content[end:]


def insert_noise(rng: np.random.Generator, content: bytes) -> bytes:
    place = int(rng.integers(len(content) + 1))
    return content[:place] + rng.bytes(int(rng.integers(1, 200))) + content[place:]


def change_number(rng: np.random.Generator, content: bytes) -> bytes:
    """One or two numbers of 1, 2 or 4 bytes become an extreme: lengths, offsets, sizes, mostly those of the header."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 3))):
        size = choose(rng, (1, 2, 4))
        within = len(data) if rng.random() < 0.3 else min(len(data), 200)
        place = int(rng.integers(max(within - size, 1)))
        value = choose(rng, EXTREMES) & ((1 << 8 * size) - 1)
        data[place : place + size] = value.to_bytes(size, choose(rng, ("big", "little")))
    return bytes(data)


def cut(rng: np.random.Generator, content: bytes) -> bytes:
    """The first 0 to 90 % are left."""
    return content[: int(len(content) * 0.9 * rng.random())]


def splice(rng: np.random.Generator, content: bytes, other: bytes) -> bytes:
    """The beginning of one and the end of another."""
    return content[: int(rng.integers(len(content)))] + other[int(rng.integers(len(other))) :]


DAMAGES: dict[str, Callable[[np.random.Generator, bytes], bytes]] = {
    "bits flipped": flip_bits,
    "bits of the header flipped": flip_header,
    "hole": punch_hole,
    "range removed": remove_range,
    "range repeated": repeat_range,
    "noise inserted": insert_noise,
    "extreme numbers": change_number,
    "cut off": cut,
}


def damaged(rng: np.random.Generator, content: bytes) -> tuple[str, bytes]:
    """(what was done, the damaged bytes)."""
    name = choose(rng, list(DAMAGES))
    return name, DAMAGES[name](rng, content)


def _range(rng, content):
    start = int(rng.integers(len(content)))
    return start, min(len(content), start + int(rng.integers(1, 300)))
