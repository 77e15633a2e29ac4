"""The query plans of the recording statements while the tables are small, and of the status page's statements when they are large."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from fubd.store import Pool, statements
from fubd.store.dsn import parse
from fubd.store.stage_changes import read
from fubd.store.statements import Query

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
    async with pool.transaction() as connection:
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        body = str(await connection.fetchval("SELECT prosrc FROM pg_proc WHERE oid = 'fubd.load_history'::regproc"))
        statement = body.partition("RETURN QUERY")[2].rpartition(";")[0]
        await connection.execute(f"PREPARE load_history (bigint[], timestamptz[], int) AS {statement}")
        arguments = f"ARRAY[1, 2, 3]::bigint[], array_fill('{datetime.now(UTC).isoformat()}'::timestamptz, ARRAY[3]), 200"
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE load_history ({arguments})"))
    await pool.close()
    assert "stage_changes_person" in plan
    assert "stage_changes_time" not in plan
    assert "stage_changes_received" not in plan


async def test_a_look_at_many_rows_of_another_writer_compares_each_with_few(database: str) -> None:
    """A look at thousands of them would otherwise not end within the limit of a statement, and begin again each time."""
    pool = Pool(parse(database))
    async with pool.transaction() as connection:
        await connection.execute(
            "INSERT INTO public.stage_changes (person_id, stage_to, changed_at, received_at, source)"
            " SELECT g::text, 'B', now(), now(), 'polling' FROM generate_series(1, 500) g"
        )
        query = statements.query("adopt/foreign_rows")
        explained = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {query.text}", *query.arguments({"limit": 5_000}))
        assert await connection.fetchval("SELECT count(*) FROM fubd.hint") == 500
    await pool.close()
    assert _compared(json.loads(explained)[0]["Plan"]) < 10 * 500


async def test_a_chain_check_of_rows_without_statistics_compares_each_with_few(database: str) -> None:
    """After a bulk edit the planner knows nothing of the new rows; a step would otherwise not end within the limit of a statement."""
    pool = Pool(parse(database))
    async with pool.connection() as connection:
        await connection.execute(_ROWS, 500)
    async with pool.reading_by_index() as connection:
        query = statements.query("reads/chain_violations")
        start = {"after_change": 0, "after_correction": 0, "after_person": "", "again": []}
        explained = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {query.text}", *query.arguments(start))
    await pool.close()
    assert _compared(json.loads(explained)[0]["Plan"]) < 10 * 500


def _compared(plan: dict[str, Any]) -> int:
    """Return how many rows of a plan were read and found not to match."""
    removed = sum(int(plan.get(f"Rows Removed by {by}", 0)) * int(plan["Actual Loops"]) for by in ("Join Filter", "Filter"))
    return removed + sum(map(_compared, plan.get("Plans", ())))


_LARGE = """
INSERT INTO fubd.person (id, first_name, last_name, updated)
SELECT g, 'First' || g, 'Last' || g, now() - g * interval '1 minute' FROM generate_series(1, 100000) g;
INSERT INTO public.stage_changes (person_id, stage_to, changed_at, received_at, source, assigned_user_name)
SELECT (g % 20000)::text, 'Stage ' || g % 20, now() - g * interval '1 minute', now() - g * interval '1 minute',
    CASE g % 50 WHEN 0 THEN 'polling' ELSE 'webhook' END, 'Agent ' || g % 30
FROM generate_series(1, 100000) g;
ANALYZE fubd.person, public.stage_changes;
"""
_FEW_BLOCKS = 500


async def _blocks(connection: asyncpg.Connection, query: Query, **values: object) -> int:
    """Run a statement and return how many blocks it read, from memory or disk."""
    explained = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query.text}", *query.arguments(values))
    plan = json.loads(explained)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.slow
async def test_the_page_reads_little_of_a_large_table(database: str) -> None:
    """Last rows, older ones, filters, a day, a person of 100,000 by index; a part of a name, and what nobody has, in one pass."""
    pool, now = Pool(parse(database)), datetime.now(UTC)
    async with pool.connection() as connection:
        # The pool's own limit is for small statements, and a busy machine is slow.
        await connection.execute(_LARGE, timeout=120.0)
        pages = await connection.fetch(
            "SELECT pg_relation_size(c.oid) / 8192 AS blocks FROM pg_class c WHERE relname IN ('person', 'stage_changes')"
        )
        whole = sum(row["blocks"] for row in pages)
        table = await read(connection)
        filtered = table.query("reads/changes_filtered")
        everything = {"before": None, "stage": None, "agent": None, "source": None, "limit": 50}
        for chosen in (
            {},
            {"before": 50_000},
            {"stage": "Stage 3"},
            {"agent": "Agent 7"},
            {"source": "polling"},
            {"stage": "Stage 3", "before": 90_000},
        ):
            assert await _blocks(connection, filtered, **everything | chosen) < _FEW_BLOCKS, chosen
        days = [now - timedelta(days=days) for days in (1, 2, 6)]
        counts = statements.query("reads/stage_counts")
        assert await _blocks(connection, counts, today=days[0], yesterday=days[1], week=days[2]) < _FEW_BLOCKS
        assert await _blocks(connection, statements.query("reads/agents"), since=days[2]) < _FEW_BLOCKS
        assert await _blocks(connection, statements.query("reads/person"), person_id=50_000) < _FEW_BLOCKS
        assert await _blocks(connection, filtered, **everything | {"stage": "Never"}) < whole
        assert await _blocks(connection, statements.query("reads/people_by_name"), text="irst99", limit=20) < whole
    await pool.close()
