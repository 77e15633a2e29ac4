"""Removes what is kept for a time only: raw deliveries, history, superseded reads, names of deleted people, the copy that `adopt` made."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from fubd.core.text import format_count
from fubd.errors import Malformed, Unavailable
from fubd.log_once import LogOnce
from fubd.ports import Clock
from fubd.store import Maintenance
from fubd.store.adoption import BACKUP

_log = logging.getLogger("fubd.retention")

_ROUND_SECONDS = 3600.0
# Where a time to keep is short, a round follows after a tenth of it.
_ROUNDS_PER_PERIOD = 10
_DAY_SECONDS = 86_400
_NEXT_BATCH_SECONDS = 5.0
_RETRY_SECONDS = 300.0
_BATCH = 1_000
# Each batch searches all deliveries for the people in it.
_PEOPLE_BATCH = 50
# Follow Up Boss repeats an event for hours, and what is in quarantine is processed again while it is kept.
_SETTLED_DAYS = 30.0
# So many superseded reads in one batch are the sign of more.
_MANY_READS = 100


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """For how long what is kept, in days. `forget_deleted_days`: None for always. `columns`: those of FUBD_COLUMNS, forgotten too.

    `dedup_window`: FUBD_DEDUP_WINDOW.
    """

    keep_deliveries_days: float
    keep_adoption_copy_days: float
    forget_deleted_days: float | None = None
    columns: Collection[str] = ()
    dedup_window: timedelta = timedelta(seconds=300)

    @property
    def settled_days(self) -> float:
        """Return after how many days nothing is reported again: deliveries of another process are kept for a day longer."""
        return max(_SETTLED_DAYS, self.keep_deliveries_days + 1)

    @property
    def round_seconds(self) -> float:
        """Return how often to look for what is due: every hour, or more often where something is kept for less than ten hours."""
        shortest_days = min(self.keep_deliveries_days, self.keep_adoption_copy_days, self.forget_deleted_days or math.inf)
        return max(_NEXT_BATCH_SECONDS, min(_ROUND_SECONDS, shortest_days * _DAY_SECONDS / _ROUNDS_PER_PERIOD))


class Retention:
    """Works every hour, or more often where a time to keep is short, in small batches.

    `own_removed`, `is_pruning`: for the monitor, which counts this process's deliveries; removed ones are no longer stored.
    """

    def __init__(self, maintenance: Maintenance, clock: Clock, policy: RetentionPolicy) -> None:
        self._maintenance = maintenance
        self._clock = clock
        self._policy = policy
        self._log_once = LogOnce(_log)
        self.own_removed = 0
        self.is_pruning = False
        self._counted_after = 0
        self._compacted_to = 0

    def count_deliveries_after(self, delivery_id: int) -> None:
        """Count as `own_removed` only those with a higher id, from 0 on."""
        self._counted_after = delivery_id
        self.own_removed = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Remove what is due at once and then in each round, until `stop`."""
        while not stop.is_set():
            await self._clock.pause(await self._run_round(), stop)

    async def _run_round(self) -> float:
        """Remove one batch of each kind; one that fails does not delay the others. Return the seconds until the next round."""
        pauses = []
        for remove_batch in (self._prune_deliveries, self._prune_history, self._compact, self._forget_deleted, self._drop_adoption_copy):
            try:
                pauses.append(_NEXT_BATCH_SECONDS if await remove_batch() else self._policy.round_seconds)
            except (Unavailable, Malformed) as error:
                pauses.append(_RETRY_SECONDS)
                self._log_once.warning("Data past its retention could not be removed and is tried again: %s", error)
        if _RETRY_SECONDS not in pauses:
            self._log_once.resolved("Data past its retention is removed again")
        return min(pauses)

    async def _prune_deliveries(self) -> bool:
        """Return whether there may be more."""
        self.is_pruning = True
        try:
            pruned = await self._maintenance.prune(
                older_than_days=self._policy.keep_deliveries_days, limit=_BATCH, counted_after=self._counted_after
            )
            self.own_removed += pruned.own
        finally:
            self.is_pruning = False
        return pruned.removed == _BATCH

    async def _prune_history(self) -> bool:
        """Return whether there may be more."""
        return await self._maintenance.prune_history(older_than_days=self._policy.keep_deliveries_days, limit=_BATCH) == _BATCH

    async def _compact(self) -> bool:
        """Return whether there may be many more reads to remove soon. Each round goes on with the next people."""
        compacted = await self._maintenance.compact(
            after=self._compacted_to, settled_days=self._policy.settled_days, window=self._policy.dedup_window
        )
        self._compacted_to = compacted.last_person
        return compacted.removed >= _MANY_READS

    async def _forget_deleted(self) -> bool:
        """Return whether there may be more."""
        days = self._policy.forget_deleted_days
        if days is None:
            return False
        forgotten = await self._maintenance.forget_deleted(older_than_days=days, limit=_PEOPLE_BATCH, columns=self._policy.columns)
        if forgotten:
            _log.info(
                "Forgot %s that Follow Up Boss confirmed deleted at least %g days ago (FUBD_FORGET_DELETED_DAYS)",
                format_count(forgotten, "person"),
                days,
            )
        return forgotten == _PEOPLE_BATCH

    async def _drop_adoption_copy(self) -> bool:
        """Return that there is no more."""
        days = self._policy.keep_adoption_copy_days
        if await self._maintenance.drop_adoption_copy(older_than_days=days):
            _log.info("Dropped %s, the copy of the older table, %g days after its adoption (FUBD_KEEP_ADOPTION_COPY_DAYS)", BACKUP, days)
        return False
