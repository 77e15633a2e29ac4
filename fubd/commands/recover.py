"""`python -m fubd --poll-only`: catch up by polling alone, beside a running daemon or in its place.

It listens to nobody, and neither waits for the lease nor takes it: what two readers find at once is recorded once. With `--forever` it goes
on at the interval for failing webhooks, for nobody takes webhooks here; modes and subscriptions stay the daemon's.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fubd.commands.database import configured
from fubd.commands.recording import Impatient, opened, recording
from fubd.commands.screen import Screen, counted, duration, instant, plain, stopping, until_stopped
from fubd.daemon import Parts, policy_of
from fubd.keeper import Keeper
from fubd.notifier import Notifier
from fubd.poller import CatchUp, Poller, PollPolicy, Progress
from fubd.ports import Unavailable
from fubd.settings import FOR_FUB, Settings
from fubd.store.inquiry import Inquiry
from fubd.store.outbox import Outbox

_SHOWN = 20


def run(args: argparse.Namespace) -> int:
    """Catch up; 0 caught up, 1 not. With `--forever` 0 when told to stop."""
    settings = configured(FOR_FUB)
    return asyncio.run(_recover(settings, args, Screen()))


async def _recover(settings: Settings, args: argparse.Namespace, screen: Screen) -> int:
    stop = stopping()
    async with opened(settings, writing=True) as parts, recording(parts) as inbox, parts.client:
        recovery = _Recovery(parts, inbox, screen, stop, as_json=args.json)
        with screen.warnings():
            caught = await recovery.catch_up(full=args.full)
            await recovery.show(caught)
            if args.forever:
                async with _alerts_too(parts):
                    await recovery.go_on()
                return 0
    return 0 if caught.caught_up else 1


@asynccontextmanager
async def _alerts_too(parts: Parts) -> AsyncIterator[None]:
    """Send the alerts that the daemon would send."""
    url = parts.settings.alert_url
    if url is None:
        yield
        return
    stop = asyncio.Event()
    notifier = Notifier(Outbox(parts.pool), parts.clock, parts.metrics, url=url.get_secret_value())
    async with asyncio.TaskGroup() as group:
        group.create_task(notifier.run(stop))
        try:
            yield
        finally:
            stop.set()


class _Recovery:
    """Catches up, once or again and again, and shows it."""

    def __init__(self, parts: Parts, inbox: Impatient, screen: Screen, stop: asyncio.Event, *, as_json: bool) -> None:
        settings = parts.settings
        self._parts = parts
        self._screen = screen
        self._stop = stop
        self._as_json = as_json
        self._inquiry = Inquiry(parts.pool)
        self._before = 0
        self._furthest: dict[str, Progress] = {}
        self._poller = Poller(
            feed=parts.client,
            inbox=inbox,
            book=parts.book,
            clock=parts.clock,
            metrics=parts.metrics,
            policy=PollPolicy(pacing=policy_of(settings)),
            keeper=Keeper(parts.client, parts.metrics, public_url=None, manage=False),
            jitter=lambda: 0.0,
            held=lambda: True,
            hinted=asyncio.Event(),
            woken=asyncio.Event(),
        )

    async def catch_up(self, *, full: bool, silent: bool = False) -> CatchUp:
        """Read until everything is covered, or until told to stop."""
        began = self._parts.clock.monotonic()
        self._before = await self._inquiry.last_change_id()
        self._furthest.clear()
        with self._screen.progress(silent=silent) as show:

            def reached(progress: Progress) -> None:
                self._furthest[progress.kind] = progress
                show(progress)

            caught = await until_stopped(self._poller.catch_up(full=full, progress=reached, stop=self._stop), self._stop)
        if caught is not None:
            return caught
        # A call was under way that would not end: what was recorded so far is known from the last page.
        coverage = await self._parts.book.coverage()
        return CatchUp(
            caught_up=False,
            recovered=sum(progress.changes for progress in self._furthest.values()),
            people_read=sum(progress.people for progress in self._furthest.values()),
            api_calls=self._parts.client.calls_made(),
            coverage=coverage.reached,
            seconds=self._parts.clock.monotonic() - began,
            why="interrupted",
        )

    async def show(self, caught: CatchUp) -> None:
        """Print what it came to; the last line says how much was recovered."""
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
        await self._list(caught.recovered)
        self._screen.facts(
            (
                ("caught up", "yes" if caught.caught_up else "no"),
                ("people read", f"{caught.people_read:,}"),
                ("calls used", f"{caught.api_calls:,}"),
                ("coverage", instant(caught.coverage)),
                ("took", duration(caught.seconds)),
            )
        )
        self._screen.say(f"recovered {caught.recovered} changes", style="bold green" if caught.caught_up else "bold yellow")

    async def _say_why(self, caught: CatchUp) -> None:
        if not self._stop.is_set():
            self._screen.note(f"fubd: not caught up: {caught.why}")
            return
        coverage = await self._parts.book.coverage()
        reached = "nothing is covered yet" if coverage.reached is None else f"covered is everything until {instant(coverage.reached)}"
        further = ""
        if coverage.sweep_began is not None and coverage.sweep_from_id:
            further = f", and everybody with an id below {coverage.sweep_from_id} has been read since {instant(coverage.sweep_began)}"
        self._screen.note(f"fubd: interrupted: {reached}{further}; a second run goes on from there")

    async def _list(self, recovered: int) -> None:
        if not recovered:
            return
        rows = [row for row in await self._parts.report.changes(self._before, 1_000) if row["source"] == "polling"]
        self._screen.table(
            ("person", "name", "from", "to", "changed at, at the latest"),
            [
                (
                    row["person_id"],
                    " ".join(plain(row[part]) for part in ("first_name", "last_name") if row[part]),
                    row["stage_from"] or "-",
                    row["stage_to"],
                    row["changed_at"][:19].replace("T", " "),
                )
                for row in rows[:_SHOWN]
            ],
        )
        if recovered > _SHOWN:
            self._screen.say(f"and {counted(recovered - _SHOWN, 'other change')}")
        self._screen.say()

    async def go_on(self) -> None:
        """Keep polling until told to stop, and show what that finds. Outages are waited out, longer each time."""
        settings = self._parts.settings
        shortest = settings.poll_interval_failover_seconds
        longest = max(shortest, settings.poll_interval_watch_seconds)
        wait = shortest
        self._screen.note(f"polling every {duration(shortest)} until told to stop")
        while not await self._parts.clock.pause(wait, self._stop):
            try:
                caught = await self.catch_up(full=False, silent=True)
                if not self._stop.is_set() and (caught.recovered or not caught.caught_up):
                    await self.show(caught)
            except Unavailable as error:
                self._screen.note(f"fubd: {error}")
                wait = min(2 * wait, longest)
            else:
                wait = shortest if caught.caught_up else min(2 * wait, longest)
