"""The thread that ends a process whose event loop has stalled."""

from __future__ import annotations

import asyncio
import threading

from fubd.watchdog import Watchdog


def test_a_stalled_loop_ends_the_process() -> None:
    """Once the loop shows no sign of life for the given seconds, the process is ended with a code of its own."""
    ended: list[int] = []
    told = threading.Event()

    def exit_process(code: int) -> None:
        ended.append(code)
        told.set()

    loop = asyncio.new_event_loop()
    try:
        stop = asyncio.Event()
        beating = loop.create_task(Watchdog(exit_process=exit_process, stall_seconds=1).run(stop))
        # The loop runs for a moment and then stands still, as it does while something blocks it.
        loop.run_until_complete(_moment())
        assert told.wait(10.0)
        assert ended == [70]
        stop.set()
        loop.run_until_complete(beating)
    finally:
        loop.close()


async def _moment() -> None:
    """Let the loop turn a few times."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_running_loop_is_left_alone() -> None:
    """While the loop turns nothing is ended, and the thread goes with the loop's end."""
    ended: list[int] = []
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(Watchdog(exit_process=ended.append, stall_seconds=1).run(stop))
        await asyncio.wait_for(_turns(2.5), 10)
        stop.set()
    assert ended == []


async def _turns(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.call_later(seconds, over.set)
    await over.wait()
