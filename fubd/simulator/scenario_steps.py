"""The steps of scenarios: what happens in the account and to its API, as data."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol

from fubd.simulator.account import TRASH, Account
from fubd.simulator.faults import Faults
from fubd.simulator.oddities import Oddity
from fubd.simulator.rng import Rng
from fubd.simulator.service import Simulator

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR

_OFFICE: Final = (1, 1, 1, 1, 1, 2, 5, 20, 60, 100, 100, 90, 60, 80, 100, 100, 90, 70, 40, 25, 15, 8, 4, 2)
"""How busy each hour of a day is, in percent of the busiest."""

Action = Callable[[], object]


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
            if person_id not in account.truth.gone and stage in account.stage_names:
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
class BehaviourPeriod:
    """Between two instants these switches of `Behaviour` are thrown; afterwards they are as before."""

    begin: float
    end: float
    switches: Mapping[str, Any]

    def actions(self, simulator: Simulator, rng: Rng) -> Iterator[tuple[float, Action]]:
        """Yield the beginning and the end of the period."""
        del rng
        before: dict[str, Any] = {}

        def throw() -> None:
            before.update((name, getattr(simulator.behaviour, name)) for name in self.switches)
            simulator.behaviour = replace(simulator.behaviour, **self.switches)

        def restore() -> None:
            simulator.behaviour = replace(simulator.behaviour, **before)

        yield self.begin, throw
        yield self.end, restore


@dataclass(frozen=True, slots=True)
class Merges:
    """From `at` on, one merge of up to ten people every `every` seconds, `merges` in all."""

    at: float
    merges: int
    every: float = 600.0

    def actions(self, simulator: Simulator, rng: Rng) -> Iterator[tuple[float, Action]]:
        """Yield the merges."""

        def merge() -> None:
            winner, *losers = random_people(simulator.account, rng, rng.randrange(2, 11))
            if losers:
                simulator.account.merge(losers, winner)

        for number in range(self.merges):
            yield self.at + number * self.every, merge


@dataclass(frozen=True, slots=True)
class StageNameReuse:
    """At `at` a stage is renamed, a new stage gets its name, and people enter that one, one a minute."""

    at: float
    stage: str = "Nurture"
    people: int = 5

    def actions(self, simulator: Simulator, rng: Rng) -> Iterator[tuple[float, Action]]:
        """Yield the rename with the new stage, and the entries."""
        account = simulator.account

        def reuse() -> None:
            account.rename_stage(self.stage, f"{self.stage} (old)")
            account.create_stage(self.stage)

        yield self.at, reuse
        for number in range(self.people):
            yield self.at + 60.0 * (number + 1), lambda: account.move(random_person(account, rng), self.stage)


@dataclass(frozen=True, slots=True)
class StageDeletion:
    """At `at` a stage is deleted, and its people are assigned to another."""

    at: float
    stage: str = "Past Client"
    assign_to: str = "Lead"

    def actions(self, simulator: Simulator, rng: Rng) -> Iterator[tuple[float, Action]]:
        """Yield the deletion."""
        del rng
        yield self.at, lambda: simulator.account.delete_stage(self.stage, self.assign_to)


@dataclass(frozen=True, slots=True)
class OddPeople:
    """Between two instants some people are malformed in every answer, each in a random way."""

    begin: float
    end: float
    people: int

    def actions(self, simulator: Simulator, rng: Rng) -> Iterator[tuple[float, Action]]:
        """Yield the beginning and the end of the period."""
        oddities = simulator.conditions.oddities

        def distort() -> None:
            oddities.update((one, rng.choice(list(Oddity))) for one in random_people(simulator.account, rng, self.people))

        yield self.begin, distort
        yield self.end, oddities.clear


@dataclass(frozen=True, slots=True)
class AgentKeyPeriod:
    """Between two instants the owner's key is an agent's: it sees only some of the people, and no webhooks."""

    begin: float
    end: float

    def actions(self, simulator: Simulator, rng: Rng) -> Iterator[tuple[float, Action]]:
        """Yield the change of the key's role and its return."""
        del rng
        yield self.begin, lambda: simulator.keys.add(simulator.api_key, "agent")
        yield self.end, lambda: simulator.keys.add(simulator.api_key, "owner")


@dataclass(frozen=True, slots=True)
class ForeignAccountPeriod:
    """Between two instants the owner's key reads another account with the same ids."""

    begin: float
    end: float

    def actions(self, simulator: Simulator, rng: Rng) -> Iterator[tuple[float, Action]]:
        """Yield the change of the account and its return."""
        people = simulator.account.people
        seed = rng.randrange(1_000_000)

        def swap() -> None:
            other = Account(seed=seed, people=len(people), clock=simulator.clock, first_id=people.first_id)
            simulator.put_behind_key(other)

        yield self.begin, swap
        yield self.end, lambda: simulator.put_behind_key(None)


@dataclass(frozen=True, slots=True)
class Rivalry:
    """From `at` on, another deployment of the same system claims the webhooks, `rounds` times."""

    at: float
    rounds: int
    every: float = 600.0
    url: str = "https://rival.example.com/webhook/fub"

    def actions(self, simulator: Simulator, rng: Rng) -> Iterator[tuple[float, Action]]:
        """Yield the beginning."""
        del rng
        yield self.at, lambda: simulator.start_rival(self.url, every_seconds=self.every, rounds=self.rounds)


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
    names = [name for name in account.stage_names if name != TRASH]
    account.move(person_id, TRASH if rng.chance(0.05) else rng.choice(names))


def edit_random_person(account: Account, rng: Rng) -> None:
    """Edit a random person without changing the stage, which moves `updated`. Three in ten only get a note, which does not."""
    person_id = random_person(account, rng)
    if rng.chance(0.3):
        account.note(person_id)
    else:
        account.edit(person_id, price=1000 * rng.randrange(50, 900))
