"""fubd, killed at one of its awaits: python -m tests.proofs.killed STEPS [ARGUMENT ...].

Every task of the process is driven through a counter. When the tasks were resumed STEPS times in all, the process kills itself with
SIGKILL, so nothing is cleaned up. With a + before STEPS, counting begins at SIGUSR1. With 0 nothing is killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Generator
from contextvars import Context
from types import FrameType, TracebackType
from typing import Any, cast

from typing_extensions import override

from fubd.__main__ import main


class _Countdown:
    """Counts the steps of all tasks, and kills the process at the last."""

    def __init__(self, steps: int, *, counting: bool) -> None:
        self._steps = steps
        self._counting = counting
        self._taken = 0

    def begin(self, _signal: int, _frame: FrameType | None) -> None:
        """Count from now on."""
        self._counting = True

    def step(self) -> None:
        """Count one step."""
        if self._counting:
            self._taken += 1
            if self._taken == self._steps:
                os.kill(os.getpid(), signal.SIGKILL)


class _Counted(Coroutine[Any, Any, Any]):
    """A coroutine whose every resumption is counted."""

    def __init__(self, inner: Coroutine[Any, Any, Any], countdown: _Countdown) -> None:
        self._inner = inner
        self._countdown = countdown

    @override
    def send(self, value: object, /) -> Any:
        self._countdown.step()
        return self._inner.send(value)

    @override
    def throw(self, kind: Any, value: Any = None, trace: TracebackType | None = None, /) -> Any:
        self._countdown.step()
        return self._inner.throw(kind if value is None else value)

    @override
    def close(self) -> None:
        self._inner.close()

    @override
    def __await__(self) -> Any:
        return self._inner.__await__()


class _CountingPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes event loops whose tasks are counted."""

    def __init__(self, countdown: _Countdown) -> None:
        super().__init__()
        self._countdown = countdown

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
            return asyncio.Task(_Counted(cast("Coroutine[Any, Any, Any]", inner), self._countdown), loop=loop, context=context)

        loop.set_task_factory(create_task)
        return loop


def _run(steps: str, arguments: list[str]) -> int:
    countdown = _Countdown(int(steps), counting=not steps.startswith("+"))
    signal.signal(signal.SIGUSR1, countdown.begin)
    asyncio.set_event_loop_policy(_CountingPolicy(countdown))
    return main(arguments)


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1], sys.argv[2:]))
