"""The query plans of the recording statements while the tables are small."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fubd.store import Pool
from fubd.store.dsn import parse
from fubd.store.stage_changes import read

_ROWS = """
WITH person AS (INSERT INTO fubd.person (id) SELECT g FROM generate_series(1, $1::bigint) g RETURNING id),
claim AS (
    INSERT INTO fubd.claim (person_id, at, kind, channel, event_id, stage, seq, received_at)
    SELECT g, now(), 'entry', 'webhook', 'e' || g, 'B', g, now() FROM generate_series(1, $1) g
)
INSERT INTO public.stage_changes (id, person_id, stage_to, changed_at, received_at, source)
SELECT g, g::text, 'B', now(), now(), 'webhook' FROM generate_series(1, $1) g
"""


@pytest.mark.parametrize("known", [10, 100, 1000])
async def test_histories_are_loaded_by_person(database: str, known: int) -> None:
    """A plan made for small tables is kept while they grow, so at every size a history is found by person, never by time."""
    pool = Pool(parse(database))
    async with pool.connection() as connection:
        await connection.execute(_ROWS, known)
        await connection.execute("ANALYZE fubd.person, fubd.claim, public.stage_changes")
        table = await read(connection)
    async with pool.transaction() as connection:
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await connection.execute(f"PREPARE load_history (bigint[], timestamptz[], int) AS {table.query('recording/load_history').text}")
        arguments = f"ARRAY[1, 2, 3]::bigint[], array_fill('{datetime.now(UTC).isoformat()}'::timestamptz, ARRAY[3]), 200"
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE load_history ({arguments})"))
    await pool.close()
    assert "stage_changes_person" in plan
    assert "stage_changes_time" not in plan
    assert "stage_changes_received" not in plan
