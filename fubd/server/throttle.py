"""Limits on the database reads of the read-only routes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from fubd.errors import Malformed, Unavailable
from fubd.server.limits import ServerLimits

P = ParamSpec("P")
T = TypeVar("T")


class ReadThrottle:
    """Runs only so many database reads at a time, each with a timeout."""

    def __init__(self, limits: ServerLimits) -> None:
        self._timeout_seconds = limits.read_timeout_seconds
        self._slots = asyncio.Semaphore(limits.concurrent_reads)

    async def run(self, read: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `read` and return its result. Raises Unavailable, also when waiting and reading took too long."""
        try:
            async with asyncio.timeout(self._timeout_seconds), self._slots:
                return await read(*args, **kwargs)
        except TimeoutError:
            raise Unavailable("the database did not answer in time") from None
        except Malformed as error:
            # A column of another writer holds a value that cannot be shown. That is no bug and must not end the process.
            raise Unavailable("the database cannot show a row") from error
