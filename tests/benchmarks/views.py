"""How long the views take on a large table of generated rows: `python -m tests.benchmarks.views [ROWS]` prints a table."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass

import asyncpg

from fubd.store import migrate, statements
from fubd.store.dsn import parse
from fubd.store.embedded import temporary_server

_ROWS = 1_000_000
_REPEATED = 5
# Three years of changes of one person in five rows, nearly all seen by webhooks first.
_FILL = (
    """
    INSERT INTO fubd.person (id, stage, updated, verified_at)
    SELECT g, 'Stage ' || g % 12, now(), now() FROM generate_series(1, $1 / 5) g
    """,
    """
    INSERT INTO public.stage_changes (person_id, stage_from, stage_to, changed_at, received_at, source)
    SELECT (1 + g % ($1 / 5))::text, 'Stage ' || (g + 11) % 12, 'Stage ' || g % 12, t.at, t.at, 'webhook'
    FROM generate_series(1, $1) g CROSS JOIN LATERAL (SELECT now() - ($1 - g) * (interval '1095 days' / $1) AS at) t
    """,
    """
    INSERT INTO fubd.claim (person_id, at, kind, channel, event_id, stage, seq, received_at)
    SELECT c.person_id::bigint, c.changed_at, 'entry', 'webhook', 'e' || c.id, c.stage_to, c.id, c.received_at
    FROM public.stage_changes c WHERE $1 > 0
    """,
)
_UNREAD = (
    "INSERT INTO fubd.person (id) SELECT 1000000000 + g FROM generate_series(1, $1) g",
    """
    INSERT INTO fubd.delivery (key, event, received_at, instance, body)
    SELECT sha256(g::text::bytea), 'peopleStageUpdated', now(), 'another', '{}' FROM generate_series(1, $1 / 10) g
    """,
    # As after some looks: everything was looked at.
    "UPDATE fubd.foreign_mark SET mark = h.id, seen = h.id FROM (SELECT max(c.id) AS id FROM public.stage_changes c) h WHERE $1 > 0",
)
QUERIES = {
    "current_stages of a person": "SELECT * FROM public.current_stages WHERE person_id = '42'",
    "source_health": "SELECT * FROM public.source_health",
    "stage_changes_daily, 30 days": "SELECT * FROM public.stage_changes_daily WHERE day > current_date - 30",
    "stage_durations of a person": "SELECT * FROM public.stage_durations WHERE person_id = '42'",
    "stage_durations, a day": "SELECT * FROM public.stage_durations WHERE entered_at > now() - interval '1 day'",
    "rapid_transitions, a day": "SELECT * FROM public.rapid_transitions WHERE entered_at > now() - interval '1 day'",
    "rapid_transitions of a person": "SELECT * FROM public.rapid_transitions WHERE person_id = '42'",
}
UNBOUNDED = {
    "stage_changes_daily, everything": "SELECT count(*) FROM public.stage_changes_daily",
    "stage_durations, average of each stage": "SELECT stage, avg(duration) FROM public.stage_durations GROUP BY 1",
    "current_stages, people in each stage": "SELECT stage, count(*) FROM public.current_stages GROUP BY 1",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """The median time of a query, the blocks that its last run touched, and what the planner expected it to cost."""

    seconds: float
    blocks: int
    cost: float


async def fill(connection: asyncpg.Connection, rows: int) -> None:
    """Fill a migrated database with this many changes."""
    for statement in _FILL:
        await connection.execute(statement, rows, timeout=600)


async def add_unread(connection: asyncpg.Connection, people: int) -> None:
    """Add people who were never read, and deliveries of another instance."""
    for statement in _UNREAD:
        await connection.execute(statement, people, timeout=600)


async def measure_look(connection: asyncpg.Connection, *, repeated: int = 1) -> Measured:
    """Measure what the daemon reads every few seconds (`reads/status_summary.sql`), by a process that has stored nothing yet."""
    query = statements.query("reads/status_summary")
    text = query.text
    for number, parameter in enumerate(query.parameters, 1):
        text = text.replace(f"${number}", {"instance": "'mine'", "first_delivery": "(SELECT max(id) + 1 FROM fubd.delivery)"}[parameter])
    await connection.execute("SET enable_seqscan = off")
    measured = await measure(connection, text, repeated=repeated)
    await connection.execute("RESET enable_seqscan")
    return measured


async def measure(connection: asyncpg.Connection, query: str, *, repeated: int = _REPEATED) -> Measured:
    """Run a query several times, as a reader's session does."""
    seconds = []
    for _ in range(repeated):
        began = time.perf_counter()
        await connection.fetch(query, timeout=600)
        seconds.append(time.perf_counter() - began)
    plan = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}", timeout=600)
    blocks = await connection.fetchval(
        "SELECT sum((p->'Plan'->>'Shared Hit Blocks')::bigint + (p->'Plan'->>'Shared Read Blocks')::bigint)"
        " FROM json_array_elements($1::json) p",
        plan,
    )
    return Measured(sorted(seconds)[len(seconds) // 2], int(blocks), float(json.loads(plan)[0]["Plan"]["Total Cost"]))


async def _main(rows: int) -> None:
    with temporary_server() as url:
        connection = await asyncpg.connect(**parse(url).connect_arguments())
        await migrate(connection)
        await fill(connection, rows)
        await add_unread(connection, rows)
        await connection.execute("VACUUM ANALYZE", timeout=600)
        sys.stdout.write(f"| query, {rows:,} rows | ms | blocks |\n|---|---|---|\n")
        look = await measure_look(connection, repeated=_REPEATED)
        sys.stdout.write(f"| the daemon's look, every 6 s | {look.seconds * 1000:.1f} | {look.blocks:,} |\n")
        for queries, repeated in ((QUERIES, _REPEATED), (UNBOUNDED, 1)):
            for name, query in queries.items():
                found = await measure(connection, query, repeated=repeated)
                sys.stdout.write(f"| {name} | {found.seconds * 1000:.1f} | {found.blocks:,} |\n")
        await connection.close()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]) if len(sys.argv) > 1 else _ROWS))
