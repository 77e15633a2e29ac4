"""Scenarios as data, and the player that runs them on the account's clock.

A scenario is a tuple of steps; each yields timed actions, in seconds after the beginning. The random generator passed to the player
chooses the people and their moves, so the same scenario and seed always give the same run.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType
from typing import Final

from fubd.simulator.faults import Faults
from fubd.simulator.rng import Rng
from fubd.simulator.scenario_steps import (
    DAY,
    HOUR,
    Action,
    BulkMove,
    FaultPeriod,
    LeadSurge,
    QuickPassage,
    ScenarioStep,
    Traffic,
    WebhookOutage,
)
from fubd.simulator.service import Simulator

_NumberedAction = tuple[float, int, Action]


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
