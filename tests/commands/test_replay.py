"""`replay` on a real quarantine: what can be read by now is recorded as if it had been readable at once, and nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from fubd.core.webhook import decode
from tests.commands.environment import CompletedCommand, run_command
from tests.recorder import Recorder, read, running_recorder

pytestmark = pytest.mark.slow

# The events happened an hour ago; for a clock that is days behind, they are too far ahead to be accepted.
NOW = datetime.now(UTC).replace(microsecond=0)
HAPPENED = NOW - timedelta(hours=1)
BEHIND = NOW - timedelta(days=3)


def body(event: str, people: list[object], **more: object) -> bytes:
    """Return the body of a webhook."""
    content: Mapping[str, object] = {
        "eventId": f"{event}-{people}",
        "eventCreated": HAPPENED.isoformat(),
        "event": event,
        "resourceIds": people,
    }
    return json.dumps({**content, **more}).encode()


async def quarantine(recorder: Recorder, *bodies: bytes) -> None:
    """Record deliveries that are quarantined because the clock is days behind."""
    await recorder.record(*(decode(content, fub_now=BEHIND) for content in bodies))


async def replay(dsn: str, folder: Path) -> CompletedCommand:
    """Run the command to its end."""
    return await run_command("replay", environ={"DATABASE_URL": dsn}, folder=folder)


async def deliveries(recorder: Recorder) -> list[asyncpg.Record]:
    """Return every stored delivery."""
    async with recorder.pool.connection() as connection:
        kept: list[asyncpg.Record] = await connection.fetch(
            "SELECT id, key, received_at, event, quarantine IS NULL AS free FROM fubd.delivery ORDER BY id"
        )
        return kept


async def test_what_can_be_read_by_now_is_recorded(database: str, tmp_path: Path) -> None:
    """Its rows are recorded, its refetches requested, and it stays the same delivery; a second run has nothing to do."""
    async with running_recorder(database) as recorder:
        await quarantine(
            recorder, body("peopleStageUpdated", [1, 2], data={"stage": "B"}), body("peopleCreated", [3]), body("notesCreated", [9])
        )
        before = await deliveries(recorder)
        assert [row["free"] for row in before] == [False, False, True]
        done = await replay(database, tmp_path)
        assert (done.code, done.errors) == (0, ["replaying: 2 of 2 deliveries, 2 changes recorded"])
        assert done.lines == ["2 changes recorded, 0 rows corrected", "replayed 2 deliveries: 2 understood, 0 remain"]
        assert await recorder.rows(1) == await recorder.rows(2) == [(None, "B", HAPPENED, None)]
        after = await deliveries(recorder)
        assert [(row["id"], row["key"], row["received_at"]) for row in after] == [
            (row["id"], row["key"], row["received_at"]) for row in before
        ]
        assert all(row["free"] for row in after)
        assert [row["event"] for row in after[:2]] == ["peopleStageUpdated", "peopleCreated"]
        assert {waiting.person_id for waiting in await recorder.state.due_refetches(10)} == {1, 2, 3}
        again = await replay(database, tmp_path)
        assert (again.code, again.lines) == (0, ["replayed 0 deliveries: 0 understood, 0 remain"])
        assert len(await recorder.records(1)) == 1


async def test_what_is_still_unreadable_stays(database: str, tmp_path: Path) -> None:
    """It stays with its reason and exit code 1; the readable part of it is recorded once."""
    async with running_recorder(database) as recorder:
        await quarantine(recorder, b"no JSON at all", b"nor this", body("peopleStageUpdated", [4, "x"], data={"stage": "C"}))
        for _ in range(2):
            left = await replay(database, tmp_path)
            assert left.code == 1
            assert left.lines[-1] == "replayed 3 deliveries: 0 understood, 3 remain"
            assert "2 deliveries still quarantined: the body is not JSON" in left.lines
        assert await recorder.rows(4) == [(None, "C", HAPPENED, None)]
        assert [row["free"] for row in await deliveries(recorder)] == [False, False, False]


async def test_what_the_database_refuses_stays(database: str, tmp_path: Path) -> None:
    """A delivery that can be read but not recorded stays in quarantine."""
    async with running_recorder(database) as recorder:
        await quarantine(recorder, body("peopleStageUpdated", [5], data={"stage": "B"}))
        async with recorder.pool.connection() as connection:
            await connection.execute("ALTER TABLE fubd.claim ADD CONSTRAINT never CHECK (person_id <> 5)")
        left = await replay(database, tmp_path)
        assert (left.code, left.lines[-1]) == (1, "replayed 1 delivery: 0 understood, 1 remain")
        assert [row["free"] for row in await deliveries(recorder)] == [False]


async def test_a_replayed_event_takes_its_place_in_the_history(database: str, tmp_path: Path) -> None:
    """A replayed event from before the last row is inserted there, and the row after it is corrected."""
    async with running_recorder(database) as recorder:
        await quarantine(recorder, body("peopleStageUpdated", [6], data={"stage": "B"}))
        await recorder.record(decode(body("peopleStageUpdated", [6], data={"stage": "C"}, eventCreated=NOW.isoformat()), fub_now=NOW))
        done = await replay(database, tmp_path)
        assert done.lines[0] == "1 change recorded, 1 row corrected"
        assert await recorder.rows(6) == [(None, "B", HAPPENED, None), ("B", "C", NOW, None)]


async def test_an_unreachable_database_is_one_line(tmp_path: Path) -> None:
    """Without its database it exits 1 and prints why in one line."""
    done = await replay("postgresql://user@127.0.0.1:9/nothing", tmp_path)
    assert (done.code, done.lines, len(done.errors)) == (1, [], 1)


async def test_what_forget_emptied_is_not_left_in_quarantine(database: str, tmp_path: Path) -> None:
    """A delivery about a forgotten person alone leaves the quarantine with its body; another stays."""
    async with running_recorder(database) as recorder:
        await recorder.record(read("A", "08:00", "09:00"))
        await quarantine(recorder, body("peopleStageUpdated", [1], data={"stage": " "}), b"no JSON at all")
    forgotten = await run_command("forget", "1", "--yes", environ={"DATABASE_URL": database}, folder=tmp_path)
    assert forgotten.code == 0
    left = await replay(database, tmp_path)
    assert left.lines[-1] == "replayed 1 delivery: 0 understood, 1 remain"
