"""Reads until everything up to the moment it began is covered: a sweep where one is needed, then the changed."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.metrics import Metrics
from fubd.poller.incremental import IncrementalRead
from fubd.poller.poll_run import PollPolicy, PollRun, Progress, RunStats
from fubd.poller.scrub import Scrub, Scrubbed
from fubd.poller.sweep import Sweep
from fubd.poller.trash_visibility import TrashVisibility
from fubd.ports import Clock, FubApi, SnapshotSink, StateStore

_log = logging.getLogger("fubd.poller")

FUB_ERRORS = (Unavailable, FubRefused, Malformed)


class CatchUp:
    """Runs errands, notes each in the book and in the metrics, and advances coverage when one is complete.

    `totals` adds up what they brought; whoever wants the figures of one recovery makes a reader for it. `walk` and `trash` know the
    account's ways, once they have probed them, for all readers that share them.
    """

    def __init__(
        self,
        *,
        api: FubApi,
        ingestor: SnapshotSink,
        state: StateStore,
        clock: Clock,
        metrics: Metrics,
        policy: PollPolicy,
        walk: IncrementalRead,
        trash: TrashVisibility,
        should_continue: Callable[[], bool],
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._api = api
        self._ingestor = ingestor
        self._state = state
        self._clock = clock
        self._metrics = metrics
        self._policy = policy
        self._should_continue = should_continue
        self._progress = progress
        self._incremental = walk
        self._trash = trash
        self._scrub = Scrub(state, metrics)
        self.totals = RunStats()

    async def catch_up(self, *, full: bool) -> datetime:
        """Cover everything up to now; give the coverage reached. Raises Unavailable, Refused and Malformed; what was read stays."""
        coverage = await self._state.coverage()
        reached = None if full else coverage.watermark
        swept = reached is None
        if reached is None:
            reached = await self._sweep()
        walked = await self._walk_changed(reached)
        if walked is None and not swept:
            reached = await self._sweep()
            walked = await self._walk_changed(reached)
        # A sweep covers by itself; when even then too much changes for the walk, the next poll goes on from it.
        return walked or reached

    async def scrub(self) -> Scrubbed:
        """Re-verify the people longest unverified. Raises as `catch_up` does."""
        watermark = (await self._state.coverage()).watermark
        async with self._open_run("scrub", watermark) as run:
            scrubbed = await self._scrub.run(run, batches=self._policy.scrub_batches)
        if scrubbed.stale:
            self._incremental.invalidate_probe()
        return scrubbed

    def show_coverage(self, reached: datetime | None) -> None:
        """Export the coverage reached."""
        self._metrics.coverage.set(0 if reached is None else reached.timestamp())

    async def _walk_changed(self, reached: datetime) -> datetime | None:
        report = _Report("incremental", self._clock, self._policy, self._progress)
        async with self._open_run("incremental", reached, report) as run:
            began = await self._incremental.changed_since(run, reached)
            if began is not None:
                return await self._reach(began, sweep=False)
            run.incomplete_reason = "more changed than a walk can show completely"
            _log.info("More people changed than a walk can show completely: the whole account is read.")
            return None

    async def _sweep(self) -> datetime:
        coverage = await self._state.coverage()
        report = _Report("sweep", self._clock, self._policy, self._progress)
        async with self._open_run("sweep", coverage.watermark, report) as run:
            sweep = Sweep(run, self._state, workers=self._policy.sweep_workers)
            report.sweep = sweep
            if coverage.sweep_began is not None:
                _log.info("Going on with the sweep that began at %s, from id %s.", coverage.sweep_began, coverage.sweep_from_id)
            began = await sweep.run(coverage.sweep_began, coverage.sweep_from_id)
            reached = await self._reach(began, sweep=True)
        _log.info("Read the whole account: %d people in %d calls.", run.tally.people, run.tally.calls)
        return reached

    async def _reach(self, began: datetime, *, sweep: bool) -> datetime:
        reached = await self._state.advance_coverage(began - timedelta(seconds=self._policy.overlap_seconds), sweep=sweep)
        self.show_coverage(reached)
        return reached

    @asynccontextmanager
    async def _open_run(self, kind: str, watermark: datetime | None, report: _Report | None = None) -> AsyncIterator[PollRun]:
        """Make an errand and note in the book and in the metrics how it went."""
        on_page = None if report is None else report.tell
        run = PollRun(
            self._api, self._ingestor, watermark=watermark, should_continue=self._should_continue, on_page=on_page, trash=self._trash
        )
        started = self._clock.monotonic()
        run_id = await self._state.start_run(kind, self._clock.now())
        try:
            yield run
        except FUB_ERRORS as error:
            self._metrics.poll_runs.labels(kind, "failed").inc()
            with suppress(Unavailable):
                await self._finish(run_id, run.tally, "failed", str(error))
            raise
        finally:
            self.totals.people += run.tally.people
            self.totals.changes += run.tally.changes
            self.totals.calls += run.tally.calls
            self._metrics.poll_seconds.labels(kind).observe(self._clock.monotonic() - started)
        if run.incomplete_reason is not None:
            await self._finish(run_id, run.tally, "failed", run.incomplete_reason)
            return
        self._metrics.poll_runs.labels(kind, "ok").inc()
        if run.tally.unreadable:
            _log.warning("%d people in a %s poll could not be read: nothing usable was told of them.", run.tally.unreadable, kind)
        await self._finish(run_id, run.tally, "ok", f"{run.tally.unreadable} unreadable" if run.tally.unreadable else None)

    async def _finish(self, run_id: int, tally: RunStats, outcome: str, note: str | None) -> None:
        await self._state.finish_run(
            run_id,
            outcome=outcome,
            finished_at=self._clock.now(),
            people=tally.people,
            calls=tally.calls,
            changes=tally.changes,
            note=note,
        )


class _Report:
    """Tells how far an errand has come: each page to whoever watches, and a line in the log every few seconds."""

    def __init__(self, kind: str, clock: Clock, policy: PollPolicy, watcher: Callable[[Progress], None] | None) -> None:
        self._kind = kind
        self._clock = clock
        self._every_seconds = policy.progress_seconds
        self._watcher = watcher
        self._began = self._said = clock.monotonic()
        self.sweep: Sweep | None = None

    def tell(self, tally: RunStats) -> None:
        """Take the figures after a page."""
        now = self._clock.monotonic()
        total = None if self.sweep is None else self.sweep.total
        left = None if not total or not tally.people else (now - self._began) * max(0, total - tally.people) / tally.people
        progress = Progress(self._kind, tally.people, total, tally.changes, tally.calls, left)
        if self._watcher is not None:
            self._watcher(progress)
        if now - self._said >= self._every_seconds:
            self._said = now
            _log.info("%s", _line(progress))


def _line(progress: Progress) -> str:
    total = "" if progress.total is None else f" of {progress.total}"
    left = "" if progress.seconds_left is None else f", about {progress.seconds_left:.0f} s left"
    return f"Read {progress.people}{total} people in {progress.calls} calls, {progress.changes} changes found{left}."
