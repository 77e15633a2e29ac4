"""The lease: whoever slept through its term writes nothing over what the next holder wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fubd.core.pacing import Hysteresis
from fubd.errors import Unavailable
from fubd.ports import ModeRecord
from fubd.store import Pool, StateStore
from fubd.store.dsn import parse
from tests.recorder import at, hint, read, recorder
from tests.support.waiting import eventually

_STEADY = ModeRecord("steady", "webhooks arrive", 1800.0, at("09:00"), Hysteresis())

# What only the holder may write, and a statement that shows whether anything was.
WRITES: dict[str, tuple[Callable[[StateStore], Awaitable[object]], str]] = {
    "a change of mode": (
        lambda book: book.insert_mode(ModeRecord("failover", "stale", 30.0, at("10:00"), Hysteresis()), evidence={}),
        "SELECT array_agg(mode) FROM fubd.mode_change",
    ),
    "how the mode goes on": (lambda book: book.update_mode(1.0, Hysteresis(), missed=[1]), "SELECT delay_seconds FROM fubd.mode_change"),
    "how far a sweep has come": (lambda book: book.begin_sweep(at("08:00"), from_id=7), "SELECT sweep_from_id FROM fubd.coverage"),
    "what a scrub found": (lambda book: book.note_scrub(matched=5, mismatched=0), "SELECT last_people FROM fubd.scrub"),
}


@pytest.mark.parametrize("name", WRITES)
async def test_who_lost_the_lease_writes_nothing(fubd_database: str, name: str) -> None:
    """Once another has taken it, the one before is refused as if the database were away; a run that never had it may write."""
    write, shown = WRITES[name]
    pool = Pool(parse(fubd_database))
    try:
        before, now, beside = StateStore(pool), StateStore(pool), StateStore(pool)
        assert await before.acquire_lease("before", ttl_seconds=0.05) == 1
        await before.insert_mode(_STEADY, evidence={})
        assert await eventually(lambda: now.acquire_lease("now", ttl_seconds=60.0)) == 2
        assert await before.acquire_lease("before", ttl_seconds=0.05) is None
        untouched = await _value(pool, shown)
        with pytest.raises(Unavailable, match="another instance"):
            await write(before)
        assert await _value(pool, shown) == untouched
        await write(now)
        assert await _value(pool, shown) != untouched
        await write(beside)
        await now.release_lease("now")
        assert await before.acquire_lease("before", ttl_seconds=60.0) == 3
        await write(before)
    finally:
        await pool.close()


async def test_nobody_takes_the_lease_within_a_write_of_its_holder(database: str) -> None:
    """Whether it is still held is asked in the same transaction, and stays true to its end, though the term is over meanwhile."""
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


async def test_an_old_404_takes_nobody_away_who_was_read_since(database: str) -> None:
    """Told late, that somebody was not there counts for nothing against a later read, and not against what was told since."""
    async with recorder(database) as made:
        await made.record(read("A", "08:00", "09:00"), hint("e1", "peopleUpdated", "10:00"))
        await made.state.mark_deleted(1, at("08:30"))
        assert await _value(made.pool, "SELECT gone_at FROM fubd.person WHERE id = 1") is None
        assert [pending.person_id for pending in await made.state.due_refetches(10)] == [1]
        await made.state.mark_deleted(1, at("10:30"))
        assert await _value(made.pool, "SELECT gone_at FROM fubd.person WHERE id = 1") == at("10:30")
        assert await made.state.due_refetches(10) == []


async def _value(pool: Pool, statement: str) -> object:
    async with pool.reading() as connection:
        return await connection.fetchval(statement)
