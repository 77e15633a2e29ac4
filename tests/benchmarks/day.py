"""The API calls that the whole daemon makes in a day: the real process, real HTTP, a real database.

`python -m tests.benchmarks.day [--people 202000] [--minutes 10]` starts a simulated account, an embedded Postgres and `python -m fubd`, and
runs a day in so many minutes: every interval of the settings is shortened by the same factor. Only FUBD_MISSED_AFTER stays at seconds,
since FUB dates events in whole seconds and a webhook needs time. It counts the calls that arrive at the account, in a day of working
webhooks and in a day of failover, and prints them next to the older poller's.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fubd.simulator.rng import Rng
from fubd.store.embedded import temporary_server
from tests.poller.economy import PEOPLE, Day, table
from tests.stack import Stack, running_stack
from tests.support.waiting import eventually

DAY_SECONDS = 86_400.0
_SECONDS_PER_MOVE = 240.0
_INTERVALS = {
    "FUBD_POLL_INTERVAL": 1800.0,
    "FUBD_POLL_INTERVAL_WATCH": 300.0,
    "FUBD_POLL_INTERVAL_FAILOVER": 30.0,
    "FUBD_WEBHOOK_STALE_AFTER": 3600.0,
    "FUBD_POLL_STALE_AFTER": 2700.0,
}
_MISSED_AFTER_SECONDS = 120.0
_LEAST_MISSED_AFTER_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Pace:
    """The speed of a run: a whole day in `day_seconds` of real time."""

    day_seconds: float

    @property
    def settings(self) -> dict[str, str]:
        """The default intervals, shortened."""
        missed_after_seconds = max(_LEAST_MISSED_AFTER_SECONDS, self.real(_MISSED_AFTER_SECONDS))
        return {name: str(self.real(seconds)) for name, seconds in _INTERVALS.items()} | {"FUBD_MISSED_AFTER": str(missed_after_seconds)}

    def real(self, seconds: float) -> float:
        """Return how long these seconds of a day last in real time."""
        return seconds * self.day_seconds / DAY_SECONDS


class MeasuredDaemon:
    """A daemon with a simulated account in which people move, and the calls it makes."""

    def __init__(self, stack: Stack, pace: Pace) -> None:
        self.stack = stack
        self._pace = pace
        self._rng = Rng(19)

    def move(self) -> None:
        """Move a random person into another stage."""
        account = self.stack.account
        person_id = self._rng.choice(account.ids)
        account.move(person_id, self._rng.choice([stage.name for stage in account.stages if stage.name != account.stage_of(person_id)]))

    async def wait_for_mode(self, mode: str) -> None:
        """Move people until the daemon is in this mode and stays in it."""
        loop = asyncio.get_running_loop()
        moved_at = float("-inf")

        async def reached() -> bool:
            nonlocal moved_at
            if loop.time() - moved_at >= self._pace.real(_SECONDS_PER_MOVE):
                moved_at = loop.time()
                self.move()
            return bool((await self.stack.get("/health"))["mode"] == mode)

        await eventually(reached, 10 * self._pace.real(_INTERVALS["FUBD_POLL_INTERVAL"]) + 30.0)
        # The first polls of a failover also check the subscriptions.
        await asyncio.sleep(6 * self._pace.real(_INTERVALS["FUBD_POLL_INTERVAL_FAILOVER"]))

    async def run(self, situation: str, *, share: float) -> Day:
        """Run for this share of a day, with a move every four minutes, and count the calls."""
        calls, moved = sum(self._calls().values()), len(self.stack.simulator.truth.changes)
        webhooks = self._calls()["webhooks"]
        (latest,) = await self.stack.fetch("SELECT coalesce(max(id), 0) AS id FROM fubd.poll_run")
        loop = asyncio.get_running_loop()
        began = loop.time()
        lasts, every = share * self._pace.day_seconds, self._pace.real(_SECONDS_PER_MOVE)
        moves = 0
        while loop.time() - began < lasts:
            moves += 1
            await asyncio.sleep(max(0.0, began + min(moves * every, lasts) - loop.time()))
            self.move()
        mode = str((await self.stack.get("/health"))["mode"])
        runs = await self.stack.fetch("SELECT kind, sum(calls)::int AS calls FROM fubd.poll_run WHERE id > $1 GROUP BY kind", latest["id"])
        spent = Counter({row["kind"]: row["calls"] for row in runs})
        looks = self._calls()["webhooks"] - webhooks
        return Day(
            situation,
            mode=mode,
            polls=spent["incremental"] + spent["sweep"],
            subscriptions=looks,
            scrub=spent["scrub"],
            # Not counted by a run: people read because of a webhook.
            changed=max(0, sum(self._calls().values()) - calls - looks - spent.total()),
            changes=len(self.stack.simulator.truth.changes) - moved,
        )

    def refused(self) -> int:
        """Return how many requests FUB refused, 429 included."""
        return sum(count for (_, _, status), count in self.stack.simulator.calls.items() if status >= 400)

    def _calls(self) -> Counter[str]:
        counted: Counter[str] = Counter()
        for (_, endpoint, _), count in self.stack.simulator.calls.items():
            counted[endpoint] += count
        return counted


@asynccontextmanager
async def measured_daemon(database: str, folder: Path, *, people: int, pace: Pace) -> AsyncIterator[MeasuredDaemon]:
    """Run the daemon with an account of this size, at this pace, and yield once all people are read."""
    async with running_stack(database, folder, people=people) as stack, stack.daemon(**pace.settings) as process:
        await process.answers(f"{stack.url}/readyz")

        async def covered() -> bool:
            return (await stack.get("/health"))["coverage"] is not None

        # A hundred people per call, 200 calls in ten seconds.
        await eventually(covered, 60.0 + people / 1000)
        yield MeasuredDaemon(stack, pace)


async def _measure(people: int, pace: Pace) -> None:
    with temporary_server() as database, tempfile.TemporaryDirectory() as folder:
        async with measured_daemon(database, Path(folder), people=people, pace=pace) as daemon:
            await daemon.wait_for_mode("steady")
            days = [await daemon.run("steady", share=1.0)]
            daemon.stack.simulator.deliveries.kill()
            await daemon.wait_for_mode("failover")
            days.append(await daemon.run("failover at 30 s", share=1.0))
            score = await daemon.stack.final_score()
            sys.stdout.write(
                f"An account of {people:,} people, the whole daemon, a day in {pace.day_seconds:g} s.\n{table(days)}\n"
                f"score: {score.changes} changes, {score.captured} captured; requests refused: {daemon.refused()}\n"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.day", description="What a day of the daemon costs in calls.")
    parser.add_argument("--people", type=int, default=PEOPLE, help=f"how many people the account holds (default {PEOPLE})")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long a day lasts (default 10)")
    arguments = parser.parse_args()
    asyncio.run(_measure(arguments.people, Pace(arguments.minutes * 60)))
