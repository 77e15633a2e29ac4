"""Each statement fits the schema that the migrations make, and each file that touches the product table fits an older one too."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from fubd.store import Pool, adoption, migrate, statements
from fubd.store.dsn import parse
from fubd.store.stage_changes import read
from tests.support import legacy_tables

COLUMNS = {"campaign_id": "customCampaignID"}
# Several statements in one file, which cannot be prepared: they are run.
SCRIPTS = (
    "adopt/begin",
    "check/limits",
    "reads/begin",
    "reads/begin_by_index",
    "reads/begin_direct",
    "state/begin",
    "state/begin_direct",
    "state/begin_migration",
    "state/create_migration_table",
    "state/secure",
)
PREPARED = [name for name in statements.names() if name not in SCRIPTS]
# Generated SQL for what stands in braces.
PARTS = {
    "column": "stage_to",
    "columns": "id, stage_to",
    "relation": "public.stage_changes",
    "assignments": "stage_to = NULL",
    "name": "x",
    "query": "SELECT 1",
    "values": "d.stage_priority_to",
    "differences": "true",
    "safe_id": "SELECT 1 AS safe_id",
    "corrections": "SELECT 1 AS id, 2 AS change_id",
    "summary": "SELECT 1 AS people",
    "definition": "SELECT 1 AS columns",
    "document": "$1::jsonb",
    "pid": "1",
    "settings": "'{}'::jsonb",
    "parts": "SELECT 'x' AS name, '[]'::json AS rows",
    "expression": "true",
}


@pytest.fixture(params=["fresh", *legacy_tables.VARIANTS])
async def connection(request: pytest.FixtureRequest, empty_database: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection to a migrated database: a fresh one, and each older table after its adoption."""
    made = await asyncpg.connect(**parse(empty_database).connect_arguments())
    if request.param == "fresh":
        await migrate(made, columns=COLUMNS)
    else:
        await legacy_tables.make(made, request.param)
        pool = Pool(parse(empty_database), size=1)
        plan = await adoption.plan_adoption(pool, COLUMNS)
        assert plan is not None
        await adoption.adopt(pool, COLUMNS, plan=plan)
        await pool.close()
    yield made
    await made.close()


async def test_each_statement_is_one_that_the_server_understands(connection: asyncpg.Connection) -> None:
    """Prepared as the daemon prepares it, with a column of FUBD_COLUMNS."""
    table = await read(connection)
    for name in PREPARED:
        await connection.prepare(table.query(name, COLUMNS).fill(**PARTS).text)


@pytest.mark.parametrize("name", SCRIPTS)
async def test_each_script_runs(database: str, name: str) -> None:
    """On a migrated database, where running it again changes nothing."""
    connection = await asyncpg.connect(**parse(database).connect_arguments())
    await connection.execute(statements.text(name))
    await connection.close()


async def test_migrations_are_numbered_without_a_gap() -> None:
    """From 1 on, each once, in the order in which they are applied."""
    numbers = [number for number, _, _ in statements.migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_named_parameters_are_numbered_in_the_order_of_their_first_use() -> None:
    """Casts, strings, quoted names and comments are left as they are, although they may contain a colon and a word."""
    written = "SELECT :b::text, ':c', \":d\", x[1], :a, :b -- :e\nFROM t"
    expected = "SELECT $1::text, ':c', \":d\", x[1], $2, $1 -- :e\nFROM t"
    assert statements.parse("written", written) == statements.Query("written", expected, ("b", "a"))


async def test_a_parameter_without_a_value_and_a_value_without_a_parameter_are_errors() -> None:
    """A misspelt name is found before anything is sent."""
    query = statements.Query("some/query", "SELECT $1, $2", ("first", "second"))
    assert query.arguments({"second": 2, "first": 1}) == [1, 2]
    for values in ({"first": 1}, {"first": 1, "second": 2, "third": 3}):
        with pytest.raises(TypeError, match="some/query"):
            query.arguments(values)
