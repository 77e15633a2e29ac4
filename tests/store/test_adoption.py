"""Adopting the older scripts' table: its variants and odd rows, obstacles, interruptions, and undoing it."""

from __future__ import annotations

import asyncio
import re

import asyncpg
import pytest

from fubd.errors import Unavailable
from fubd.store import SchemaRefused, adoption, migrate
from fubd.store.adoption import AdoptionRefused
from fubd.store.adoption.fingerprint import Fingerprint, fingerprint
from tests.recorder import read, running_recorder, webhook
from tests.store.adopting import adopt, connected, planned, pooled
from tests.support import legacy_tables
from tests.support.databases import Databases
from tests.support.pooler import pooled as behind_a_pooler
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow


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
        assert "are also in fubd.stage_changes_backup" in str(refused.value)
        # The copy need not be kept.
        await connection.execute("DROP TABLE fubd.stage_changes_backup")
        with pytest.raises(AdoptionRefused, match="backup was dropped after"):
            await adoption.undo(pool)
        await connection.execute(statement)
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
