"""The machine's clock, and one that runs faster for scaled runs."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta


class SystemClock:
    """The real clock. With `speed` above 1 every second of it takes a fraction of one: a day can be lived through in minutes."""

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed
        self._epoch = datetime.now(UTC)
        self._zero = time.monotonic()

    def now(self) -> datetime:
        """Give our wall clock, aware, UTC."""
        if self._speed == 1.0:
            return datetime.now(UTC)
        return self._epoch + timedelta(seconds=(time.monotonic() - self._zero) * self._speed)

    def monotonic(self) -> float:
        """Give seconds that only grow."""
        return time.monotonic() * self._speed

    async def pause(self, seconds: float, *events: asyncio.Event) -> bool:
        """Wait until one of the events is set (True) or the seconds have passed (False)."""
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
