"""What every kind of reading works with, and how a run is recorded in the database and the metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime

from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.metrics import Metrics
from fubd.poller.incremental import IncrementalRead
from fubd.poller.poll_run import PollPolicy, PollRun, RunStats
from fubd.poller.strangers import Strangers
from fubd.poller.trash_visibility import TrashVisibility
from fubd.poller.unread import UnreadPeople
from fubd.ports import Clock, FubApi, SnapshotSink, StateStore

_DAY_SECONDS = 86_400
_SWEEP_CALLS_A_DAY = 10_000

FUB_ERRORS = (Unavailable, FubRefused, Malformed)
"""What ends a run without being a bug: it is tried again later."""


@dataclass(slots=True)
class CoveredInstant:
    """Until when this process has recorded everything, while the stored coverage is ahead of Follow Up Boss's clock; None while it is not.

    Stored coverage never goes back, and from ahead of the clock no read would find a change. So polls read from here.
    """

    instant: datetime | None = None

    def limit(self, stored: datetime | None) -> datetime | None:
        """Return the stored coverage, or the earlier instant that holds instead."""
        return stored if stored is None or self.instant is None else min(stored, self.instant)


class SweepBudget:
    """Limits the sweeps that only stand in for incremental reads, where the account allows none: to so many calls a day on average."""

    def __init__(self) -> None:
        self._next_at = float("-inf")

    def is_spent(self, now: float) -> bool:
        """Return whether the next sweep must wait, given the steady clock's seconds."""
        return now < self._next_at

    def spend(self, now: float, calls: int) -> None:
        """Note a sweep of so many calls."""
        self._next_at = now + calls * _DAY_SECONDS / _SWEEP_CALLS_A_DAY


@dataclass(frozen=True, slots=True)
class PollContext:
    """The parts around the poller. `incremental`, `sweeps`, `trash`, `strangers`, `unread` and `covered` hold what was learned.

    `next_run_within_seconds`: for runs outside the modes, within what time the next one follows, 0 for none.
    """

    api: FubApi
    ingestor: SnapshotSink
    state: StateStore
    clock: Clock
    metrics: Metrics
    unread: UnreadPeople
    policy: PollPolicy = field(default_factory=PollPolicy)
    next_run_within_seconds: float | None = None
    incremental: IncrementalRead = field(default_factory=IncrementalRead)
    sweeps: SweepBudget = field(default_factory=SweepBudget)
    trash: TrashVisibility = field(default_factory=TrashVisibility)
    strangers: Strangers = field(default_factory=Strangers)
    covered: CoveredInstant = field(default_factory=CoveredInstant)

    @asynccontextmanager
    async def open_run(
        self,
        kind: str,
        watermark: datetime | None,
        *,
        should_continue: Callable[[], bool],
        on_page: Callable[[RunStats], None] | None = None,
    ) -> AsyncIterator[PollRun]:
        """Open a run of this kind (incremental, sweep or scrub) and record how it ended. Raises FUB_ERRORS."""
        run = PollRun(
            self.api,
            self.ingestor,
            watermark=watermark,
            should_continue=should_continue,
            on_page=on_page,
            trash=self.trash,
            unread=self.unread,
            strangers=self.strangers,
        )
        began = self.clock.monotonic()
        run_id = await self.state.start_run(kind, self.clock.now(), next_within_seconds=self.next_run_within_seconds)
        try:
            yield run
        except FUB_ERRORS as error:
            self.metrics.poll_runs.labels(kind, "failed").inc()
            with suppress(Unavailable):
                await self._finish_run(run_id, run.stats, "failed", str(error))
            raise
        finally:
            self.metrics.poll_seconds.labels(kind).observe(self.clock.monotonic() - began)
        if run.incomplete_reason is not None:
            await self._finish_run(run_id, run.stats, "failed", run.incomplete_reason)
            return
        self.metrics.poll_runs.labels(kind, "ok").inc()
        unusable = run.stats.unusable
        await self._finish_run(run_id, run.stats, "ok", f"{unusable} not recorded" if unusable else None)

    async def _finish_run(self, run_id: int, stats: RunStats, outcome: str, note: str | None) -> None:
        await self.state.finish_run(
            run_id,
            outcome=outcome,
            finished_at=self.clock.now(),
            people=stats.people,
            calls=stats.calls,
            changes=stats.changes,
            note=note,
        )
