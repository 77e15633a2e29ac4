"""The lease: an instance that slept through its term overwrites nothing that the next holder wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fubd.core.pacing import Hysteresis
from fubd.core.stored_state import ModeRecord
from fubd.errors import Unavailable
from fubd.store import Pool, StateStore
from fubd.store.dsn import parse
from tests.recorder import at, read, refetch_event, running_recorder
from tests.support.waiting import eventually

_STEADY = ModeRecord("steady", "webhooks arrive", 1800.0, at("09:00"), Hysteresis())

# What only the holder may write, and a statement that shows whether anything was written.
WRITES: dict[str, tuple[Callable[[StateStore], Awaitable[object]], str]] = {
    "a change of mode": (
        lambda state: state.insert_mode(ModeRecord("failover", "stale", 30.0, at("10:00"), Hysteresis()), evidence={}),
        "SELECT array_agg(mode) FROM fubd.mode_change",
    ),
    "how the mode goes on": (
        lambda state: state.update_mode("as it was", 1.0, Hysteresis(), missed=[1]),
        "SELECT delay_seconds FROM fubd.mode_change",
    ),
    "how far a sweep has come": (lambda state: state.begin_sweep(at("08:00"), from_id=7), "SELECT sweep_from_id FROM fubd.coverage"),
    "what a scrub found": (lambda state: state.note_scrub(matched=5, mismatched=0), "SELECT last_people FROM fubd.scrub"),
}


@pytest.mark.parametrize("name", WRITES)
async def test_an_instance_that_lost_the_lease_writes_nothing(fubd_database: str, name: str) -> None:
    """Once another instance has taken it, the former holder gets Unavailable; a run that never held it may write."""
    write, shown = WRITES[name]
    pool = Pool(parse(fubd_database))
    try:
        former, holder, recovery = StateStore(pool), StateStore(pool), StateStore(pool)
        assert await former.acquire_lease("former", ttl_seconds=0.05) == 1
        await former.insert_mode(_STEADY, evidence={})
        assert await eventually(lambda: holder.acquire_lease("holder", ttl_seconds=60.0)) == 2
        assert await former.acquire_lease("former", ttl_seconds=0.05) is None
        untouched = await _value(pool, shown)
        with pytest.raises(Unavailable, match="another instance"):
            await write(former)
        assert await _value(pool, shown) == untouched
        await write(holder)
        assert await _value(pool, shown) != untouched
        await write(recovery)
        await holder.release_lease("holder")
        assert await former.acquire_lease("former", ttl_seconds=60.0) == 3
        await write(former)
    finally:
        await pool.close()


async def test_the_lease_cannot_be_taken_during_a_write_of_its_holder(database: str) -> None:
    """The check is part of the same transaction and holds until its end, even when the term ends before it."""
    pool = Pool(parse(database))
    try:
        holder, other = StateStore(pool), StateStore(pool)
        await holder.acquire_lease("holder", ttl_seconds=0.05)
        async with holder.fenced():
            taking = asyncio.create_task(other.acquire_lease("other", ttl_seconds=60.0))
            done, _ = await asyncio.wait([taking], timeout=0.5)
            assert not done
        assert await taking == 2
    finally:
        await pool.close()


async def test_an_old_404_does_not_mark_a_person_read_later_as_gone(database: str) -> None:
    """A late 404 counts neither against a later read nor against a later refetch request."""
    async with running_recorder(database) as recorder:
        await recorder.record(read("A", "08:00", "09:00"), refetch_event("e1", "peopleUpdated", "10:00"))
        await recorder.state.mark_deleted(1, at("08:30"))
        assert await _value(recorder.pool, "SELECT gone_at FROM fubd.person WHERE id = 1") is None
        assert [pending.person_id for pending in await recorder.state.due_refetches(10)] == [1]
        await recorder.state.mark_deleted(1, at("10:30"))
        assert await _value(recorder.pool, "SELECT gone_at FROM fubd.person WHERE id = 1") == at("10:30")
        assert await recorder.state.due_refetches(10) == []
        # A 404 of the same second holds.
        await recorder.record(read("A", "08:00", "09:00", person=2))
        await recorder.state.mark_deleted(2, at("09:00"))
        assert await _value(recorder.pool, "SELECT gone_at FROM fubd.person WHERE id = 2") == at("09:00")


async def _value(pool: Pool, statement: str) -> object:
    async with pool.reading() as connection:
        return await connection.fetchval(statement)
