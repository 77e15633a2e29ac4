"""`replay` on a real quarantine: what is understood by now is recorded as if it had been understood at once, and nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from fubd.core.webhook import decode
from tests.commands.fakes import Ended
from tests.recorder import Recorder, recorder
from tests.support.process import fubd

# The events below lie an hour back; to a clock that was days behind they lay too far ahead.
NOW = datetime.now(UTC).replace(microsecond=0)
HAPPENED = NOW - timedelta(hours=1)
BEHIND = NOW - timedelta(days=3)


def body(event: str, people: list[object], **more: object) -> bytes:
    """Write a webhook's body."""
    told: Mapping[str, object] = {
        "eventId": f"{event}-{people}",
        "eventCreated": HAPPENED.isoformat(),
        "event": event,
        "resourceIds": people,
    }
    return json.dumps({**told, **more}).encode()


async def keep_aside(made: Recorder, *bodies: bytes) -> None:
    """Have deliveries quarantined by a clock that is days behind."""
    await made.record(*(decode(told, fub_now=BEHIND) for told in bodies))


async def replay(dsn: str, folder: Path) -> Ended:
    """Run the command to its end."""
    async with fubd("replay", environ={"DATABASE_URL": dsn}, folder=folder) as process:
        code = await process.ended()
    return Ended(code, process.lines, process.errors)


async def deliveries(made: Recorder) -> list[asyncpg.Record]:
    """Give every delivery that is kept."""
    async with made.pool.connection() as connection:
        kept: list[asyncpg.Record] = await connection.fetch(
            "SELECT id, key, received_at, event, quarantine IS NULL AS free FROM fubd.delivery ORDER BY id"
        )
        return kept


async def test_records_what_is_understood_by_now(database: str, tmp_path: Path) -> None:
    """Its rows are recorded, its people asked for, and it stays the one delivery that it was; run again, nothing is left to do."""
    async with recorder(database) as made:
        await keep_aside(
            made, body("peopleStageUpdated", [1, 2], data={"stage": "B"}), body("peopleCreated", [3]), body("notesCreated", [9])
        )
        before = await deliveries(made)
        assert [row["free"] for row in before] == [False, False, True]
        done = await replay(database, tmp_path)
        assert (done.code, done.errors) == (0, ["replaying: 2 of 2 deliveries, 2 changes recorded"])
        assert done.lines == ["2 changes recorded, 0 rows corrected", "replayed 2 deliveries: 2 understood, 0 remain"]
        assert await made.rows(1) == await made.rows(2) == [(None, "B", HAPPENED, None)]
        after = await deliveries(made)
        assert [(row["id"], row["key"], row["received_at"]) for row in after] == [
            (row["id"], row["key"], row["received_at"]) for row in before
        ]
        assert all(row["free"] for row in after)
        assert [row["event"] for row in after[:2]] == ["peopleStageUpdated", "peopleCreated"]
        assert {waiting.person_id for waiting in await made.state.due_refetches(10)} == {1, 2, 3}
        again = await replay(database, tmp_path)
        assert (again.code, again.lines) == (0, ["replayed 0 deliveries: 0 understood, 0 remain"])
        assert len(await made.records(1)) == 1


async def test_leaves_what_nobody_understands(database: str, tmp_path: Path) -> None:
    """What is still unreadable stays, told by its reason, and the exit code says so; the readable part of it is recorded once."""
    async with recorder(database) as made:
        await keep_aside(made, b"no JSON at all", b"nor this", body("peopleStageUpdated", [4, "x"], data={"stage": "C"}))
        for _ in range(2):
            left = await replay(database, tmp_path)
            assert left.code == 1
            assert left.lines[-1] == "replayed 3 deliveries: 0 understood, 3 remain"
            assert "2 deliveries still kept aside: the body is not JSON" in left.lines
        assert await made.rows(4) == [(None, "C", HAPPENED, None)]
        assert [row["free"] for row in await deliveries(made)] == [False, False, False]


async def test_does_not_release_what_the_database_cannot_hold(database: str, tmp_path: Path) -> None:
    """A delivery that is understood but cannot be recorded stays where it is."""
    async with recorder(database) as made:
        await keep_aside(made, body("peopleStageUpdated", [5], data={"stage": "B"}))
        async with made.pool.connection() as connection:
            await connection.execute("ALTER TABLE fubd.claim ADD CONSTRAINT never CHECK (person_id <> 5)")
        left = await replay(database, tmp_path)
        assert (left.code, left.lines[-1]) == (1, "replayed 1 delivery: 0 understood, 1 remain")
        assert [row["free"] for row in await deliveries(made)] == [False]


async def test_brings_late_news_into_line(database: str, tmp_path: Path) -> None:
    """A replayed event that lies before what is known is inserted there, and the row after it corrected."""
    async with recorder(database) as made:
        await keep_aside(made, body("peopleStageUpdated", [6], data={"stage": "B"}))
        await made.record(decode(body("peopleStageUpdated", [6], data={"stage": "C"}, eventCreated=NOW.isoformat()), fub_now=NOW))
        done = await replay(database, tmp_path)
        assert done.lines[0] == "1 change recorded, 1 row corrected"
        assert await made.rows(6) == [(None, "B", HAPPENED, None), ("B", "C", NOW, None)]


async def test_says_when_the_database_is_away(tmp_path: Path) -> None:
    """Without its database it exits 1 and says why in one line."""
    done = await replay("postgresql://somebody@127.0.0.1:9/nothing", tmp_path)
    assert (done.code, done.lines, len(done.errors)) == (1, [], 1)
