"""Read until everything up to the moment of the start is covered: a sweep where one is needed, then the people who changed."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.poller.context import PollContext
from fubd.poller.id_batch import read_id_batch
from fubd.poller.poll_run import PAGE_SIZE, PollRun, Progress, RunStats
from fubd.poller.sweep import Sweep

_log = logging.getLogger("fubd.poller")

_UNREAD_BY_ID = 10
_NO_INCREMENTAL_READ = (
    "Follow Up Boss neither filters nor orders its lists by the time of change, so only reading the whole account finds changes; to spare"
    " calls that waits"
)


class CatchUp:
    """Reads, and advances coverage when a run is complete. `totals` adds up the figures of all runs; `covered`: the coverage so far."""

    def __init__(
        self, context: PollContext, *, should_continue: Callable[[], bool], on_progress: Callable[[Progress], None] | None = None
    ) -> None:
        self._context = context
        self._state = context.state
        self._should_continue = should_continue
        self._on_progress = on_progress
        self.totals = RunStats()
        self.covered: datetime | None = None

    async def run(self, *, full: bool = False) -> datetime:
        """Cover everything up to now; return the new coverage. `full`: read the whole account.

        Raises Unavailable, FubRefused and Malformed; what was read until then stays recorded.
        """
        self.covered = self._context.covered.limit((await self._state.coverage()).watermark)
        self._export(self.covered)
        await self._context.unread.load()
        watermark = None if full else self.covered
        is_swept = watermark is None
        if watermark is None:
            watermark = await self._sweep()
        advanced = await self._read_changed(watermark)
        if advanced is None and not is_swept:
            watermark = await self._sweep_instead()
            advanced = await self._read_changed(watermark)
        # The sweep alone also covers; when too much changes even then for an incremental read, the next poll continues from here.
        self.covered = advanced or watermark
        return self.covered

    async def _read_changed(self, watermark: datetime) -> datetime | None:
        """Read the people who changed; return the new coverage, None when it could not be shown that all of them were read."""
        report = _ProgressReport("incremental", self._context, self._on_progress)
        async with self._open_run("incremental", watermark, report) as run:
            started = self._context.clock.monotonic()
            began = await self._context.incremental.changed_since(run, watermark)
            if began is not None:
                await self._require_somebody(run, is_whole_account=self._context.incremental.shows_nobody)
                await self._read_unread(run)
                run.require_usable()
                if not run.stats.unidentified:
                    await self._context.unread.settle_unidentified()
                if self._context.api.fub_now() < watermark:
                    run.incomplete_reason = "Follow Up Boss's clock is behind the coverage"
                    _log.warning(
                        "Follow Up Boss's clock is behind the coverage; reading the whole account once, then only the people who change"
                    )
                    return None
                return await self._advance(self._earliest(began, started), sweep=False)
            run.incomplete_reason = "more people changed than an incremental read can prove complete"
            _log.info("More people changed than an incremental read can prove complete; reading the whole account")
            return None

    async def _sweep_instead(self) -> datetime:
        """Sweep because an incremental read proved nothing. Raises Unavailable when none ever can and a sweep is too early."""
        if self._context.incremental.is_possible:
            return await self._sweep()
        if self._context.sweeps.is_spent(self._context.clock.monotonic()):
            raise Unavailable(_NO_INCREMENTAL_READ)
        calls = self.totals.calls
        try:
            return await self._sweep()
        finally:
            self._context.sweeps.spend(self._context.clock.monotonic(), self.totals.calls - calls)

    async def _sweep(self) -> datetime:
        coverage = await self._state.coverage()
        report = _ProgressReport("sweep", self._context, self._on_progress)
        async with self._open_run("sweep", coverage.watermark, report) as run:
            sweep = Sweep(run, self._state, workers=self._context.policy.sweep_workers)
            report.sweep = sweep
            started, was_begun = self._context.clock.monotonic(), coverage.sweep_began is not None
            if coverage.sweep_began is not None:
                _log.info("Resuming the sweep that began at %s from person id %s", coverage.sweep_began, coverage.sweep_from_id)
            began = await sweep.run(coverage.sweep_began, coverage.sweep_from_id)
            await self._require_somebody(run, is_whole_account=not was_begun)
            await self._require_usable_sweep(run, began)
            watermark = await self._advance(began if was_begun else self._earliest(began, started), sweep=True)
        _log.info("Read the whole account: %d people in %d calls", run.stats.people, run.stats.calls)
        return watermark

    async def _require_somebody(self, run: PollRun, *, is_whole_account: bool) -> None:
        """Raise Unavailable when a run that saw the whole account saw nobody, though people are known: it proves nothing about them."""
        if is_whole_account and not run.stats.people + run.stats.unreadable + run.stats.refused and await self._state.oldest_verified(1):
            raise Unavailable("Follow Up Boss lists nobody, although people are recorded; this API key may have lost sight of them")

    def _earliest(self, began: datetime, started: float) -> datetime:
        """Return when the walk began, by the earlier of its first answer and of FUB's clock as all answers show it by now."""
        elapsed = timedelta(seconds=self._context.clock.monotonic() - started)
        return min(began, self._context.api.fub_now() - elapsed)

    async def _read_unread(self, run: PollRun) -> None:
        """Ask again for people who could not be read before and are due: all in one call, a few who are on no list by id."""
        unread = self._context.unread
        due = unread.due(PAGE_SIZE)
        if not due:
            return
        absent = set(due)
        async for page in read_id_batch(run, due):
            await run.record(page.readings, page.read_at)
            absent.difference_update(page.ids)
        await self._read_absent(run, sorted(absent))

    async def _read_absent(self, run: PollRun, absent: list[int]) -> None:
        """Read by id some of the unread people who are on no list; the others are asked for again later."""
        unread = self._context.unread
        await unread.add(absent[_UNREAD_BY_ID:])
        for person_id in absent[:_UNREAD_BY_ID]:
            try:
                reading, read_at = await run.person(person_id)
            except (FubRefused, Malformed):
                await unread.add([person_id])
                continue
            if reading is None:
                await self._state.mark_deleted(person_id, read_at)
                await unread.settle([person_id])
            else:
                await run.record([reading], read_at)

    async def _require_usable_sweep(self, run: PollRun, began: datetime) -> None:
        """Raise Unavailable when too much of the account could not be used; the next sweep starts over, and not at once."""
        try:
            run.require_usable()
        except Unavailable as error:
            await self._state.begin_sweep(began, from_id=0)
            raise Unavailable(str(error), retry_after=self._context.policy.pacing.poll_interval_seconds) from None

    async def _advance(self, began: datetime, *, sweep: bool) -> datetime:
        overlap = timedelta(seconds=self._context.policy.overlap_seconds)
        stored = await self._state.advance_coverage(began - overlap, sweep=sweep)
        self._context.covered.instant = began - overlap if self._context.api.fub_now() < stored else None
        watermark = self._context.covered.limit(stored) or stored
        self._export(watermark)
        return watermark

    def _export(self, watermark: datetime | None) -> None:
        self._context.metrics.coverage.set(0 if watermark is None else watermark.timestamp())

    @asynccontextmanager
    async def _open_run(self, kind: str, watermark: datetime | None, report: _ProgressReport) -> AsyncIterator[PollRun]:
        async with self._context.open_run(kind, watermark, should_continue=self._should_continue, on_page=report.on_page) as run:
            try:
                yield run
            finally:
                self.totals.add(run.stats)


class _ProgressReport:
    """Reports the progress of a run: each page to the callback, and a line in the log every few seconds."""

    def __init__(self, kind: str, context: PollContext, on_progress: Callable[[Progress], None] | None) -> None:
        self._kind = kind
        self._clock = context.clock
        self._interval_seconds = context.policy.progress_seconds
        self._on_progress = on_progress
        self._began = self._logged_at = self._clock.monotonic()
        self.sweep: Sweep | None = None

    def on_page(self, stats: RunStats) -> None:
        """Report the figures after a page."""
        now = self._clock.monotonic()
        total = None if self.sweep is None else self.sweep.total
        left = None if not total or not stats.people else (now - self._began) * max(0, total - stats.people) / stats.people
        progress = Progress(self._kind, stats.people, total, stats.changes, stats.calls, left)
        if self._on_progress is not None:
            self._on_progress(progress)
        if now - self._logged_at >= self._interval_seconds:
            self._logged_at = now
            _log.info("%s", _line(progress))


def _line(progress: Progress) -> str:
    total = "" if progress.total is None else f" of {progress.total}"
    left = "" if progress.seconds_left is None else f", about {progress.seconds_left:.0f} s left"
    return f"Read {progress.people}{total} people in {progress.calls} calls, {progress.changes} changes found{left}"
