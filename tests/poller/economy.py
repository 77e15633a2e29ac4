"""What a day costs in API calls: the real poller and subscriptions over 202,000 people, in virtual time, compared with the older poller."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from fubd.simulator.rng import Rng
from tests.poller.harness import PollerHarness
from tests.support.virtual_time import run_virtual

OLDER_POLLER_CALLS = 97_000
PEOPLE = 202_000
FILTERS = ("works", "hides", "ignored", "refused")
_DAY = 86_400.0
_BULK_EDITS = 10
_PEOPLE_IN_BULK = 1_000
_SUBSCRIPTION_CALLS = frozenset({"webhooks", "subscribe", "update_subscription"})


@dataclass(frozen=True, slots=True)
class Day:
    """The API calls of a day. `changed`: reads of people who changed; `changes`: moves of that day."""

    situation: str
    mode: str
    polls: int
    subscriptions: int
    scrub: int
    changed: int
    changes: int

    @property
    def running(self) -> int:
        """All calls except the reads of people who changed."""
        return self.polls + self.subscriptions + self.scrub


async def _steady(harness: PollerHarness) -> int:
    harness.move()
    await harness.wait(301)
    return 240


async def _failover(harness: PollerHarness) -> int:
    harness.webhooks_arrive = False
    harness.move()
    await harness.wait(700)
    return 240


async def _quiet(harness: PollerHarness) -> int:
    harness.move()
    await harness.wait(301 + 2 * 3600)
    return 0


async def _edit_in_bulk(harness: PollerHarness) -> None:
    """Let a steady day pass with ten bulk edits, each of a thousand people in one second."""
    for number in range(_BULK_EDITS):
        # At different times after a poll, so that some edits are still within the next poll's look back.
        seconds = 600.0 + 137 * number
        await harness.move_people(seconds, every_seconds=240)
        for person_id in harness.rng.sample(harness.account.ids, _PEOPLE_IN_BULK):
            harness.move(person_id=person_id)
        await harness.move_people(_DAY / _BULK_EDITS - seconds, every_seconds=240)


_SITUATIONS: dict[str, Callable[[PollerHarness], Awaitable[int]]] = {
    "steady": _steady,
    "quiet weekend": _quiet,
    "failover at 30 s": _failover,
}


def measure(*, people: int) -> list[Day]:
    """Simulate a day of each situation, without the baseline and the way into the situation."""
    return run_virtual(_days(people))


def measure_bulk_edits(*, people: int, filters: Sequence[str] = FILTERS) -> list[Day]:
    """Simulate a day with bulk edits, for each of these ways in which an account may treat the filter `updatedAfter`."""
    return [run_virtual(_day_of_bulk_edits(f"bulk edits, filter {behaviour}", people, behaviour)) for behaviour in filters]


def measure_unordered_ties(*, people: int) -> Day:
    """Simulate a day with bulk edits without the filter, with people of one second in another order with each call."""
    return run_virtual(_day_of_bulk_edits("bulk edits, no order in ties", people, "hides", ties=Rng(3)))


async def _days(people: int) -> list[Day]:
    """Let the days pass one after the other: the baseline takes as long as all of them."""
    harness = await _with_baseline(people)
    days = []
    for situation, enter in _SITUATIONS.items():
        seconds_per_move = await enter(harness)
        passing = harness.move_people(_DAY, every_seconds=seconds_per_move) if seconds_per_move else harness.wait(_DAY)
        days.append(await _counted(situation, harness, passing))
    await harness.end()
    return days


async def _day_of_bulk_edits(situation: str, people: int, updated_after: str, *, ties: Rng | None = None) -> Day:
    harness = await _with_baseline(people, updated_after=updated_after, ties=ties)
    await _steady(harness)
    day = await _counted(situation, harness, _edit_in_bulk(harness))
    await harness.end()
    return day


async def _with_baseline(people: int, *, updated_after: str = "works", ties: Rng | None = None) -> PollerHarness:
    harness = PollerHarness(people=people, refetches=True)
    harness.api.behaviour.updated_after = updated_after
    harness.api.behaviour.unordered_ties = ties
    harness.start()
    await harness.wait(1)
    return harness


async def _counted(situation: str, harness: PollerHarness, passing: Awaitable[None]) -> Day:
    """Wait for the day and return the calls that were made in it."""
    calls, runs, moves = len(harness.api.calls), len(harness.database.runs), len(harness.account.moves)
    await passing
    by_subscriptions = Counter(endpoint in _SUBSCRIPTION_CALLS for endpoint, _ in harness.api.calls[calls:])
    by_kind: Counter[str] = Counter()
    for run in harness.database.runs[runs:]:
        by_kind[run.kind] += run.calls
    return Day(
        situation,
        mode=harness.modes[-1],
        polls=by_kind["incremental"] + by_kind["sweep"],
        subscriptions=by_subscriptions[True],
        scrub=by_kind["scrub"],
        changed=by_subscriptions[False] - by_kind.total(),
        changes=len(harness.account.moves) - moves,
    )


_ROW = "{:<28}{:>8}{:>15}{:>8}{:>10}{:>12}{:>22}"


def table(days: list[Day]) -> str:
    """Return the days as a table of calls a day, with the older poller in the last line."""
    heading = _ROW.format("calls a day", "polls", "subscriptions", "scrub", "all", "of 97,000", "people who changed")
    lines = [
        _ROW.format(
            day.situation,
            f"{day.polls:,}",
            f"{day.subscriptions:,}",
            f"{day.scrub:,}",
            f"{day.running:,}",
            f"{day.running / OLDER_POLLER_CALLS:.2%}",
            f"{day.changed:,} for {day.changes:,}",
        )
        for day in days
    ]
    older = _ROW.format("the older poller", f"{OLDER_POLLER_CALLS:,}", "", "", f"{OLDER_POLLER_CALLS:,}", "100.00%", "")
    return "\n".join([heading, *lines, older.rstrip()])


if __name__ == "__main__":
    days = [*measure(people=PEOPLE), *measure_bulk_edits(people=PEOPLE), measure_unordered_ties(people=PEOPLE)]
    sys.stdout.write(f"An account of {PEOPLE:,} people, default intervals, measured in virtual time.\n{table(days)}\n")
