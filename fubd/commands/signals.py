"""What SIGINT (Ctrl-C), SIGTERM and SIGHUP do to a command."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

_GRACE_SECONDS = 3.0

_Value = TypeVar("_Value")


@contextmanager
def interrupt_on_termination() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP too, so that whatever the command started ends with it. Yields the signals received."""
    received: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        received.append(number)
        signal.raise_signal(signal.SIGINT)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_on_signals(*, only_first: bool) -> asyncio.Event:
    """Return an event that SIGINT and SIGTERM set. `only_first`: a second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def on_signal() -> None:
        stop.set()
        if only_first:
            for number in numbers:
                loop.remove_signal_handler(number)

    for number in numbers:
        loop.add_signal_handler(number, on_signal)
    return stop


async def run_until_stopped(work: Coroutine[Any, Any, _Value], stop: asyncio.Event) -> _Value | None:
    """Return the result of the work. Once `stop` is set it has three seconds to end by itself; then it is cancelled: None."""
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait((task,), timeout=_GRACE_SECONDS)
        return task.result() if task.done() else None
    finally:
        for future in (task, stopped):
            future.cancel()
        await asyncio.gather(task, stopped, return_exceptions=True)
