"""Cloth and its patterns, as inks of a palette."""

import numpy as np

from tfds_builders.synthetic_pedestrians.people import Garment


class Inks:
    """The colours that one person is painted with. Ink 0 is transparent."""

    def __init__(self, modality: str):
        self.modality = modality
        self._colors = [np.zeros(3, np.float32)]

    def add(self, color) -> np.uint8:
        self._colors.append(np.clip(np.float32(color), 0, 1))
        return np.uint8(len(self._colors) - 1)

    def of(self, garment: Garment, brightness: float = 1.0) -> tuple[np.uint8, np.uint8]:
        """The inks of a garment's base and accent colour."""
        base, accent = garment.dyes(self.modality)
        return self.add(base * brightness), self.add(accent * brightness)

    def palette(self) -> np.ndarray:
        """float32 [inks, 3]."""
        return np.stack(self._colors)


def _phase(length, period):
    """Where in its period each length lies, 0..1; np.mod is ten times slower."""
    turns = length * (1 / period)
    return turns - np.floor(turns)


def weave(garment: Garment, inks, theta, along, radius: float, share) -> np.ndarray:
    """Inks of cloth at angle `theta`, `along` metres down and `share` (0..1) of the garment's length.

    `inks` are the base and accent one; `radius` in metres turns angles into lengths.
    """
    period, pattern = garment.period, garment.pattern
    if pattern == "bands":
        second = _phase(along, period) < 0.5
    elif pattern == "pinstripes":
        second = _phase(theta * radius, period * 0.7) < 0.5
    elif pattern == "checks":
        second = (_phase(along, period) < 0.5) ^ (_phase(theta * radius, period) < 0.5)
    elif pattern == "dots":
        row = np.floor(along / period)
        x = _phase(theta * radius + row * (period / 2), period) - 0.5
        second = x * x + (along / period - row - 0.5) ** 2 < 0.16
    elif pattern == "yoke":
        second = share < 0.45
    elif pattern == "halves":
        second = theta > 0
    elif pattern == "chest band":
        second = np.abs(share - 0.42) < 0.2
    elif pattern in ("print", "back print"):
        facing = np.abs(theta) < 0.55 if pattern == "print" else np.abs(theta) > np.pi - 0.7
        letters = (_phase(along, 0.05) < 0.7) | (np.abs(theta * radius) < 0.05)
        second = facing & (np.abs(share - 0.4) < 0.14) & letters
    elif pattern == "side stripe":
        second = np.abs(np.abs(theta) - np.pi / 2) < 0.35
    else:
        return np.full(theta.shape, inks[0], np.uint8)
    return np.where(second, inks[1], inks[0])
