"""How long to wait before a retry: exponential backoff, and the delay that the other side asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping

MAX_RETRY_AFTER_SECONDS = 600.0

# Beyond these doublings every limit is reached, and a larger exponent would overflow a float one day.
_MOST_DOUBLINGS = 64


def backoff_seconds(attempt: int, *, first_seconds: float, longest_seconds: float) -> float:
    """Return the delay before retry `attempt`, counted from 1: twice the delay before it, at most `longest_seconds`."""
    return min(longest_seconds, first_seconds * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS))


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return Retry-After in seconds, between 1 and 600; None when it is absent or not a positive number.

    Follow Up Boss sends a plain number (https://docs.followupboss.com/reference/rate-limiting).
    """
    try:
        seconds = float(headers.get("Retry-After", ""))
    except ValueError:
        return None
    if not math.isfinite(seconds) or seconds <= 0:
        return None
    return min(max(seconds, 1.0), MAX_RETRY_AFTER_SECONDS)
