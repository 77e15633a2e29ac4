"""Rows that another writer adds after the adoption: the older scripts may still be running."""

from __future__ import annotations

import asyncpg

from fubd.store import statements

# So that no look exceeds the time limit of a statement, however many rows a script has added.
_LIMIT = 5_000


async def count_foreign_rows(connection: asyncpg.Connection) -> int:
    """Record the rows that no claim of fubd's made, and return how many are new since the last call of any instance.

    Each row is counted once. Its person is read again soon: where fubd had recorded the same change before, its own row is then merged into
    the foreign one. At most some thousand rows are looked at; the next call goes on from there.
    """
    row = await statements.query("adopt/foreign_rows").fetchrow(connection, limit=_LIMIT)
    return int(row["rows"])
