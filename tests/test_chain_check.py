"""The check that each row follows from the row before, step by step."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import isnan

import asyncpg
from prometheus_client import CollectorRegistry

from fubd.chain_check import ChainCheck
from fubd.metrics import Metrics
from fubd.store import Maintenance, Pool
from fubd.store.dsn import parse

START = datetime(2026, 1, 5, 10, tzinfo=UTC)
# Two rows for each of 1,500 people: more than one step looks at, fewer than two do.
ROWS = """
WITH row AS (
    INSERT INTO public.stage_changes (person_id, stage_from, stage_to, changed_at, received_at, source)
    SELECT g % 1500 + 1, CASE WHEN g >= 1500 THEN 'A' END, CASE WHEN g < 1500 THEN 'A' ELSE 'B' END, t.at, t.at, 'webhook'
    FROM generate_series(0, 2999) g CROSS JOIN LATERAL (SELECT now() + g * interval '1 second' AS at) t
    RETURNING id, person_id, stage_to, changed_at
)
INSERT INTO fubd.claim (person_id, at, kind, channel, event_id, stage, seq, received_at)
SELECT r.person_id::bigint, r.changed_at, 'entry', 'webhook', 'e' || r.id, r.stage_to, r.id, r.changed_at FROM row r
"""
BREAK = "UPDATE public.stage_changes SET stage_from = $2 WHERE person_id = $1 AND stage_to = 'B'"
# What a correction of a row leaves behind.
TOUCH = "INSERT INTO fubd.correction (change_id, person_id, corrected_at, was) VALUES (1, $1, now(), '{}')"


@dataclass
class _Minutes:
    """A clock on which each look takes a second."""

    minutes: int = 0
    looks: int = 0

    def now(self) -> datetime:
        return START + timedelta(minutes=self.minutes)

    def monotonic(self) -> float:
        self.looks += 1
        return self.minutes * 60.0 + self.looks

    async def pause(self, seconds: float, *events: asyncio.Event) -> bool:
        raise NotImplementedError


async def test_a_broken_row_is_found_in_its_turn_and_at_once_where_rows_changed(database: str) -> None:
    """NaN until everybody was checked; a broken row counts until it is repaired; people whose rows changed do not wait for their turn.

    The database has no statistics of the new rows, as after a bulk edit.
    """
    connection = await asyncpg.connect(**parse(database).connect_arguments())
    await connection.execute(ROWS)
    # In the index by person, '999' is the last of all.
    await connection.execute(BREAK, "999", "Trash")
    pool, clock, registry = Pool(parse(database)), _Minutes(), CollectorRegistry()
    check = ChainCheck(Maintenance(pool), clock, Metrics(registry))

    async def step() -> float:
        await check.run_step()
        return registry.get_sample_value("fubd_chain_violations") or 0.0

    try:
        assert isnan(await step())
        assert isnan(registry.get_sample_value("fubd_chain_check_timestamp_seconds") or 0.0)
        # Two seconds are a fiftieth of the time until the next step.
        assert isnan(await step())
        clock.minutes += 2
        assert await step() == 1
        assert registry.get_sample_value("fubd_chain_check_timestamp_seconds") == START.timestamp()
        # The next round begins with the first people, when it is due.
        await connection.execute(BREAK, "1", "Trash")
        assert await step() == 1
        clock.minutes += 2
        assert await step() == 2
        await connection.execute(BREAK, "10", "Trash")
        await connection.execute(TOUCH, 10)
        await connection.execute(BREAK, "999", "A")
        await connection.execute(BREAK, "1", "A")
        clock.minutes += 2
        # The turn is with those after the first 1,000 people: 10 is among the first.
        assert await step() == 1
        await connection.execute("UPDATE public.stage_changes SET stage_from = 'A' WHERE stage_to = 'B'")
        clock.minutes += 2
        assert await step() == 0
    finally:
        await pool.close()
        await connection.close()
