"""Upkeep of the database: what is kept for a time only, the settings that the views use, rows of other writers, the check of the chain."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from fubd.ports import Absence
from fubd.store import compaction, forgetting, statements
from fubd.store.adoption.foreign import count_foreign_rows
from fubd.store.adoption.plan import BACKUP
from fubd.store.compaction import Compacted
from fubd.store.pool import Pool

# The status page and the metric of blind time look back further than a short FUBD_KEEP_DELIVERIES_DAYS.
_LEAST_DAYS = 7.0


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many raw deliveries were removed, and how many of those this process had stored."""

    removed: int
    own: int


@dataclass(frozen=True, slots=True)
class ChainPosition:
    """Up to which row, correction and person the chain was checked, and what was found.

    `violating`: the people, at most a thousand, with rows that do not follow from the row before; they are checked again at each step.
    `is_round_complete`: everybody was checked, and the next step begins with the first person again.
    """

    change: int
    correction: int
    person: str = ""
    violating: tuple[str, ...] = ()
    violations: int = 0
    is_round_complete: bool = False


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

    async def note_running(self, started_at: datetime, now: datetime, *, gap: Absence | None, is_stopping: bool = False) -> None:
        """Note that this process, started then, runs at `now`, or stops in good order then; and a time in which it could not record."""
        async with self._pool.statement() as connection:
            await statements.query("state/note_running").execute(
                connection,
                instance=self._instance,
                started_at=started_at,
                now=now,
                is_stopping=is_stopping,
                gap_began=gap.since if gap else None,
                gap_ended=gap.until if gap else None,
            )

    async def start_chain_check(self) -> ChainPosition:
        """Return the position before the first person. Of the people touched, those of later rows and corrections are checked."""
        async with self._pool.reading_by_index() as connection:
            row = await statements.query("reads/chain_start").fetchrow(connection)
            return ChainPosition(row["change"], row["correction"])

    async def check_chain(self, position: ChainPosition) -> ChainPosition:
        """Check that each row follows from the row before: for people touched since `position`, and in turn for some of the others."""
        async with self._pool.reading_by_index() as connection:
            row = await statements.query("reads/chain_violations").fetchrow(
                connection,
                after_change=position.change,
                after_correction=position.correction,
                after_person=position.person,
                again=list(position.violating),
            )
            person = row["last_person"]
            return ChainPosition(
                row["last_change"], row["last_correction"], person or "", tuple(row["people"] or ()), row["violations"], person is None
            )

    async def count_foreign_rows(self) -> int:
        """Return how many rows another writer added since the last call of any instance, and have their people read again."""
        async with self._pool.transaction() as connection:
            return await count_foreign_rows(connection)

    async def prune(self, *, older_than_days: float, limit: int, counted_after: int = 0) -> Pruned:
        """Remove raw deliveries older than this, at most `limit`; the newest, and the newest stage event, always stay.

        Deliveries of another process stay a day longer: a running process prunes its own, and subtracts
        those above `counted_after` from its balance.
        """
        async with self._pool.transaction() as connection:
            row = await statements.query("retention/prune_deliveries").fetchrow(
                connection, older_than_days=older_than_days, limit=limit, instance=self._instance, counted_after=counted_after
            )
            return Pruned(row["removed"], row["own"])

    async def prune_history(self, *, older_than_days: float, limit: int) -> int:
        """Remove old poll runs, mode changes, corrections and times of processes, at most `limit` of each; return the highest count.

        Runs and modes of the last week stay, as do the last complete poll and the mode in force.
        """
        async with self._pool.transaction() as connection:
            row = await statements.query("retention/prune_history").fetchrow(
                connection, older_than_days=older_than_days, least_days=_LEAST_DAYS, limit=limit
            )
            return int(row["removed"])

    async def compact(self, *, after: int, settled_days: float, window: timedelta) -> Compacted:
        """Remove reads that say nothing any more of the next people after the id `after` (see `fubd.core.compaction`)."""
        return await compaction.compact(self._pool, after=after, settled_days=settled_days, window=window)

    async def forget_deleted(self, *, older_than_days: float, limit: int, columns: Collection[str]) -> int:
        """Forget at most `limit` people that FUB confirmed deleted at least so long ago; return how many."""
        return await forgetting.forget_deleted(self._pool, older_than_days=older_than_days, limit=limit, columns=columns)

    async def drop_adoption_copy(self, *, older_than_days: float) -> bool:
        """Drop the copy of the table that `adopt` made at least so long ago; return whether there was one."""
        async with self._pool.transaction() as connection:
            row = await statements.query("retention/is_copy_due").fetchrow(connection, relation=BACKUP, older_than_days=older_than_days)
            if row["is_due"]:
                await statements.query("retention/drop_copy").fill(relation=BACKUP).execute(connection)
            return bool(row["is_due"])
