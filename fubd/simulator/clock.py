"""Simulated time: it can be sped up, slowed down, stopped, shifted and stepped.

Everything in the simulator that waits or takes a timestamp uses this clock, so an hour of retries can pass in a second and a test can
stop time while it looks. Only sockets run in real time: the ten seconds that a receiver has to answer are real seconds.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta


@dataclass(order=True, slots=True)
class Timer:
    """A callback due once at `at` (simulated seconds since the clock's start), unless cancelled before."""

    at: float
    number: int
    callback: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        """Cancel the callback; harmless once it has run."""
        self.cancelled = True


class SimClock:
    """Simulated time.

    `start` (aware) is the first instant it shows; `speed` is simulated seconds per real second, 0 for a stopped clock that only
    `advance` and `run_for` move; `source` returns real seconds. Raises ValueError for a naive start or a negative speed.
    """

    def __init__(self, start: datetime, *, speed: float = 1.0, source: Callable[[], float] = time.monotonic) -> None:
        if start.tzinfo is None:
            raise ValueError("a clock starts at an aware datetime")
        if speed < 0:
            raise ValueError("time does not run backwards; use advance with a negative number to shift it once")
        self._start = start.astimezone(UTC)
        self._source = source
        self._speed = speed
        self._anchor_real = source()
        self._anchor = 0.0
        self._shift = 0.0
        self._timers: list[Timer] = []
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def speed(self) -> float:
        """Simulated seconds per real second."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        if speed < 0:
            raise ValueError("time does not run backwards")
        self._anchor, self._anchor_real = self.monotonic(), self._source()
        self._speed = speed
        self._schedule()

    def now(self) -> datetime:
        """Return the simulated instant, aware, UTC."""
        return self._start + timedelta(seconds=self.monotonic() + self._shift)

    def timestamp(self) -> float:
        """Return the simulated instant as seconds since 1970."""
        return self._start.timestamp() + self.monotonic() + self._shift

    def monotonic(self) -> float:
        """Return the simulated seconds since the start; `shift` does not change them."""
        return self._anchor + (self._source() - self._anchor_real) * self._speed

    def shift(self, seconds: float) -> None:
        """Move the wall clock by this many seconds at once; timers are not affected."""
        self._shift += seconds

    def skewed(self, seconds: float) -> SkewedClock:
        """Return another machine's clock: it runs with this one and shows `seconds` more."""
        return SkewedClock(self, seconds)

    def advance(self, seconds: float) -> None:
        """Jump ahead by these seconds and run every callback that became due, all at the new instant.

        Raises ValueError for a negative number. Use `run_for` where each callback must run at its own instant.
        """
        if seconds < 0:
            raise ValueError("time does not run backwards; shift() sets the wall clock back")
        self._anchor += seconds
        self._fire_due()

    async def run_for(self, seconds: float, settle: Callable[[], Awaitable[None]]) -> None:
        """Advance a stopped clock step by step, so that each timer fires at its own instant.

        `settle` is awaited at the start and after each timer, to let the triggered work finish (for instance `Deliveries.drain`).
        """
        end = self.monotonic() + seconds
        await _yield_to_tasks()
        await settle()
        while (timer := self._next_timer()) is not None and timer.at <= end:
            self.advance(max(0.0, timer.at - self.monotonic()))
            await _yield_to_tasks()
            await settle()
        self.advance(max(0.0, end - self.monotonic()))
        await _yield_to_tasks()
        await settle()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once after these simulated seconds. Outside a running loop it waits for the next `advance`."""
        self._count += 1
        timer = Timer(self.monotonic() + max(0.0, seconds), self._count, callback)
        heapq.heappush(self._timers, timer)
        if self._timers[0] is timer:
            self._schedule()
        return timer

    async def sleep(self, seconds: float) -> None:
        """Wait for these simulated seconds."""
        awake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, lambda: None if awake.done() else awake.set_result(None))
        try:
            await awake
        finally:
            timer.cancel()

    async def pause(self, seconds: float, *events: asyncio.Event) -> bool:
        """Wait until one of the events is set (True) or the simulated seconds have passed (False)."""
        if any(event.is_set() for event in events):
            return True
        tasks = [asyncio.create_task(self.sleep(seconds)), *(asyncio.create_task(event.wait()) for event in events)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return any(event.is_set() for event in events)

    def _next_timer(self) -> Timer | None:
        while self._timers and self._timers[0].cancelled:
            heapq.heappop(self._timers)
        return self._timers[0] if self._timers else None

    def _fire_due(self) -> None:
        # Only what is due now: a callback that sets the next timer with no delay must not loop endlessly.
        now = self.monotonic()
        due: list[Timer] = []
        while (timer := self._next_timer()) is not None and timer.at <= now:
            due.append(heapq.heappop(self._timers))
        for timer in due:
            if not timer.cancelled:
                timer.callback()
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        timer = self._next_timer()
        if timer is None or self._speed == 0:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._timer = loop.call_later(max(0.0, timer.at - self.monotonic()) / self._speed, self._fire_due)


async def _yield_to_tasks() -> None:
    """Give awake tasks the turns of the event loop they need to act and to set their next timer."""
    for _ in range(3):
        await asyncio.sleep(0)


class SkewedClock:
    """Another machine's clock: runs with `clock` and shows `seconds` more. For clients with a wrong clock."""

    def __init__(self, clock: SimClock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds

    def now(self) -> datetime:
        """Return the instant this clock shows, aware, UTC."""
        return self._clock.now() + timedelta(seconds=self._seconds)

    def monotonic(self) -> float:
        """Return the simulated seconds since the start."""
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for these simulated seconds."""
        await self._clock.sleep(seconds)

    async def pause(self, seconds: float, *events: asyncio.Event) -> bool:
        """Wait until one of the events is set (True) or the simulated seconds have passed (False)."""
        return await self._clock.pause(seconds, *events)
