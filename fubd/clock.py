"""The machine's clock, and one that runs faster for scaled runs."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta


class SystemClock:
    """The real clock. With `speed` above 1, its seconds are that much shorter than real ones: a day can be run in minutes."""

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed
        self._started_at = datetime.now(UTC)
        self._started = time.monotonic()

    def now(self) -> datetime:
        """Return our wall clock, aware, in UTC."""
        if self._speed == 1.0:
            return datetime.now(UTC)
        return self._started_at + timedelta(seconds=(time.monotonic() - self._started) * self._speed)

    def monotonic(self) -> float:
        """Return seconds that never decrease."""
        return time.monotonic() * self._speed

    async def pause(self, seconds: float, *events: asyncio.Event) -> bool:
        """Wait until one of the events is set (return True) or the seconds have passed (return False)."""
        if any(event.is_set() for event in events):
            return True
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        if not waits:
            await asyncio.sleep(seconds / self._speed)
            return False
        try:
            done, _ = await asyncio.wait(waits, timeout=seconds / self._speed, return_when=asyncio.FIRST_COMPLETED)
            return bool(done)
        finally:
            for wait in waits:
                wait.cancel()
