"""When fubd ran and when it could not record, as the status page shows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from fubd import components
from fubd.clock import SystemClock
from fubd.errors import Unavailable
from fubd.ports import Absence
from fubd.settings import load
from fubd.store import ChangeReader, Maintenance, OverviewReader, OverviewSpan, Pool
from fubd.store.dsn import parse
from tests.support.waiting import eventually

NOON = datetime(2031, 3, 3, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class HandClock:
    """Shows the time that a test sets. Its pauses wait for the events alone."""

    def __init__(self) -> None:
        self.time = NOON

    def now(self) -> datetime:
        """Return the time that was set."""
        return self.time

    def monotonic(self) -> float:
        """Return its seconds."""
        return self.time.timestamp()

    async def pause(self, _seconds: float, *events: asyncio.Event) -> bool:
        """Wait for one of the events."""
        return await SystemClock().pause(3600.0, *events)


@asynccontextmanager
async def closing(pool: Pool) -> AsyncIterator[Pool]:
    """Close the pool at the end."""
    try:
        yield pool
    finally:
        await pool.close()


async def _absences(changes: ChangeReader, since: datetime, until: datetime, *, started_at: datetime) -> list[Absence]:
    span = OverviewSpan(since, 3600, 24, until, since, since, since, started_at)
    return list((await OverviewReader(changes).read(span, recent=1)).absences)


async def test_time_without_a_process_is_shown(database: str) -> None:
    """What lies between two processes, but not a short restart, nothing before the first of all, and not the time since the last note."""
    async with closing(Pool(parse(database))) as pool:

        async def ran(instance: str, since: datetime, until: datetime) -> None:
            await Maintenance(pool, instance=instance).note_running(since, since, gap=None)
            await Maintenance(pool, instance=instance).note_running(since, until, gap=None)

        async def absences(since: datetime, *, started_at: datetime) -> list[Absence]:
            return await _absences(ChangeReader(pool), since, NOON + 60 * MINUTE, started_at=started_at)

        day = timedelta(days=1)
        assert await absences(NOON - day, started_at=NOON) == []
        await ran("first", NOON, NOON + 10 * MINUTE)
        await ran("beside it", NOON + 5 * MINUTE, NOON + 20 * MINUTE)
        await ran("restarted", NOON + 20.4 * MINUTE, NOON + 30 * MINUTE)
        down = Absence("not_running", NOON + 30 * MINUTE, NOON + 50 * MINUTE)
        assert await absences(NOON - day, started_at=down.until) == [down]
        assert await absences(NOON + 40 * MINUTE, started_at=down.until) == [Absence("not_running", NOON + 40 * MINUTE, down.until)]
        assert await absences(NOON + 55 * MINUTE, started_at=down.until) == []


async def test_time_in_which_nothing_could_be_recorded_is_shown(database: str) -> None:
    """While it lasts from memory, afterwards from the database, by whatever process reads it."""
    clock, stop = HandClock(), asyncio.Event()
    settings = load({"FUB_API_KEY": "invented", "FUB_SYSTEM_KEY": "invented"}, env_file=None)
    parts = components.build_daemon(components.build(settings, parse(database), clock=clock))
    monitor, running_time, reader = parts.monitor, parts.running_time, parts.shared.changes
    async with closing(parts.shared.pool), asyncio.TaskGroup() as group:
        group.create_task(monitor.run(stop))
        await eventually(lambda: monitor.database_health().recording)
        assert monitor.current_gap() is None
        await running_time.note()
        clock.time = NOON + MINUTE
        monitor.set_database_error(Unavailable("the database does not answer"))
        gap = Absence("not_recording", NOON + MINUTE, NOON + 3 * MINUTE)
        assert monitor.current_gap() == Absence("not_recording", gap.since, gap.since)
        await running_time.note()
        clock.time = gap.until
        await running_time.note()
        assert monitor.current_gap() == gap
        assert await _absences(reader, NOON, clock.time, started_at=NOON) == []
        monitor.refresh_soon()
        await eventually(lambda: monitor.database_health().recording)
        assert monitor.current_gap() is None
        clock.time = NOON + 4 * MINUTE
        for _ in range(2):
            await running_time.note()
        assert await _absences(reader, NOON, NOON + 5 * MINUTE, started_at=NOON + 5 * MINUTE) == [
            gap,
            Absence("not_running", NOON + 4 * MINUTE, NOON + 5 * MINUTE),
        ]
        stop.set()


async def test_time_in_which_the_process_was_suspended_is_shown(database: str) -> None:
    """It did not record then, although it never ended: a machine that slept, or a process that was stopped and continued."""
    clock, stop = HandClock(), asyncio.Event()
    settings = load({"FUB_API_KEY": "invented", "FUB_SYSTEM_KEY": "invented"}, env_file=None)
    parts = components.build_daemon(components.build(settings, parse(database), clock=clock))
    async with closing(parts.shared.pool), asyncio.TaskGroup() as group:
        group.create_task(parts.monitor.run(stop))
        await eventually(lambda: parts.monitor.database_health().recording)
        for minutes in (0, 1, 21, 22):
            clock.time = NOON + minutes * MINUTE
            await parts.running_time.note()
        shown = await _absences(parts.shared.changes, NOON, clock.time, started_at=NOON)
        stop.set()
    assert shown == [Absence("not_recording", NOON + MINUTE, NOON + 21 * MINUTE)]
