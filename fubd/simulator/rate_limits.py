"""The rate limits: a sliding window of ten seconds for each context, as documented, on the simulator's clock."""

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
    """What the limits say of one request. `retry_after` is whole seconds, at least one, when it is refused."""

    allowed: bool
    context: str
    limit: int
    remaining: int
    retry_after: int

    @property
    def headers(self) -> dict[str, str]:
        """The four documented headers. There is no X-RateLimit-Reset."""
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
    """Counts requests in sliding windows. `now` is always simulated monotonic seconds."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str], _Window] = {}
        self.refused = 0
        """How many requests were answered 429 for want of room."""

    def acquire(self, context: str, now: float, *, registered: bool, share: str = "") -> RateLimitDecision:
        """Ask for one request in a context; `share` tells apart who does not share the window. A refused request uses nothing."""
        limit = LIMITS[context][0 if registered else 1]
        window = self._window(context, now, share)
        if len(window.times) >= limit:
            self.refused += 1
            wait = window.times[len(window.times) - limit] + WINDOW_SECONDS - now
            return RateLimitDecision(allowed=False, context=context, limit=limit, remaining=0, retry_after=max(1, math.ceil(wait)))
        window.times.append(now)
        window.total += 1
        window.peak = max(window.peak, len(window.times))
        return RateLimitDecision(allowed=True, context=context, limit=limit, remaining=limit - len(window.times), retry_after=0)

    def consume(self, context: str, now: float, requests: int, *, share: str = "") -> None:
        """Let another integration of the account use up this many requests now."""
        self._window(context, now, share).times.extend([now] * requests)

    def peak(self, context: str = "global", *, share: str = "") -> int:
        """Give the most requests that ever stood in one window, those of others (`consume`) counted only where ours met them."""
        window = self._windows.get((context, share))
        return window.peak if window else 0

    def total(self, context: str, *, share: str = "") -> int:
        """Give how many requests were let through in a context."""
        window = self._windows.get((context, share))
        return window.total if window else 0

    def _window(self, context: str, now: float, share: str) -> _Window:
        window = self._windows.setdefault((context, share), _Window())
        while window.times and window.times[0] <= now - WINDOW_SECONDS:
            window.times.popleft()
        return window
