"""Scenarios as data, and the player that runs them on the account's clock.

A scenario is a tuple of steps; each yields timed actions, in seconds after the beginning. The random generator passed to the player
chooses the people and their moves, so the same scenario and seed always give the same run.
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
from fubd.simulator.faults import Faults
from fubd.simulator.rng import Rng
from fubd.simulator.service import Simulator

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR

_OFFICE: Final = (1, 1, 1, 1, 1, 2, 5, 20, 60, 100, 100, 90, 60, 80, 100, 100, 90, 70, 40, 25, 15, 8, 4, 2)
"""How busy each hour of a day is, in percent of the busiest."""

Action = Callable[[], object]
_NumberedAction = tuple[float, int, Action]


class ScenarioStep(Protocol):
    """One part of a scenario."""

    def actions(self, simulator: Simulator, rng: Rng) -> Iterator[tuple[float, Action]]:
        """Yield its actions in order, each with its time in seconds after the beginning."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Everyday work between two instants: people are moved, edited and created; the rates are those of the busiest hour.

    With `office` the rates follow the hours of a day that begins at midnight; otherwise they are constant.
    """

    begin: float = 0.0
    end: float = DAY
    moves_per_hour: float = 120.0
    edits_per_hour: float = 400.0
    leads_per_hour: float = 15.0
    office: bool = True

    def actions(self, simulator: Simulator, rng: Rng) -> Iterator[tuple[float, Action]]:
        """Yield actions at random intervals, fewer in quiet hours."""
        total = self.moves_per_hour + self.edits_per_hour + self.leads_per_hour
        at = self.begin
        while total > 0:
            at += rng.expovariate(total / HOUR)
            if at >= self.end:
                return
            if self.office and not rng.chance(_OFFICE[int(at % DAY // HOUR)] / 100):
                continue
            draw = rng.random() * total
            if draw < self.moves_per_hour:
                yield at, lambda: move_random_person(simulator.account, rng)
            elif draw < self.moves_per_hour + self.edits_per_hour:
                yield at, lambda: edit_random_person(simulator.account, rng)
            else:
                yield at, lambda: simulator.account.create(via="lead_flow")


@dataclass(frozen=True, slots=True)
class BulkMove:
    """At `at`, this many people are moved into a stage at once, reported in events of at most `split` ids."""

    at: float
    people: int
    stage: str
    split: int | None = None

    def actions(self, simulator: Simulator, rng: Rng) -> Iterator[tuple[float, Action]]:
        """Yield the one action."""
        yield self.at, lambda: simulator.account.bulk_move(random_people(simulator.account, rng, self.people), self.stage, split=self.split)


@dataclass(frozen=True, slots=True)
class LeadSurge:
    """From `at` on, within `seconds`, this many leads arrive; an automation moves each into `then` half a minute later."""

    at: float
    leads: int
    seconds: float
    then: str = "ACQ - New Lead"

    def actions(self, simulator: Simulator, rng: Rng) -> Iterator[tuple[float, Action]]:
        """Yield arrivals and moves in order."""
        account = simulator.account
        arrived: dict[int, int] = {}

        def arrive(number: int) -> None:
            arrived[number] = account.create(via="lead_flow")

        def move_on(number: int) -> None:
            account.move(arrived[number], self.then, actor="automation")

        times = sorted(self.at + rng.uniform(0, self.seconds) for _ in range(self.leads))
        arrivals = ((time, number, True) for number, time in enumerate(times))
        moves = ((time + 30.0, number, False) for number, time in enumerate(times))
        for time, number, arriving in heapq.merge(arrivals, moves):
            yield time, partial(arrive if arriving else move_on, number)


@dataclass(frozen=True, slots=True)
class QuickPassage:
    """From `at` on, one person every `every` seconds enters a stage and returns `stay` seconds later, `people` in all."""

    at: float
    people: int
    stage: str = "ACQ - Offers Made"
    stay: float = 30.0
    every: float = 60.0

    def actions(self, simulator: Simulator, rng: Rng) -> Iterator[tuple[float, Action]]:
        """Yield entries and returns in order."""
        account = simulator.account
        before: dict[int, tuple[int, str]] = {}

        def enter(number: int) -> None:
            person_id = random_person(account, rng)
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
class WebhookOutage:
    """Between two instants webhooks are lost without any error."""

    begin: float
    end: float

    def actions(self, simulator: Simulator, rng: Rng) -> Iterator[tuple[float, Action]]:
        """Yield the beginning and the end of the outage."""
        del rng
        yield self.begin, simulator.deliveries.kill
        yield self.end, simulator.deliveries.revive


@dataclass(frozen=True, slots=True)
class FaultPeriod:
    """Between two instants these faults are active; afterwards none."""

    begin: float
    end: float
    faults: Faults

    def actions(self, simulator: Simulator, rng: Rng) -> Iterator[tuple[float, Action]]:
        """Yield the beginning and the end of the faults."""
        del rng

        def set_faults(faults: Faults) -> None:
            simulator.faults = faults

        yield self.begin, lambda: set_faults(self.faults)
        yield self.end, lambda: set_faults(Faults())


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named scenario: `people` is the account size it is meant for, `seconds` its length."""

    name: str
    about: str
    people: int
    seconds: float
    steps: tuple[ScenarioStep, ...] = field(default=())


def _flapping() -> tuple[ScenarioStep, ...]:
    """Return outages of three hours out of every five, over a week."""
    return tuple(WebhookOutage(begin * HOUR, (begin + 3) * HOUR) for begin in range(2, 7 * 24 - 3, 5))


SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType(
    {
        scenario.name: scenario
        for scenario in (
            Scenario(
                "ordinary-day", "an ordinary day of a large account", 200_000, DAY, (Traffic(), QuickPassage(10 * HOUR, 20, every=900.0))
            ),
            Scenario(
                "bulk-edit",
                "10,000 people moved at once, in the middle of the morning",
                200_000,
                2 * HOUR,
                (Traffic(end=2 * HOUR, office=False), BulkMove(HOUR, 10_000, "Nurture", split=500)),
            ),
            Scenario(
                "lead-surge",
                "2,000 leads within ten minutes, each moved on by an automation",
                20_000,
                HOUR,
                (Traffic(end=HOUR, office=False), LeadSurge(600.0, 2_000, 600.0)),
            ),
            Scenario(
                "webhook-dead-day",
                "webhooks are lost for a whole day",
                20_000,
                26 * HOUR,
                (Traffic(end=26 * HOUR), WebhookOutage(HOUR, 25 * HOUR)),
            ),
            Scenario(
                "flapping-week",
                "webhooks fail and recover again and again",
                20_000,
                7 * DAY,
                (Traffic(end=7 * DAY, moves_per_hour=30.0, edits_per_hour=60.0, leads_per_hour=4.0), *_flapping()),
            ),
            Scenario(
                "api-outage",
                "the API fails for two hours, first completely, then partly, while webhooks go on",
                20_000,
                4 * HOUR,
                (
                    Traffic(end=4 * HOUR, office=False),
                    FaultPeriod(HOUR, 2 * HOUR, Faults(bad_gateway=0.6, server_error=0.5, reset=0.5)),
                    FaultPeriod(2 * HOUR, 3 * HOUR, Faults(server_error=0.2, throttled=0.1, truncated=0.1, html=0.1, hang=0.02)),
                ),
            ),
            Scenario(
                "quick-stage",
                "people pass through a stage in thirty seconds; for half an hour webhooks are lost as well",
                2_000,
                2 * HOUR,
                (QuickPassage(60.0, 100), WebhookOutage(HOUR, 1.5 * HOUR)),
            ),
        )
    }
)
"""The scenarios that come with the simulator, by name."""


def planned_actions(scenario: Scenario, simulator: Simulator, rng: Rng) -> Iterator[tuple[float, Action]]:
    """Yield all actions of a scenario in order, up to its length. Simultaneous actions keep the order of the steps."""
    numbers = count()

    def numbered(step: ScenarioStep) -> Iterator[_NumberedAction]:
        # Each step has its own generator, so that adding one does not change the others.
        own = Rng(rng.getrandbits(64))
        return ((at, next(numbers), action) for at, action in step.actions(simulator, own))

    for at, _, action in heapq.merge(*[numbered(step) for step in scenario.steps]):
        if at > scenario.seconds:
            return
        yield at, action


async def play(scenario: Scenario, simulator: Simulator, rng: Rng | None = None) -> int:
    """Play a scenario on the simulator's clock and return the number of actions. The default generator uses the account's seed."""
    clock = simulator.clock
    began = clock.monotonic()
    actions = 0
    for at, action in planned_actions(scenario, simulator, rng or Rng(simulator.account.seed)):
        wait = began + at - clock.monotonic()
        if wait > 0:
            await clock.sleep(wait)
        action()
        actions += 1
    await clock.sleep(began + scenario.seconds - clock.monotonic())
    return actions


def random_person(account: Account, rng: Rng) -> int:
    """Return a random person."""
    while True:
        person_id = account.people.first_id + rng.randrange(len(account.people))
        if account.has(person_id):
            return person_id


def random_people(account: Account, rng: Rng, people: int) -> list[int]:
    """Return this many different people, or everyone if there are fewer."""
    ids = account.ids
    return rng.sample(ids, min(people, len(ids)))


def move_random_person(account: Account, rng: Rng) -> None:
    """Move a random person into another stage; one in twenty goes to Trash."""
    person_id = random_person(account, rng)
    names = [stage.name for stage in account.stages if not stage.deleted and stage.name != TRASH]
    account.move(person_id, TRASH if rng.chance(0.05) else rng.choice(names))


def edit_random_person(account: Account, rng: Rng) -> None:
    """Edit a random person without changing the stage, which moves `updated`. Three in ten only get a note, which does not."""
    person_id = random_person(account, rng)
    if rng.chance(0.3):
        account.note(person_id)
    else:
        account.edit(person_id, price=1000 * rng.randrange(50, 900))
