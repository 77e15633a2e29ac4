"""`python -m fubd --poll-only`: catches up by polling alone, next to a running daemon or in its place.

It takes no webhooks, and neither waits for the lease nor takes it: what two readers find at the same time is recorded once. Where no daemon
runs it also reads the people that a webhook asked for before the daemon died. With `--forever` it stands in for the daemon: it polls at the
failover interval, as no webhooks are taken, verifies people at the daemon's pace, and sends its alerts. Modes and subscriptions are left to
the daemon.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from fubd.commands.console import Console
from fubd.commands.eta import with_seconds_left
from fubd.commands.recording import TimeLimitedIngest, open_components, run_ingest
from fubd.commands.session import load_settings
from fubd.commands.signals import run_until_stopped, stop_on_signals
from fubd.components import Components, build_notifier, polling_policy
from fubd.core.text import format_count, format_duration, format_instant, format_name, format_short_instant
from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.lease import LocalLease
from fubd.poller import PollContext, Progress, RecoveryResult, Refetcher, UnreadPeople, recover
from fubd.poller.scrub import ScrubSchedule
from fubd.ports import Committed
from fubd.settings import FOR_FUB, Settings

_LISTED = 20


def run(args: argparse.Namespace) -> int:
    """Catch up; 0 caught up, 1 not. With `--forever` 0 once stopped."""
    settings = load_settings(FOR_FUB)
    return asyncio.run(_recover(settings, args, Console()))


async def _recover(settings: Settings, args: argparse.Namespace, console: Console) -> int:
    recorded: list[int] = []

    def on_commit(committed: Committed) -> None:
        recorded.extend(committed.recorded)

    async with (
        open_components(settings, migrated=True) as components,
        run_ingest(components, on_commit=on_commit) as ingest,
        components.client,
    ):
        stop = stop_on_signals(only_first=True)
        recovery = _Recovery(components, ingest, recorded, console, stop, as_json=args.json, forever=args.forever)
        with console.show_warnings():
            await run_until_stopped(components.account.verify(), stop)
            result = await recovery.catch_up(full=args.full)
            await recovery.print(result)
            if args.forever:
                await _stand_in(recovery, components, stop)
                return 0
    return 0 if result.caught_up else 1


async def _stand_in(recovery: _Recovery, components: Components, stop: asyncio.Event) -> None:
    """Do the daemon's work without its listener until stopped; modes and subscriptions are left to it."""
    async with asyncio.TaskGroup() as group:
        group.create_task(recovery.refetcher.run(stop))
        if (notifier := build_notifier(components)) is not None:
            group.create_task(notifier.run(stop))
        try:
            await recovery.keep_polling()
        finally:
            stop.set()


class _Recovery:
    """Catches up, once or repeatedly, and prints the results. `recorded` receives the ids of rows as they are committed."""

    def __init__(
        self,
        components: Components,
        ingest: TimeLimitedIngest,
        recorded: list[int],
        console: Console,
        stop: asyncio.Event,
        *,
        as_json: bool,
        forever: bool,
    ) -> None:
        settings = components.settings
        self._components = components
        self._console = console
        self._stop = stop
        self._as_json = as_json
        self._latest: dict[str, Progress] = {}
        self._recorded = recorded
        # Held while no daemon runs: then this command also refetches and verifies people.
        self._lease = LocalLease()
        self._context = PollContext(
            api=components.client,
            ingestor=ingest,
            state=components.state,
            clock=components.clock,
            metrics=components.metrics,
            unread=UnreadPeople(components.state, components.clock, components.metrics, components.problems),
            policy=polling_policy(settings),
            next_run_within_seconds=settings.poll_interval_failover_seconds if forever else 0.0,
        )
        self._scrub = ScrubSchedule(self._context, should_continue=lambda: self._lease.held and not stop.is_set())
        self.refetcher = Refetcher(self._context, lease=self._lease, refetch_requested=components.refetch_requested)

    async def catch_up(self, *, full: bool = False, repeated: bool = False) -> RecoveryResult:
        """Read until everything is covered or until stopped. A `repeated` round shows no progress."""
        began, calls = self._components.clock.monotonic(), self._components.client.calls_made()
        self._latest.clear()
        with self._console.show_progress(silent=repeated) as show:
            show_with_estimate = with_seconds_left(show, self._components)

            def on_progress(progress: Progress) -> None:
                self._latest[progress.kind] = progress
                show_with_estimate(progress)

            result = await run_until_stopped(self._read(on_progress, full=full, verify=repeated), self._stop)
        if result is None:
            # A call did not end in time; the last page says how many people were read.
            people = sum(progress.people for progress in self._latest.values())
            coverage = (await self._components.state.coverage()).watermark
            result = RecoveryResult(False, 0, people, 0, coverage, 0.0, "interrupted")
        return replace(
            result,
            recovered=len(self._recorded),
            api_calls=self._components.client.calls_made() - calls,
            seconds=self._components.clock.monotonic() - began,
        )

    async def _read(self, on_progress: Callable[[Progress], None], *, full: bool, verify: bool) -> RecoveryResult:
        if verify:
            await self._components.account.verify_if_due(self._components.settings.poll_interval_seconds)
        self._lease.held = not await self._components.status.is_polled()
        result = await recover(self._context, full=full, on_progress=on_progress, stop=self._stop)
        if not result.caught_up or not self._lease.held:
            return result
        try:
            if verify:
                await self._scrub.run_if_due()
            else:
                await self.refetcher.drain_due()
        except (Unavailable, FubRefused, Malformed) as error:
            return replace(result, caught_up=False, reason=str(error))
        return result

    async def print(self, result: RecoveryResult) -> None:
        """Print the result; the last line says how many changes were recovered."""
        rows = self._recorded.copy()
        self._recorded.clear()
        if not result.caught_up:
            await self._print_reason(result)
        if self._as_json:
            self._console.print_json(
                {
                    "caught_up": result.caught_up,
                    "recovered": result.recovered,
                    "people_read": result.people_read,
                    "api_calls": result.api_calls,
                    "coverage": result.coverage,
                    "seconds": round(result.seconds, 3),
                }
            )
            return
        with suppress(Unavailable):
            await self._print_rows(rows)
        self._console.print_facts(
            (
                ("caught up", "yes" if result.caught_up else "no"),
                ("people read", f"{result.people_read:,}"),
                ("calls used", f"{result.api_calls:,}"),
                ("coverage", "nothing yet" if result.coverage is None else self._instant(result.coverage)),
                ("took", format_duration(result.seconds)),
            )
        )
        self._console.print(f"recovered {result.recovered} changes", "bold green" if result.caught_up else "bold yellow")

    async def _print_reason(self, result: RecoveryResult) -> None:
        if not self._stop.is_set():
            self._console.print_notice(f"fubd: not caught up: {result.reason}")
            return
        covered = "nothing is covered yet" if result.coverage is None else f"everything until {self._instant(result.coverage)} is covered"
        swept = ""
        with suppress(Unavailable):
            coverage = await self._components.state.coverage()
            if coverage.sweep_began is not None and coverage.sweep_from_id:
                began = self._instant(coverage.sweep_began)
                swept = f", and everyone with an id below {coverage.sweep_from_id} has been read since {began}"
        self._console.print_notice(f"fubd: interrupted: {covered}{swept}; run it again to continue from there")

    def _instant(self, at: datetime) -> str:
        return format_instant(at, self._components.settings.zone())

    async def _print_rows(self, ids: Sequence[int]) -> None:
        """Print the first of these rows. Raises Unavailable."""
        if not ids:
            return
        now, zone = self._components.clock.now(), self._components.settings.zone()
        rows = [row.to_dict() for row in await self._components.changes.by_ids(ids[:_LISTED])]
        self._console.print_table(
            ("person", "name", "from", "to", f"changed at, at the latest ({now.astimezone(zone):%Z})"),
            [
                (
                    row["person_id"],
                    format_name(row["first_name"], row["last_name"]),
                    row["stage_from"] or "-",
                    row["stage_to"],
                    format_short_instant(datetime.fromisoformat(row["changed_at"]), now, zone),
                )
                for row in rows
            ],
        )
        if len(ids) > _LISTED:
            self._console.print(f"and {format_count(len(ids) - _LISTED, 'other change')}")
        self._console.print()

    async def keep_polling(self) -> None:
        """Poll until stopped; print what that finds, and each new reason of failure. After a failure the interval doubles, to a limit."""
        settings = self._components.settings
        shortest = settings.poll_interval_failover_seconds
        longest = max(shortest, settings.poll_interval_watch_seconds)
        interval, reason = shortest, None
        self._console.print_notice(f"polling every {format_duration(shortest)} until stopped (Ctrl-C)")
        while not await self._components.clock.pause(interval, self._stop):
            was_alone = self._lease.held
            try:
                result = await self.catch_up(repeated=True)
            except Unavailable as error:
                result = RecoveryResult(False, 0, 0, 0, None, 0.0, str(error))
            if not self._stop.is_set() and (result.recovered or result.reason != reason):
                await self.print(result)
            reason = result.reason
            interval = shortest if result.caught_up else min(2 * interval, longest)
            if was_alone and not self._lease.held:
                self._console.print_notice("a daemon is running: this command goes on polling, and leaves the rest to it")
