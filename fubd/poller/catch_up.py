"""Reads until everything up to the moment it began is covered: a sweep where one is needed, then the changed."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

from fubd.metrics import Metrics
from fubd.poller.incremental import Walk
from fubd.poller.poll_run import Errand, PollPolicy, Progress, Tally
from fubd.poller.scrub import Scrub, Scrubbed
from fubd.poller.sweep import Sweep
from fubd.poller.trash_visibility import Trash
from fubd.ports import Book, Clock, Feed, Malformed, Observer, Refused, Unavailable

_log = logging.getLogger("fubd.poller")

TROUBLE = (Unavailable, Refused, Malformed)


class Reader:
    """Runs errands, notes each in the book and in the metrics, and advances coverage when one is complete.

    `sums` adds up what they brought; whoever wants the figures of one recovery makes a reader for it. `walk` and `trash` know the account's
    ways, once they have probed them, for all readers that share them.
    """

    def __init__(
        self,
        *,
        feed: Feed,
        inbox: Observer,
        book: Book,
        clock: Clock,
        metrics: Metrics,
        policy: PollPolicy,
        walk: Walk,
        trash: Trash,
        may_go_on: Callable[[], bool],
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._feed = feed
        self._inbox = inbox
        self._book = book
        self._clock = clock
        self._metrics = metrics
        self._policy = policy
        self._may_go_on = may_go_on
        self._progress = progress
        self._walk = walk
        self._trash = trash
        self._scrub = Scrub(book, metrics)
        self.sums = Tally()

    async def catch_up(self, *, full: bool) -> datetime:
        """Cover everything up to now; give the coverage reached. Raises Unavailable, Refused and Malformed; what was read stays."""
        coverage = await self._book.coverage()
        reached = None if full else coverage.reached
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
        covered = (await self._book.coverage()).reached
        async with self._errand("scrub", covered) as errand:
            scrubbed = await self._scrub.run(errand, batches=self._policy.scrub_batches)
        if scrubbed.stale:
            self._walk.doubt()
        return scrubbed

    def show_coverage(self, reached: datetime | None) -> None:
        """Export the coverage reached."""
        self._metrics.coverage.set(0 if reached is None else reached.timestamp())

    async def _walk_changed(self, reached: datetime) -> datetime | None:
        report = _Report("incremental", self._clock, self._policy, self._progress)
        async with self._errand("incremental", reached, report) as errand:
            began = await self._walk.changed_since(errand, reached)
            if began is not None:
                return await self._reach(began, sweep=False)
            errand.unproven = "more changed than a walk can show completely"
            _log.info("More people changed than a walk can show completely: the whole account is read.")
            return None

    async def _sweep(self) -> datetime:
        coverage = await self._book.coverage()
        report = _Report("sweep", self._clock, self._policy, self._progress)
        async with self._errand("sweep", coverage.reached, report) as errand:
            sweep = Sweep(errand, self._book, workers=self._policy.sweep_workers)
            report.sweep = sweep
            if coverage.sweep_began is not None:
                _log.info("Going on with the sweep that began at %s, from id %s.", coverage.sweep_began, coverage.sweep_from_id)
            began = await sweep.run(coverage.sweep_began, coverage.sweep_from_id)
            reached = await self._reach(began, sweep=True)
        _log.info("Read the whole account: %d people in %d calls.", errand.tally.people, errand.tally.calls)
        return reached

    async def _reach(self, began: datetime, *, sweep: bool) -> datetime:
        reached = await self._book.reach(began - timedelta(seconds=self._policy.overlap_seconds), sweep=sweep)
        self.show_coverage(reached)
        return reached

    @asynccontextmanager
    async def _errand(self, kind: str, covered: datetime | None, report: _Report | None = None) -> AsyncIterator[Errand]:
        """Make an errand and note in the book and in the metrics how it went."""
        went_on = None if report is None else report.tell
        errand = Errand(self._feed, self._inbox, covered=covered, may_go_on=self._may_go_on, went_on=went_on, trash=self._trash)
        started = self._clock.monotonic()
        run_id = await self._book.start_run(kind, self._clock.now())
        try:
            yield errand
        except TROUBLE as error:
            self._metrics.poll_runs.labels(kind, "failed").inc()
            with suppress(Unavailable):
                await self._finish(run_id, errand.tally, "failed", str(error))
            raise
        finally:
            self.sums.people += errand.tally.people
            self.sums.changes += errand.tally.changes
            self.sums.calls += errand.tally.calls
            self._metrics.poll_seconds.labels(kind).observe(self._clock.monotonic() - started)
        if errand.unproven is not None:
            await self._finish(run_id, errand.tally, "failed", errand.unproven)
            return
        self._metrics.poll_runs.labels(kind, "ok").inc()
        if errand.tally.unreadable:
            _log.warning("%d people in a %s poll could not be read: nothing usable was told of them.", errand.tally.unreadable, kind)
        await self._finish(run_id, errand.tally, "ok", f"{errand.tally.unreadable} unreadable" if errand.tally.unreadable else None)

    async def _finish(self, run_id: int, tally: Tally, outcome: str, note: str | None) -> None:
        await self._book.finish_run(
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

    def tell(self, tally: Tally) -> None:
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
