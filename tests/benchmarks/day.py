"""What a day of the whole daemon costs in calls to Follow Up Boss: the real process, real HTTP, a real database.

`python -m tests.benchmarks.day [--people 202000] [--minutes 10]` starts a simulated account, an embedded Postgres and `python -m fubd`, and
lets a day pass in so many minutes: every interval of the settings is shorter by the same factor, and nothing else is. Only what counts as
missed by webhooks stays seconds old, for FUB dates by whole seconds and a webhook takes its time. It counts what arrives at the account, in
a day of webhooks that work and in a day of failover, and prints it beside the older poller's figure.
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
from fubd.store.embedded import temporary
from tests.poller.economy import PEOPLE, Day, table
from tests.stack import House, house
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
    """How fast days pass: a whole one in `day_seconds` of real time."""

    day_seconds: float

    @property
    def settings(self) -> dict[str, str]:
        """Give the default intervals, shortened."""
        missed_after_seconds = max(_LEAST_MISSED_AFTER_SECONDS, self.real(_MISSED_AFTER_SECONDS))
        return {name: str(self.real(seconds)) for name, seconds in _INTERVALS.items()} | {"FUBD_MISSED_AFTER": str(missed_after_seconds)}

    def real(self, seconds: float) -> float:
        """Give how long these seconds of a day last."""
        return seconds * self.day_seconds / DAY_SECONDS


class Household:
    """A daemon in a house, people who move, and the counting of what it asks."""

    def __init__(self, built: House, pace: Pace) -> None:
        self.built = built
        self._pace = pace
        self._rng = Rng(19)

    def move(self) -> None:
        """Let somebody enter another stage."""
        account = self.built.account
        person_id = self._rng.choice(account.ids)
        account.move(person_id, self._rng.choice([stage.name for stage in account.stages if stage.name != account.stage_of(person_id)]))

    async def becomes(self, mode: str) -> None:
        """Let people move until the daemon is in this mode and has settled in it."""
        loop = asyncio.get_running_loop()
        moved_at = float("-inf")

        async def reached() -> bool:
            nonlocal moved_at
            if loop.time() - moved_at >= self._pace.real(_SECONDS_PER_MOVE):
                moved_at = loop.time()
                self.move()
            return bool((await self.built.get("/health"))["mode"] == mode)

        await eventually(reached, 10 * self._pace.real(_INTERVALS["FUBD_POLL_INTERVAL"]) + 30.0)
        # The first polls of a failover look at the subscriptions each.
        await asyncio.sleep(6 * self._pace.real(_INTERVALS["FUBD_POLL_INTERVAL_FAILOVER"]))

    async def lives(self, situation: str, *, share: float) -> Day:
        """Live this share of a day, somebody moving every four minutes, and count the calls."""
        calls, moved = sum(self._calls().values()), len(self.built.simulator.truth.changes)
        webhooks = self._calls()["webhooks"]
        (latest,) = await self.built.fetch("SELECT coalesce(max(id), 0) AS id FROM fubd.poll_run")
        loop = asyncio.get_running_loop()
        began = loop.time()
        lasts, every = share * self._pace.day_seconds, self._pace.real(_SECONDS_PER_MOVE)
        moves = 0
        while loop.time() - began < lasts:
            moves += 1
            await asyncio.sleep(max(0.0, began + min(moves * every, lasts) - loop.time()))
            self.move()
        mode = str((await self.built.get("/health"))["mode"])
        runs = await self.built.fetch("SELECT kind, sum(calls)::int AS calls FROM fubd.poll_run WHERE id > $1 GROUP BY kind", latest["id"])
        spent = Counter({row["kind"]: row["calls"] for row in runs})
        looks = self._calls()["webhooks"] - webhooks
        return Day(
            situation,
            mode=mode,
            polls=spent["incremental"] + spent["sweep"],
            subscriptions=looks,
            scrub=spent["scrub"],
            # What no run counted: people read because a webhook spoke of them.
            changed=max(0, sum(self._calls().values()) - calls - looks - spent.total()),
            changes=len(self.built.simulator.truth.changes) - moved,
        )

    def refused(self) -> int:
        """Give how many requests FUB refused, 429 included."""
        return sum(count for (_, _, status), count in self.built.simulator.calls.items() if status >= 400)

    def _calls(self) -> Counter[str]:
        counted: Counter[str] = Counter()
        for (_, endpoint, _), count in self.built.simulator.calls.items():
            counted[endpoint] += count
        return counted


@asynccontextmanager
async def household(database: str, folder: Path, *, people: int, pace: Pace) -> AsyncIterator[Household]:
    """Run the daemon over an account of so many people, at this pace, once it has read them all."""
    async with house(database, folder, people=people) as built, built.daemon(**pace.settings) as process:
        await process.answers(f"{built.url}/readyz")

        async def covered() -> bool:
            return (await built.get("/health"))["coverage"] is not None

        # A hundred people a call, 200 calls in ten seconds.
        await eventually(covered, 60.0 + people / 1000)
        yield Household(built, pace)


async def _measure(people: int, pace: Pace) -> None:
    with temporary() as database, tempfile.TemporaryDirectory() as folder:
        async with household(database, Path(folder), people=people, pace=pace) as home:
            await home.becomes("steady")
            days = [await home.lives("steady", share=1.0)]
            home.built.simulator.deliveries.kill()
            await home.becomes("failover")
            days.append(await home.lives("failover at 30 s", share=1.0))
            score = await home.built.settled()
            sys.stdout.write(
                f"An account of {people:,} people, the whole daemon, a day in {pace.day_seconds:g} s.\n{table(days)}\n"
                f"score: {score.changes} changes, {score.captured} captured; requests refused: {home.refused()}\n"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.day", description="What a day of the daemon costs in calls.")
    parser.add_argument("--people", type=int, default=PEOPLE, help=f"how many people the account holds (default {PEOPLE})")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long a day lasts (default 10)")
    told = parser.parse_args()
    asyncio.run(_measure(told.people, Pace(told.minutes * 60)))
