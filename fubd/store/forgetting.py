"""Removes the names and payloads of people everywhere, and keeps them out: a person once forgotten is recorded without them.

Stages, times and agents stay, so the counts and durations of reports do. Every other column of the person's rows is emptied, also those
that the older scripts or the table's owner added: what they hold is not known here, and may be an address.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import asyncpg

from fubd.core.redaction import redact
from fubd.store import statements
from fubd.store.adoption.plan import BACKUP
from fubd.store.pool import Pool
from fubd.store.quoting import quote_identifier
from fubd.store.stage_changes import DERIVED_COLUMNS, TABLE

_KEPT_COLUMNS = frozenset(
    (
        *("id", "person_id", "stage_from", "stage_to", "changed_at", "changed_after", "received_at", "source", "event_id"),
        *("confirmed_by", "confirmed_at", "assigned_user_id", "assigned_user_name", "lead_source_tag", *DERIVED_COLUMNS),
    )
)
_PAGE_DELIVERIES = 2_000


@dataclass(frozen=True, slots=True)
class EmptiedColumns:
    """The columns of stage_changes that were emptied, and those that could not be because they must not be null and have no default."""

    emptied: tuple[str, ...]
    left: tuple[str, ...]


async def forget(pool: Pool, person_id: int, *, columns: Collection[str] = ()) -> EmptiedColumns | None:
    """Forget a person in one transaction. Return None for an unknown one. `columns`: those of FUBD_COLUMNS. Raises Unavailable."""
    async with pool.transaction() as connection:
        if not await _forget(connection, [person_id], columns):
            return None
        cleared = await _columns_to_clear(connection, TABLE, columns)
        return EmptiedColumns(*(tuple(name for name, empty in cleared.items() if (empty is None) is left) for left in (False, True)))


async def forget_deleted(pool: Pool, *, older_than_days: float, limit: int, columns: Collection[str] = ()) -> int:
    """Forget at most `limit` people that FUB confirmed deleted at least so long ago; return how many. Raises Unavailable."""
    async with pool.transaction() as connection:
        due = await statements.query("forgetting/due_people").fetch(connection, older_than_days=older_than_days, limit=limit)
        return len(await _forget(connection, [record["id"] for record in due], columns))


async def _forget(connection: asyncpg.Connection, people: Collection[int], columns: Collection[str]) -> list[int]:
    records = await statements.query("forgetting/insert_forgotten").fetch(connection, people=people)
    known = [record["id"] for record in records]
    if known:
        await statements.query("forgetting/clear_people").execute(connection, people=known)
        for relation in (TABLE, BACKUP):
            await _clear_rows(connection, relation, known, columns)
        await _redact_deliveries(connection, known)
    return known


async def _clear_rows(connection: asyncpg.Connection, relation: str, people: Collection[int], columns: Collection[str]) -> None:
    cleared = await _columns_to_clear(connection, relation, columns)
    assignments = ", ".join(f"{quote_identifier(name)} = {empty}" for name, empty in cleared.items() if empty is not None)
    if assignments:
        query = statements.query("forgetting/clear_rows").fill(relation=relation, assignments=assignments)
        await query.execute(connection, people=[str(person_id) for person_id in people])


async def _columns_to_clear(connection: asyncpg.Connection, relation: str, columns: Collection[str]) -> dict[str, str | None]:
    """Return by name the SQL of the value that empties each column; None where there is none."""
    found = await statements.query("forgetting/columns").fetch(connection, relation=relation)
    kept = _KEPT_COLUMNS - set(columns)
    return {column["name"]: column["empty"] for column in found if column["name"] not in kept}


async def _redact_deliveries(connection: asyncpg.Connection, people: Collection[int]) -> None:
    needles = [str(person_id).encode() for person_id in people]
    after = 0
    while page := await statements.query("forgetting/find_deliveries").fetch(
        connection, needles=needles, after=after, limit=_PAGE_DELIVERIES
    ):
        after = page[-1]["id"]
        redacted = [(record["id"], redact(record["body"], people)) for record in page if record["body"] is not None]
        changed = [(delivery_id, body) for delivery_id, body in redacted if body is not None]
        if changed:
            await statements.query("forgetting/replace_bodies").execute(
                connection, id=[delivery_id for delivery_id, _ in changed], body=[body for _, body in changed]
            )
