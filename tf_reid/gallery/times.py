"""Times as people write and read them, and as a gallery keeps them: seconds since 1970, UTC."""

import datetime
import math

EARLIEST, LATEST = 1e8, 7.26e9  # 1973 and 2200, in seconds since 1970


def parse(text: str) -> float:
    """Seconds since 1970 of a time such as 2026-11-22T14:05 (UTC, unless it names a zone), or of such seconds.

    Raises:
        ValueError: it is neither, or before 1973 or after 2200, as milliseconds would be.
    """
    for reading in (float, _of_date):  # 20261122 is a date, for it would be a second of 1970
        try:
            seconds = reading(text)
        except (ValueError, OverflowError):
            seconds = math.nan
        if EARLIEST <= seconds <= LATEST:
            return seconds
    raise ValueError(f"{text!r} is not a time from 1973 to 2200; write 2026-11-22T14:05 or seconds since 1970")


def _of_date(text):
    time = datetime.datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=datetime.timezone.utc)).timestamp()


def shown(seconds: float | None) -> str:
    """Such as 2026-11-22 14:05, UTC; nothing where there is no time."""
    if seconds is None:
        return ""
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc):%Y-%m-%d %H:%M}"
