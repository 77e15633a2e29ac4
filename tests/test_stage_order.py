"""The order of the stages: read for older tables that need it, and from nobody else."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import asyncpg

from fubd.errors import Unavailable
from fubd.stage_order import StageOrder
from fubd.store import Pool, StateStore
from fubd.store.dsn import parse


class _Stages:
    def __init__(self, *answers: list[str] | None) -> None:
        self._answers = list(answers)
        self.read = 0

    async def stages(self) -> dict[str, int]:
        self.read += 1
        names = self._answers.pop(0)
        if names is None:
            raise Unavailable("down")
        return {name: number for number, name in enumerate(names, 1)}


class _ThreeRounds:
    """A clock whose third pause ends the test."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 1, 5, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0

    async def pause(self, seconds: float, *events: asyncio.Event) -> bool:
        self.pauses.append(seconds)
        if len(self.pauses) == 3:
            events[0].set()
        return False


async def test_the_order_is_saved_for_a_table_that_needs_it(database: str) -> None:
    """Sooner after a failure; the latest order counts, and stages that are no more have no place."""
    pool, stages, clock = Pool(parse(database)), _Stages(["A", "B"], None, ["C", "A"]), _ThreeRounds()
    async with pool.connection() as connection:
        await connection.execute("ALTER TABLE public.stage_changes ADD COLUMN stage_priority_to integer")
    await StageOrder(stages, StateStore(pool), clock).run(asyncio.Event())
    async with pool.reading() as connection:
        rows: list[asyncpg.Record] = await connection.fetch("SELECT name, place FROM fubd.stage_place ORDER BY place")
    await pool.close()
    assert [tuple(row) for row in rows] == [("C", 1), ("A", 2)]
    assert clock.pauses == [3600.0, 300.0, 3600.0]


async def test_other_tables_cost_no_request(database: str) -> None:
    """The stages are not read."""
    pool, stages = Pool(parse(database)), _Stages()
    await StageOrder(stages, StateStore(pool), _ThreeRounds()).run(asyncio.Event())
    await pool.close()
    assert stages.read == 0
