"""Estimate the difference between our clock and FUB's from the `Date` header of its responses.

The header is truncated to a whole second and written at some moment between sending the request and receiving the response. One response
therefore gives no number but bounds: our clock minus FUB's is more than (ours when sending - Date - 1 s), and at most (ours when received
- Date). The bounds of all responses hold at the same time, so they are intersected: the estimate does not jitter with the second, it
narrows to about the duration of the fastest call. A running average was rejected: it lags after our clock was set, and it never gives a
bound, which `earliest_fub_now` needs.

Clocks drift, so old bounds are widened with age. A response that contradicts them counts only when the next one agrees with it: then a
clock was set, and both replace the old bounds. One alone may come from a machine in front of FUB whose clock is wrong.
"""

from __future__ import annotations

from datetime import datetime, timedelta

RESOLUTION_SECONDS = 1.0
"""Resolution of the Date header (https://www.rfc-editor.org/rfc/rfc9110#name-date)."""
DRIFT_PER_SECOND = 100e-6
"""The most that two clocks drift apart: twice the 50 ppm of a common crystal."""


class ClockSkew:
    """Our clock minus FUB's, as bounds in seconds. Both are 0 before the first response."""

    def __init__(self) -> None:
        self._low = 0.0
        self._high = 0.0
        self._updated_at: float | None = None
        self._contradiction: tuple[float, float] | None = None

    @property
    def is_known(self) -> bool:
        """Whether a response has shown FUB's clock."""
        return self._updated_at is not None

    def seconds(self) -> float:
        """Return the middle of the bounds."""
        return (self._low + self._high) / 2

    def update(self, *, date: datetime, received_at: datetime, elapsed_seconds: float, monotonic: float) -> None:
        """Narrow the bounds by one response.

        `date` is its Date header, `received_at` our clock on arrival, `elapsed_seconds` the time since sending, `monotonic` our monotonic
        clock on arrival.
        """
        high = (received_at - date).total_seconds()
        low = high - elapsed_seconds - RESOLUTION_SECONDS
        if self._updated_at is not None:
            drift = (monotonic - self._updated_at) * DRIFT_PER_SECOND
            if low <= self._high + drift and high >= self._low - drift:
                low, high = max(low, self._low - drift), min(high, self._high + drift)
            elif self._contradiction is None or low > self._contradiction[1] + drift or high < self._contradiction[0] - drift:
                self._contradiction = (low, high)
                return
        self._contradiction = None
        self._low, self._high, self._updated_at = low, high, monotonic

    def fub_now(self, ours: datetime) -> datetime:
        """Return the best estimate of FUB's clock at the moment when ours shows `ours`."""
        return ours - timedelta(seconds=self.seconds())

    def earliest_fub_now(self, ours: datetime) -> datetime:
        """Return the earliest that FUB's clock can show at the moment when ours shows `ours`."""
        return ours - timedelta(seconds=self._high)
