"""The views on a larger table, as `python -m tests.benchmarks.views` measures them."""

from __future__ import annotations

import asyncpg
import pytest

from fubd.store.dsn import parse
from tests.benchmarks.views import QUERIES, add_unread, fill, measure, measure_look

pytestmark = pytest.mark.slow

ROWS = 50_000
# Postgres compiles a query that it expects to cost more than 100,000 (jit_above_cost), which takes longer than to run these. The cost
# grows no faster than the table, so that at a million rows they stay below.
_HIGHEST_COST = 100_000 * ROWS / 1_000_000


# What the planner knows of the tables: nothing, the statistics, and also which blocks are visible to all. Autovacuum adds it at any time.
STATES = {"filled": "SELECT", "analyzed": "ANALYZE", "vacuumed": "VACUUM ANALYZE"}


async def test_a_bounded_question_reads_a_bounded_number_of_blocks(database: str) -> None:
    """Far fewer blocks than the table has: by index, whatever the size of the table, and whatever the planner knows."""
    connection = await asyncpg.connect(**parse(database).connect_arguments())
    await fill(connection, ROWS)
    await add_unread(connection, ROWS)
    limits = {name: 60 if "person" in name or name == "source_health" else 250 for name in QUERIES}
    too_many = {}
    too_costly = {}
    for state, command in STATES.items():
        await connection.execute(command, timeout=60)
        measured = {name: await measure(connection, query, repeated=1) for name, query in QUERIES.items()}
        read = {name: found.blocks for name, found in measured.items()}
        read["the daemon's look"] = (await measure_look(connection)).blocks
        too_many.update({(state, name): blocks for name, blocks in read.items() if blocks > limits.get(name, 60)})
        if state != "filled":
            too_costly.update({(state, name): found.cost for name, found in measured.items() if found.cost > _HIGHEST_COST})
    await connection.close()
    assert too_many == {}
    assert too_costly == {}
