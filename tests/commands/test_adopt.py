"""`adopt` as a user runs it: plan, question, proof and undo; then the daemon next to a script that still runs."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from fubd.simulator import score
from fubd.store.dsn import parse
from tests.commands.environment import CompletedCommand, run_command
from tests.stack import Stack, running_stack
from tests.support import legacy_tables
from tests.support.process import Process, fubd
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

# As in the environment of the older scripts' service.
COLUMNS = json.dumps({"campaign_id": "customCampaignID", "who_pushed_lead": "customWhoPushed"})


async def adopt(url: str, folder: Path, *options: str) -> CompletedCommand:
    """Run the command to its end, with the older scripts' variable for the database."""
    return await run_command("adopt", *options, environ={"SUPABASE_DB_URL": url, "FUBD_COLUMNS": COLUMNS}, folder=folder)


async def connect(url: str) -> asyncpg.Connection:
    """Open a connection for the test itself."""
    return await asyncpg.connect(**parse(url).connect_arguments())


async def test_the_plan_is_printed_and_nothing_is_done_without_a_yes(empty_database: str, tmp_path: Path) -> None:
    """In a pipe no question can be asked: exit 1, and the table is unchanged."""
    connection = await connect(empty_database)
    await legacy_tables.make(connection, rows=20)
    shape = await legacy_tables.shape(connection)
    ended = await adopt(empty_database, tmp_path)
    assert ended.code == 1
    assert ended.lines[0] == "public.stage_changes has 20 rows in 27 columns."
    plan = "\n".join(ended.lines)
    for words in ("copy the table", "stage_changes_event_id_unique", "idx_no_duplicate_stage_changes", "no row was lost or changed"):
        assert words in plan
    assert ended.errors == ["fubd: nothing was changed: stdin is not a terminal, so no question can be asked; add --yes to continue"]
    assert await legacy_tables.shape(connection) == shape
    await connection.close()


async def test_a_table_is_adopted_with_proof_and_given_back(empty_database: str, tmp_path: Path) -> None:
    """Exit 0 each time; the three hashes of the proof are equal; a second adoption and a second undo change nothing."""
    connection = await connect(empty_database)
    await legacy_tables.make(connection, rows=50)
    shape = await legacy_tables.shape(connection)
    ended = await adopt(empty_database, tmp_path, "--yes")
    assert ended.code == 0, ended.errors
    proof = [line for line in ended.lines if "sha256" in line]
    assert len(proof) == 3
    assert len({line.split("sha256 ")[1] for line in proof}) == 1
    assert "Adopted: 50 rows, none lost, none changed." in ended.lines
    until = datetime.now(UTC) + timedelta(days=90)
    assert f"stays in fubd.stage_changes_backup until {until:%Y-%m-%d}" in " ".join(ended.lines)
    again = await adopt(empty_database, tmp_path, "--yes")
    assert (again.code, "already adopted" in again.lines[0]) == (0, True)
    back = await adopt(empty_database, tmp_path, "--undo", "--yes")
    assert (back.code, back.lines[-1]) == (0, "Given back: 50 rows, as on the day it was adopted.")
    assert await legacy_tables.shape(connection) == shape
    nothing = await adopt(empty_database, tmp_path, "--undo", "--yes")
    assert (nothing.code, nothing.lines) == (1, [])
    assert nothing.errors == ["fubd: public.stage_changes was not adopted in this database: nothing to give back"]
    await connection.close()


async def test_undoing_brings_no_forgotten_name_back(empty_database: str, tmp_path: Path) -> None:
    """The table given back lacks it, also after another adoption; that fubd no longer keeps the person out is said before the question."""
    connection = await connect(empty_database)
    await legacy_tables.make(connection, rows=20)
    person = await connection.fetchval("SELECT person_id FROM public.stage_changes WHERE first_name <> '' AND person_id ~ '^1[0-9]+$'")
    names = "SELECT count(*) FROM public.stage_changes WHERE person_id = $1 AND (first_name, last_name) IS DISTINCT FROM (NULL, NULL)"
    assert await connection.fetchval(names, person) > 0
    assert (await adopt(empty_database, tmp_path, "--yes")).code == 0
    forgotten = await run_command("forget", person, "--yes", environ={"SUPABASE_DB_URL": empty_database}, folder=tmp_path)
    assert forgotten.code == 0, forgotten.errors
    back = await adopt(empty_database, tmp_path, "--undo", "--yes")
    assert (back.code, await connection.fetchval(names, person)) == (0, 0)
    assert back.lines[1].startswith(f"The table stays without the names of 1 person that `fubd forget` removed (id {person}), but")
    assert (await adopt(empty_database, tmp_path, "--yes")).code == 0
    assert await connection.fetchval(names, person) == 0
    await connection.close()


async def test_after_a_kill_it_can_be_run_again(empty_database: str, tmp_path: Path) -> None:
    """SIGKILL at any step: all of it was done or nothing, and the next run succeeds."""
    connection = await connect(empty_database)
    await legacy_tables.make(connection, rows=3_000)
    shape, reports = await legacy_tables.shape(connection), await legacy_tables.reports(connection)
    environ, undone = {"SUPABASE_DB_URL": empty_database, "FUBD_COLUMNS": COLUMNS}, 0
    for part in ("counting and hashing 3,000", "copying", "replace", "dry run", "committing"):
        async with fubd("adopt", "--yes", environ=environ, folder=tmp_path) as process:
            await eventually(partial(_has_printed, process, part), 30.0)
            process.kill()
            await process.ended()
        await eventually(lambda: _is_only_client(connection), 30.0)
        if await connection.fetchval("SELECT to_regclass('fubd.adoption') IS NULL"):
            undone += 1
            assert await legacy_tables.shape(connection) == shape
        else:
            assert (await adopt(empty_database, tmp_path, "--undo", "--yes")).code == 0
    assert undone > 0
    ended = await adopt(empty_database, tmp_path, "--yes")
    assert (ended.code, "Adopted: 3,000 rows, none lost, none changed." in ended.lines) == (0, True), ended.errors
    assert await legacy_tables.reports(connection) == reports
    await connection.close()


def _has_printed(process: Process, words: str) -> bool:
    return any(words in line for line in process.errors)


async def _is_only_client(connection: asyncpg.Connection) -> bool:
    clients = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
    return bool(await connection.fetchval(clients) == 1)


@pytest.mark.parametrize("command", ["", "--poll-only", "status", "audit", "replay", "explain 7"])
async def test_every_command_asks_for_the_adoption_of_an_older_table(empty_database: str, tmp_path: Path, command: str) -> None:
    """The daemon too: exit 1, one line, and the database is unchanged."""
    async with running_stack(empty_database, tmp_path, people=5) as stack:
        connection = await connect(empty_database)
        await legacy_tables.make(connection, rows=5)
        shape = await legacy_tables.shape(connection)
        async with fubd(*command.split(), environ=stack.environ, folder=tmp_path) as process:
            assert await process.ended() == 1
        assert [("python -m fubd adopt" in line, "Traceback" in line) for line in process.errors] == [(True, False)], process.errors
        assert await legacy_tables.shape(connection) == shape
        await connection.close()


async def test_nothing_to_adopt_is_no_error(empty_database: str, database: str, tmp_path: Path) -> None:
    """No table, and a table made by fubd: one line and exit 0."""
    for url, words in ((empty_database, "has no table"), (database, "made by fubd itself")):
        ended = await adopt(url, tmp_path, "--yes")
        assert (ended.code, ended.errors) == (0, [])
        assert words in ended.lines[0]


async def test_a_short_stage_column_stops_the_adoption(empty_database: str, tmp_path: Path) -> None:
    """The statement that widens it is printed so that it can be run as it is."""
    connection = await connect(empty_database)
    await legacy_tables.make(connection, rows=5)
    await connection.execute("DROP VIEW throwaway_leads_detail_60d; ALTER TABLE stage_changes ALTER COLUMN stage_to TYPE varchar(40)")
    ended = await adopt(empty_database, tmp_path, "--yes")
    assert (ended.code, ended.errors) == (1, [])
    (statement,) = [line.strip() for line in ended.lines if "ALTER" in line]
    assert statement == "ALTER TABLE public.stage_changes ALTER COLUMN stage_to TYPE varchar(200);"
    await connection.execute(statement)
    assert (await adopt(empty_database, tmp_path, "--yes")).code == 0
    await connection.close()


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("", 1), ("y", 0), (None, 130)])
async def test_on_a_terminal_a_question_is_asked(empty_database: str, tmp_path: Path, answer: str | None, code: int) -> None:
    """Only a yes continues; Ctrl-C (None) ends at once."""
    connection = await connect(empty_database)
    await legacy_tables.make(connection, rows=5)
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "fubd",
        "adopt",
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        env={**os.environ, "DATABASE_URL": empty_database, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm", "COLUMNS": "80"},
    )
    os.close(theirs)
    shown = bytearray()
    asyncio.get_running_loop().add_reader(ours, _read, ours, shown)
    try:
        await eventually(lambda: b"[y/N]" in shown, 30.0)
        if answer is None:
            process.send_signal(signal.SIGINT)
        else:
            os.write(ours, f"{answer}\n".encode())
        assert await asyncio.wait_for(process.wait(), 30.0) == code
    finally:
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)
    assert (await connection.fetchval("SELECT to_regclass('fubd.adoption') IS NOT NULL")) is (code == 0)
    await connection.close()


def _read(descriptor: int, shown: bytearray) -> None:
    try:
        shown.extend(os.read(descriptor, 65_536))
    except OSError:
        asyncio.get_running_loop().remove_reader(descriptor)


async def test_the_daemon_on_an_adopted_table_next_to_a_running_script(empty_database: str, tmp_path: Path) -> None:
    """The baseline adds only people who moved; new rows fill older columns; rows that the script wrote first are counted, not doubled."""
    async with running_stack(empty_database, tmp_path, people=40) as stack:
        connection = await connect(empty_database)
        await legacy_tables.make(connection)
        ids = list(stack.account.ids)
        moved, reported = ids[:3], ids[10]
        for person in ids:
            stage = "ACQ - Price Motivated" if person in moved else stack.account.stage_of(person)
            await script(connection, person, "Contact Upload", stage, ago="1 hour")
        environ = {"FUBD_COLUMNS": COLUMNS, "FUBD_LEAD_SOURCE_TAGS": '["Unused tag", "Zillow"]'}
        stack.environ.update(environ)
        assert (await adopt(empty_database, tmp_path, "--yes")).code == 0
        old = await connection.fetch("SELECT * FROM stage_changes ORDER BY id")

        async with stack.ready_daemon() as daemon:
            added = await connection.fetch("SELECT * FROM stage_changes WHERE id > $1 ORDER BY person_id::bigint", old[-1]["id"])
            assert [int(row["person_id"]) for row in added] == moved
            assert {(row["stage_from"], row["source"], row["changed_after"] is not None) for row in added} == {
                ("ACQ - Price Motivated", "polling", True)
            }

            # The row of a webhook is completed by the read that follows.
            stack.account.move(reported, "Nurture")
            await eventually(lambda: is_filled(connection, reported), 30.0)

            # The script is faster than our poll, and dates the change by its own clock.
            stack.simulator.deliveries.kill()
            person = ids[20]
            stage = stack.account.stage_of(person)
            stack.account.move(person, "ACQ - Dead / DNC")
            await script(connection, person, stage, "ACQ - Dead / DNC", ago="-1 second")
            await eventually(lambda: is_foreign_row_counted(stack), 30.0)
            stack.simulator.deliveries.revive()
            stack.account.clock.advance(3.0)
            stack.account.move(person, "Nurture")

            async def chained() -> bool:
                rows = await connection.fetch(
                    "SELECT stage_from, stage_to FROM stage_changes WHERE person_id = $1 ORDER BY changed_at", str(person)
                )
                return [tuple(row) for row in rows[1:]] == [(stage, "ACQ - Dead / DNC"), ("ACQ - Dead / DNC", "Nurture")]

            await eventually(chained, 30.0)
            metrics = await stack.metrics()
            assert metrics["fubd_foreign_rows_total"] == 1
            assert metrics["fubd_chain_violations"] == 0
            # A clean stop releases the lease, which undo needs.
            daemon.terminate()
            await daemon.ended()
        assert await connection.fetch("SELECT * FROM stage_changes WHERE id <= $1 ORDER BY id", old[-1]["id"]) == old
        refused = await adopt(empty_database, tmp_path, "--undo", "--yes")
        assert (refused.code, "fubd has recorded 5 changes" in refused.errors[-1]) == (1, True), refused.errors
        await connection.close()


@pytest.mark.parametrize("variant", ["short columns", "instants with a zone", "columns of other types"])
async def test_the_daemon_misses_nothing_on_tables_with_other_types(empty_database: str, tmp_path: Path, variant: str) -> None:
    """Moves with webhooks, moves without, and quick moves back and forth: each is one row, in order, and the chain holds."""
    async with running_stack(empty_database, tmp_path, people=30) as stack:
        connection = await connect(empty_database)
        await legacy_tables.make(connection, variant)
        ids = list(stack.account.ids)
        for person in ids:
            await script(connection, person, "Contact Upload", stack.account.stage_of(person), ago="1 hour")
        assert (await adopt(empty_database, tmp_path, "--yes")).code == 0
        async with stack.ready_daemon():
            for person in ids[:10]:
                stack.account.move(person, "ACQ - Offers Made")
            stack.simulator.deliveries.kill()
            for person in ids[10:20]:
                stack.account.move(person, "ACQ - Under Contract")
            await eventually(lambda: _recorded(connection, 30, 20), 30.0)
            stack.simulator.deliveries.revive()
            for stage in ("ACQ - Under Contract", "ACQ - Offers Made", "ACQ - Under Contract"):
                stack.account.clock.advance(2.0)
                stack.account.move(ids[20], stage)
            await eventually(lambda: _recorded(connection, 30, 23), 30.0)
            rows = [dict(row) for row in await connection.fetch("SELECT * FROM stage_changes WHERE id > $1", len(ids))]
            result = score(stack.simulator.truth, rows, sightings=stack.simulator.sightings)
            assert (result.captured, result.lost, result.doubled, result.invented) == (23, 0, 0, 0)
            await eventually(partial(_chained, stack), 30.0)
        await connection.close()


async def _recorded(connection: asyncpg.Connection, older_rows: int, rows: int) -> bool:
    return bool(await connection.fetchval("SELECT count(*) FROM stage_changes WHERE id > $1", older_rows) == rows)


async def _chained(stack: Stack) -> bool:
    metrics = await stack.metrics()
    return (metrics["fubd_chain_violations"], metrics["fubd_foreign_rows_total"], metrics["fubd_ledger_imbalance"]) == (0, 0, 0)


async def script(connection: asyncpg.Connection, person: int, stage_from: str, stage_to: str, *, ago: str) -> None:
    """Write a row as the older scripts did."""
    await connection.execute(
        "INSERT INTO stage_changes (person_id, first_name, stage_from, stage_to, changed_at, received_at, source)"
        f" VALUES ($1, 'Unknown', $2, $3, now() AT TIME ZONE 'UTC' - interval '{ago}', now() AT TIME ZONE 'UTC', 'polling')",
        str(person),
        stage_from,
        stage_to,
    )


async def is_filled(connection: asyncpg.Connection, person: int) -> bool:
    """Return whether the webhook's row of a person has the columns that a read fills."""
    row = await connection.fetchrow("SELECT * FROM stage_changes WHERE person_id = $1 AND source = 'webhook'", str(person))
    return row is not None and row["campaign_id"] is not None and row["assigned_user_name"] is not None


async def is_foreign_row_counted(stack: Stack) -> bool:
    """Return whether the script's row was noticed."""
    return (await stack.metrics())["fubd_foreign_rows_total"] == 1
