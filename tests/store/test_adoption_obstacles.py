"""What prevents the adoption of a table: obstacles that the plan shows, and what the dry run finds."""

from __future__ import annotations

import re
from contextlib import suppress

import asyncpg
import pytest

from fubd.store.adoption import AdoptionRefused
from fubd.store.dsn import Dsn, parse
from tests.store.adopting import adopt, connected, planned, pooled
from tests.support import legacy_tables
from tests.support.databases import url_of

pytestmark = pytest.mark.slow

# What only the owner may decide: the statements that create it, and words of the obstacle.
OBSTACLES = {
    "short stages": (
        "ALTER TABLE stage_changes ALTER COLUMN stage_from TYPE varchar(50), ALTER COLUMN stage_to TYPE varchar(99)",
        "too short",
    ),
    "one stage is short": ("ALTER TABLE stage_changes ALTER COLUMN stage_from TYPE varchar(20)", "too short"),
    "stages that are counted up": (
        "CREATE TYPE stage AS ENUM ('Lead'); ALTER TABLE stage_changes ALTER COLUMN stage_to TYPE stage USING NULL",
        "too short",
    ),
    "short source": ("ALTER TABLE stage_changes ALTER COLUMN source TYPE varchar(5)", "source is character varying"),
    "a person that is a number": (
        "ALTER TABLE stage_changes ALTER COLUMN person_id TYPE bigint USING person_id::bigint",
        "person_id is bigint",
    ),
    "padded person": ("ALTER TABLE stage_changes ALTER COLUMN person_id TYPE char(20)", "person_id is character"),
    "whole seconds": ("ALTER TABLE stage_changes ALTER COLUMN changed_at TYPE timestamp(0)", "changed_at is timestamp"),
    "days": ("ALTER TABLE stage_changes ALTER COLUMN received_at TYPE date", "received_at is date"),
    "days that are written": ("ALTER TABLE stage_changes ALTER COLUMN received_at TYPE text", "received_at is text"),
    "seconds of an age": ("ALTER TABLE stage_changes ALTER COLUMN received_at TYPE bigint USING NULL", "received_at is bigint"),
    "no null stage": (
        "ALTER TABLE stage_changes ALTER COLUMN stage_from SET DEFAULT 'Unknown', ALTER COLUMN stage_from SET NOT NULL",
        "stage_from",
    ),
    "no null name": ("ALTER TABLE stage_changes ALTER COLUMN last_name SET NOT NULL", "last_name must not be null"),
    "a column of theirs": ("ALTER TABLE stage_changes ALTER COLUMN deal_id SET NOT NULL", "deal_id must not be null"),
    "no sequence": ("ALTER TABLE stage_changes ALTER COLUMN id DROP DEFAULT", "no sequence"),
    "no key": ("ALTER TABLE stage_changes DROP CONSTRAINT stage_changes_pkey", "the same id"),
    "another key": ("ALTER TABLE stage_changes DROP CONSTRAINT stage_changes_pkey, ADD PRIMARY KEY (event_id)", "primary key is not id"),
    "a longer key": ("ALTER TABLE stage_changes DROP CONSTRAINT stage_changes_pkey, ADD PRIMARY KEY (id, event_id)", "id, event_id"),
    "an id of another kind": (
        (
            "ALTER TABLE stage_changes ALTER COLUMN id DROP DEFAULT, ALTER COLUMN id TYPE text;"
            "ALTER TABLE stage_changes ALTER COLUMN id SET DEFAULT 'x'"
        ),
        "id is text",
    ),
    "a default of another kind": ("ALTER TABLE stage_changes ALTER COLUMN id SET DEFAULT 1 + (random() * 1e9)::int", "no sequence"),
    "no numbers left": (
        "ALTER TABLE stage_changes ALTER COLUMN id TYPE integer; SELECT setval('stage_changes_id_seq', 2147483000)",
        "only 647 numbers are left",
    ),
    "downwards": ("ALTER SEQUENCE stage_changes_id_seq INCREMENT BY -1 MINVALUE -9 START WITH 1", "downwards"),
    "small id": ("ALTER TABLE stage_changes ALTER COLUMN id TYPE smallint", "id is smallint"),
    "an exclusion": ("ALTER TABLE stage_changes ADD CONSTRAINT apart EXCLUDE (person_id WITH =, changed_at WITH =)", "exclusion"),
    "held by another table": (
        "CREATE TABLE note (event_id varchar(200) REFERENCES stage_changes (event_id))",
        "a foreign key or the replication depends on it",
    ),
    "held by the replication": (
        "ALTER TABLE stage_changes ALTER COLUMN event_id SET NOT NULL, REPLICA IDENTITY USING INDEX stage_changes_event_id_unique",
        "a foreign key or the replication depends on it",
    ),
    "a schema of our name": ("CREATE SCHEMA fubd; CREATE TABLE fubd.person (n int)", "a schema fubd that fubd did not make"),
    "an index of our name": ("CREATE INDEX fubd_stage_changes_time ON stage_changes (source)", "there is a public.fubd_stage_changes_time"),
    "a view put aside before": (
        "CREATE VIEW current_stages AS SELECT 1 AS n; CREATE VIEW current_stages_before_fubd AS SELECT 2 AS n",
        "there is a public.current_stages_before_fubd",
    ),
    "in partitions": (
        (
            "ALTER TABLE stage_changes RENAME TO part; ALTER TABLE part DROP CONSTRAINT stage_changes_pkey;"
            "CREATE TABLE stage_changes (LIKE part) PARTITION BY LIST (source); ALTER TABLE stage_changes ATTACH PARTITION part DEFAULT"
        ),
        "not a plain table, but a partitioned one",
    ),
    "a view in its place": (
        "ALTER TABLE stage_changes RENAME TO older; CREATE VIEW stage_changes AS SELECT * FROM older",
        "not a plain table, but a view",
    ),
    "with heirs": ("CREATE TABLE heir () INHERITS (stage_changes)", "not a plain table, but one that inherits"),
    "a table of our name": ("CREATE TABLE source_health (n int)", "source_health is no view"),
    "hidden rows": (
        "CREATE POLICY none ON stage_changes USING (false); ALTER TABLE stage_changes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "row level security",
    ),
}


@pytest.mark.parametrize("name", OBSTACLES)
async def test_each_obstacle_is_shown_with_the_statement_that_removes_it(owned_database: str, name: str) -> None:
    """Nothing is changed; each statement works as shown, also where views use the column; then the table can be adopted."""
    preparation, words = OBSTACLES[name]
    async with connected(owned_database) as connection, pooled(owned_database) as pool:
        await _create_table(connection, preparation)
        shape, plan = await legacy_tables.shape(connection), await planned(pool)
        assert any(words in obstacle.reason for obstacle in plan.obstacles), plan.obstacles
        with pytest.raises(AdoptionRefused, match="cannot be adopted"):
            await adopt(pool)
        assert await legacy_tables.shape(connection) == shape
        for _ in range(4):
            for obstacle in (await planned(pool)).obstacles:
                await connection.execute(obstacle.statement)
        assert (await planned(pool)).obstacles == ()
        await adopt(pool)
        assert [line for line in shape if "on_it" in line and "pg_monitor" in line] == [
            line for line in await legacy_tables.shape(connection) if "on_it" in line and "pg_monitor" in line
        ]


async def _create_table(connection: asyncpg.Connection, preparation: str) -> None:
    """Create the table, run the statements, and create views on it where possible."""
    table, _, view = legacy_tables.VARIANTS["as reconstructed"].partition("CREATE VIEW")
    await connection.execute(table + preparation)
    with suppress(asyncpg.PostgresError):
        async with connection.transaction():
            await connection.execute("CREATE VIEW" + view)
    await connection.execute("CREATE VIEW on_it AS SELECT id, stage_from, stage_to FROM stage_changes; GRANT SELECT ON on_it TO pg_monitor")
    await connection.execute("CREATE VIEW on_top WITH (security_barrier) AS SELECT * FROM on_it")


async def test_a_table_of_another_owner_is_an_obstacle(ordinary_role: Dsn, empty_database: str) -> None:
    """The plan names the owner."""
    async with connected(empty_database) as connection:
        await legacy_tables.make(connection)
        await connection.execute(
            f"GRANT USAGE, CREATE ON SCHEMA public TO {ordinary_role.user}; GRANT SELECT ON stage_changes TO {ordinary_role.user}"
        )
        async with pooled(url_of(ordinary_role, database=parse(empty_database).database)) as pool:
            assert any("only its owner" in obstacle.reason for obstacle in (await planned(pool)).obstacles)


_TRIGGER = (
    "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {} END$$; CREATE TRIGGER meddling BEFORE {} ON stage_changes"
)
INTERFERENCES = {
    "a check": ("ALTER TABLE stage_changes ADD CONSTRAINT known CHECK (source <> 'webhook')", 'check constraint "known"'),
    "a foreign key": (
        "CREATE TABLE person (id text PRIMARY KEY); ALTER TABLE stage_changes ADD FOREIGN KEY (person_id) REFERENCES person NOT VALID",
        "violates foreign key constraint",
    ),
    "a foreign key at the end": (
        (
            "CREATE TABLE person (id text PRIMARY KEY); ALTER TABLE stage_changes ADD FOREIGN KEY (person_id) REFERENCES person"
            " DEFERRABLE INITIALLY DEFERRED NOT VALID"
        ),
        "violates foreign key constraint",
    ),
    "what must come of it": (
        (
            "ALTER TABLE stage_changes ADD COLUMN move text GENERATED ALWAYS AS (stage_from || stage_to) STORED;"
            "DELETE FROM stage_changes WHERE move IS NULL; ALTER TABLE stage_changes ALTER COLUMN move SET NOT NULL"
        ),
        'null value in column "move"',
    ),
    "a trigger that drops": (_TRIGGER.format("RETURN NULL;", "INSERT") + " FOR EACH ROW EXECUTE FUNCTION meddle()", "meddling"),
    "a trigger that dates": (
        _TRIGGER.format("NEW.changed_at = now(); RETURN NEW;", "INSERT OR UPDATE") + " FOR EACH ROW EXECUTE FUNCTION meddle()",
        "meddling",
    ),
    "a trigger that keeps": (_TRIGGER.format("RETURN NULL;", "DELETE") + " FOR EACH ROW EXECUTE FUNCTION meddle()", "meddling"),
    "a rule that drops": ("CREATE RULE dropping AS ON INSERT TO stage_changes WHERE new.source = 'webhook' DO INSTEAD NOTHING", "dropping"),
}


@pytest.mark.parametrize("name", INTERFERENCES)
async def test_what_would_refuse_or_alter_our_rows_is_found_by_the_dry_run(empty_database: str, name: str) -> None:
    """Nothing is changed; after the statement that the error shows the table can be adopted."""
    preparation, words = INTERFERENCES[name]
    async with connected(empty_database) as connection, pooled(empty_database) as pool:
        await legacy_tables.make(connection, rows=5)
        await connection.execute(preparation)
        shape = await legacy_tables.shape(connection)
        with pytest.raises(AdoptionRefused, match=words) as refused:
            await adopt(pool)
        assert await legacy_tables.shape(connection) == shape
        (statement,) = re.findall(r"(?:ALTER TABLE|DROP RULE) [^);]*", str(refused.value))
        await connection.execute(statement)
        await adopt(pool)
