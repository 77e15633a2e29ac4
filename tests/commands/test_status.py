"""`status` needs nothing but the database, and judges as the daemon does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fubd.core.problems import Problem, ProblemName
from fubd.core.stored_state import ModeRecord
from fubd.store import Maintenance, Pool, StateStore, migrate
from fubd.store.dsn import parse
from fubd.store.problems import ProblemStore
from fubd.store.status import StatusReader
from tests.commands.environment import CompletedCommand, run_command
from tests.recorder import read, running_recorder, webhook
from tests.support.proxy import Proxy

pytestmark = pytest.mark.slow

NOON = datetime(2031, 3, 3, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


async def status(dsn: str, folder: Path, *arguments: str) -> CompletedCommand:
    """Run the command to its end, with no setting but the database."""
    return await run_command("status", *arguments, environ={"DATABASE_URL": dsn}, folder=folder)


class DaemonRecords:
    """Records polls, deliveries and modes, as the daemon does."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._state = StateStore(pool)

    async def polled(
        self, finished: datetime, *, outcome: str = "ok", kind: str = "incremental", took: timedelta = timedelta(seconds=1)
    ) -> None:
        run = await self._state.start_run(kind, finished - took)
        await self._state.finish_run(run, outcome=outcome, finished_at=finished, people=1, calls=1, changes=0, note=None)

    async def heard(self, received_at: datetime) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(
                "INSERT INTO fubd.delivery (key, event, received_at, instance, body)"
                " VALUES (sha256($1::text::bytea), 'notesCreated', $2, '', '')",
                received_at.isoformat(),
                received_at,
            )

    async def ran(self, at: datetime) -> None:
        await Maintenance(self._pool, instance="one").note_running(at, at, gap=None)

    async def decided(self, mode: str, at: datetime, delay_seconds: float) -> None:
        await self._state.insert_mode(ModeRecord(mode, "because", delay_seconds, at), evidence={})

    async def reported(self, problems: list[Problem], *, ago: timedelta = timedelta()) -> None:
        await ProblemStore(self._pool, instance="one").save(problems, ended=[], alerts=[])
        async with self._pool.connection() as connection:
            await connection.execute("UPDATE fubd.problem SET reported_at = now() - $1::interval", ago)

    async def blind_minutes(self, since: datetime, until: datetime) -> float | None:
        seconds = await StatusReader(self._pool).blind_seconds(since, until)
        return None if seconds is None else round(seconds / 60, 3)


@asynccontextmanager
async def daemon_records(dsn: str) -> AsyncIterator[DaemonRecords]:
    """Open the database to write what the daemon would."""
    pool = Pool(parse(dsn))
    yield DaemonRecords(pool)
    await pool.close()


async def test_the_status_of_a_healthy_daemon(database: str, tmp_path: Path) -> None:
    """One sentence, both sources, the last changes, and exit 0; no FUB key is needed."""
    async with running_recorder(database) as recorder, daemon_records(database) as records:
        await recorder.record(read("A", "08:00", "09:00"), webhook("e1", "B", "10:00"), read("C", "10:12", "10:30", "10:05"))
        await records.decided("steady", datetime.now(UTC) - HOUR, 1800.0)
        await records.polled(datetime.now(UTC))
        await records.ran(datetime.now(UTC))
        await recorder.state.advance_coverage(datetime.now(UTC) - MINUTE, sweep=True)
    shown = await status(database, tmp_path)
    assert (shown.code, shown.errors) == (0, [])
    assert shown.lines[0].startswith("Today: 2 changes, 1 by webhook, 1 by polling, blind for ")
    assert ", everyone verified within " in shown.lines[0]
    assert sum("HEALTHY" in line for line in shown.lines) == 2
    assert any(line.startswith("mode: steady for ") and line.endswith(": because") for line in shown.lines)
    assert any("1 Ada Example" in line and "B" in line and "C" in line for line in shown.lines)


async def test_without_a_daemon_the_mode_is_one_of_the_past(database: str, tmp_path: Path) -> None:
    """That webhooks arrive and how often is polled is not said by a daemon that ended."""
    async with daemon_records(database) as records:
        await records.decided("steady", datetime.now(UTC) - HOUR, 1800.0)
        await records.ran(datetime.now(UTC) - HOUR)
    shown = await status(database, tmp_path)
    assert any(line.startswith("mode: steady since 20") and "no daemon runs now" in line for line in shown.lines)
    assert not any(line.startswith("polled: ") for line in shown.lines)
    assert (await status(database, tmp_path, "--json")).json["reason"] == "no daemon runs now; when one last decided: because"


async def test_json_is_one_object_named_as_in_health(database: str, tmp_path: Path) -> None:
    """Its names are those of /health; a stale source makes the exit code 1."""
    async with running_recorder(database) as recorder:
        await recorder.record(webhook("e1", "B", "10:00"))
    shown = await status(database, tmp_path, "--json")
    assert shown.code == 1
    document = shown.json
    assert (document["healthy"], document["mode"], document["coverage"], document["blind_seconds_today"]) == (False, None, None, None)
    assert document["sources"]["webhook"]["status"] == "HEALTHY"
    assert document["sources"]["webhook"]["records_today"] == 1
    assert document["sources"]["polling"] == {
        "status": "STALE - Check polling", "last_heard": None, "last_change": None, "records_today": 0,
    }  # fmt: skip
    assert [row["stage_to"] for row in document["changes"]] == ["B"]
    assert "raw_payload" not in document["changes"][0]
    assert "never polled yet" in document["sentence"]


async def test_problems_are_shown_as_of_the_last_report(database: str, tmp_path: Path) -> None:
    """Their begin, text and remedy without a daemon; when none reports any more, that is said with the time of its last report."""
    problem = Problem(ProblemName.KEY_REFUSED, datetime(2026, 3, 2, 9, tzinfo=UTC), "FUB answers 401. Set FUB_API_KEY.")
    async with daemon_records(database) as records:
        await records.reported([problem])
        shown = await status(database, tmp_path, "--json")
        assert shown.json["problems"] == [
            {"problem": "key_refused", "since": "2026-03-02T09:00:00+00:00", "text": "FUB answers 401. Set FUB_API_KEY."}
        ]
        assert shown.json["is_reporting"] is True
        await records.reported([problem], ago=HOUR)
    shown = await status(database, tmp_path)
    assert any(line.startswith("problems: 1 problem as of 20") and line.endswith("no daemon has reported since") for line in shown.lines)
    assert "key_refused: since 2026-03-02 09:00:00 UTC: FUB answers 401. Set FUB_API_KEY." in shown.lines
    async with daemon_records(database) as records:
        await records.decided("steady", datetime.now(UTC) - HOUR, 1800.0)
        await records.reported([Problem(ProblemName.NOT_RECORDING, problem.since, "The disk is full.")])
    shown = await status(database, tmp_path, "--json")
    assert shown.json["reason"] == "because; nothing is recorded since 2026-03-02 09:00:00 UTC"


async def test_it_judges_by_the_settings_of_the_daemon(database: str, tmp_path: Path) -> None:
    """A source is stale by the settings with which the daemon last started, not by those of this process."""
    async with daemon_records(database) as records:
        await records.polled(datetime.now(UTC) - 10 * MINUTE)
        await records.heard(datetime.now(UTC) - 10 * MINUTE)
    assert (await status(database, tmp_path)).code == 0
    pool = Pool(parse(database))
    async with pool.connection() as connection:
        await connection.execute("UPDATE fubd.setting SET value = 300")
    await pool.close()
    assert (await status(database, tmp_path)).code == 1


@pytest.mark.slow
async def test_a_database_far_away_costs_few_round_trips(database: str, tmp_path: Path) -> None:
    """After the log-in at most six for everything that is shown."""
    async with Proxy(database) as proxy:
        assert (await status(proxy.dsn, tmp_path)).lines
    log_in = 3
    assert proxy.round_trips <= log_in + 6


async def test_a_terminal_of_80_columns(database: str, tmp_path: Path) -> None:
    """The tables fit, with times in the office's zone."""
    async with running_recorder(database) as recorder:
        await recorder.record(read("A", "08:00", "09:00"), webhook("e1", "B", "10:00"))
    shown = await run_command("status", environ={"DATABASE_URL": database, "FUBD_TIMEZONE": "America/Chicago"}, folder=tmp_path)
    assert any("01-05 04:00:00" in line for line in shown.lines)
    assert any(line.startswith("person") and "changed at (CST)" in line for line in shown.lines)
    assert any(line.startswith("as of: ") and line.endswith((" CST", " CDT")) for line in shown.lines)
    tables = [line for line in shown.lines if "  " in line]
    assert max(map(len, tables)) <= 80


async def test_an_empty_database_has_a_status(empty_database: str, tmp_path: Path) -> None:
    """Nothing is known, both sources are stale, and one line says what to do."""
    shown = await status(empty_database, tmp_path)
    assert shown.code == 1
    assert shown.lines[0] == "Today: 0 changes, 0 by webhook, 0 by polling, never polled yet"
    assert shown.errors == ["fubd: the schema does not exist yet: start the daemon once, or run `python -m fubd --poll-only`"]
    document = (await status(empty_database, tmp_path, "--json")).json
    assert (document["healthy"], document["coverage"], document["changes"]) == (False, None, [])
    assert [source["status"] for source in document["sources"].values()] == ["STALE - Check webhook server", "STALE - Check polling"]


async def test_another_schema_is_refused_in_one_line(empty_database: str, tmp_path: Path) -> None:
    """Unreachable, of another version, or with the table of an older script: one line says what to do."""
    unreachable = await status("postgresql://user@127.0.0.1:9/nothing", tmp_path)
    assert (unreachable.code, unreachable.lines, len(unreachable.errors)) == (1, [], 1)
    pool = Pool(parse(empty_database))
    async with pool.connection() as connection:
        await connection.execute("CREATE TABLE public.stage_changes (id bigint)")
        older = await status(empty_database, tmp_path)
        assert (older.code, older.lines, len(older.errors)) == (1, [], 1)
        assert "run `python -m fubd adopt`" in older.errors[0]
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


async def test_long_names_are_cut_and_short_intervals_are_exact(database: str, tmp_path: Path) -> None:
    """A name of a thousand letters is cut, and an interval below a second is printed as it is."""
    async with running_recorder(database) as recorder, daemon_records(database) as records:
        await recorder.record(read("A", "08:00", "09:00"), webhook("e1", "B", "10:00"))
        await records.decided("failover", datetime.now(UTC), 0.5)
        await records.ran(datetime.now(UTC))
        async with recorder.pool.connection() as connection:
            await connection.execute("UPDATE public.stage_changes SET first_name = repeat('x', 1000)")
    shown = await status(database, tmp_path)
    assert max(map(len, shown.lines)) < 160
    assert "polled: every 0.5 s" in shown.lines


# --- Blind time -----------------------------------------------------------------------------------------------------


async def test_there_is_no_blind_time_before_the_first_complete_poll(database: str) -> None:
    """A failed poll and a scrub are not complete polls."""
    async with daemon_records(database) as records:
        await records.polled(NOON, outcome="failed")
        await records.polled(NOON, kind="scrub")
        assert await records.blind_minutes(NOON - HOUR, NOON + HOUR) is None
        await records.polled(NOON, kind="sweep")
        assert await records.blind_minutes(NOON - HOUR, NOON + MINUTE) == 0


async def test_a_poll_covers_until_the_next_is_an_interval_late(database: str) -> None:
    """After a daemon died, blind time begins twice its interval after its last poll, or when polling turns stale."""
    async with daemon_records(database) as records:
        await records.decided("watch", NOON - HOUR, 300.0)
        await records.polled(NOON)
        assert await records.blind_minutes(NOON - HOUR, NOON + 30 * MINUTE) == 20
        await records.decided("steady", NOON + 30 * MINUTE, 1800.0)
        await records.polled(NOON + 31 * MINUTE, took=MINUTE)
        # From 12:10 to 12:30, and again from 45 minutes after the last poll.
        assert await records.blind_minutes(NOON, NOON + 120 * MINUTE) == 20 + 44


async def test_a_poll_replaces_the_one_before(database: str) -> None:
    """A daemon that dies in failover is noticed by its short interval, although the poll before was one of steady."""
    async with daemon_records(database) as records:
        await records.decided("steady", NOON - HOUR, 1800.0)
        await records.polled(NOON)
        await records.decided("failover", NOON + MINUTE, 30.0)
        await records.polled(NOON + 2 * MINUTE)
        assert await records.blind_minutes(NOON, NOON + 20 * MINUTE) == 17


async def test_a_webhook_covers_until_silence_is_stale(database: str) -> None:
    """Deliveries cover time that polls do not, unless webhooks were known to fail then."""
    async with daemon_records(database) as records:
        await records.decided("steady", NOON, 1800.0)
        await records.polled(NOON)
        await records.heard(NOON + 30 * MINUTE)
        # Polling until 12:45, the webhook until 13:30.
        assert await records.blind_minutes(NOON, NOON + 120 * MINUTE) == 30
        await records.decided("failover", NOON + 50 * MINUTE, 30.0)
        assert await records.blind_minutes(NOON, NOON + 120 * MINUTE) == 70


@pytest.mark.parametrize("since", [NOON, NOON + 10 * MINUTE])
async def test_only_the_given_span_is_counted(database: str, since: datetime) -> None:
    """Blind time before the span, or before the first poll, is not counted; cover that reaches into the span is."""
    async with daemon_records(database) as records:
        await records.decided("failover", NOON, 30.0)
        await records.polled(NOON)
        blind = await records.blind_minutes(since, NOON + 21 * MINUTE)
        assert blind == (20 if since == NOON else 11)
