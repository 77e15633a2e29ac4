"""An event loop whose time passes only while everybody waits, for parts that wait and touch no socket."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from typing_extensions import override

_Result = TypeVar("_Result")

START = datetime(2031, 5, 6, 7, 8, 9, 250_000, tzinfo=UTC)


class _Skipping(selectors.SelectSelector):
    """Where a selector would wait, time is moved on instead."""

    skipped_seconds = 0.0

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.skipped_seconds += timeout
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    @override
    def time(self) -> float:
        return self._skipping.skipped_seconds


class VirtualClock:
    """The clock of the running loop."""

    def now(self) -> datetime:
        """Give the wall clock: a start, and the seconds since."""
        return START + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """Give the loop's seconds."""
        return asyncio.get_running_loop().time()

    async def pause(self, seconds: float, *events: asyncio.Event) -> bool:
        """Wait until one of the events is set (True) or the seconds have passed (False)."""
        if not events:
            await asyncio.sleep(seconds)
            return False
        waiting = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            done, _ = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        return bool(done)


def run_virtually(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Run to the end in virtual time, which starts at 0."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(main)
