"""Checks, a few people at a time, that each row follows from the row before.

Each step looks at the people whose rows changed since the last one and, in turn, at some of the others, so its cost does not grow with the
table. What is known of the whole table is as old as the last complete round.
"""

from __future__ import annotations

import logging
import math
from datetime import datetime

from fubd.errors import Unavailable
from fubd.log_once import LogOnce
from fubd.metrics import Metrics
from fubd.ports import Clock
from fubd.store import Maintenance
from fubd.store.maintenance import ChainPosition

_log = logging.getLogger("fubd.chain_check")

_STEP_SECONDS = 60.0
# The first round is to be complete soon: then a step goes on for so long, in all at most a fiftieth of the time.
_FIRST_ROUND_SECONDS = 0.5
_SHARE = 0.02


class ChainCheck:
    """Exports `fubd_chain_violations`, and with `fubd_chain_check_timestamp_seconds` when the last complete round began."""

    def __init__(self, maintenance: Maintenance, clock: Clock, metrics: Metrics) -> None:
        self._maintenance = maintenance
        self._clock = clock
        self._metrics = metrics
        self._log_once = LogOnce(_log)
        self._due = clock.monotonic()
        self._position: ChainPosition | None = None
        self._round_began: datetime | None = None
        self._is_complete = False

    async def run_step(self) -> None:
        """Check the next people, if a step is due. A check that the database does not complete is no outage, but is logged."""
        started = self._clock.monotonic()
        if started < self._due:
            return
        try:
            await self._check()
            while not self._is_complete and self._clock.monotonic() - started < _FIRST_ROUND_SECONDS:
                await self._check()
            self._log_once.resolved("The check that each row follows from the row before works again.")
        except Unavailable as error:
            self._metrics.chain_violations.set(math.nan)
            self._log_once.warning("Could not check that each row follows from the row before: %s", error)
        took = self._clock.monotonic() - started
        self._due = started + max(_STEP_SECONDS if self._is_complete else 0.0, took / _SHARE)

    async def _check(self) -> None:
        self._position = self._position or await self._maintenance.start_chain_check()
        self._round_began = self._round_began or self._clock.now()
        position = self._position = await self._maintenance.check_chain(self._position)
        if position.is_round_complete:
            self._is_complete = True
            self._metrics.chain_check_timestamp.set(self._round_began.timestamp())
            self._round_began = None
        if self._is_complete:
            self._metrics.chain_violations.set(position.violations)
