"""Heartbeats: one after each complete poll while recording works, none for the polls of the process before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from pytest_aiohttp import AiohttpServer

from fubd.clock import SystemClock
from fubd.components import DaemonComponents
from fubd.heartbeat import Heartbeat
from tests.recorder import execute, webhook
from tests.support.waiting import eventually
from tests.test_monitor_problems import monitored

_POLLED = """
    INSERT INTO fubd.poll_run (kind, started_at, finished_at, outcome)
    VALUES ('{kind}', clock_timestamp(), clock_timestamp(), '{outcome}')
"""


@asynccontextmanager
async def beating(parts: DaemonComponents, aiohttp_server: AiohttpServer) -> AsyncIterator[list[str]]:
    """Send heartbeats until the block ends; yield the methods of those received. A second lasts a hundredth."""
    calls: list[str] = []

    async def beat(request: web.Request) -> web.Response:
        calls.append(request.method)
        return web.Response()

    app = web.Application()
    app.router.add_get("/beat", beat)
    url = str((await aiohttp_server(app)).make_url("/beat"))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        await eventually(lambda: parts.monitor.summary)
        group.create_task(Heartbeat(parts.monitor, SystemClock(100.0), url=url).run(stop))
        await asyncio.sleep(0)
        try:
            yield calls
        finally:
            stop.set()


async def polled(parts: DaemonComponents, database: str, *, kind: str = "incremental", outcome: str = "ok") -> None:
    """Store a poll, and wait until the monitor has read the database after that."""
    await execute(database, _POLLED.format(kind=kind, outcome=outcome))
    before = parts.monitor.as_of
    parts.monitor.refresh_soon()
    await eventually(lambda: parts.monitor.as_of != before)


async def test_each_complete_poll_is_one_heartbeat(database: str, aiohttp_server: AiohttpServer) -> None:
    """The one before the start is not reported again, and one that failed or only verified people is none."""
    await execute(database, _POLLED.format(kind="incremental", outcome="ok"))
    async with monitored(database) as parts, beating(parts, aiohttp_server) as calls:
        await polled(parts, database, outcome="failed")
        await polled(parts, database, kind="scrub")
        await polled(parts, database)
        await eventually(lambda: calls)
    assert calls == ["GET"]


async def test_a_poll_while_nothing_can_be_recorded_is_no_heartbeat(database: str, aiohttp_server: AiohttpServer) -> None:
    """What the database refuses is not recorded, however complete the polls are; the heartbeat goes on once it takes it again."""
    async with monitored(database) as parts, beating(parts, aiohttp_server) as calls:
        stop = asyncio.Event()
        recording = asyncio.create_task(parts.ingest.run(stop))
        await execute(database, "ALTER TABLE fubd.hint ADD CONSTRAINT never CHECK (person_id <> 1)")
        delivered = parts.ingest.submit(webhook("e1", "B", "10:00"))
        await eventually(lambda: parts.ingest.failure)
        await polled(parts, database)
        await polled(parts, database)
        assert calls == []
        await execute(database, "ALTER TABLE fubd.hint DROP CONSTRAINT never")
        await delivered
        await eventually(lambda: calls)
        stop.set()
        await recording
    assert calls == ["GET"]
