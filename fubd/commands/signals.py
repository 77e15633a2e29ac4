"""How SIGINT (Ctrl-C) and SIGTERM stop a command that runs in an event loop, on Unix and on Windows; `interrupts` has the rest."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

_GRACE_SECONDS = 3.0

_STOPPING = (signal.SIGINT, signal.SIGTERM)

_Value = TypeVar("_Value")


class StopEvent(asyncio.Event):
    """Is set by SIGINT and SIGTERM; `number` is the last of them."""

    number = signal.SIGINT


def stop_on_signals(*, only_first: bool) -> StopEvent:
    """Return an event that SIGINT and SIGTERM set. `only_first`: a second signal ends the process at once."""
    stop = StopEvent()

    def on_signal(received: signal.Signals) -> None:
        stop.number = received
        stop.set()
        if only_first:
            for number in _STOPPING:
                _remove_handler(number)

    for number in _STOPPING:
        _add_handler(number, partial(on_signal, number))
    return stop


def _add_handler(number: signal.Signals, on_signal: Callable[[], None]) -> None:
    """Call a function in the event loop when the signal arrives."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(number, on_signal)
    except NotImplementedError:
        # The event loop of Windows has no signal handlers, but it wakes up for one of Python's.
        signal.signal(number, lambda _number, _frame: loop.call_soon_threadsafe(on_signal))


def _remove_handler(number: signal.Signals) -> None:
    try:
        asyncio.get_running_loop().remove_signal_handler(number)
    except NotImplementedError:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


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
