"""The views on a larger table, as `python -m tests.benchmarks.views` measures them."""

from __future__ import annotations

import asyncpg
import pytest

from fubd.store.dsn import parse
from tests.benchmarks.views import QUERIES, fill, measure

pytestmark = pytest.mark.slow

ROWS = 50_000


async def test_a_bounded_question_reads_a_bounded_number_of_blocks(database: str) -> None:
    """Far fewer blocks than the table has: by index, whatever the size of the table."""
    connection = await asyncpg.connect(**parse(database).connect_arguments())
    await fill(connection, ROWS)
    limits = {name: 60 if "person" in name else 250 for name in QUERIES} | {"stage_changes_daily, 30 days": 1500}
    read = {name: (await measure(connection, query, repeated=1)).blocks for name, query in QUERIES.items()}
    await connection.close()
    assert {name: blocks for name, blocks in read.items() if blocks > limits[name]} == {}
