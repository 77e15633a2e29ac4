"""How long to wait before a retry: exponential backoff, and the delay that the other side asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_SECONDS = 600.0

# Beyond these doublings every limit is reached, and a larger exponent would overflow a float one day.
_MOST_DOUBLINGS = 64


def backoff_seconds(attempt: int, *, first_seconds: float, longest_seconds: float) -> float:
    """Return the delay before retry `attempt`, counted from 1: twice the delay before it, at most `longest_seconds`."""
    return min(longest_seconds, first_seconds * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS))


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return Retry-After in seconds, between 1 and 600; None when it is absent or neither a positive number nor an instant after Date.

    Follow Up Boss sends a plain number (https://docs.followupboss.com/reference/rate-limiting), other servers the instant.
    """
    text = headers.get("Retry-After", "")
    try:
        seconds = float(text)
    except ValueError:
        seconds = _seconds_between(headers.get("Date", ""), text)
    if not math.isfinite(seconds) or seconds <= 0:
        return None
    return min(max(seconds, 1.0), MAX_RETRY_AFTER_SECONDS)


def _seconds_between(date: str, later: str) -> float:
    """Return the seconds between two dates of HTTP; NaN where one is none."""
    try:
        return (parsedate_to_datetime(later) - parsedate_to_datetime(date)).total_seconds()
    except (TypeError, ValueError):
        return math.nan
