"""Wait for conditions, without fixed sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

_FIRST_INTERVAL_SECONDS = 0.02
# A check often asks a server or a database. Frequent checks of what takes seconds would take the cores from it.
_LONGEST_INTERVAL_SECONDS = 0.1
_GROWTH = 1.2


@overload
async def eventually(check: Callable[[], Awaitable[T | None]], within_seconds: float = 30.0) -> T: ...


@overload
async def eventually(check: Callable[[], T | None], within_seconds: float = 30.0) -> T: ...


async def eventually(check: Callable[[], object], within_seconds: float = 30.0) -> object:
    """Call `check` until it returns a true value, and return that. An AssertionError in `check` counts as not yet.

    Raises the last AssertionError, or one of its own, when the time is over.
    """
    failure = AssertionError(f"not within {within_seconds} s")
    interval_seconds = _FIRST_INTERVAL_SECONDS
    try:
        async with asyncio.timeout(within_seconds):
            while True:
                try:
                    found = check()
                    value = await found if isinstance(found, Awaitable) else found
                    if value:
                        return value
                except AssertionError as error:
                    failure = error
                await asyncio.sleep(interval_seconds)
                interval_seconds = min(_LONGEST_INTERVAL_SECONDS, interval_seconds * _GROWTH)
    except TimeoutError:
        raise failure from None
