"""Keeps the order of Follow Up Boss's stages, which some columns of older tables are derived from (`stage_priority_*`)."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.log_once import LogOnce
from fubd.ports import Clock
from fubd.store import StateStore

_log = logging.getLogger("fubd.stage_order")

_REFRESH_SECONDS = 3600.0
_RETRY_SECONDS = 300.0


class StageReader(Protocol):
    """Reads the account's stages."""

    async def stages(self) -> dict[str, int]:
        """Read all stages in their order: name to id."""


class StageOrder:
    """Reads the stages every hour, and none at all for a table without such columns."""

    def __init__(self, client: StageReader, state: StateStore, clock: Clock) -> None:
        self._client = client
        self._state = state
        self._clock = clock
        self._log_once = LogOnce(_log)

    async def run(self, stop: asyncio.Event) -> None:
        """Refresh at once and then every hour, until `stop`."""
        while not stop.is_set():
            await self._clock.pause(await self._refresh(), stop)

    async def _refresh(self) -> float:
        """Save the order. Return the seconds until the next time."""
        try:
            if await self._state.needs_stage_order():
                await self._state.save_stage_order(list(await self._client.stages()))
        except (Unavailable, FubRefused, Malformed) as error:
            self._log_once.warning("The order of the stages could not be read: %s", error)
            return _RETRY_SECONDS
        self._log_once.resolved("The order of the stages is known again")
        return _REFRESH_SECONDS
