"""Runs fubd in forks of a process that has imported it, and kills one at an await: python -m tests.proofs.killed.

Each line of stdin orders a run: `{"arguments", "environ", "folder", "kill_at", "counting"}`. Its process id is printed, and at its end its
exit code. Every task of fubd is driven through a counter. An await is named by the lines of fubd that wait in it, the outermost first; each
is printed when it is first met. `kill_at` is such a name, its last line alone, which may wait in another of them, or the number of an await
in the order of time: there the process kills itself by SIGKILL, so nothing is cleaned up. Without `counting`, awaits count from SIGUSR1 on.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine, Generator, Iterator
from contextvars import Context
from importlib import import_module
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn, cast

from typing_extensions import override

import fubd
from fubd.__main__ import main

_PACKAGE = Path(fubd.__file__).parent
# What a run imports late: imported here, it is imported once.
_MODULES = ("commands.command_line", "commands.serve", "commands.adopt", "commands.forget", "commands.recording", "server")


class _Awaits:
    """Counts the awaits of all tasks, names those that are new, and kills the process at one."""

    def __init__(self, kill_at: int | str | None, *, counting: bool) -> None:
        self._kill_at = kill_at
        self._counting = counting
        self._count = 0
        self._met: set[str] = set()

    def begin(self, _signal: int, _frame: FrameType | None) -> None:
        """Count from now on."""
        self._counting = True

    def on_resume(self, coroutine: object) -> None:
        """Count the await that ends now."""
        if not self._counting:
            return
        self._count += 1
        name = " ".join(_lines(coroutine))
        if name and name not in self._met:
            self._met.add(name)
            os.write(1, f"await {name}\n".encode())
        if self._kill_at in {self._count, name, name.rpartition(" ")[2]}:
            os.kill(os.getpid(), signal.SIGKILL)


def _lines(waiting: object) -> Iterator[str]:
    """Yield the lines of fubd that wait, from the outermost coroutine to the innermost."""
    while waiting is not None:
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(waiting, f"{kind}_frame")), None)
        frame: FrameType | None = None if kind is None else getattr(waiting, f"{kind}_frame")
        if frame is None:
            return
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(_PACKAGE):
            yield f"{path.relative_to(_PACKAGE)}:{frame.f_lineno}"
        inner = getattr(waiting, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
        # A context manager waits in its generator, which its step does not name.
        waiting = frame.f_locals["self"].gen if path.name == "contextlib.py" and not hasattr(inner, "cr_frame") else inner


class _Counted(Coroutine[Any, Any, Any]):
    """A coroutine whose every resumption is counted."""

    def __init__(self, inner: Coroutine[Any, Any, Any], awaits: _Awaits) -> None:
        self._inner = inner
        self._awaits = awaits

    @override
    def send(self, value: object, /) -> Any:
        self._awaits.on_resume(self._inner)
        return self._inner.send(value)

    @override
    def throw(self, kind: Any, value: Any = None, trace: TracebackType | None = None, /) -> Any:
        self._awaits.on_resume(self._inner)
        return self._inner.throw(kind if value is None else value)

    @override
    def close(self) -> None:
        self._inner.close()

    @override
    def __await__(self) -> Any:
        return self._inner.__await__()


class _CountingPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes event loops whose tasks are counted."""

    def __init__(self, awaits: _Awaits) -> None:
        super().__init__()
        self._awaits = awaits

    @override
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        loop = super().new_event_loop()

        def create_task(
            loop: asyncio.AbstractEventLoop,
            inner: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
            *,
            context: Context | None = None,
            **_: object,
        ) -> asyncio.Task[Any]:
            return asyncio.Task(_Counted(cast("Coroutine[Any, Any, Any]", inner), self._awaits), loop=loop, context=context)

        loop.set_task_factory(create_task)
        return loop


def _run(order: dict[str, Any]) -> NoReturn:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(order["environ"])
    os.chdir(order["folder"])
    awaits = _Awaits(order["kill_at"], counting=order["counting"])
    signal.signal(signal.SIGUSR1, awaits.begin)
    asyncio.set_event_loop_policy(_CountingPolicy(awaits))
    sys.exit(main(order["arguments"]))


def _serve() -> None:
    for name in _MODULES:
        import_module(f"fubd.{name}")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _run(json.loads(line))
        sys.stdout.write(f"pid {child}\n")
        sys.stdout.flush()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"exit {os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
