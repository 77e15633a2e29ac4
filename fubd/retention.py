"""Prunes raw deliveries that are older than FUBD_KEEP_DELIVERIES_DAYS, in small batches."""

from __future__ import annotations

import asyncio

from fubd.errors import Unavailable
from fubd.ports import Clock
from fubd.store import Maintenance

_PRUNE_SECONDS = 3600.0
# Between two batches, and after a failure.
_NEXT_BATCH_SECONDS = 5.0
_BATCH = 1_000


class Retention:
    """Prunes every hour. The monitor needs both counts: `own_removed` deliveries of this process are no longer in the table."""

    def __init__(self, maintenance: Maintenance, clock: Clock, *, keep_days: float) -> None:
        self._maintenance = maintenance
        self._clock = clock
        self._keep_days = keep_days
        self.own_removed = 0
        self.is_pruning = False

    async def run(self, stop: asyncio.Event) -> None:
        """Prune at once and then every hour, until `stop`."""
        while not stop.is_set():
            await self._clock.pause(await self._prune_batch(), stop)

    async def _prune_batch(self) -> float:
        """Remove one batch. Return the seconds until the next one."""
        self.is_pruning = True
        try:
            pruned = await self._maintenance.prune(older_than_days=self._keep_days, limit=_BATCH)
            self.own_removed += pruned.own
        except Unavailable:
            return _NEXT_BATCH_SECONDS
        finally:
            self.is_pruning = False
        return _NEXT_BATCH_SECONDS if pruned.removed == _BATCH else _PRUNE_SECONDS
