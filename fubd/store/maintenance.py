"""Upkeep of the database: pruning, the settings that the views use, rows of other writers, and the check of the chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fubd.store import statements
from fubd.store.adoption.foreign import count_foreign_rows
from fubd.store.pool import Pool


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many raw deliveries were removed, and how many of those this process had stored."""

    removed: int
    own: int


class Maintenance:
    """Works through the pool; `instance` is this process's name. Every method raises Unavailable."""

    def __init__(self, pool: Pool, *, instance: str = "") -> None:
        self._pool = pool
        self._instance = instance

    async def save_settings(self, values: Mapping[str, float], *, time_zone: str) -> None:
        """Save the settings that the views in the database use. A `time_zone` that the server does not know is UTC there."""
        async with self._pool.transaction() as connection:
            await statements.query("state/save_settings").execute(
                connection, names=list(values), values=list(values.values()), time_zone=time_zone
            )

    async def count_chain_violations(self) -> int:
        """Count our rows whose stage_from is not the stage_to of the row before."""
        async with self._pool.reading() as connection:
            row = await statements.query("reads/count_chain_violations").fetchrow(connection)
            return int(row["violations"])

    async def count_foreign_rows(self) -> int:
        """Return how many rows another writer added since the last call of any instance, and have their people read again."""
        async with self._pool.transaction() as connection:
            return await count_foreign_rows(connection)

    async def prune(self, *, older_than_days: float, limit: int) -> Pruned:
        """Remove raw deliveries older than this, at most `limit`; the newest, and the newest stage event, always stay.

        Deliveries of another process stay a day longer: a running process prunes its own, and subtracts them from its balance.
        """
        async with self._pool.transaction() as connection:
            row = await statements.query("state/prune_deliveries").fetchrow(
                connection, older_than_days=older_than_days, limit=limit, instance=self._instance
            )
            return Pruned(row["removed"], row["own"])
