"""Charts: lines lie where their values are, in the colours of the legend."""

import numpy as np
import pytest

from tf_reid.pictures import curves

LEFT, RIGHT = curves.MARGIN, curves.WIDTH - curves.MARGIN
TOP, BOTTOM = curves.MARGIN, curves.HEIGHT - curves.MARGIN


def pixels(picture, number, legend=False):
    """Rows and columns of the pixels of a line's own colour, within the axes or in the legend."""
    rows, columns = np.nonzero((picture == curves.COLOURS[number]).all(axis=2))
    inside = (columns > RIGHT + 5) == legend
    return rows[inside], columns[inside]


def test_a_line_goes_through_its_points():
    picture = curves.lines({"up": ([0, 10], [0, 4]), "level": ([0, 10], [2, 2])}, "steps", "loss")
    assert picture.dtype == np.uint8 and picture.shape[0] == curves.HEIGHT and picture.shape[1] >= curves.WIDTH
    rows, columns = pixels(picture, 0)
    middle = (TOP + BOTTOM) / 2
    for column, row in ((LEFT + 2, BOTTOM), (RIGHT - 2, TOP), ((LEFT + RIGHT) // 2 - 30, middle + 20)):
        assert abs(rows[np.abs(columns - column) <= 1].mean() - row) < 5
    rows, columns = pixels(picture, 1)
    assert abs(rows - middle).max() <= 2 and np.ptp(columns) > 0.9 * (RIGHT - LEFT)
    legends = [pixels(picture, number, legend=True)[0] for number in range(2)]
    assert len(legends[0]) and legends[0].max() < legends[1].min()


def test_false_matches_are_on_a_logarithmic_axis():
    middle = (LEFT + RIGHT) // 2
    columns = [curves._place(false, 50)[0] for false in (0, 0.01, 1, 100)]
    assert columns == [LEFT, LEFT, middle, RIGHT]
    curve = {"false_match_rate": [0, 1, 1, 100], "true_match_rate": [0, 0, 100, 100]}  # a step in the middle
    rows, columns = np.nonzero((curves.roc({"raw": curve}) == curves.COLOURS[0]).all(axis=2))
    is_step = (rows > TOP + 10) & (rows < (TOP + BOTTOM) // 2)
    assert is_step.sum() > 50 and np.abs(columns[is_step] - middle).max() <= 2


def test_cmc_curves_rise_over_ranks_from_nought_to_a_hundred():
    picture = curves.cmc({"better": np.linspace(50, 100, 50), "worse": [0.0] * 50})
    rows, columns = pixels(picture, 0)
    assert abs(rows[columns < LEFT + 4].mean() - (TOP + BOTTOM) / 2) < 5
    assert abs(rows[columns > RIGHT - 4].mean() - TOP) < 5
    assert abs(pixels(picture, 1)[0] - BOTTOM).max() <= 2


def test_the_longest_name_of_a_line_fits():
    name = "Cross-GAN, images in the other view, without feature matching and without alignment"
    picture = curves.lines({name: ([0, 10], [0, 4]), "level": ([0, 10], [2, 2])}, "steps", "loss")
    inked = np.flatnonzero((picture[: curves.MARGIN + 30, RIGHT + 30 :] < 128).any(axis=(0, 2)))
    assert 400 < inked[-1] < picture.shape[1] - (RIGHT + 30) - 4


def test_a_single_point_is_seen_and_more_lines_than_colours_have_dots():
    assert len(pixels(curves.lines({"one": ([3], [5])}, "x", "y"), 0)[0]) > 20
    seven = {str(number): ([0, 1, 2], [number] * 3) for number in range(len(curves.COLOURS) + 1)}
    rows, _ = pixels(curves.lines(seven, "x", "y"), 0)
    thickness = {line: np.sum(rows == line) for line in (TOP, BOTTOM)}
    assert thickness[TOP] and thickness[BOTTOM]  # the first and the seventh share a colour
    assert np.sum(rows < TOP + 10) > np.sum(rows > BOTTOM - 10)  # and the seventh has dots


@pytest.mark.parametrize("points", [{}, {"a": ([], [])}, {"a": ([1, 2], [1, np.nan])}])
def test_a_chart_of_nothing_is_refused(points):
    with pytest.raises(ValueError, match="finite"):
        curves.lines(points, "x", "y")


@pytest.mark.parametrize(
    ("least", "largest", "expected"),
    [(0, 100, [0, 20, 40, 60, 80, 100]), (1, 50, [10, 20, 30, 40, 50]), (0.5, 10.0, [2, 4, 6, 8, 10])],
)
def test_ticks_are_round(least, largest, expected):
    np.testing.assert_allclose(curves._ticks(least, largest), expected)
