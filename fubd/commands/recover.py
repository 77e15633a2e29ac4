"""`python -m fubd --poll-only`: catch up by polling alone, beside a running daemon or in its place.

It listens to nobody, and neither waits for the lease nor takes it: what two readers find at once is recorded once. Where no daemon is at
work it also reads the people whom a webhook spoke of before the daemon died. With `--forever` it stands in for the daemon: it polls at the
interval for failing webhooks, since nobody takes webhooks here, verifies people again at the pace of the daemon and sends its alerts;
modes and subscriptions stay the daemon's.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from typing_extensions import override

from fubd.commands.console import Screen, instant, moment, named, stopping, until_stopped
from fubd.commands.eta import timed
from fubd.commands.session import Impatient, configured, opened, recording
from fubd.components import Components, build_notifier, pacing_policy
from fubd.core.text import format_count, format_duration
from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.lease import LocalLease
from fubd.poller import Poller, PollPolicy, Progress, RecoveryResult
from fubd.ports import Committed
from fubd.settings import FOR_FUB, Settings
from fubd.store import StateStore
from fubd.subscriptions import SubscriptionManager

_SHOWN = 20


def run(args: argparse.Namespace) -> int:
    """Catch up; 0 caught up, 1 not. With `--forever` 0 when told to stop."""
    settings = configured(FOR_FUB)
    return asyncio.run(_recover(settings, args, Screen()))


async def _recover(settings: Settings, args: argparse.Namespace, screen: Screen) -> int:
    stop = stopping()
    recorded: list[int] = []

    def on_commit(committed: Committed) -> None:
        recorded.extend(committed.recorded)

    async with (
        opened(settings, writing=True) as components,
        recording(components, on_commit=on_commit) as ingestor,
        components.client,
    ):
        recovery = _Recovery(components, ingestor, recorded, screen, stop, as_json=args.json, forever=args.forever)
        with screen.warnings():
            caught = await recovery.catch_up(full=args.full)
            await recovery.show(caught)
            if args.forever:
                await _stand_in(recovery, components, stop)
                return 0
    return 0 if caught.caught_up else 1


async def _stand_in(recovery: _Recovery, components: Components, stop: asyncio.Event) -> None:
    """Do until told to stop what the daemon would do without its listener; of what it does, only modes and subscriptions stay its own."""
    async with asyncio.TaskGroup() as group:
        group.create_task(recovery.poller.run_refetches(stop))
        if (notifier := build_notifier(components)) is not None:
            group.create_task(notifier.run(stop))
        try:
            await recovery.go_on()
        finally:
            stop.set()


class _OwnRuns(StateStore):
    """The book, where the runs are of somebody who goes on for himself: `next_within_seconds`, 0 for a single run."""

    def __init__(self, components: Components, next_within_seconds: float) -> None:
        super().__init__(components.pool, alerting=components.settings.alert_url is not None)
        self._next_within_seconds = next_within_seconds

    @override
    async def start_run(self, kind: str, started_at: datetime) -> int:
        run_id = await super().start_run(kind, started_at)
        await self.set_next_run(run_id, next_within_seconds=self._next_within_seconds)
        return run_id


class _Recovery:
    """Catches up, once or again and again, and shows it."""

    def __init__(
        self,
        components: Components,
        ingestor: Impatient,
        recorded: list[int],
        screen: Screen,
        stop: asyncio.Event,
        *,
        as_json: bool,
        forever: bool,
    ) -> None:
        settings = components.settings
        self._parts = components
        self._screen = screen
        self._stop = stop
        self._as_json = as_json
        self._furthest: dict[str, Progress] = {}
        self._recorded = recorded
        # Whether nobody else is at work: then people a webhook spoke of are read here, and people are verified again.
        self._alone = True
        self.poller = Poller(
            api=components.client,
            ingestor=ingestor,
            state=_OwnRuns(components, settings.poll_interval_failover_seconds if forever else 0.0),
            clock=components.clock,
            metrics=components.metrics,
            policy=PollPolicy(pacing=pacing_policy(settings), scrub_batches=settings.scrub_batches),
            subscriptions=SubscriptionManager(components.client, components.metrics, public_url=None, manage=False, lease=LocalLease()),
            jitter=lambda: 0.0,
            is_leader=lambda: self._alone,
            refetch_requested=components.refetch_requested,
            poll_now=asyncio.Event(),
        )

    async def catch_up(self, *, full: bool = False, forever: bool = False) -> RecoveryResult:
        """Read until everything is covered, or until told to stop; of a round of many nothing is shown on the way."""
        began, calls = self._parts.clock.monotonic(), self._parts.client.calls_made()
        self._furthest.clear()
        with self._screen.progress(silent=forever) as show:
            watch = timed(show, self._parts)

            def reached(progress: Progress) -> None:
                self._furthest[progress.kind] = progress
                watch(progress)

            caught = await until_stopped(self._read(reached, full=full, verify=forever), self._stop)
        if caught is None:
            # A call was under way that would not end: what was read so far is known from the last page.
            people = sum(progress.people for progress in self._furthest.values())
            caught = RecoveryResult(False, 0, people, 0, (await self._parts.state.coverage()).reached, 0.0, "interrupted")
        return replace(
            caught,
            recovered=len(self._recorded),
            api_calls=self._parts.client.calls_made() - calls,
            seconds=self._parts.clock.monotonic() - began,
        )

    async def _read(self, reached: Callable[[Progress], None], *, full: bool, verify: bool) -> RecoveryResult:
        self._alone = not await self._parts.status.is_polled()
        caught = await self.poller.catch_up(full=full, progress=reached, stop=self._stop)
        if not caught.caught_up or not self._alone:
            return caught
        try:
            if verify:
                await self.poller.scrub_some()
            else:
                await self.poller.drain_due()
        except (Unavailable, FubRefused, Malformed) as error:
            return replace(caught, caught_up=False, why=str(error))
        return caught

    async def show(self, caught: RecoveryResult) -> None:
        """Print what it came to; the last line says how much was recovered."""
        rows = self._recorded.copy()
        self._recorded.clear()
        if not caught.caught_up:
            await self._say_why(caught)
        if self._as_json:
            self._screen.json(
                {
                    "caught_up": caught.caught_up,
                    "recovered": caught.recovered,
                    "people_read": caught.people_read,
                    "api_calls": caught.api_calls,
                    "coverage": caught.coverage,
                    "seconds": round(caught.seconds, 3),
                }
            )
            return
        with suppress(Unavailable):
            await self._list(rows)
        self._screen.facts(
            (
                ("caught up", "yes" if caught.caught_up else "no"),
                ("people read", f"{caught.people_read:,}"),
                ("calls used", f"{caught.api_calls:,}"),
                ("coverage", "nothing yet" if caught.coverage is None else instant(caught.coverage)),
                ("took", format_duration(caught.seconds)),
            )
        )
        self._screen.say(f"recovered {caught.recovered} changes", style="bold green" if caught.caught_up else "bold yellow")

    async def _say_why(self, caught: RecoveryResult) -> None:
        if not self._stop.is_set():
            self._screen.note(f"fubd: not caught up: {caught.why}")
            return
        reached = "nothing is covered yet" if caught.coverage is None else f"covered is everything until {instant(caught.coverage)}"
        further = ""
        with suppress(Unavailable):
            coverage = await self._parts.state.coverage()
            if coverage.sweep_began is not None and coverage.sweep_from_id:
                began = instant(coverage.sweep_began)
                further = f", and everybody with an id below {coverage.sweep_from_id} has been read since {began}"
        self._screen.note(f"fubd: interrupted: {reached}{further}; a second run goes on from there")

    async def _list(self, rows: Sequence[int]) -> None:
        """Show the first of these rows. Raises Unavailable."""
        if not rows:
            return
        now = self._parts.clock.now()
        self._screen.table(
            ("person", "name", "from", "to", "changed at, at the latest"),
            [
                (
                    row["person_id"],
                    named(row["first_name"], row["last_name"]),
                    row["stage_from"] or "-",
                    row["stage_to"],
                    moment(datetime.fromisoformat(row["changed_at"]), now),
                )
                for row in (shown.to_dict() for shown in await self._parts.changes.by_ids(rows[:_SHOWN]))
            ],
        )
        if len(rows) > _SHOWN:
            self._screen.say(f"and {format_count(len(rows) - _SHOWN, 'other change')}")
        self._screen.say()

    async def go_on(self) -> None:
        """Keep polling until told to stop, and show what that finds, and trouble when it comes and goes. It is waited out, ever longer."""
        settings = self._parts.settings
        shortest = settings.poll_interval_failover_seconds
        longest = max(shortest, settings.poll_interval_watch_seconds)
        wait, trouble = shortest, None
        self._screen.note(f"polling every {format_duration(shortest)} until told to stop")
        while not await self._parts.clock.pause(wait, self._stop):
            alone = self._alone
            try:
                caught = await self.catch_up(forever=True)
            except Unavailable as error:
                caught = RecoveryResult(False, 0, 0, 0, None, 0.0, str(error))
            if not self._stop.is_set() and (caught.recovered or caught.why != trouble):
                await self.show(caught)
            trouble = caught.why
            wait = shortest if caught.caught_up else min(2 * wait, longest)
            if alone and not self._alone:
                self._screen.note("a daemon is at work: polling beside it goes on, the rest is left to it")
