"""Times as people write them, in UTC unless they name a zone."""

import time

import pytest

from tf_reid.gallery import times


@pytest.mark.parametrize("text", ["1700000000000", "nan", "soon", "19700101", "12"])
def test_what_is_not_a_time_is_refused(text):
    with pytest.raises(ValueError, match="is not a time from 1973 to 2200; write 2026"):
        times.parse(text)


@pytest.fixture(autouse=True)
def machine_in_tokyo(monkeypatch):
    """The machine's own zone plays no part."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_times_are_utc_unless_they_say_otherwise():
    assert times.parse("2026-11-22T14:05") == times.parse("2026-11-22T15:05+01:00") == 1795356300.0
    assert times.parse("1795356300") == 1795356300.0


def test_times_are_shown_in_utc_to_the_minute():
    assert times.shown(1795356300.0) == "2026-11-22 14:05" and times.shown(None) == ""
