"""What SIGINT (Ctrl-C), SIGTERM, SIGHUP and Windows' SIGBREAK do to the process, from its first line to its last.

It is imported before everything else, so it imports almost nothing itself.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

_INTERRUPTED = 130
_TERMINATED = 143

# Each platform lacks one of the last two. What was ignored at start, as SIGHUP by nohup, stays ignored.
TERMINATING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))


def exit_code(number: int) -> int:
    """Return the exit code of a process that this signal ended."""
    return _INTERRUPTED if number == signal.SIGINT else _TERMINATED


def exit_on_signals(code: int | None = None) -> None:
    """From now on a signal ends the process at once and silently: nothing was started yet, or the work is done. `code`: its exit code."""

    def leave(number: int, _frame: FrameType | None) -> None:
        os._exit(exit_code(number) if code is None else code)

    for number in (signal.SIGINT, *TERMINATING):
        _handle(number, leave)


def interrupt_on_signals(received: list[int]) -> None:
    """From now on each signal raises KeyboardInterrupt, so that whatever the command started ends with it; `received` gets the signals."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        signal.raise_signal(signal.SIGINT)

    for number in TERMINATING:
        _handle(number, interrupt)
    # With this handler, and with no other, asyncio.run cancels the command instead of breaking off in the middle of its event loop.
    _handle(signal.SIGINT, signal.default_int_handler)


def _handle(number: int, handler: Callable[[int, FrameType | None], object]) -> None:
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, handler)
