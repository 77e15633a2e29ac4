"""Heartbeats: one after each poll that the database knows as complete, none for the polls of the process before."""

from __future__ import annotations

import asyncio

from aiohttp import web

from fubd.clock import SystemClock
from fubd.heartbeat import Heartbeat
from tests.recorder import execute
from tests.support.waiting import eventually
from tests.test_monitor_problems import monitored

_POLLED = (
    "INSERT INTO fubd.poll_run (kind, started_at, finished_at, outcome) VALUES ('incremental', clock_timestamp(), clock_timestamp(), 'ok')"
)


async def test_each_complete_poll_is_one_heartbeat(database: str) -> None:
    """The one before the start is not reported again."""
    calls: list[str] = []

    async def beat(request: web.Request) -> web.Response:
        calls.append(request.method)
        return web.Response()

    app = web.Application()
    app.router.add_get("/beat", beat)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await execute(database, _POLLED)
    stop = asyncio.Event()
    async with monitored(database) as parts, asyncio.TaskGroup() as group:
        await eventually(lambda: parts.monitor.summary)
        heartbeat = Heartbeat(parts.monitor, SystemClock(100.0), url=f"http://127.0.0.1:{runner.addresses[0][1]}/beat")
        group.create_task(heartbeat.run(stop))
        await asyncio.sleep(0)
        await execute(database, _POLLED)
        parts.monitor.refresh_soon()
        await eventually(lambda: calls)
        stop.set()
    assert calls == ["GET"]
    await runner.cleanup()
