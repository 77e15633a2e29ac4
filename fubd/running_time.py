"""Notes in the database when this process ran and when it could not record, so that the status page can tell why nothing happened."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from fubd.errors import Unavailable
from fubd.monitor import Monitor
from fubd.ports import Absence, Clock
from fubd.store import Maintenance

_NOTE_SECONDS = 30.0
# A process that notes nothing for so long was suspended, or its machine was.
_SUSPENDED = timedelta(seconds=4 * _NOTE_SECONDS)
# A shorter time is not noted: each process needs a moment until its first commit.
_SHORTEST_GAP = timedelta(seconds=5)


class RunningTime:
    """Notes every 30 s that this process runs, and each time in which it could not record, or was suspended, once that is over."""

    def __init__(self, monitor: Monitor, maintenance: Maintenance, clock: Clock) -> None:
        self._monitor = monitor
        self._maintenance = maintenance
        self._clock = clock
        self._started_at = clock.now()
        self._gap_began: datetime | None = None
        self._awake_at = self._started_at
        self._suspended: Absence | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Note it at once and until `stop`, and a last time then."""
        await self.note()
        while not await self._clock.pause(_NOTE_SECONDS, stop):
            await self.note()
        await self.note(is_stopping=True)

    async def note(self, *, is_stopping: bool = False) -> None:
        """Note that the process runs, or stops, now. While the database is away nothing is lost: the next note covers the time."""
        health, now = self._monitor.database_health(), self._clock.now()
        if now - self._awake_at > _SUSPENDED:
            self._suspended = Absence("not_recording", self._awake_at, now)
        self._awake_at = now
        if not health.recording:
            self._gap_began = self._gap_began or health.since
        try:
            await self._maintenance.note_running(self._started_at, now, gap=self._suspended or self._ended_gap(), is_stopping=is_stopping)
        except Unavailable:
            return
        if self._suspended is not None:
            self._suspended = None
        elif health.recording:
            self._gap_began = None

    def _ended_gap(self) -> Absence | None:
        health = self._monitor.database_health()
        if not health.recording or health.since is None or self._gap_began is None or health.since - self._gap_began < _SHORTEST_GAP:
            return None
        return Absence("not_recording", self._gap_began, health.since)
