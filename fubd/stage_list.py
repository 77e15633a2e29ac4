"""Keeps the account's stages: the id of each name, by which a renamed stage is recognised, and their order (`stage_priority_*`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.log_once import LogOnce
from fubd.ports import Clock

_log = logging.getLogger("fubd.stage_list")

_REFRESH_SECONDS = 3600.0
_RETRY_SECONDS = 300.0


class StageReader(Protocol):
    """Reads the account's stages."""

    def fub_now(self) -> datetime:
        """Return FUB's clock."""

    async def stages(self) -> dict[str, int]:
        """Read all stages in their order: name to id."""


class StageStore(Protocol):
    """Saves the account's stages."""

    async def save_stages(self, stages: Mapping[str, int], at: datetime) -> None:
        """Save the id of each name and their order, as they are `at` an instant of FUB's clock."""


class StageList:
    """Reads the stages at once and then every hour."""

    def __init__(self, client: StageReader, state: StageStore, clock: Clock) -> None:
        self._client = client
        self._state = state
        self._clock = clock
        self._log_once = LogOnce(_log)

    async def run(self, stop: asyncio.Event) -> None:
        """Refresh until `stop`."""
        while not stop.is_set():
            await self._clock.pause(await self._refresh(), stop)

    async def _refresh(self) -> float:
        """Save the stages. Return the seconds until the next time: soon after an outage, but what FUB refuses it will refuse again."""
        try:
            await self._state.save_stages(await self._client.stages(), self._client.fub_now())
        except (Unavailable, FubRefused, Malformed) as error:
            self._log_once.warning("The account's stages could not be read: %s", error)
            return _RETRY_SECONDS if isinstance(error, Unavailable) else _REFRESH_SECONDS
        self._log_once.resolved("The account's stages are known again")
        return _REFRESH_SECONDS
