"""What happens when, as data, and the player that lets it happen on the account's clock.

A scenario is a tuple of steps; each unfolds into moments, seconds after the beginning. Who is chosen and what they do is drawn from
the dice handed to the player, so a scenario and a seed always make the same story.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from types import MappingProxyType
from typing import Final, Protocol

from fubd.simulator.account import TRASH, Account
from fubd.simulator.dice import Dice
from fubd.simulator.faults import Faults
from fubd.simulator.service import Simulator

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR

_OFFICE: Final = (1, 1, 1, 1, 1, 2, 5, 20, 60, 100, 100, 90, 60, 80, 100, 100, 90, 70, 40, 25, 15, 8, 4, 2)
"""How busy each hour of a day is, in percent of the busiest."""

Act = Callable[[], object]
Moment = tuple[float, int, Act]


class Step(Protocol):
    """One part of a scenario."""

    def unfold(self, simulator: Simulator, dice: Dice) -> Iterator[tuple[float, Act]]:
        """Give its moments in order: seconds after the beginning, and what happens then."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Everyday work between two instants: people are moved, edited, created, trashed; rates are those of the busiest hour.

    With `office` the rates follow the hours of a day that begins at midnight, else they are constant.
    """

    begin: float = 0.0
    end: float = DAY
    moves_per_hour: float = 120.0
    edits_per_hour: float = 400.0
    leads_per_hour: float = 15.0
    office: bool = True

    def unfold(self, simulator: Simulator, dice: Dice) -> Iterator[tuple[float, Act]]:
        """Give moments at random distances, thinned where the hour is quiet."""
        total = self.moves_per_hour + self.edits_per_hour + self.leads_per_hour
        at = self.begin
        while total > 0:
            at += dice.expovariate(total / HOUR)
            if at >= self.end:
                return
            if self.office and not dice.chance(_OFFICE[int(at % DAY // HOUR)] / 100):
                continue
            draw = dice.random() * total
            if draw < self.moves_per_hour:
                yield at, lambda: anyone_moves(simulator.account, dice)
            elif draw < self.moves_per_hour + self.edits_per_hour:
                yield at, lambda: anyone_is_edited(simulator.account, dice)
            else:
                yield at, lambda: simulator.account.create(via="lead_flow")


@dataclass(frozen=True, slots=True)
class Bulk:
    """At `at`, this many people are moved into a stage in one go, told in events of at most `split` ids."""

    at: float
    people: int
    stage: str
    split: int | None = None

    def unfold(self, simulator: Simulator, dice: Dice) -> Iterator[tuple[float, Act]]:
        """Give the one moment."""
        yield self.at, lambda: simulator.account.bulk_move(several(simulator.account, dice, self.people), self.stage, split=self.split)


@dataclass(frozen=True, slots=True)
class Surge:
    """From `at` on, within `seconds`, this many leads arrive; each is put into `then` half a minute later by an automation."""

    at: float
    leads: int
    seconds: float
    then: str = "ACQ - New Lead"

    def unfold(self, simulator: Simulator, dice: Dice) -> Iterator[tuple[float, Act]]:
        """Give arrivals and moves in order."""
        account = simulator.account
        arrived: dict[int, int] = {}

        def arrive(number: int) -> None:
            arrived[number] = account.create(via="lead_flow")

        def move_on(number: int) -> None:
            account.move(arrived[number], self.then, actor="automation")

        times = sorted(self.at + dice.uniform(0, self.seconds) for _ in range(self.leads))
        arrivals = ((time, number, True) for number, time in enumerate(times))
        moves = ((time + 30.0, number, False) for number, time in enumerate(times))
        for time, number, arriving in heapq.merge(arrivals, moves):
            yield time, partial(arrive if arriving else move_on, number)


@dataclass(frozen=True, slots=True)
class Quick:
    """From `at` on, this many people, one every `every` seconds, enter a stage, and leave it `stay` seconds later to where they were."""

    at: float
    people: int
    stage: str = "ACQ - Offers Made"
    stay: float = 30.0
    every: float = 60.0

    def unfold(self, simulator: Simulator, dice: Dice) -> Iterator[tuple[float, Act]]:
        """Give the entries and the returns in order."""
        account = simulator.account
        before: dict[int, tuple[int, str]] = {}

        def enter(number: int) -> None:
            person_id = pick(account, dice)
            before[number] = (person_id, account.stage_of(person_id))
            account.move(person_id, self.stage)

        def leave(number: int) -> None:
            person_id, stage = before[number]
            if person_id not in account.truth.gone:
                account.move(person_id, stage, actor="automation")

        entries = ((self.at + number * self.every, number, True) for number in range(self.people))
        returns = ((self.at + number * self.every + self.stay, number, False) for number in range(self.people))
        for time, number, entering in heapq.merge(entries, returns):
            yield time, partial(enter if entering else leave, number)


@dataclass(frozen=True, slots=True)
class Dead:
    """Between two instants webhooks are lost, and nobody is told so."""

    begin: float
    end: float

    def unfold(self, simulator: Simulator, dice: Dice) -> Iterator[tuple[float, Act]]:
        """Give the end of webhooks and their return."""
        del dice
        yield self.begin, simulator.deliveries.kill
        yield self.end, simulator.deliveries.revive


@dataclass(frozen=True, slots=True)
class Weather:
    """Between two instants these faults are about; afterwards none."""

    begin: float
    end: float
    faults: Faults

    def unfold(self, simulator: Simulator, dice: Dice) -> Iterator[tuple[float, Act]]:
        """Give the storm and the calm."""
        del dice

        def become(faults: Faults) -> None:
            simulator.faults = faults

        yield self.begin, lambda: become(self.faults)
        yield self.end, lambda: become(Faults())


@dataclass(frozen=True, slots=True)
class Scenario:
    """A story: `people` is the account it is meant for, `seconds` how long it takes."""

    name: str
    about: str
    people: int
    seconds: float
    steps: tuple[Step, ...] = field(default=())


def _flapping() -> tuple[Step, ...]:
    """Webhooks die for three hours out of every five, a week long."""
    return tuple(Dead(begin * HOUR, (begin + 3) * HOUR) for begin in range(2, 7 * 24 - 3, 5))


SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType(
    {
        scenario.name: scenario
        for scenario in (
            Scenario("ordinary-day", "an ordinary day of a large account", 200_000, DAY, (Traffic(), Quick(10 * HOUR, 20, every=900.0))),
            Scenario(
                "bulk-edit",
                "10,000 people moved in one go, in the middle of the morning",
                200_000,
                2 * HOUR,
                (Traffic(end=2 * HOUR, office=False), Bulk(HOUR, 10_000, "Nurture", split=500)),
            ),
            Scenario(
                "lead-surge",
                "2,000 leads within ten minutes, each moved on by an automation",
                20_000,
                HOUR,
                (Traffic(end=HOUR, office=False), Surge(600.0, 2_000, 600.0)),
            ),
            Scenario(
                "webhook-dead-day", "webhooks are lost for a whole day", 20_000, 26 * HOUR, (Traffic(end=26 * HOUR), Dead(HOUR, 25 * HOUR))
            ),
            Scenario(
                "flapping-week",
                "webhooks die and come back, over and over",
                20_000,
                7 * DAY,
                (Traffic(end=7 * DAY, moves_per_hour=30.0, edits_per_hour=60.0, leads_per_hour=4.0), *_flapping()),
            ),
            Scenario(
                "api-outage",
                "the API fails for two hours, first wholly, then half, while webhooks go on",
                20_000,
                4 * HOUR,
                (
                    Traffic(end=4 * HOUR, office=False),
                    Weather(HOUR, 2 * HOUR, Faults(bad_gateway=0.6, server_error=0.5, reset=0.5)),
                    Weather(2 * HOUR, 3 * HOUR, Faults(server_error=0.2, throttled=0.1, truncated=0.1, html=0.1, hang=0.02)),
                ),
            ),
            Scenario(
                "quick-stage",
                "people pass through a stage in thirty seconds; for half an hour webhooks are dead as well",
                2_000,
                2 * HOUR,
                (Quick(60.0, 100), Dead(HOUR, 1.5 * HOUR)),
            ),
        )
    }
)
"""The scenarios that come with the simulator, by name."""


def plan(scenario: Scenario, simulator: Simulator, dice: Dice) -> Iterator[tuple[float, Act]]:
    """Give all moments of a scenario in order, as far as its length goes. Moments of one instant stand in the order of the steps."""
    numbers = count()

    def numbered(step: Step) -> Iterator[Moment]:
        # Each step has dice of its own, so that adding one changes nothing in the others.
        own = Dice(dice.getrandbits(64))
        return ((at, next(numbers), act) for at, act in step.unfold(simulator, own))

    for at, _, act in heapq.merge(*[numbered(step) for step in scenario.steps]):
        if at > scenario.seconds:
            return
        yield at, act


async def play(scenario: Scenario, simulator: Simulator, dice: Dice | None = None) -> int:
    """Play a scenario on the simulator's clock to its end; gives how many moments there were. Without dice the account's seed decides."""
    clock = simulator.clock
    began = clock.monotonic()
    moments = 0
    for at, act in plan(scenario, simulator, dice or Dice(simulator.account.seed)):
        wait = began + at - clock.monotonic()
        if wait > 0:
            await clock.sleep(wait)
        act()
        moments += 1
    await clock.sleep(began + scenario.seconds - clock.monotonic())
    return moments


def pick(account: Account, dice: Dice) -> int:
    """Choose one of the people who are there."""
    while True:
        person_id = account.people.first_id + dice.randrange(len(account.people))
        if account.has(person_id):
            return person_id


def several(account: Account, dice: Dice, people: int) -> list[int]:
    """Choose this many different people, or all when there are not as many."""
    ids = account.ids
    return dice.sample(ids, min(people, len(ids)))


def anyone_moves(account: Account, dice: Dice) -> None:
    """Move somebody into some other stage; one in twenty goes to Trash."""
    person_id = pick(account, dice)
    names = [stage.name for stage in account.stages if not stage.deleted and stage.name != TRASH]
    account.move(person_id, TRASH if dice.chance(0.05) else dice.choice(names))


def anyone_is_edited(account: Account, dice: Dice) -> None:
    """Edit somebody in a way that has nothing to do with stages: `updated` moves all the same. Some only get a note, and it does not."""
    person_id = pick(account, dice)
    if dice.chance(0.3):
        account.note(person_id)
    else:
        account.edit(person_id, price=1000 * dice.randrange(50, 900))
