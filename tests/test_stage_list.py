"""The list of stages: read every hour, so that a stage is known by its id before anybody in it was read."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import asyncpg

from fubd.errors import FubRefused, Unavailable
from fubd.stage_list import StageList
from fubd.store import Pool, StateStore
from fubd.store.dsn import parse
from tests.recorder import at, read, running_recorder, webhook


class _Stages:
    def __init__(self, *answers: list[str] | Exception) -> None:
        self._answers = list(answers)

    def fub_now(self) -> datetime:
        return datetime(2026, 1, 5, tzinfo=UTC)

    async def stages(self) -> dict[str, int]:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {name: number for number, name in enumerate(answer, 1)}


class _FourRounds:
    """A clock whose fourth pause ends the test."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 1, 5, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0

    async def pause(self, seconds: float, *events: asyncio.Event) -> bool:
        self.pauses.append(seconds)
        if len(self.pauses) == 4:
            events[0].set()
        return False


async def test_the_stages_are_saved_every_hour(database: str) -> None:
    """Sooner after an outage, not after a refusal; the latest order counts, and stages that are no more have no place."""
    pool, clock = Pool(parse(database)), _FourRounds()
    stages = _Stages(["A", "B"], Unavailable("down"), FubRefused("no", status=403), ["C", "A"])
    await StageList(stages, StateStore(pool), clock).run(asyncio.Event())
    async with pool.reading() as connection:
        places: list[asyncpg.Record] = await connection.fetch("SELECT name, place FROM fubd.stage_place ORDER BY place")
        names: list[asyncpg.Record] = await connection.fetch("SELECT name, id FROM fubd.stage ORDER BY name")
    await pool.close()
    assert [tuple(row) for row in places] == [("C", 1), ("A", 2)]
    assert [tuple(row) for row in names] == [("A", 2), ("B", 2), ("C", 1)]
    assert clock.pauses == [3600.0, 300.0, 3600.0, 3600.0]


async def test_a_stage_renamed_before_anybody_in_it_was_read(database: str) -> None:
    """The webhook names the old name, the first read the new one: one change."""
    async with running_recorder(database) as recorder:
        await recorder.state.save_stages({"Lead": 1, "Nurture": 5}, at("07:00"))
        await recorder.record(
            read("Lead", "08:00", "09:00", stage_id=1),
            webhook("e1", "Nurture", "10:00"),
            read("Nurture 2026", "10:00", "10:05", stage_id=5),
        )
        assert await recorder.rows() == [("Lead", "Nurture", at("10:00"), None)]


async def test_a_late_webhook_is_about_the_stage_of_its_own_time(database: str) -> None:
    """Its stage was renamed and the name used again before it came."""
    async with running_recorder(database) as recorder:
        await recorder.state.save_stages({"Lead": 1, "Nurture": 5}, at("07:00"))
        await recorder.record(read("Lead", "08:00", "09:00", stage_id=1))
        await recorder.state.save_stages({"Lead": 1, "Nurture": 9, "Nurture old": 5}, at("11:00"))
        await recorder.record(webhook("e1", "Nurture", "10:00"), read("Nurture old", "10:00", "11:05", stage_id=5))
        assert await recorder.rows() == [("Lead", "Nurture", at("10:00"), None)]


async def test_a_read_tells_a_late_webhook_of_its_own_time_too(database: str) -> None:
    """Another person was read in the stage that took over the name."""
    async with running_recorder(database) as recorder:
        await recorder.record(read("Nurture", "08:00", "09:00", stage_id=5, person=2), read("Lead", "08:00", "09:00", stage_id=1))
        await recorder.record(read("Nurture", "10:50", "11:00", stage_id=9, person=2))
        await recorder.record(webhook("e1", "Nurture", "10:00"), read("Nurture old", "10:00", "11:05", stage_id=5))
        assert await recorder.rows() == [("Lead", "Nurture", at("10:00"), None)]
        assert await recorder.rows(2) == []


async def test_a_stage_has_the_spelling_of_the_account_before_anybody_in_it_was_read(database: str) -> None:
    """A webhook may write its name in another case."""
    async with running_recorder(database) as recorder:
        await recorder.state.save_stages({"Lead": 1, "ACQ - Offers Made": 5}, at("07:00"))
        await recorder.record(read("Lead", "08:00", "09:00", stage_id=1), webhook("e1", "acq - offers made", "10:00"))
        assert await recorder.rows() == [("Lead", "ACQ - Offers Made", at("10:00"), None)]
