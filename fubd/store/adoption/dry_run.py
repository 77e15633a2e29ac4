"""A trial of what the daemon will do to the table, taken back at once: whatever refuses a row is found before anything is decided."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import asyncpg

from fubd.core.observation import Reading
from fubd.core.reconcile import reconcile
from fubd.ports import ChangeSet, Facts, NewClaim
from fubd.store import stage_changes
from fubd.store.recording import RecordingTransaction

# The largest id, which is nobody's.
_NOBODY = 2**63 - 1
_DAY = datetime(2000, 1, 1, tzinfo=UTC)
_WINDOW = timedelta(minutes=5)
_LONG = 600


async def attempt(connection: asyncpg.Connection, columns: Mapping[str, str]) -> bool:
    """Record and correct rows of a person who does not exist, with nothing known and with values of any length, and take it all back.

    Tells whether the rows stood there as they were written, and went when they were removed. Raises asyncpg.PostgresError when the table
    refuses. `columns` is FUBD_COLUMNS.
    """
    taking_back = connection.transaction()
    await taking_back.start()
    try:
        product = await stage_changes.read(connection)
        recording = RecordingTransaction(connection, product, "adopt", columns, [])
        await _record(recording, _entry("first", 1), None)
        await _record(recording, _state("third " + "x" * _LONG, 3), _facts(columns))
        await _record(recording, _entry("second " + "x" * _LONG, 2), None)
        stood = await _rows(connection)
        # What is checked at the end of a transaction is checked now.
        await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        await connection.execute("DELETE FROM public.stage_changes WHERE person_id = $1::text", str(_NOBODY))
        return stood == _expected(product.stage_length) and not await _rows(connection)
    finally:
        await taking_back.rollback()


async def _rows(connection: asyncpg.Connection) -> list[tuple[str | None, str, datetime, str]]:
    """Give the rows that bear the number of a claim, as ours must."""
    found = await connection.fetch(
        "SELECT c.stage_from, c.stage_to, fubd.instant(c.changed_at), fubd.source_of(c.source) FROM public.stage_changes c"
        " JOIN fubd.claim k ON k.seq = c.id AND k.person_id = $1 WHERE c.person_id = $1::bigint::text ORDER BY c.changed_at",
        _NOBODY,
    )
    return [tuple(row) for row in found]


def _expected(stage_length: int) -> list[tuple[str | None, str, datetime, str]]:
    first, second, third = "first", ("second " + "x" * _LONG)[:stage_length], ("third " + "x" * _LONG)[:stage_length]
    hours = [_DAY + timedelta(hours=hour) for hour in (1, 2, 3)]
    return [
        (None, first, hours[0], "webhook"),
        (first, second, hours[1], "webhook"),
        (second, third, hours[2], "polling"),
    ]


async def _record(recording: RecordingTransaction, claim: NewClaim, facts: Facts | None) -> None:
    taken = await recording.insert_claims([], [claim], [_NOBODY])
    (near,) = await recording.load_history({_NOBODY: claim.at - _WINDOW})
    if facts is not None:
        await recording.upsert_people([facts])
    difference = reconcile(near, taken.claims, window=_WINDOW, began=None)
    evidence = {known.seq: json.dumps({"stage": known.stage.name}) for known in near.claims}
    await recording.apply_changes(
        ChangeSet(
            recorded=[(_NOBODY, made) for made in difference.recorded],
            corrected=[(_NOBODY, corrected) for corrected in difference.corrected],
            merged=[(_NOBODY, row) for row in difference.merged],
            refetches=[],
            evidence=evidence,
            now=_DAY,
        )
    )


def _entry(stage: str, hour: int) -> NewClaim:
    at = _DAY + timedelta(hours=hour)
    return NewClaim(_NOBODY, at, "entry", "webhook", "e" * 100, stage, None, at, None, None, None, ignored=False)


def _state(stage: str, hour: int) -> NewClaim:
    at = _DAY + timedelta(hours=hour)
    return NewClaim(_NOBODY, at, "state", "polling", "", stage, None, at, at, None, None, ignored=False)


def _facts(columns: Mapping[str, str]) -> Facts:
    long = "x" * _LONG
    fields = dict.fromkeys(columns.values(), long)
    at = _DAY + timedelta(hours=3)
    reading = Reading(_NOBODY, long, None, at, at, long, long, "9" * 19, long, fields=fields, payload={})
    return Facts(reading, at, long)
