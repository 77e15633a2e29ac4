"""Ends the process when its event loop stalls: the platform never restarts a process that only hangs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable

_STALL_SECONDS = 30
_EXIT_CODE = 70


class Watchdog:
    """A thread that calls `exit_process` after `stall_seconds` without a sign of the event loop, which it looks for every interval.

    It counts its own wake-ups, not elapsed time: after the whole process was suspended, thread and loop continue as if nothing happened.
    """

    def __init__(
        self, *, exit_process: Callable[[int], None] = os._exit, stall_seconds: float = _STALL_SECONDS, interval_seconds: float = 1.0
    ) -> None:
        self._beats = 0
        self._exit_process = exit_process
        self._interval_seconds = interval_seconds
        self._stall_wakeups = round(stall_seconds / interval_seconds)
        self._stopped = threading.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop`; shows the thread every interval that the loop runs."""
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        while not stop.is_set():
            self._beats += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._interval_seconds)
        self._stopped.set()

    def _watch(self) -> None:
        seen, silent = -1, 0
        while not self._stopped.wait(self._interval_seconds):
            seen, silent = (self._beats, 0) if self._beats != seen else (seen, silent + 1)
            if silent >= self._stall_wakeups:
                os.write(2, b"fubd: the event loop has stalled; ending the process so that it is started again\n")
                self._exit_process(_EXIT_CODE)
                return
