"""The summary of the day, on a real database: what it counts, and one a day whatever restarts and however many instances run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, time
from typing import Any

from prometheus_client import CollectorRegistry
from typing_extensions import override

from fubd import components
from fubd.clock import SystemClock
from fubd.core.pacing import Policy
from fubd.core.problems import ProblemName
from fubd.daily_summary import DailySummary
from fubd.lease import LocalLease
from fubd.metrics import Metrics
from fubd.problems import Problems
from fubd.settings import load
from fubd.store import Pool, StatusReader
from fubd.store.dsn import parse
from fubd.store.outbox import Outbox
from tests.recorder import at, execute, read, running_recorder, webhook
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

_POLICY = Policy(
    poll_interval_seconds=1800.0,
    watch_interval_seconds=300.0,
    failover_interval_seconds=30.0,
    webhook_stale_after_seconds=3600.0,
    poll_stale_after_seconds=2700.0,
    missed_after_seconds=120.0,
)
# Recording began the day before; polling knows all until a minute before the summary.
_COVERED = "UPDATE fubd.coverage SET began = '2026-01-04 12:00+00', reached = '2026-01-05 17:59+00'"


class SetClock(SystemClock):
    """A clock that shows what the test sets; pauses are a hundredth."""

    def __init__(self, now: datetime) -> None:
        super().__init__(100.0)
        self.shown = now

    @override
    def now(self) -> datetime:
        return self.shown


class Instance:
    """One instance's summaries, with the parts that tests change."""

    def __init__(self, pool: Pool, clock: SetClock, *, stages: tuple[str, ...] = ()) -> None:
        self.lease = LocalLease()
        self.problems = Problems(clock, Metrics(CollectorRegistry()))
        self.summary = DailySummary(
            StatusReader(pool),
            Outbox(pool),
            self.problems,
            clock,
            lease=self.lease,
            at=time(18),
            zone=UTC,
            stages=stages,
            policy=_POLICY,
            skew_seconds=lambda: 0.0,
        )


@asynccontextmanager
async def pooled(dsn: str) -> AsyncIterator[Pool]:
    """Yield a pool until the block ends."""
    pool = Pool(parse(dsn))
    yield pool
    await pool.close()


async def summaries(pool: Pool) -> list[dict[str, Any]]:
    """Return the contents of the summaries that were written."""
    async with pool.reading() as connection:
        rows = await connection.fetch("SELECT a.told FROM fubd.alert a WHERE a.told->>'kind' = 'summary' ORDER BY a.id")
        return [json.loads(row[0]) for row in rows]


async def test_what_a_summary_counts(database: str) -> None:
    """Changes of the last day, those that no webhook reported, the watched stages in their order, and the problems that stand."""
    await execute(database, _COVERED)
    async with running_recorder(database) as recorder:
        await recorder.record(read("A", "08:00", "09:00"), read("A", "08:00", "09:00", person=2), read("A", "08:00", "09:00", person=3))
        await recorder.record(webhook("e1", "B", "10:00"), webhook("e2", "Hot", "10:05", (2,)), read("Trash", "11:00", "11:05", person=3))
        await recorder.record(read("Hot", "12:00", "12:30", "11:50"), read("Hot", "18:30", "18:31", "18:00", person=3))
        clock = SetClock(at("18:00"))
        one = Instance(recorder.pool, clock, stages=("hot", "B", "None"))
        one.problems.begin(ProblemName.QUARANTINE, "1 delivery")
        await one.summary.write_if_due()
        (found,) = await summaries(recorder.pool)
    # The move to Trash is a merge, which no webhook reports, and half past six is tomorrow's.
    assert (found["changes"], found["missed"], found["is_whole"], found["missed_known_until"]) == (4, 1, True, None)
    assert [(stage["stage"], stage["entered"]) for stage in found["stages"]] == [("hot", 2), ("B", 1), ("None", 0)]
    assert (found["day"], found["blind_seconds"], found["completeness"]) == ("2026-01-05", None, None)
    assert [problem["problem"] for problem in found["problems"]] == ["quarantine"]


async def test_a_day_has_one_summary(database: str) -> None:
    """Two instances at the same time, a restart, and a change of the setting write no second one; the next day has its own."""
    await execute(database, _COVERED)
    async with pooled(database) as pool:
        clock = SetClock(at("18:00"))
        await asyncio.gather(*(Instance(pool, clock).summary.write_if_due() for _ in range(4)))
        clock.shown = at("20:59")
        await Instance(pool, clock).summary.write_if_due()
        assert len(await summaries(pool)) == 1
        clock.shown = datetime(2026, 1, 6, 18, 30, tzinfo=UTC)
        await Instance(pool, clock).summary.write_if_due()
        assert [found["day"] for found in await summaries(pool)] == ["2026-01-05", "2026-01-06"]
        # Polling covered nothing since the evening before.
        assert (await summaries(pool))[1]["missed_known_until"] == "2026-01-05T17:59:00+00:00"


async def test_a_day_before_recording_began_has_none(database: str) -> None:
    """Neither an empty database nor one that began after the time of the summary; a day that began within it says since when."""
    async with pooled(database) as pool:
        clock = SetClock(at("18:30"))
        await Instance(pool, clock).summary.write_if_due()
        await execute(database, "UPDATE fubd.coverage SET began = '2026-01-05 18:10+00'")
        await Instance(pool, clock).summary.write_if_due()
        assert await summaries(pool) == []
        await execute(database, "UPDATE fubd.coverage SET began = '2026-01-05 14:00+00'")
        await Instance(pool, clock).summary.write_if_due()
        (found,) = await summaries(pool)
        assert (found["is_whole"], found["since"], found["missed"]) == (False, "2026-01-05T14:00:00+00:00", None)


async def test_only_the_leader_writes_and_waits_for_the_database(database: str) -> None:
    """While the database is away nothing is lost: the summary is written when it is back, by the instance that leads."""
    await execute(database, _COVERED)
    async with Proxy(database) as proxy, pooled(proxy.dsn) as pool, pooled(database) as direct:
        clock, stop = SetClock(at("18:00")), asyncio.Event()
        leader, other = Instance(pool, clock), Instance(direct, clock)
        other.lease.held = False
        await proxy.refuse()
        async with asyncio.TaskGroup() as group:
            group.create_task(leader.summary.run(stop))
            group.create_task(other.summary.run(stop))
            await clock.pause(20.0)
            assert await summaries(direct) == []
            await proxy.accept()
            await eventually(lambda: summaries(direct))
            stop.set()
        assert len(await summaries(direct)) == 1


def test_it_is_on_with_a_receiver_and_can_be_turned_off(database: str) -> None:
    """Without FUBD_ALERT_URL, or with FUBD_DAILY_SUMMARY=off, there is none."""

    def is_built(**more: str) -> bool:
        environ = {"FUB_API_KEY": "invented", "FUB_SYSTEM_KEY": "invented", **more}
        return components.build_daemon(components.build(load(environ, env_file=None), parse(database))).daily_summary is not None

    url = "https://chat.example/hook"
    assert [is_built(), is_built(FUBD_ALERT_URL=url), is_built(FUBD_ALERT_URL=url, FUBD_DAILY_SUMMARY="off")] == [False, True, False]
