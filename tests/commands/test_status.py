"""`status` on databases in every condition: it needs nothing but the database, and judges as the daemon does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fubd.ports import ModeRecord
from fubd.store import Pool, StateStore, migrate
from fubd.store.dsn import parse
from fubd.store.status import StatusReader
from tests.commands.fakes import Ended
from tests.recorder import read, recorder, webhook
from tests.support.process import fubd

NOON = datetime(2031, 3, 3, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


async def status(dsn: str, folder: Path, *arguments: str) -> Ended:
    """Run the command to its end, with no setting but the database."""
    async with fubd("status", *arguments, environ={"DATABASE_URL": dsn}, folder=folder) as process:
        code = await process.ended()
    return Ended(code, process.lines, process.errors)


class Past:
    """Writes down what happened, as the daemon does."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._book = StateStore(pool)

    async def polled(
        self, finished: datetime, *, outcome: str = "ok", kind: str = "incremental", took: timedelta = timedelta(seconds=1)
    ) -> None:
        run = await self._book.start_run(kind, finished - took)
        await self._book.finish_run(run, outcome=outcome, finished_at=finished, people=1, calls=1, changes=0, note=None)

    async def heard(self, received_at: datetime) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(
                "INSERT INTO fubd.delivery (key, event, received_at, instance, body)"
                " VALUES (sha256($1::text::bytea), 'notesCreated', $2, '', '')",
                received_at.isoformat(),
                received_at,
            )

    async def decided(self, mode: str, at: datetime, delay_seconds: float) -> None:
        await self._book.insert_mode(ModeRecord(mode, "because", delay_seconds, at), evidence={})

    async def blind_minutes(self, since: datetime, until: datetime) -> float | None:
        seconds = await StatusReader(self._pool).blind_seconds(since, until)
        return None if seconds is None else round(seconds / 60, 3)


@asynccontextmanager
async def past(dsn: str) -> AsyncIterator[Past]:
    """Give a past to write."""
    pool = Pool(parse(dsn))
    yield Past(pool)
    await pool.close()


async def test_tells_how_the_house_stands(database: str, tmp_path: Path) -> None:
    """Healthy: one sentence, both sources, the last changes, and exit 0; no key of FUB is asked for."""
    async with recorder(database) as made, past(database) as written:
        await made.record(read("A", "08:00", "09:00"), webhook("e1", "B", "10:00"), read("C", "10:12", "10:30", "10:05"))
        await written.decided("steady", datetime.now(UTC) - HOUR, 1800.0)
        await written.polled(datetime.now(UTC))
        await made.state.advance_coverage(datetime.now(UTC) - MINUTE, sweep=True)
    shown = await status(database, tmp_path)
    assert (shown.code, shown.errors) == (0, [])
    assert shown.lines[0].startswith("Today: 2 changes, 1 by webhook, 1 by polling, blind for ")
    assert ", everyone verified within " in shown.lines[0]
    assert sum("HEALTHY" in line for line in shown.lines) == 2
    assert any(line.startswith("mode: steady for ") and line.endswith(": because") for line in shown.lines)
    assert any("1 Ada Example" in line and "B" in line and "C" in line for line in shown.lines)


async def test_answers_programs(database: str, tmp_path: Path) -> None:
    """With --json it is one object, named as in /health; a stale source makes the exit code 1."""
    async with recorder(database) as made:
        await made.record(webhook("e1", "B", "10:00"))
    shown = await status(database, tmp_path, "--json")
    assert shown.code == 1
    told = shown.json
    assert (told["healthy"], told["mode"], told["coverage"], told["blind_seconds_today"]) == (False, None, None, None)
    assert told["sources"]["webhook"]["status"] == "HEALTHY"
    assert told["sources"]["webhook"]["records_today"] == 1
    assert told["sources"]["polling"] == {
        "status": "STALE - Check polling", "last_heard": None, "last_change": None, "records_today": 0,
    }  # fmt: skip
    assert [row["stage_to"] for row in told["changes"]] == ["B"]
    assert "raw_payload" not in told["changes"][0]
    assert "never polled yet" in told["sentence"]


async def test_judges_by_the_settings_of_the_daemon(database: str, tmp_path: Path) -> None:
    """When a source is stale is what the daemon was last started with, not what this terminal has set."""
    async with past(database) as written:
        await written.polled(datetime.now(UTC) - 10 * MINUTE)
        await written.heard(datetime.now(UTC) - 10 * MINUTE)
    assert (await status(database, tmp_path)).code == 0
    pool = Pool(parse(database))
    async with pool.connection() as connection:
        await connection.execute("UPDATE fubd.setting SET value = 300")
    await pool.close()
    assert (await status(database, tmp_path)).code == 1


async def test_answers_before_anything_ran(empty_database: str, tmp_path: Path) -> None:
    """On a database in which there is nothing yet, nothing is known, both sources are stale, and a line says what to do."""
    shown = await status(empty_database, tmp_path)
    assert shown.code == 1
    assert shown.lines[0] == "Today: 0 changes, 0 by webhook, 0 by polling, never polled yet"
    assert shown.errors == ["fubd: the schema is not made yet: start the daemon once, or run `python -m fubd --poll-only`"]
    told = (await status(empty_database, tmp_path, "--json")).json
    assert (told["healthy"], told["coverage"], told["changes"]) == (False, None, [])
    assert [source["status"] for source in told["sources"].values()] == ["STALE - Check webhook server", "STALE - Check polling"]


async def test_needs_a_database_of_this_version(empty_database: str, tmp_path: Path) -> None:
    """Out of reach, of another version, or with the table of an older script, it says what to do in one line."""
    away = await status("postgresql://somebody@127.0.0.1:9/nothing", tmp_path)
    assert (away.code, away.lines, len(away.errors)) == (1, [], 1)
    pool = Pool(parse(empty_database))
    async with pool.connection() as connection:
        await connection.execute("CREATE TABLE public.stage_changes (id bigint)")
        theirs = await status(empty_database, tmp_path)
        assert (theirs.code, theirs.lines, len(theirs.errors)) == (1, [], 1)
        assert "run `python -m fubd adopt`" in theirs.errors[0]
        await connection.execute("DROP TABLE public.stage_changes")
        await migrate(connection)
        for statement, words in (
            ("DELETE FROM fubd.migration WHERE number = (SELECT max(number) FROM fubd.migration)", "older than this fubd"),
            ("INSERT INTO fubd.migration (number, name, sha256) VALUES (9999, 'later', '')", "another version of fubd"),
        ):
            await connection.execute(statement)
            other = await status(empty_database, tmp_path)
            assert (other.code, other.lines, len(other.errors)) == (1, [], 1)
            assert words in other.errors[0]
    await pool.close()


async def test_long_names_and_short_intervals(database: str, tmp_path: Path) -> None:
    """A name of a thousand letters is cut, and the interval of a quick poller is told as it is."""
    async with recorder(database) as made, past(database) as written:
        await made.record(read("A", "08:00", "09:00"), webhook("e1", "B", "10:00"))
        await written.decided("failover", datetime.now(UTC), 0.5)
        async with made.pool.connection() as connection:
            await connection.execute("UPDATE public.stage_changes SET first_name = repeat('x', 1000)")
    shown = await status(database, tmp_path)
    assert max(map(len, shown.lines)) < 160
    assert "polled: every 0.5 s" in shown.lines


# --- Blind time -----------------------------------------------------------------------------------------------------


async def test_nobody_is_blind_before_they_could_see(database: str) -> None:
    """Before the first complete poll blind time cannot be told; a failed poll and a scrub are none."""
    async with past(database) as written:
        await written.polled(NOON, outcome="failed")
        await written.polled(NOON, kind="scrub")
        assert await written.blind_minutes(NOON - HOUR, NOON + HOUR) is None
        await written.polled(NOON, kind="sweep")
        assert await written.blind_minutes(NOON - HOUR, NOON + MINUTE) == 0


async def test_a_poll_watches_until_the_next_is_a_delay_late(database: str) -> None:
    """A daemon that died is missed from then on: twice its delay after its last poll, or when polling turns stale."""
    async with past(database) as written:
        await written.decided("watch", NOON - HOUR, 300.0)
        await written.polled(NOON)
        assert await written.blind_minutes(NOON - HOUR, NOON + 30 * MINUTE) == 20
        await written.decided("steady", NOON + 30 * MINUTE, 1800.0)
        await written.polled(NOON + 31 * MINUTE, took=MINUTE)
        # From 12:10 to 12:30, and again from 45 minutes after the last poll.
        assert await written.blind_minutes(NOON, NOON + 120 * MINUTE) == 20 + 44


async def test_a_poll_takes_the_place_of_the_one_before(database: str) -> None:
    """Dying in failover is noticed by its short delay, though the poll before was one of steady."""
    async with past(database) as written:
        await written.decided("steady", NOON - HOUR, 1800.0)
        await written.polled(NOON)
        await written.decided("failover", NOON + MINUTE, 30.0)
        await written.polled(NOON + 2 * MINUTE)
        assert await written.blind_minutes(NOON, NOON + 20 * MINUTE) == 17


async def test_a_webhook_watches_until_silence_is_stale(database: str) -> None:
    """Deliveries cover what polls do not, unless webhooks were known to fail then."""
    async with past(database) as written:
        await written.decided("steady", NOON, 1800.0)
        await written.polled(NOON)
        await written.heard(NOON + 30 * MINUTE)
        # Polling until 12:45, the webhook until 13:30.
        assert await written.blind_minutes(NOON, NOON + 120 * MINUTE) == 30
        await written.decided("failover", NOON + 50 * MINUTE, 30.0)
        assert await written.blind_minutes(NOON, NOON + 120 * MINUTE) == 70


@pytest.mark.parametrize("since", [NOON, NOON + 10 * MINUTE])
async def test_counts_only_what_was_asked_for(database: str, since: datetime) -> None:
    """What lies before the span, or before the first poll, is not counted; what watched into it is."""
    async with past(database) as written:
        await written.decided("failover", NOON, 30.0)
        await written.polled(NOON)
        blind = await written.blind_minutes(since, NOON + 21 * MINUTE)
        assert blind == (20 if since == NOON else 11)
