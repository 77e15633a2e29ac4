"""FUB's clock, seen through the `Date` header of its answers.

The header is a whole second, cut off, and written at some moment between sending and answer. So one answer gives no number but bounds:
our clock minus FUB's is more than (ours when sending - Date - 1 s), and at most (ours when answered - Date). The bounds of all answers
hold at once, so they are intersected: the estimate does not jitter with the second, it narrows, to about the time of the fastest call.
A running average was rejected: it lags after our clock was set, and it never gives a bound, which is what `earliest` needs.

Clocks drift, so old bounds are widened with age; when an answer contradicts them a clock was set, and the answer stands alone.
"""

from __future__ import annotations

from datetime import datetime, timedelta

RESOLUTION_SECONDS = 1.0
"""Of the Date header (RFC 9110)."""
DRIFT_PER_SECOND = 100e-6
"""By which two clocks may come apart: a common crystal's 50 ppm, twice."""


class Skew:
    """Our clock minus FUB's, within bounds, in seconds. 0 before the first answer."""

    def __init__(self) -> None:
        self._low = 0.0
        self._high = 0.0
        self._learned_at: float | None = None

    def seconds(self) -> float:
        """Give the middle of what is possible."""
        return (self._low + self._high) / 2

    def learn(self, *, date: datetime, ours: datetime, elapsed_seconds: float, at: float) -> None:
        """Take in an answer: its Date, our clock when it came, how long after sending that was, and the monotonic moment."""
        high = (ours - date).total_seconds()
        low = high - elapsed_seconds - RESOLUTION_SECONDS
        if self._learned_at is not None:
            drift = (at - self._learned_at) * DRIFT_PER_SECOND
            if low <= self._high + drift and high >= self._low - drift:
                low, high = max(low, self._low - drift), min(high, self._high + drift)
        self._low, self._high, self._learned_at = low, high, at

    def fub_now(self, ours: datetime) -> datetime:
        """Give FUB's clock when ours shows this."""
        return ours - timedelta(seconds=self.seconds())

    def earliest(self, ours: datetime) -> datetime:
        """Give the earliest that FUB's clock can show when ours shows this."""
        return ours - timedelta(seconds=self._high)
