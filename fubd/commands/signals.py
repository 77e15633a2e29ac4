"""What SIGINT (Ctrl-C), SIGTERM and SIGHUP do to a command, on platforms that have all of them, and on Windows, which has fewer."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

_GRACE_SECONDS = 3.0

# Windows has no SIGHUP.
_TERMINATING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_STOPPING = (signal.SIGINT, signal.SIGTERM)

_Value = TypeVar("_Value")


@contextmanager
def interrupt_on_termination() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP too, so that whatever the command started ends with it. Yields the signals received."""
    received: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        received.append(number)
        signal.raise_signal(signal.SIGINT)

    before = {number: signal.signal(number, interrupt) for number in _TERMINATING}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_on_signals(*, only_first: bool) -> asyncio.Event:
    """Return an event that SIGINT and SIGTERM set. `only_first`: a second signal ends the process at once."""
    stop = asyncio.Event()

    def on_signal() -> None:
        stop.set()
        if only_first:
            for number in _STOPPING:
                _remove_handler(number)

    for number in _STOPPING:
        _add_handler(number, on_signal)
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
