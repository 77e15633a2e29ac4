"""What a day costs in calls: the real poller and subscriptions over 202,000 people, in virtual time, beside the older poller's figure."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.poller.fakes import live
from tests.poller.harness import House

OLDER_POLLER_CALLS = 97_000
PEOPLE = 202_000
_DAY = 86_400.0
_SUBSCRIPTION_CALLS = frozenset({"webhooks", "subscribe", "resubscribe"})


@dataclass(frozen=True, slots=True)
class Day:
    """What was asked of Follow Up Boss in a day. `changed`: reads of people who changed, beside the rest; `changes`: moves that day."""

    situation: str
    mode: str
    polls: int
    subscriptions: int
    scrub: int
    changed: int
    changes: int

    @property
    def running(self) -> int:
        """All but the reads of people who changed."""
        return self.polls + self.subscriptions + self.scrub


async def _steady(house: House) -> int:
    house.move()
    await house.passes(301)
    return 240


async def _failover(house: House) -> int:
    house.delivering = False
    house.move()
    await house.passes(700)
    return 240


async def _quiet(house: House) -> int:
    house.move()
    await house.passes(301 + 2 * 3600)
    return 0


_SITUATIONS: dict[str, Callable[[House], Awaitable[int]]] = {
    "steady": _steady,
    "failover at 30 s": _failover,
    "quiet weekend": _quiet,
}


def measure(*, people: int) -> list[Day]:
    """Live a day of each situation, the baseline and the way into the situation left out."""
    return [live(_day(situation, people)) for situation in _SITUATIONS]


async def _day(situation: str, people: int) -> Day:
    house = House(people=people, asking=True)
    house.run()
    await house.passes(1)
    seconds_per_move = await _SITUATIONS[situation](house)
    calls, runs, moves = len(house.api.calls), len(house.memory.runs), len(house.account.moves)
    if seconds_per_move:
        await house.lives(_DAY, every=seconds_per_move)
    else:
        await house.passes(_DAY)
    asked = Counter(kind in _SUBSCRIPTION_CALLS for kind, _ in house.api.calls[calls:])
    spent: Counter[str] = Counter()
    for run in house.memory.runs[runs:]:
        spent[run.kind] += run.calls
    await house.end()
    return Day(
        situation,
        mode=house.modes[-1],
        polls=spent["incremental"] + spent["sweep"],
        subscriptions=asked[True],
        scrub=spent["scrub"],
        changed=asked[False] - spent.total(),
        changes=len(house.account.moves) - moves,
    )


_ROW = "{:<20}{:>8}{:>15}{:>8}{:>10}{:>12}{:>22}"


def table(days: list[Day]) -> str:
    """Lay the days out, calls a day, with the older poller's in the last line."""
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
    sys.stdout.write(f"An account of {PEOPLE:,} people, default intervals, measured in virtual time.\n{table(measure(people=PEOPLE))}\n")
