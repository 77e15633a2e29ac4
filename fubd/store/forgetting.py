"""Removes the names and payloads of people everywhere, and keeps them out: a person once forgotten is recorded without them.

Stages and times stay, so the counts and durations of reports do. What the older scripts wrote in columns of their own is not touched.
"""

from __future__ import annotations

from collections.abc import Collection

import asyncpg

from fubd.core.redaction import redact
from fubd.store import statements
from fubd.store.adoption.plan import BACKUP
from fubd.store.pool import Pool
from fubd.store.quoting import quote_identifier
from fubd.store.stage_changes import TABLE

_PERSONAL_COLUMNS = ("first_name", "last_name", "raw_payload")
_PAGE_DELIVERIES = 2_000


async def forget(pool: Pool, person_id: int, *, columns: Collection[str] = ()) -> bool:
    """Forget a person in one transaction; return whether they were known. `columns`: those of FUBD_COLUMNS. Raises Unavailable."""
    async with pool.transaction() as connection:
        return bool(await _forget(connection, [person_id], columns))


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
            await _clear_rows(connection, relation, known, {*_PERSONAL_COLUMNS, *columns})
        await _redact_deliveries(connection, known)
    return known


async def _clear_rows(connection: asyncpg.Connection, relation: str, people: Collection[int], columns: Collection[str]) -> None:
    found = await statements.query("forgetting/columns").fetch(connection, relation=relation)
    assignments = ", ".join(f"{quote_identifier(column['name'])} = {column['empty']}" for column in found if column["name"] in columns)
    if assignments:
        query = statements.query("forgetting/clear_rows").fill(relation=relation, assignments=assignments)
        await query.execute(connection, people=[str(person_id) for person_id in people])


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
