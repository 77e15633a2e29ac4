"""Rows that another writer added: the older scripts may still run."""

from __future__ import annotations

import asyncpg

from fubd.store import statements


async def count_foreign(connection: asyncpg.Connection) -> int:
    """Notice rows that no claim of fubd's made, and give how many are new since the last look by any instance.

    Each is counted once. The people they are of become hints, to be read soon: where fubd had recorded the same change before, its own
    row joins the other's. Costs one look at the ids above a mark.
    """
    noticed: int = await connection.fetchval(statements.text("adopt/foreign_rows"))
    return noticed
