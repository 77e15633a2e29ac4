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
_WINDOW = timedelta(minutes=5)
_LONG = 600
_SECOND, _THIRD = f"Second {'x' * _LONG}", f"Third {'x' * _LONG}"

_StoredRow = tuple[str | None, str, datetime, str, str | None]


async def run(connection: asyncpg.Connection, columns: Mapping[str, str], stages: Sequence[str] = ()) -> bool:
    """Record, correct and confirm rows of a person who does not exist, with nulls, with long values and all `stages`; roll it back.

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
    day = (await statements.query("adopt/dry_run_day").fetchrow(connection))["day"].astimezone(UTC)
    first, second, third, fourth = (day + timedelta(hours=hour) for hour in range(1, 5))
    await _record(recording, [_entry("First", first)], None)
    await _record(recording, [_state(_THIRD, third)], _facts(columns, third))
    await _record(recording, [_entry(_SECOND, second)], None)
    # Each source confirms the other.
    await _record(recording, [_entry(_THIRD, third)], None)
    await _record(recording, [_entry("Fourth", fourth)], None)
    await _record(recording, [_state("Fourth", fourth)], None)
    stored = await _rows(connection)
    expected: list[_StoredRow] = [
        (None, "First", first, "webhook", None),
        ("First", _SECOND[: table.stage_length], second, "webhook", None),
        (_SECOND[: table.stage_length], _THIRD[: table.stage_length], third, "polling", "webhook"),
        (_THIRD[: table.stage_length], "Fourth", fourth, "webhook", "polling"),
    ]
    if stages:
        # Each of them is also left.
        visits = enumerate((*stages, "Last"), 1)
        await _record(recording, [_entry(stage, fourth + timedelta(minutes=place)) for place, stage in visits], None)
    await connection.execute(statements.text("recording/run_deferred"))
    await statements.query("adopt/dry_run_delete").execute(connection, person_id=_PERSON)
    return stored == expected and not await _rows(connection)


async def _rows(connection: asyncpg.Connection) -> list[_StoredRow]:
    rows = await statements.query("adopt/dry_run_rows").fetch(connection, person_id=_PERSON)
    return [(row["stage_from"], row["stage_to"], row["changed_at"], row["source"], row["confirmed_by"]) for row in rows]


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
            now=claims[0].at,
            alert_since=claims[0].at,
        ),
    )


def _entry(stage: str, at: datetime) -> Claim:
    return Claim(person_id=_PERSON, kind=ClaimKind.ENTRY, channel="webhook", at=at, stage=Stage(stage), event_id="e" * 100, received_at=at)


def _state(stage: str, at: datetime) -> Claim:
    return Claim(person_id=_PERSON, kind=ClaimKind.STATE, channel="polling", at=at, stage=Stage(stage), received_at=at, read_at=at)


def _facts(columns: Mapping[str, str], at: datetime) -> PersonFacts:
    long = "x" * _LONG
    fields = dict.fromkeys(columns.values(), long)
    reading = Reading(_PERSON, long, None, at, at, long, long, "9" * 19, long, fields=fields, payload={})
    return PersonFacts(reading, at, long)
