"""Decide when a request may be sent, so that FUB never answers 429 and the account's other tools keep their share.

FUB counts requests in a sliding window per context and reports it in four headers: X-RateLimit-Limit, -Remaining, -Window (seconds) and
-Context (https://docs.followupboss.com/reference/rate-limiting). There is no X-RateLimit-Reset. Which context an endpoint belongs to is
unknown before its first response: until then it counts as `global`, with the limit of an unregistered system.

Two rules bound how many of our requests FUB can count in one window:

- Ours are at most `share` of the limit. FUB counts a request when it arrives, somewhere between our sending and its response. A request
  therefore occupies its place from sending until one window after the *response*. If it were counted from sending, a request that
  travelled slowly and another that travelled fast one window later could meet in FUB's count.
- What others use is subtracted from our share. A response reports how much of the limit is used. We attribute to ourselves all of it that
  may be ours; the rest is certainly used by others. Responses of a busy moment understate it, by as many requests as are in flight, so
  the maximum of the last window counts. It is kept until newer responses arrive, which costs nothing: every request we send brings one.
  One request per window is always allowed, or we would never learn that others have stopped.

A 429 closes its context for Retry-After, even when Remaining is above 0 (https://docs.followupboss.com/reference/rate-limiting).
"""

from __future__ import annotations

import asyncio
import math
import re
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping

from fubd.errors import Unavailable
from fubd.metrics import Metrics
from fubd.ports import Clock

DEFAULT_CONTEXT = "global"
DEFAULT_LIMIT = 125
DEFAULT_WINDOW_SECONDS = 10.0
DEFAULT_RETRY_AFTER_SECONDS = 10.0
MAX_IN_FLIGHT = 32
"""Requests in flight at once in one context; also bounds the connections."""
MAX_CONTEXTS = 16
_MAX_LIMIT = 100_000
_MAX_WINDOW_SECONDS = 3_600
_MIN_WAIT_SECONDS = 0.001  # a timer may fire slightly early; without a minimum the loop would then spin
_MAX_RESPONSES = 8_192  # spans many windows, because a slow response reports the window before its journey
_MAX_ALLOWED = 4_096

_CONTEXT_NAME = re.compile(r"[\w .:/-]{1,64}", re.ASCII)


class SlidingWindow:
    """One rate limit context. Callers are served in the order of arrival.

    `max_wait_seconds`: `acquire` refuses to wait longer than this for a context that FUB closed.
    """

    def __init__(self, *, share: float, max_wait_seconds: float, clock: Clock, metrics: Metrics) -> None:
        self._share = share
        self._max_wait_seconds = max_wait_seconds
        self._clock = clock
        self._metrics = metrics
        self._limit = DEFAULT_LIMIT
        self.limit_and_remaining: tuple[int | None, int | None] = (None, None)
        self._window_seconds = DEFAULT_WINDOW_SECONDS
        self._others: deque[tuple[float, int]] = deque()  # (moment, requests of others); requests strictly decrease
        self._closed_until = -math.inf
        self._in_flight = 0
        self._responses: deque[float] = deque(maxlen=_MAX_RESPONSES)
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    def allowed(self) -> int:
        """Return how many of our requests one window may hold now."""
        others = self._others[0][1] if self._others else 0
        return min(max(1, math.floor(self._share * self._limit + 1e-9) - others), _MAX_ALLOWED)

    async def acquire(self) -> float:
        """Wait until one more request may be sent; return the monotonic moment. Call `release` once for each `acquire`.

        Raises Unavailable, with FUB's Retry-After, when FUB closed the context for longer than `max_wait_seconds`.
        """
        async with self._turn:
            while self._in_flight >= MAX_IN_FLIGHT:
                await self._wait(self._window_seconds)
            throttled_from = self._clock.monotonic()
            try:
                while (wait_seconds := self._seconds_until_allowed()) > 0:
                    await self._wait(wait_seconds)
            finally:
                # Only the first in the queue counts: the metric is the time in which the limit delayed us, not the sum over callers.
                self._metrics.api_throttled_seconds.inc(max(0.0, self._clock.monotonic() - throttled_from))
            self._in_flight += 1
            return self._clock.monotonic()

    def release(self) -> None:
        """Record that an acquired request has ended, with or without a response."""
        self._in_flight -= 1
        self._responses.append(self._clock.monotonic())
        self._changed.set()

    def update(self, sent_at: float, *, limit: int | None, remaining: int | None, window_seconds: int | None) -> None:
        """Apply the rate limit headers of the response to the request sent at `sent_at`; None for a header that was absent."""
        self._limit = limit or self._limit
        self.limit_and_remaining = (limit, remaining)
        self._window_seconds = float(window_seconds or self._window_seconds)
        if remaining is not None:
            self._note_others(self._limit - remaining - self._counted(sent_at))
        self._changed.set()

    def close(self, seconds: float) -> None:
        """Send nothing for `seconds`: FUB answered 429."""
        self._closed_until = max(self._closed_until, self._clock.monotonic() + seconds)
        self._changed.set()

    def _counted(self, at: float) -> int:
        """Return how many of our requests FUB may have in its window at that moment, all requests in flight included."""
        return self._in_flight + len(self._responses) - bisect_right(self._responses, at - self._window_seconds)

    def _note_others(self, requests: int) -> None:
        now = self._clock.monotonic()
        while self._others and self._others[-1][1] <= requests:
            self._others.pop()
        self._others.append((now, max(0, requests)))
        while self._others[0][0] < now - self._window_seconds:
            self._others.popleft()

    def _seconds_until_allowed(self) -> float:
        """Return the minimum wait of the next request; 0 when it may be sent."""
        now = self._clock.monotonic()
        closed_seconds = self._closed_until - now
        if closed_seconds > self._max_wait_seconds:
            raise Unavailable(f"Follow Up Boss asked us to wait {closed_seconds:.0f} s", retry_after=closed_seconds)
        if closed_seconds > 0:
            return closed_seconds
        excess = self._counted(now) + 1 - self.allowed()
        if excess <= 0:
            return 0.0
        expired = bisect_right(self._responses, now - self._window_seconds)
        if expired + excess > len(self._responses):
            return self._window_seconds  # only a response can help, and it sets `_changed`
        return self._responses[expired + excess - 1] + self._window_seconds - now

    async def _wait(self, seconds: float) -> None:
        self._changed.clear()
        await self._clock.pause(max(seconds, _MIN_WAIT_SECONDS), self._changed)


class RateLimiter:
    """The windows of all contexts. `share` of each limit is ours; `max_wait_seconds` as in SlidingWindow."""

    def __init__(self, *, share: float, max_wait_seconds: float, clock: Clock, metrics: Metrics) -> None:
        self._share = share
        self._max_wait_seconds = max_wait_seconds
        self._clock = clock
        self._metrics = metrics
        self._windows: dict[str, SlidingWindow] = {}
        self._context_of: dict[str, str] = {}

    def window(self, endpoint: str) -> SlidingWindow:
        """Return the window in which requests to `endpoint` count, as far as known.

        `endpoint` includes the HTTP method, because contexts differ by it.
        """
        return self._window_of(self._context_of.get(endpoint, DEFAULT_CONTEXT))

    def update(self, endpoint: str, sent_at: float, headers: Mapping[str, str]) -> SlidingWindow:
        """Apply the valid rate limit headers of a response; return the window it belongs to."""
        context = headers.get("X-RateLimit-Context", "")
        if _CONTEXT_NAME.fullmatch(context) and (context in self._windows or len(self._windows) < MAX_CONTEXTS):
            self._context_of[endpoint] = context
        context = self._context_of.get(endpoint, DEFAULT_CONTEXT)
        window = self._window_of(context)
        remaining = _parse_whole(headers.get("X-RateLimit-Remaining"), 0, _MAX_LIMIT)
        window.update(
            sent_at,
            limit=_parse_whole(headers.get("X-RateLimit-Limit"), 1, _MAX_LIMIT),
            remaining=remaining,
            window_seconds=_parse_whole(headers.get("X-RateLimit-Window"), 1, _MAX_WINDOW_SECONDS),
        )
        if remaining is not None:
            self._metrics.api_rate_limit_remaining.labels(context).set(remaining)
        return window

    def _window_of(self, context: str) -> SlidingWindow:
        if context not in self._windows:
            self._windows[context] = SlidingWindow(
                share=self._share, max_wait_seconds=self._max_wait_seconds, clock=self._clock, metrics=self._metrics
            )
        return self._windows[context]


def _parse_whole(text: str | None, minimum: int, maximum: int) -> int | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > len(str(maximum)):
        return None
    value = int(text)
    return value if minimum <= value <= maximum else None
