"""Leadership among the instances on one database: only the leader polls and changes webhook subscriptions."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from fubd.errors import Unavailable
from fubd.metrics import Metrics
from fubd.ports import Clock, StateStore

_TTL_SECONDS = 11.0
_RENEW_SECONDS = 6.5
# Shorter than the renewal: after a clean stop of the leader the lease is free at once.
_ACQUIRE_SECONDS = 1.0
_RELEASE_TIMEOUT_SECONDS = 2.0
_NOT_HELD = float("-inf")


class Lease:
    """Holds the lease of the database while it can. `holder` is the unique name of this instance."""

    def __init__(self, state: StateStore, clock: Clock, metrics: Metrics, *, holder: str) -> None:
        self._state = state
        self._clock = clock
        self._metrics = metrics
        self._holder = holder
        self._held_until = _NOT_HELD
        self.gained = asyncio.Event()

    @property
    def held(self) -> bool:
        """Whether this instance is the leader now."""
        return self._clock.monotonic() < self._held_until

    async def run(self, stop: asyncio.Event) -> None:
        """Acquire and renew the lease until `stop`, then release it."""
        while not stop.is_set():
            await self._acquire()
            await self._clock.pause(_RENEW_SECONDS if self.held else _ACQUIRE_SECONDS, stop)
        self._held_until = _NOT_HELD
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(_RELEASE_TIMEOUT_SECONDS):
                await self._state.release_lease(self._holder)

    async def _acquire(self) -> None:
        requested_at = self._clock.monotonic()
        try:
            async with asyncio.timeout(_TTL_SECONDS - _RENEW_SECONDS):
                token = await self._state.acquire_lease(self._holder, ttl_seconds=_TTL_SECONDS)
        except (Unavailable, TimeoutError):
            token = None
        was_held = self.held
        # The term counts from before the request, by our monotonic clock: a process that was suspended for a term has lost the lease.
        self._held_until = _NOT_HELD if token is None else requested_at + _TTL_SECONDS
        if self.held and not was_held:
            self.gained.set()
        self._metrics.lease_held.set(1 if self.held else 0)


@dataclass(slots=True)
class LocalLease:
    """A lease without a database: the process itself sets whether it leads, as a recovery run does."""

    held: bool = True
    gained: asyncio.Event = field(default_factory=asyncio.Event)
