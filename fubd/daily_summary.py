"""Puts the summary of each day into the outbox, at FUBD_DAILY_SUMMARY in FUBD_TIMEZONE.

The leader writes it. That a day has its summary is stored with it in one transaction, so there is one a day, whatever restarts and however
many instances run. A daemon that was down at that time catches up within three hours; after that the day has none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import date, time, timedelta, tzinfo

from fubd.core.daily_summary import Knowledge, Period, due_period, summary_content
from fubd.core.pacing import Policy
from fubd.errors import Unavailable
from fubd.log_once import LogOnce
from fubd.ports import Clock, Lease
from fubd.problems import Problems
from fubd.store import StatusReader
from fubd.store.outbox import Outbox

_log = logging.getLogger("fubd.daily_summary")

_LOOK_SECONDS = 5.0
_RETRY_SECONDS = 60.0


class DailySummary:
    """Writes the summaries. `stages` are counted by name, in any case; `skew_seconds`: our clock minus FUB's."""

    def __init__(
        self,
        status: StatusReader,
        outbox: Outbox,
        problems: Problems,
        clock: Clock,
        *,
        lease: Lease,
        at: time,
        zone: tzinfo,
        stages: Sequence[str],
        policy: Policy,
        skew_seconds: Callable[[], float],
    ) -> None:
        self._status = status
        self._outbox = outbox
        self._problems = problems
        self._clock = clock
        self._lease = lease
        self._at = at
        self._zone = zone
        self._stages = stages
        self._policy = policy
        self._skew_seconds = skew_seconds
        self._last_day: date | None = None
        self._failure_log = LogOnce(_log)

    async def run(self, stop: asyncio.Event) -> None:
        """Write each summary that falls due, until `stop`."""
        wait = _LOOK_SECONDS
        while not await self._clock.pause(wait, stop):
            wait = _LOOK_SECONDS
            try:
                if self._lease.held:
                    await self.write_if_due()
            except Unavailable as error:
                self._failure_log.warning("The summary of the day cannot be written: %s. It is tried again.", error)
                wait = _RETRY_SECONDS
            else:
                self._failure_log.resolved("The summary of the day can be written again.")

    async def write_if_due(self) -> None:
        """Put the summary that is due into the outbox, unless its day has one or was not recorded. Raises Unavailable."""
        period = due_period(self._clock.now(), self._at, self._zone)
        if period is None or period.day == self._last_day:
            return
        await self._write(period)
        self._last_day = period.day

    async def _write(self, period: Period) -> None:
        skew = timedelta(seconds=self._skew_seconds())
        settled = self._clock.now() - timedelta(seconds=self._policy.missed_after_seconds)
        counts = await self._status.day_counts(
            period.since - skew, period.until - skew, missed_until=min(settled, period.until) - skew, stages=self._stages
        )
        if counts.began is None or counts.began >= period.until - skew:
            return
        summary = await self._status.summary()
        oldest = period.until - skew - timedelta(seconds=self._policy.poll_stale_after_seconds)
        known = Knowledge(
            coverage=summary.coverage,
            stale=summary.coverage is not None and summary.coverage < oldest,
            blind_seconds=await self._status.blind_seconds(period.since, period.until),
            completeness=summary.completeness,
            people=summary.people,
        )
        await self._outbox.add_summary(period.day, summary_content(period, counts, known, self._problems.current()))
