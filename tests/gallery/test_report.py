"""How matches are reported: tables and JSON; the pages are drawn in tests/test_search.py."""

import base64
import json

import cv2
import numpy as np
import pytest
from odd_images import exif, picture, saved, stored, with_exif

from tf_reid.gallery import report
from tf_reid.gallery.records import Match, Record
from tf_reid.pictures.grids import RIGHT_FRAME, WRONG_FRAME

REJECTION = {"threshold": 0.25, "false_accept_rate": 0.05, "images": 40, "queries": 40}


def match(distance, threshold=REJECTION["threshold"]):
    record = Record("b.jpg", "anna", "door", 1795356300.0)
    return Match(7, record, distance, None if threshold is None else distance <= threshold)


@pytest.mark.parametrize(
    ("matches", "rejection", "unknown", "first_line"),
    [
        ([match(0.2), match(0.3)], REJECTION, False, "a.jpg"),
        ([match(0.3)], REJECTION, True, "a.jpg  unknown: no image is within the rejection threshold 0.250"),
        ([match(0.3, threshold=None)], None, None, "a.jpg"),
        ([], REJECTION, True, "a.jpg  no image passes the filters"),
    ],
)
def test_a_query_beyond_the_threshold_is_unknown(matches, rejection, unknown, first_line):
    table = report.as_table({"a.jpg": matches}, rejection).splitlines()
    assert table[0] == first_line and len(table) == 1 + len(matches)
    assert all("identity   anna  camera door  2026-11-22 14:05  b.jpg" in line for line in table[1:])
    (answer,) = json.loads(report.as_json({"a.jpg": matches}))
    assert answer["unknown"] is unknown and answer["query"] == "a.jpg"
    assert [row["accepted"] for row in answer["matches"]] == [one.accepted for one in matches]


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="No query has a match"):
        report.as_png({"a.jpg": []}, lambda _: None, lambda _: None)


def test_a_match_is_framed_red_only_beyond_a_threshold():
    def has_frame(colour, one):
        drawn = report.as_png({"a.jpg": [one]}, lambda _: None, lambda _: None)
        return bool((drawn == colour).all(axis=-1).any())

    for one, is_right in ((match(0.2), True), (match(0.3), False), (match(0.3, threshold=None), True)):
        assert (has_frame(RIGHT_FRAME, one), has_frame(WRONG_FRAME, one)) == (is_right, not is_right)


OBEYED = "\x1b[2J\x07\u202egnp.exe\n"  # clears a terminal, rings, turns what follows, and begins a line


def test_a_name_that_a_terminal_would_obey_is_written_out():
    hostile = Match(7, Record(f"b{OBEYED}.jpg", f"anna{OBEYED}", f"door{OBEYED}", None), 0.2, True)
    results = {f"a{OBEYED}.jpg": [hostile]}
    stats = report.stats_table({"images": 1, "source": f"runs/{OBEYED}", "rejection": None})
    page = report.as_html(results, lambda _: None, lambda _: None, REJECTION)
    for text, lines in ((report.as_table(results, REJECTION), 2), (stats, 2), (page, None)):
        assert not set(text) & {"\x1b", "\x07", "\u202e"} and r"\x1b[2J\x07\u202egnp.exe\n" in text
        assert lines is None or len(text.splitlines()) == lines
    assert json.loads(report.as_json(results))[0]["matches"][0]["path"] == hostile.record.path
    assert "\x1b" not in report.as_json(results)


def test_names_in_any_script_stay_as_they_are():
    results = {"می‌خواهم.jpg": [match(0.2)], "人　物.jpg": []}
    assert [line.split("  ")[0] for line in report.as_table(results, None).splitlines()[::2]] == list(results)


def test_a_thumbnail_is_upright_and_in_its_colours():
    image = picture(64, 32)
    content = with_exif(saved(stored(image, 6), "JPEG", quality=98, subsampling=0), exif(6))
    uri = report.thumbnail(content)
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert shown.shape == (128, 64, 3)
    assert np.abs(shown[::2, ::2].astype(int) - image).mean() < 6
    assert report.thumbnail(content[:-50]) is None and report.thumbnail(b"text") is None
