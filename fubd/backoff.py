"""Exponential backoff: how long to wait before a retry."""

from __future__ import annotations

# Beyond these doublings every limit is reached, and a larger exponent would overflow a float one day.
_MOST_DOUBLINGS = 64


def backoff_seconds(attempt: int, *, first_seconds: float, longest_seconds: float) -> float:
    """Return the delay before retry `attempt`, counted from 1: twice the delay before it, at most `longest_seconds`."""
    return min(longest_seconds, first_seconds * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS))
