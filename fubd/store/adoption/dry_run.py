"""A dry run of what the daemon will do to the table, rolled back at once: it finds whatever refuses or alters our rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import asyncpg

from fubd.core.batch import PersonFacts
from fubd.core.history import Stage
from fubd.core.observation import Reading
from fubd.core.reconcile import Claim, ClaimKind, reconcile
from fubd.errors import TableRefused
from fubd.ports import ChangeSet
from fubd.store import stage_changes, statements
from fubd.store.expressions import find_failing
from fubd.store.recording import RecordingTransaction
from fubd.store.refusals import sentence

# The largest number of a bigint, which webhooks cannot name (core/webhook.py) and FUB has given to no person.
_PERSON = 2**63 - 1
_DAY = datetime(2000, 1, 1, tzinfo=UTC)
_WINDOW = timedelta(minutes=5)
_LONG = 600


async def run(connection: asyncpg.Connection, columns: Mapping[str, str], stages: Sequence[str] = ()) -> bool:
    """Record and correct rows of a person who does not exist, with nulls, with long values and with each of `stages`; roll it back.

    Returns whether the rows were stored as written and could be removed. `columns` is FUBD_COLUMNS. Raises TableRefused or
    asyncpg.PostgresError when the table refuses a row.
    """
    transaction = connection.transaction()
    await transaction.start()
    try:
        table = await stage_changes.read(connection)
        recording = RecordingTransaction(connection, table, "adopt", columns, [])
        try:
            async with connection.transaction():
                return await _try(connection, recording, table, columns, stages)
        except asyncpg.FeatureNotSupportedError:
            # A rule takes the place of the statement, so that the server cannot say which rows it wrote.
            return False
        except asyncpg.PostgresError:
            if (cause := await find_failing(connection, recording.written, columns)) is not None:
                raise TableRefused(sentence(*cause)) from None
            raise
    finally:
        await transaction.rollback()


async def _try(
    connection: asyncpg.Connection,
    recording: RecordingTransaction,
    table: stage_changes.StageChangesTable,
    columns: Mapping[str, str],
    stages: Sequence[str],
) -> bool:
    await _record(recording, [_entry("First", 1)], None)
    await _record(recording, [_state("Third " + "x" * _LONG, 3)], _facts(columns))
    await _record(recording, [_entry("Second " + "x" * _LONG, 2)], None)
    stored = await _rows(connection)
    if stages:
        await _record(recording, [_entry(stage, hour) for hour, stage in enumerate(stages, 4)], None)
    await connection.execute(statements.text("recording/run_deferred"))
    await statements.query("adopt/dry_run_delete").execute(connection, person_id=_PERSON)
    return stored == _expected(table.stage_length) and not await _rows(connection)


async def _rows(connection: asyncpg.Connection) -> list[tuple[str | None, str, datetime, str]]:
    rows = await statements.query("adopt/dry_run_rows").fetch(connection, person_id=_PERSON)
    return [(row["stage_from"], row["stage_to"], row["changed_at"], row["source"]) for row in rows]


def _expected(stage_length: int) -> list[tuple[str | None, str, datetime, str]]:
    first, second, third = "First", ("Second " + "x" * _LONG)[:stage_length], ("Third " + "x" * _LONG)[:stage_length]
    hours = [_DAY + timedelta(hours=hour) for hour in (1, 2, 3)]
    return [
        (None, first, hours[0], "webhook"),
        (first, second, hours[1], "webhook"),
        (second, third, hours[2], "polling"),
    ]


async def _record(recording: RecordingTransaction, claims: Sequence[Claim], facts: PersonFacts | None) -> None:
    inserted = await recording.insert_claims([], claims, [_PERSON], {_PERSON: claims[0].at - _WINDOW})
    (history,) = inserted.histories
    difference = reconcile(history, inserted.claims, window=_WINDOW, began=None)
    await recording.write(
        [] if facts is None else [facts],
        ChangeSet(
            inserts=difference.inserts,
            updates=difference.updates,
            merged=difference.merged,
            refetches=[],
            evidence={known.seq: json.dumps({"stage": known.stage.name}) for known in history.claims},
            now=_DAY,
            alert_since=_DAY,
        ),
    )


def _entry(stage: str, hour: int) -> Claim:
    at = _DAY + timedelta(hours=hour)
    return Claim(person_id=_PERSON, kind=ClaimKind.ENTRY, channel="webhook", at=at, stage=Stage(stage), event_id="e" * 100, received_at=at)


def _state(stage: str, hour: int) -> Claim:
    at = _DAY + timedelta(hours=hour)
    return Claim(person_id=_PERSON, kind=ClaimKind.STATE, channel="polling", at=at, stage=Stage(stage), received_at=at, read_at=at)


def _facts(columns: Mapping[str, str]) -> PersonFacts:
    long = "x" * _LONG
    fields = dict.fromkeys(columns.values(), long)
    at = _DAY + timedelta(hours=3)
    reading = Reading(_PERSON, long, None, at, at, long, long, "9" * 19, long, fields=fields, payload={})
    return PersonFacts(reading, at, long)
