"""Rows that another writer adds after the adoption: the older scripts may still be running."""

from __future__ import annotations

import asyncpg

from fubd.store import statements


async def count_foreign_rows(connection: asyncpg.Connection) -> int:
    """Record the rows that no claim of fubd's made, and return how many are new since the last call of any instance.

    Each row is counted once. Its person is read again soon: where fubd had recorded the same change before, its own row is then merged into
    the foreign one. The cost is one look at the ids above a mark.
    """
    row = await statements.query("adopt/foreign_rows").fetchrow(connection)
    return int(row["rows"])
