"""Curves for people's eyes, drawn as in `tf_reid.pictures.grids`: uint8 RGB."""

import cv2
import numpy as np

from tf_reid.pictures.grids import FONT, INK

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
