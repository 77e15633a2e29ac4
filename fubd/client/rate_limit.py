"""When a request may be sent, so that FUB never has to say 429 and the account's other tools keep their part.

FUB counts requests in a sliding window, one for each context, and tells it in four headers (documented, fub-api section 3):
X-RateLimit-Limit, -Remaining, -Window (seconds) and -Context. There is no X-RateLimit-Reset. Which endpoint belongs to which context is
not told beforehand: an endpoint counts as `global`, with the limit of an unregistered system, until an answer says otherwise.

Two rules, and both are about how many of our requests FUB can count in one window:

- ours are at most `share` of the limit. FUB counts a request when it arrives, which is somewhere between our sending and its answer; so a
  request takes its place from sending until one window after the *answer*. Counting from the sending would let a request that travelled
  slowly and one that travelled fast, a window later, meet in FUB's count;
- what others use comes off our part. An answer tells how much is used, and of that all is ours that may be: what is left is what others
  surely use. The answers of a busy moment understate it, by as much as is under way, so the most of the last window counts. It is kept
  until newer answers come, which costs nothing: whatever we send brings one. One request in a window is always allowed, or we would never
  hear that others have stopped.

A 429 closes its context for Retry-After, also when Remaining is above 0 (documented).
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
MOST_RETRY_AFTER_SECONDS = 600.0
MOST_IN_FLIGHT = 32
"""Requests under way at once in one context; also bounds the connections."""
MOST_CONTEXTS = 16
_LARGEST_LIMIT = 100_000
_LARGEST_WINDOW_SECONDS = 3_600
_LEAST_WAIT_SECONDS = 0.001  # a timer may ring a hair early, and must not ring again and again within that hair
_REMEMBERED = 8_192  # answers; many windows of them, for an answer may tell of the window before a long journey
_LARGEST_ALLOWED = 4_096

_CONTEXT_NAME = re.compile(r"[\w .:/-]{1,64}", re.ASCII)


class SlidingWindow:
    """One rate limit context. Callers are served in the order in which they came."""

    def __init__(self, *, share: float, total_timeout_seconds: float, clock: Clock, metrics: Metrics) -> None:
        self._share = share
        self._patience_seconds = total_timeout_seconds
        self._clock = clock
        self._metrics = metrics
        self._limit = DEFAULT_LIMIT
        self.told: tuple[int | None, int | None] = (None, None)
        self._window_seconds = DEFAULT_WINDOW_SECONDS
        self._others: deque[tuple[float, int]] = deque()  # when and how many, each more than all that came after it
        self._closed_until = -math.inf
        self._in_flight = 0
        self._answered: deque[float] = deque(maxlen=_REMEMBERED)
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    def allowed(self) -> int:
        """Give how many of our requests may stand in one window now."""
        others = self._others[0][1] if self._others else 0
        return min(max(1, math.floor(self._share * self._limit + 1e-9) - others), _LARGEST_ALLOWED)

    async def acquire(self) -> float:
        """Wait until one more request may be sent; gives the monotonic moment. Each admission is to be followed by one `release`.

        Raises Unavailable, with FUB's wish, when FUB closed the context for longer than the patience.
        """
        async with self._turn:
            while self._in_flight >= MOST_IN_FLIGHT:
                await self._wait(self._window_seconds)
            held_from = self._clock.monotonic()
            try:
                while (held_seconds := self._held_seconds()) > 0:
                    await self._wait(held_seconds)
            finally:
                # Only who is first in the queue counts: the metric is time in which the limit held us up, not the sum over callers.
                self._metrics.api_throttled_seconds.inc(max(0.0, self._clock.monotonic() - held_from))
            self._in_flight += 1
            return self._clock.monotonic()

    def release(self) -> None:
        """Take note that an admitted request is over, answered or not."""
        self._in_flight -= 1
        self._answered.append(self._clock.monotonic())
        self._changed.set()

    def update(self, sent_at: float, *, limit: int | None, remaining: int | None, window_seconds: int | None) -> None:
        """Take in what the answer to the request of `sent_at` told of the window; None where it told nothing."""
        self._limit = limit or self._limit
        self.told = (limit, remaining)
        self._window_seconds = float(window_seconds or self._window_seconds)
        if remaining is not None:
            self._note_others(self._limit - remaining - self._standing(sent_at))
        self._changed.set()

    def close(self, seconds: float) -> None:
        """Send nothing for so long: FUB answered 429."""
        self._closed_until = max(self._closed_until, self._clock.monotonic() + seconds)
        self._changed.set()

    def _standing(self, at: float) -> int:
        """Give how many of our requests FUB may have had in its window at that moment, those under way now all counted."""
        return self._in_flight + len(self._answered) - bisect_right(self._answered, at - self._window_seconds)

    def _note_others(self, requests: int) -> None:
        now = self._clock.monotonic()
        while self._others and self._others[-1][1] <= requests:
            self._others.pop()
        self._others.append((now, max(0, requests)))
        while self._others[0][0] < now - self._window_seconds:
            self._others.popleft()

    def _held_seconds(self) -> float:
        """Give how long the next request must wait at least; 0 when it may go."""
        now = self._clock.monotonic()
        closed_seconds = self._closed_until - now
        if closed_seconds > self._patience_seconds:
            raise Unavailable(f"Follow Up Boss asked us to wait {closed_seconds:.0f} s", retry_after=closed_seconds)
        if closed_seconds > 0:
            return closed_seconds
        excess = self._standing(now) + 1 - self.allowed()
        if excess <= 0:
            return 0.0
        left = bisect_right(self._answered, now - self._window_seconds)
        if left + excess > len(self._answered):
            return self._window_seconds  # only an answer helps, and it wakes us
        return self._answered[left + excess - 1] + self._window_seconds - now

    async def _wait(self, seconds: float) -> None:
        self._changed.clear()
        await self._clock.pause(max(seconds, _LEAST_WAIT_SECONDS), self._changed)


class Limiter:
    """All contexts. `share` of each limit is ours; waits longer than the patience are refused."""

    def __init__(self, *, share: float, total_timeout_seconds: float, clock: Clock, metrics: Metrics) -> None:
        self._share = share
        self._patience_seconds = total_timeout_seconds
        self._clock = clock
        self._metrics = metrics
        self._windows: dict[str, SlidingWindow] = {}
        self._context_of: dict[str, str] = {}

    def window(self, endpoint: str) -> SlidingWindow:
        """Give the window that requests to this endpoint count in, as far as known. Its name has the method: contexts differ by it."""
        return self._of_context(self._context_of.get(endpoint, DEFAULT_CONTEXT))

    def learn(self, endpoint: str, sent_at: float, headers: Mapping[str, str]) -> SlidingWindow:
        """Take in an answer's rate headers, as far as they are there and make sense; gives the window it belongs to."""
        context = headers.get("X-RateLimit-Context", "")
        if _CONTEXT_NAME.fullmatch(context) and (context in self._windows or len(self._windows) < MOST_CONTEXTS):
            self._context_of[endpoint] = context
        context = self._context_of.get(endpoint, DEFAULT_CONTEXT)
        window = self._of_context(context)
        remaining = _whole(headers.get("X-RateLimit-Remaining"), 0, _LARGEST_LIMIT)
        window.update(
            sent_at,
            limit=_whole(headers.get("X-RateLimit-Limit"), 1, _LARGEST_LIMIT),
            remaining=remaining,
            window_seconds=_whole(headers.get("X-RateLimit-Window"), 1, _LARGEST_WINDOW_SECONDS),
        )
        if remaining is not None:
            self._metrics.api_rate_limit_remaining.labels(context).set(remaining)
        return window

    def _of_context(self, context: str) -> SlidingWindow:
        if context not in self._windows:
            self._windows[context] = SlidingWindow(
                share=self._share, total_timeout_seconds=self._patience_seconds, clock=self._clock, metrics=self._metrics
            )
        return self._windows[context]


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After in seconds, between 1 and 600; None when absent or odd (FUB sends a plain number, documented)."""
    try:
        seconds = float(headers.get("Retry-After", ""))
    except ValueError:
        return None
    if not math.isfinite(seconds) or seconds <= 0:
        return None
    return min(max(seconds, 1.0), MOST_RETRY_AFTER_SECONDS)


def _whole(text: str | None, least: int, most: int) -> int | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > len(str(most)):
        return None
    value = int(text)
    return value if least <= value <= most else None
