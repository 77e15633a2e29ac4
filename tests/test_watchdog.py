"""The watchdog thread, which ends a process whose event loop has stalled."""

from __future__ import annotations

import asyncio
import threading

from fubd.watchdog import Watchdog


def test_a_stalled_loop_ends_the_process() -> None:
    """When the loop does not run for the given seconds, the process is ended with exit code 70."""
    codes: list[int] = []
    exited = threading.Event()

    def exit_process(code: int) -> None:
        codes.append(code)
        exited.set()

    loop = asyncio.new_event_loop()
    try:
        stop = asyncio.Event()
        running = loop.create_task(Watchdog(exit_process=exit_process, stall_seconds=0.1, interval_seconds=0.01).run(stop))
        # The loop runs for a few turns and then stands still, as if a call blocked it.
        loop.run_until_complete(_few_turns())
        assert exited.wait(30.0)
        assert codes == [70]
        stop.set()
        loop.run_until_complete(running)
    finally:
        loop.close()


async def _few_turns() -> None:
    """Let the loop run for a few turns."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_running_loop_is_left_alone() -> None:
    """While the loop runs the process is not ended, and the thread ends with the loop."""
    codes: list[int] = []
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        # A busy machine delays both: fifty looks of the thread between two turns of the loop would be a stall.
        group.create_task(Watchdog(exit_process=codes.append, stall_seconds=0.5, interval_seconds=0.01).run(stop))
        for _ in range(150):
            await asyncio.sleep(0.01)
        stop.set()
    assert codes == []
