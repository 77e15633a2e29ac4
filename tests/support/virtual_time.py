"""An event loop and a clock whose time passes only while every task waits: a day of waiting takes no longer than the work in it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from typing_extensions import override

EPOCH = datetime(2031, 3, 3, 9, 0, tzinfo=UTC)
"""The true time at which a virtual loop starts."""

_Result = TypeVar("_Result")


class _SkippingSelector(selectors.DefaultSelector):
    """Advances time by the timeout instead of waiting for it."""

    seconds = 0.0

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("every task waits for something that will never happen")
            self.seconds += timeout
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    @override
    def time(self) -> float:
        return self._skipping.seconds


def run_virtual(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Run to the end in virtual time, which starts at 0."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(main)


def true_time() -> datetime:
    """Return the true time of the running virtual loop."""
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())


class VirtualClock:
    """Our clock in virtual time; `offset` shifts what it shows, never how fast it runs."""

    def __init__(self, *, offset: timedelta = timedelta()) -> None:
        self._offset = offset

    def now(self) -> datetime:
        """Return the true time, plus the offset."""
        return true_time() + self._offset

    def monotonic(self) -> float:
        """Return the seconds of the loop."""
        return asyncio.get_running_loop().time()

    async def pause(self, seconds: float, *events: asyncio.Event) -> bool:
        """Wait until one of the events is set (return True) or the seconds have passed (return False)."""
        if any(event.is_set() for event in events):
            return True
        if not events:
            await asyncio.sleep(seconds)
            return False
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return bool(done)
        finally:
            for wait in waits:
                wait.cancel()
