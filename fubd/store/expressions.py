"""Finds the constraint, generated column, default or index of the owner's that fails on a row. The server's error does not name it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

import asyncpg

from fubd.store import statements
from fubd.store.stage_changes import COLUMN_TYPES

Row = Mapping[str, object]


async def find_failing(connection: asyncpg.Connection, rows: Sequence[Row], custom: Collection[str]) -> tuple[str, str] | None:
    """Return the cause and the remedy; None when none of them fails on these rows. `custom`: FUBD_COLUMNS."""
    written = json.dumps([_plain(row) for row in rows])
    expressions = await statements.query("check/expressions").fetch(connection, filled=[*COLUMN_TYPES, *custom])
    # Rows of which nothing can be computed say nothing of an expression.
    if await _error(connection, "true", written) is not None:
        return None
    for row in expressions:
        if (code := await _error(connection, row["expression"], written)) is not None:
            return f"{row['what']} fails ({code})", row["cure"]
    return None


async def _error(connection: asyncpg.Connection, expression: str, rows: str) -> str | None:
    """Return the SQLSTATE with which an expression fails on one of the rows; None when it does not."""
    try:
        async with connection.transaction():
            await statements.query("check/compute").fill(expression=expression).fetchrow(connection, rows=rows)
    except asyncpg.PostgresError as error:
        return str(error.sqlstate)
    return None


def _plain(row: Row) -> dict[str, object]:
    """Return a row with its instants as text and its evidence as JSON."""
    payload = row.get("raw_payload")
    shown = {name: value if value is None or isinstance(value, int) else str(value) for name, value in row.items()}
    return {**shown, "raw_payload": json.loads(payload) if isinstance(payload, str) else None}
