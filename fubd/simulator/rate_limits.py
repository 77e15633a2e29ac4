"""FUB's rate limits: one sliding ten-second window per context (https://docs.followupboss.com/reference/rate-limiting)."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

WINDOW_SECONDS: Final = 10.0

LIMITS: Final = {
    # context: (registered system, unregistered)
    "global": (250, 125),
    "events": (20, 10),
    "people-put": (25, 25),
    "notes": (10, 10),
}


@dataclass(frozen=True, slots=True)
class RateLimitDecision:
    """The decision on one request. `retry_after_seconds` is a whole number, at least 1, when the request is refused."""

    allowed: bool
    context: str
    limit: int
    remaining: int
    retry_after_seconds: int

    @property
    def headers(self) -> dict[str, str]:
        """The four documented headers. FUB sends no X-RateLimit-Reset."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Window": str(int(WINDOW_SECONDS)),
            "X-RateLimit-Context": self.context,
        }


@dataclass(slots=True)
class _Window:
    times: deque[float] = field(default_factory=deque)
    peak: int = 0
    total: int = 0


class RateLimits:
    """Counts requests in sliding windows. `now` is in simulated monotonic seconds; `bucket` names a window not shared with the others."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str], _Window] = {}
        self.refused = 0
        """How many requests were answered 429 because the window was full."""

    def acquire(self, context: str, now: float, *, registered: bool, bucket: str = "") -> RateLimitDecision:
        """Take one request from a context's window. A refused request uses nothing."""
        limit = LIMITS[context][0 if registered else 1]
        window = self._window(context, now, bucket)
        if len(window.times) >= limit:
            self.refused += 1
            wait = window.times[len(window.times) - limit] + WINDOW_SECONDS - now
            return RateLimitDecision(allowed=False, context=context, limit=limit, remaining=0, retry_after_seconds=max(1, math.ceil(wait)))
        window.times.append(now)
        window.total += 1
        window.peak = max(window.peak, len(window.times))
        return RateLimitDecision(allowed=True, context=context, limit=limit, remaining=limit - len(window.times), retry_after_seconds=0)

    def consume(self, context: str, now: float, requests: int, *, bucket: str = "") -> None:
        """Let another integration of the account use this many requests now."""
        self._window(context, now, bucket).times.extend([now] * requests)

    def peak(self, context: str = "global", *, bucket: str = "") -> int:
        """Return the largest number of requests in one window; those of `consume` count only while ours are in it too."""
        window = self._windows.get((context, bucket))
        return window.peak if window else 0

    def total(self, context: str, *, bucket: str = "") -> int:
        """Return how many requests were allowed in a context."""
        window = self._windows.get((context, bucket))
        return window.total if window else 0

    def _window(self, context: str, now: float, bucket: str) -> _Window:
        window = self._windows.setdefault((context, bucket), _Window())
        while window.times and window.times[0] <= now - WINDOW_SECONDS:
            window.times.popleft()
        return window
