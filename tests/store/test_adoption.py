"""Adopting the older scripts' table: its variants and odd rows, obstacles, interruptions, and undoing it."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import asyncpg
import pytest

from fubd.errors import Unavailable
from fubd.store import Pool, SchemaRefused, adoption, migrate
from fubd.store.adoption import AdoptionPlan, AdoptionRefused
from fubd.store.adoption.fingerprint import Fingerprint, fingerprint
from fubd.store.dsn import Dsn, parse
from tests.recorder import read, running_recorder, webhook
from tests.support import legacy_tables
from tests.support.databases import Databases, url_of
from tests.support.pooler import pooled as behind_a_pooler
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow


@pytest.fixture
async def ordinary_role(postgres: str) -> AsyncIterator[Dsn]:
    """Yield the login of a role that is no superuser. Requested before a database, it is dropped after it."""
    name = f"fubd_test_{secrets.token_hex(4)}"
    async with connected(postgres) as connection:
        await connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
        yield replace(parse(postgres), user=name, password=name)
        await connection.execute(f"DROP ROLE {name}")


@pytest.fixture
async def owned_database(ordinary_role: Dsn, empty_database: str) -> str:
    """Return the URL, for that role, of an empty database that it owns."""
    name = parse(empty_database).database
    async with connected(empty_database) as connection:
        await connection.execute(
            f'ALTER DATABASE "{name}" OWNER TO {ordinary_role.user}; ALTER SCHEMA public OWNER TO {ordinary_role.user}'
        )
    return url_of(ordinary_role, database=name)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Open a connection of the test's own."""
    connection = await asyncpg.connect(**replace(parse(url), application_name="test").connect_arguments())
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def pooled(url: str) -> AsyncIterator[Pool]:
    """Open a pool like the command's."""
    pool = Pool(parse(url), size=1)
    try:
        yield pool
    finally:
        await pool.close()


async def planned(pool: Pool) -> AdoptionPlan:
    """Return the plan; there must be something to adopt."""
    plan = await adoption.plan_adoption(pool, {"campaign_id": "customCampaignID"})
    assert plan is not None
    return plan


async def adopt(pool: Pool) -> adoption.Adopted:
    """Adopt the table as planned."""
    return await adoption.adopt(pool, {"campaign_id": "customCampaignID"}, plan=await planned(pool))


async def rows_of(connection: asyncpg.Connection, columns: list[str]) -> list[str]:
    """Return the older columns of every row, as text."""
    selected = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
    found = await connection.fetch(f"SELECT ROW({selected})::text AS row FROM stage_changes ORDER BY id")
    return [row["row"] for row in found]


async def columns_of(connection: asyncpg.Connection) -> list[str]:
    """Return the names of the table's columns."""
    found = await connection.fetch(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name = 'stage_changes' ORDER BY ordinal_position"
    )
    return [row["column_name"] for row in found]


@pytest.mark.parametrize("variant", legacy_tables.VARIANTS)
async def test_every_variant_is_adopted_and_restored(empty_database: str, variant: str) -> None:
    """Rows, reports and older columns are as before, fubd's views work, and undoing leaves nothing behind."""
    async with connected(empty_database) as connection, pooled(empty_database) as pool:
        await legacy_tables.make(connection, variant, rows=600)
        columns = await columns_of(connection)
        shape, reports, rows = (
            await legacy_tables.shape(connection),
            await legacy_tables.reports(connection),
            await rows_of(connection, columns),
        )
        proof = await adopt(pool)
        assert (proof.before, proof.before.rows) == (proof.after, 600)
        assert reports
        assert (await legacy_tables.reports(connection)).items() >= reports.items()
        assert await rows_of(connection, columns) == rows
        assert await connection.fetchval("SELECT count(*) FROM fubd.stage_changes_backup") == 600
        for view in ("source_health", "rapid_transitions", "stage_durations", "stage_changes_daily", "current_stages"):
            await connection.fetch(f"SELECT * FROM public.{view}")
        await migrate(connection, columns={"campaign_id": "customCampaignID", "another": "customOther"})
        undone = await adoption.undo(pool)
        assert undone.is_unchanged
        assert await legacy_tables.shape(connection) == shape
        assert await rows_of(connection, columns) == rows


async def test_the_daemon_refuses_to_write_into_a_table_that_is_not_adopted(empty_database: str) -> None:
    """The error names the command to run; after it the schema is ready."""
    async with connected(empty_database) as connection, pooled(empty_database) as pool:
        await legacy_tables.make(connection, rows=10)
        with pytest.raises(SchemaRefused, match="fubd adopt"):
            await migrate(connection)
        await adopt(pool)
        await migrate(connection)
        assert await adoption.table_state(pool) == "adopted"


async def test_the_state_of_the_table_is_recognised(databases: Databases) -> None:
    """No table, one that is not adopted, and one of fubd's own."""
    async with (
        databases.empty() as empty,
        databases.migrated() as own,
        pooled(empty) as pool,
        pooled(own) as other,
        connected(empty) as connection,
    ):
        assert (await adoption.table_state(pool), await adoption.plan_adoption(pool, {})) == ("missing", None)
        assert (await adoption.table_state(other), await adoption.plan_adoption(other, {})) == ("own", None)
        await legacy_tables.make(connection)
        assert await adoption.table_state(pool) == "older"


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_adoption_and_recording_work_through_a_pooler(empty_database: str, mode: str) -> None:
    """Also where each transaction may run on another server."""
    async with (
        connected(empty_database) as connection,
        behind_a_pooler(empty_database, mode=mode) as pooler,
        pooled(pooler.url) as pool,
    ):
        await legacy_tables.make(connection, rows=100)
        await adopt(pool)
        async with running_recorder(pooler.url) as recorder:
            await recorder.record(read("A", "08:00", "09:00"), webhook("e1", "B", "10:00"), read("B", "10:00", "10:30", "10:00"))
            assert [row["stage_to"] for row in await recorder.records()] == ["B"]


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


async def test_an_interruption_anywhere_changes_nothing_and_it_can_be_run_again(empty_database: str) -> None:
    """At each step: by an error, by a cancellation, or by the server ending the connection."""
    async with connected(empty_database) as connection, connected(empty_database) as other, pooled(empty_database) as pool:
        await legacy_tables.make(connection, rows=50)
        shape, plan = await legacy_tables.shape(connection), await planned(pool)
        steps: list[str] = []
        for part in range(30):
            interruption = Interruption(part, (RuntimeError, asyncio.CancelledError, None)[part % 3], other)
            try:
                await adoption.adopt(pool, {"campaign_id": "customCampaignID"}, plan=plan, on_step=interruption)
            except (RuntimeError, asyncio.CancelledError, Unavailable):
                steps.append(interruption.at)
                assert await legacy_tables.shape(connection) == shape
            await interruption.ended()
            if not interruption.at:
                break
            if await adoption.table_state(pool) == "adopted":
                # The interruption came too late: it had committed.
                break
        assert len(steps) > 8
        assert await adoption.table_state(pool) == "adopted"


class Interruption:
    """Interrupts the work at step number `part`: by raising `error`, or by having the server end the connection."""

    def __init__(self, part: int, error: type[BaseException] | None, connection: asyncpg.Connection) -> None:
        self._left = part
        self._error = error
        self._connection = connection
        self._ending: asyncio.Task[object] | None = None
        self.at = ""

    def __call__(self, description: str) -> None:
        self._left -= 1
        if self._left == -1:
            self.at = description
            if self._error is not None:
                raise self._error
            self._ending = asyncio.create_task(self._end())

    async def _end(self) -> None:
        await self._connection.execute(
            "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'fubd'"
        )

    async def ended(self) -> None:
        """Wait until the server has ended the connection, if that is how it interrupts."""
        if self._ending is not None:
            await self._ending


async def test_rows_inserted_during_the_adoption_are_neither_lost_nor_refused(empty_database: str) -> None:
    """A script that goes on inserting waits during the adoption, and every row of it is there."""
    async with connected(empty_database) as connection, connected(empty_database) as script, pooled(empty_database) as pool:
        await legacy_tables.make(connection, rows=3_000)
        written = 0
        done = asyncio.Event()

        async def write() -> None:
            nonlocal written
            while not done.is_set():
                await script.execute(
                    "INSERT INTO stage_changes (person_id, stage_to, changed_at) VALUES ($1, 'Lead', clock_timestamp())", str(written)
                )
                written += 1

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            await eventually(lambda: written > 10)
            proof = await adopt(pool)
            reached = written
            await eventually(lambda: written > reached + 10)
            done.set()
        assert await connection.fetchval("SELECT count(*) FROM stage_changes") == 3_000 + written
        assert 3_000 < proof.after.rows <= 3_000 + written


async def test_reports_can_read_while_rows_are_hashed_and_copied(empty_database: str) -> None:
    """Only the last part of the work locks the table against readers."""
    async with connected(empty_database) as connection, connected(empty_database) as reader, pooled(empty_database) as pool:
        await legacy_tables.make(connection, rows=20_000)
        steps: list[str] = [""]
        read_during: set[str] = set()

        async def read_on() -> None:
            while steps[-1] != "committing":
                during = steps[-1]
                await reader.fetchval("SELECT count(*) FROM stage_changes WHERE stage_to = 'ACQ - Offers Made'")
                if steps[-1] == during:
                    read_during.add(during.split(" ")[0])

        async with asyncio.TaskGroup() as group:
            group.create_task(read_on())
            plan = await planned(pool)
            proof = await adoption.adopt(pool, {"campaign_id": "customCampaignID"}, plan=plan, on_step=steps.append)
        assert proof.after.rows == 20_000
        assert {"counting", "copying"} <= read_during
        assert steps.index("waiting until no reader uses the table") > steps.index("copying 20,000 rows to fubd.stage_changes_backup")


async def test_a_script_that_has_read_and_waits_to_write_goes_first(empty_database: str) -> None:
    """The script and we would wait for each other: we start again with the table locked, and its row is there."""
    async with (
        connected(empty_database) as connection,
        connected(empty_database) as script,
        connected(empty_database) as other,
        pooled(empty_database) as pool,
    ):
        await legacy_tables.make(connection, rows=100)
        # So that our connection is the one that detects the deadlock.
        await script.execute("SET deadlock_timeout = '60s'")
        plan = await planned(pool)
        steps: list[str] = []
        under_way, holding_us_up = script.transaction(), other.transaction()
        await under_way.start()
        await script.fetch("SELECT * FROM stage_changes LIMIT 1")
        await holding_us_up.start()
        await other.execute("CREATE SCHEMA fubd")

        async def waits() -> bool:
            asked = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)"
            return bool(await connection.fetchval(asked, script.get_server_pid()))

        async def write() -> None:
            await eventually(lambda: any("copying" in part for part in steps))
            inserted = asyncio.create_task(
                script.execute("INSERT INTO stage_changes (person_id, stage_to, changed_at) VALUES ('7', 'Lead', now())")
            )
            await eventually(waits)
            await holding_us_up.rollback()
            await inserted
            await under_way.commit()

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            proof = await adoption.adopt(pool, {"campaign_id": "customCampaignID"}, plan=plan, on_step=steps.append)
        assert any("starting again" in part for part in steps)
        assert proof.after.rows == 101
        assert await connection.fetchval("SELECT count(*) FROM fubd.stage_changes_backup") == 101


async def test_an_outdated_plan_is_not_carried_out(empty_database: str) -> None:
    """Neither after the table has changed, nor after it was adopted; nothing is changed."""
    async with connected(empty_database) as connection, pooled(empty_database) as pool:
        await legacy_tables.make(connection, rows=5)
        plan = await planned(pool)
        await connection.execute("CREATE INDEX by_time ON stage_changes (changed_at)")
        with pytest.raises(AdoptionRefused, match="has changed since the plan was made"):
            await adoption.adopt(pool, {"campaign_id": "customCampaignID"}, plan=plan)
        plan = await planned(pool)
        await adopt(pool)
        with pytest.raises(AdoptionRefused, match="run this again"):
            await adoption.adopt(pool, {"campaign_id": "customCampaignID"}, plan=plan)


async def test_a_fingerprint_depends_on_every_row_but_not_on_their_order(empty_database: str) -> None:
    """The same rows in another order have one fingerprint; a changed, lost, added or doubled row has another."""
    async with connected(empty_database) as connection:
        await connection.execute("CREATE TABLE one (n int, word text); INSERT INTO one VALUES (1, 'a'), (2, NULL), (2, NULL), (3, 'c')")
        taken = await fingerprint_of(connection, "one")
        await connection.execute("CREATE TABLE two AS TABLE one ORDER BY n DESC")
        assert await fingerprint_of(connection, "two") == taken
        seen = {taken}
        for change in (
            "UPDATE two SET word = '' WHERE n = 1",
            "DELETE FROM two WHERE n = 3",
            "INSERT INTO two VALUES (2, NULL), (2, NULL)",
        ):
            await connection.execute(change)
            seen.add(await fingerprint_of(connection, "two"))
        assert len(seen) == 4


async def fingerprint_of(connection: asyncpg.Connection, relation: str) -> Fingerprint:
    """Return the fingerprint of a relation of these two columns."""
    return await fingerprint(connection, relation, ["n", "word"], timeout_seconds=10)


# --- Undoing ------------------------------------------------------------------------------------------------------


async def test_undoing_is_refused_once_fubd_has_recorded_a_change(empty_database: str) -> None:
    """The error shows what to do; after that the table is as it was, with the rows that the scripts added."""
    async with connected(empty_database) as connection, pooled(empty_database) as pool:
        await legacy_tables.make(connection, rows=30)
        shape, columns = await legacy_tables.shape(connection), await columns_of(connection)
        await adopt(pool)
        await connection.execute(
            "INSERT INTO stage_changes (person_id, stage_to, changed_at, event_id) VALUES ('77', 'Lead', now(), 'new')"
        )
        rows = await rows_of(connection, columns)
        async with running_recorder(empty_database) as recorder:
            await recorder.record(read("A", "08:00", "09:00"), webhook("e1", "B", "10:00"), webhook("e2", "C", "11:00"))
        with pytest.raises(AdoptionRefused, match="fubd has recorded 2 changes") as refused:
            await adoption.undo(pool)
        (statement,) = re.findall(r"DELETE FROM [^;]*", str(refused.value))
        await connection.execute(statement)
        # The copy need not be kept.
        await connection.execute("DROP TABLE fubd.stage_changes_backup")
        undone = await adoption.undo(pool)
        assert not undone.is_unchanged
        assert await rows_of(connection, columns) == rows
        assert await legacy_tables.shape(connection) == shape
        await adopt(pool)


DEPENDENTS = {
    "a daemon runs": ("INSERT INTO fubd.lease VALUES ('poller', 'x', 1, now() + interval '10 s')", "stop it"),
    "a column was filled": ("UPDATE stage_changes SET confirmed_by = 'me' WHERE id = 1", "confirmed_by"),
    "an event twice": ("INSERT INTO stage_changes (event_id) VALUES ('same'), ('same')", "stage_changes_event_id_unique"),
    "a table of theirs in our schema": ("CREATE TABLE fubd.mine (n int)", "table fubd.mine depends on"),
    "a view on a new column": ("CREATE VIEW mine AS SELECT confirmed_by FROM stage_changes", "view mine depends on"),
    "a view on a view of ours": ("CREATE VIEW mine AS SELECT * FROM current_stages", "view mine depends on"),
    "a table of theirs there with a view on it": (
        "CREATE TABLE fubd.mine (n int); CREATE VIEW mine AS SELECT * FROM fubd.mine",
        "view mine depends on",
    ),
}


@pytest.mark.parametrize("name", DEPENDENTS)
async def test_undoing_drops_nothing_of_others(empty_database: str, name: str) -> None:
    """What others have built on it since is named in the error, and nothing is changed."""
    statement, words = DEPENDENTS[name]
    async with connected(empty_database) as connection, pooled(empty_database) as pool:
        await legacy_tables.make(connection, rows=5)
        await adopt(pool)
        await connection.execute(statement)
        shape = await legacy_tables.shape(connection)
        with pytest.raises(AdoptionRefused, match=words):
            await adoption.undo(pool)
        assert await legacy_tables.shape(connection) == shape
