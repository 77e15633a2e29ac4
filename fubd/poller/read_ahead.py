"""Recording in the background: the next page is read while the pages before it are recorded.

The recordings begin in the order of the pages, so that those which wait for the database together share a transaction. Their number is
bounded, and so is the memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

_MAX_RECORDINGS = 16


class ReadAhead:
    """The recordings that are not finished yet."""

    def __init__(self) -> None:
        self._tasks: deque[asyncio.Task[object]] = deque()

    async def add(self, record: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Begin a recording as soon as there is room. Raises what an earlier recording raised."""
        while len(self._tasks) >= _MAX_RECORDINGS:
            await self._finish_oldest()
        self._tasks.append(asyncio.create_task(record()))

    async def finish(self) -> None:
        """Wait until everything is recorded. Raises what a recording raised."""
        while self._tasks:
            await self._finish_oldest()

    def cancel(self) -> None:
        """Wait for nothing any more."""
        for task in self._tasks:
            task.cancel()

    async def settle(self) -> None:
        """Wait for the recordings after the reading has failed; their own errors add nothing to that."""
        tasks, self._tasks = self._tasks, deque()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _finish_oldest(self) -> None:
        oldest = self._tasks[0]
        await asyncio.wait([oldest])
        if self._tasks and self._tasks[0] is oldest:
            self._tasks.popleft()
            oldest.result()
