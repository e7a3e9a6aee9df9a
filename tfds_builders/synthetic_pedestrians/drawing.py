"""Turns round body parts into pixels.

A pixel of a part knows where around (`theta`, 0 is the body's front) and how far along the part (`t`, 0..1)
it lies, and is painted from these two: one description of the clothes serves every view, and what is on
somebody's back is not seen from the front.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_FOLDS = 0.07  # how much creases change the brightness


@dataclass(frozen=True)
class View:
    """A camera that looks down by `pitch` radians and shows a metre as `scale` picture elements."""

    pitch: float
    scale: float
    column: float  # where the body's axis meets the ground
    row: float
    light: tuple[float, float, float]  # towards the light: right, up, towards the camera
    ambient: float

    def project(self, point) -> tuple[float, float, float]:
        """(column, row, nearness) of a point in metres (right, up, towards the camera)."""
        x, y, z = (float(value) for value in point)
        c, s = float(np.cos(self.pitch)), float(np.sin(self.pitch))
        return self.column + self.scale * x, self.row - self.scale * (y * c - z * s), z * c + y * s


@dataclass(frozen=True)
class Part:
    """A tapered round thing between two points in metres (right, up, towards the camera)."""

    start: np.ndarray
    end: np.ndarray
    widths: tuple[float, ...]  # half-widths in metres at even steps from start to end, as the camera sees them
    caps: tuple[float, float]  # length in metres of the round ends
    paint: Callable[[np.ndarray, np.ndarray], np.ndarray]  # (theta, t), float32 -> inks, uint8, all of one shape
    bias: float = 0.0  # added to the nearness: what is worn covers what is below it


def draw_parts(canvas: np.ndarray, parts: list[Part], palette: np.ndarray, yaw: float, view: View) -> None:
    """Paints the parts, far ones first, over float32 `canvas` [rows, columns, 3], in place.

    `palette` is float32 [inks, 3] in 0..1; what is lit well comes out above 1. Ink 0 means nothing is there.
    `yaw` is the body's: 0 faces the camera.
    """
    inks = np.zeros(canvas.shape[:2], np.uint8)
    shades = np.zeros(canvas.shape[:2], np.float32)
    placed = [(view.project(part.start), view.project(part.end), part) for part in parts]
    for start, end, part in sorted(placed, key=lambda item: (item[0][2] + item[1][2]) / 2 + item[2].bias):
        _draw_part(inks, shades, part, start, end, yaw, view)
    painted = inks > 0
    for channel in range(3):
        np.copyto(canvas[..., channel], palette[:, channel].take(inks) * shades, where=painted)


def _draw_part(inks, shades, part, start, end, yaw, view) -> None:
    rows, columns = inks.shape
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = max(float(np.hypot(dx, dy)), 1e-6)
    dx, dy = (dx / length, dy / length) if length > 1 else (0.0, 1.0)  # seen end-on, any direction does
    length = max(length, 1.0)
    widths = [float(width) * view.scale for width in part.widths]
    before, after = (max(cap * view.scale, 0.5) for cap in part.caps)

    reach_x = max(before, after) * abs(dx) + max(widths) * abs(dy) + 1
    reach_y = max(before, after) * abs(dy) + max(widths) * abs(dx) + 1
    left, right = (
        max(int(min(start[0], end[0]) - reach_x), 0),
        min(int(max(start[0], end[0]) + reach_x) + 2, columns),
    )
    top, bottom = (
        max(int(min(start[1], end[1]) - reach_y), 0),
        min(int(max(start[1], end[1]) + reach_y) + 2, rows),
    )
    if left >= right or top >= bottom:
        return
    x = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(start[0])
    y = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(start[1])
    t = x * np.float32(dx / length) + y * np.float32(dy / length)
    inside = np.minimum(np.maximum(t, 0), 1)
    if len(widths) == 2:
        width = widths[0] + (widths[1] - widths[0]) * inside
    else:
        width = np.interp(inside, np.linspace(0, 1, len(widths)), widths).astype(np.float32)
    u = (x * np.float32(dy) - y * np.float32(dx)) / width  # -1..1 from the left to the right outline
    over = t - inside
    over *= np.where(over < 0, np.float32(length / before), np.float32(length / after))
    mask = u * u + over * over <= 1

    u = np.minimum(np.maximum(u, -1), 1)
    theta = np.arcsin(u) - np.float32((yaw + np.pi) % (2 * np.pi) - np.pi)
    theta -= np.float32(2 * np.pi) * np.round(theta * np.float32(0.5 / np.pi))
    np.copyto(inks[top:bottom, left:right], part.paint(theta, t), where=mask)

    over *= np.float32(0.4)  # joints are less round than their caps
    towards = np.sqrt(np.maximum(1 - u * u - over * over, 0))
    right_light, up, front = view.light
    lit = u * (dy * right_light + dx * up) - over * (dy * up - dx * right_light) + towards * front
    folds = np.float32(_FOLDS) * np.sin(9 * t + 3 * theta + np.float32(5 * widths[0]))
    shade = view.ambient + ((1 - view.ambient) * 1.25) * np.maximum(lit, 0) + folds
    np.copyto(shades[top:bottom, left:right], shade, where=mask)
