"""Curves for people's eyes, drawn as in `tf_reid.pictures`: uint8 RGB."""

import cv2
import numpy as np

from tf_reid.pictures import FONT, INK

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


def _place(false, true):
    """Pixel (x, y) of two rates in per cent."""
    across = np.log10(max(false, LEAST) / LEAST) / np.log10(100 / LEAST)
    return round(MARGIN + across * (WIDTH - 2 * MARGIN)), round(HEIGHT - MARGIN - true / 100 * (HEIGHT - 2 * MARGIN))


def _write(canvas, text, x, y, colour=INK):
    cv2.putText(canvas, text, (x, y), FONT, 0.42, colour, 1, cv2.LINE_AA)
