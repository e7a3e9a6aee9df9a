"""Curves for people's eyes, drawn as in `tf_reid.pictures.grids`: uint8 RGB."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from tf_reid.pictures.grids import FONT, GAP, INK, text_width

WIDTH, HEIGHT, MARGIN = 640, 480, 60
COLOURS = ((70, 100, 170), (205, 40, 40), (20, 150, 60), (190, 120, 20), (120, 60, 160), (90, 90, 90))
GRID = (220, 220, 220)
LEAST = 0.01  # per cent, where the logarithmic axis begins


def roc(curves: dict) -> np.ndarray:
    """True over false matches, in per cent, the latter on a logarithmic axis.

    Args:
        curves: name -> dict of false_match_rate and true_match_rate, lists in per cent; see `verification.verify`.

    Returns:
        uint8 [480, 640, 3].
    """
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    for rate in (0.01, 0.1, 1, 10, 100):
        (x, _), bottom = _place(rate, 0), HEIGHT - MARGIN
        cv2.line(canvas, (x, MARGIN), (x, bottom), GRID)
        _write(canvas, f"{rate:g}", x - 10, bottom + 20)
    for rate in (0, 25, 50, 75, 100):
        _, y = _place(LEAST, rate)
        cv2.line(canvas, (MARGIN, y), (WIDTH - MARGIN, y), GRID)
        _write(canvas, f"{rate:g}", 20, y + 4)
    _write(canvas, "true matches, %", 20, MARGIN - 20)
    _write(canvas, "false matches, %", WIDTH // 2 - 50, HEIGHT - 15)
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = zip(curve["false_match_rate"], curve["true_match_rate"], strict=True)
        line = np.array([_place(false, true) for false, true in points], np.int32)
        cv2.polylines(canvas, [line], False, colour, 2, cv2.LINE_AA)
        _write(canvas, name, WIDTH - MARGIN - 150, HEIGHT - MARGIN - 15 - 18 * number, colour)
    return canvas


def cmc(curves: Mapping[str, Sequence[float]]) -> np.ndarray:
    """CMC curves: how often a right image is among the first so many of the ranking, in per cent.

    Args:
        curves: name -> per cent at ranks 1, 2, 3 ...; see `ranking.score`, whose result has it as "cmc".

    Returns:
        uint8 [480, W, 3]; the longest name decides the width.
    """
    ranked = {name: (range(1, len(rates) + 1), rates) for name, rates in curves.items()}
    return lines(ranked, "rank", "matching rate, %", heights=(0.0, 100.0))


def lines(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    across: str,
    up: str,
    heights: tuple[float, float] | None = None,
) -> np.ndarray:
    """Lines over a linear axis, with a legend.

    Args:
        curves: name -> x and y of its points, in the order in which the line connects them. A curve of one point is
            a dot.
        across, up: what the axes show.
        heights: where the y axis begins and ends; by default, at the least and the largest value.

    Returns:
        uint8 [480, W, 3]; the longest name decides the width.

    Raises:
        ValueError: there is no point, or a value is not finite.
    """
    points = {name: np.array([x, y], float) for name, (x, y) in curves.items()}
    every = np.concatenate([np.empty((2, 0)), *points.values()], axis=1)
    if not every.size or not np.isfinite(every).all():
        raise ValueError("A chart needs points whose values are finite.")
    columns = _axis(every[0].min(), every[0].max())
    rows = _axis(*(heights or (every[1].min(), every[1].max())))
    names = WIDTH - MARGIN + 30  # where the names of the legend begin
    width = max(WIDTH, names + GAP + max(text_width(name) for name in points))
    canvas = np.full((HEIGHT, width, 3), 255, np.uint8)
    for value in _ticks(*columns):
        x, _ = _pixel(value, rows[0], columns, rows)
        cv2.line(canvas, (x, MARGIN), (x, HEIGHT - MARGIN), GRID)
        _write(canvas, f"{value:g}", x - 10, HEIGHT - MARGIN + 20)
    for value in _ticks(*rows):
        _, y = _pixel(columns[0], value, columns, rows)
        cv2.line(canvas, (MARGIN, y), (WIDTH - MARGIN, y), GRID)
        _write(canvas, f"{value:g}", 10, y + 4)
    _write(canvas, up, 20, MARGIN - 20)
    _write(canvas, across, WIDTH // 2 - 50, HEIGHT - 15)
    for number, (name, (xs, ys)) in enumerate(points.items()):
        colour = COLOURS[number % len(COLOURS)]
        corners = [_pixel(x, y, columns, rows) for x, y in zip(xs, ys, strict=True)]
        if number >= len(COLOURS) or len(corners) == 1:  # dots tell lines of one colour apart, and show single points
            for corner in corners:
                cv2.circle(canvas, corner, 4, colour, -1, cv2.LINE_AA)
        cv2.polylines(canvas, [np.array(corners, np.int32)], False, colour, 2, cv2.LINE_AA)
        row = MARGIN + 10 + 18 * number
        cv2.line(canvas, (WIDTH - MARGIN + 10, row - 4), (WIDTH - MARGIN + 25, row - 4), colour, 2)
        _write(canvas, name, names, row)
    return canvas


def _axis(least: float, largest: float) -> tuple[float, float]:
    """Where an axis begins and ends; one of a single value has some room around it."""
    return (least, largest) if largest > least else (least - 0.5, largest + 0.5)


def _ticks(least: float, largest: float) -> np.ndarray:
    """Four to ten round values between two others."""
    raw = (largest - least) / 5
    power = 10.0 ** np.floor(np.log10(raw))
    step = power * min((1, 2, 5, 10), key=lambda factor: abs(factor * power - raw))
    first, last = np.ceil(least / step - 1e-9), np.floor(largest / step + 1e-9)
    return np.arange(first, last + 1) * step + 0.0  # no -0


def _pixel(x, y, columns, rows) -> tuple[int, int]:
    """Pixel (x, y) of two values on axes that begin and end at these values."""
    across = (x - columns[0]) / (columns[1] - columns[0])
    up = (y - rows[0]) / (rows[1] - rows[0])
    return round(MARGIN + across * (WIDTH - 2 * MARGIN)), round(HEIGHT - MARGIN - up * (HEIGHT - 2 * MARGIN))


def scatter(points, groups, title, axis) -> np.ndarray:
    """Points in the plane, coloured by group; a group called "others" is grey and lies below.

    Args:
        points: float [N, 2]. groups: N strings. axis: what the two axes are called, before their number.

    Returns:
        uint8 [480, 640, 3].
    """
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    legend, side = WIDTH - 150, HEIGHT - 2 * MARGIN
    low, span = points.min(axis=0), np.maximum(np.ptp(points, axis=0), 1e-12)
    where = np.round((points - low) / span * side).astype(int)
    cv2.rectangle(canvas, (MARGIN, MARGIN), (MARGIN + side, MARGIN + side), GRID)
    names = sorted(set(groups), key=lambda name: (name != "others", len(name), name))
    hues = np.linspace(0, 180, len(names), endpoint=False).astype(np.uint8)
    vivid = cv2.cvtColor(np.array([[[hue, 230, 200] for hue in hues]], np.uint8), cv2.COLOR_HSV2RGB)[0].tolist()
    for number, name in enumerate(names):
        colour = GRID if name == "others" else vivid[number]
        for x, y in where[np.asarray(groups) == name]:
            cv2.circle(canvas, (MARGIN + int(x), MARGIN + side - int(y)), 3, colour, -1, cv2.LINE_AA)
        cv2.circle(canvas, (legend - 10, MARGIN + 10 + 18 * number), 4, colour, -1, cv2.LINE_AA)
        _write(canvas, name, legend, MARGIN + 14 + 18 * number)
    _write(canvas, title, MARGIN, MARGIN - 15)
    _write(canvas, f"{axis} 1", MARGIN + side // 2 - 30, HEIGHT - MARGIN + 20)
    _write(canvas, f"{axis} 2", 4, MARGIN + side // 2)
    return canvas


def _place(false, true):
    """Pixel (x, y) of two rates in per cent."""
    across = np.log10(max(false, LEAST) / LEAST) / np.log10(100 / LEAST)
    return round(MARGIN + across * (WIDTH - 2 * MARGIN)), round(HEIGHT - MARGIN - true / 100 * (HEIGHT - 2 * MARGIN))


def _write(canvas, text, x, y, colour=INK):
    cv2.putText(canvas, text, (x, y), FONT, 0.42, colour, 1, cv2.LINE_AA)
