from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from fubd.simulator import Account, SimClock, Simulator
from fubd.simulator.rng import Rng
from fubd.simulator.scenario import DAY, HOUR, SCENARIOS, BulkMove, LeadSurge, QuickPassage, Scenario, Traffic, planned_actions, play
from tests.simulator.conftest import NINE
from tests.simulator.receiver import WebhookReceiver


def small(people: int = 400) -> Simulator:
    """Return a small account on a stopped clock."""
    return Simulator(Account(seed=11, people=people, clock=SimClock(NINE, speed=0.0)))


async def play_through(scenario: Scenario, simulator: Simulator) -> int:
    """Play a scenario on a stopped clock, stepping from action to action."""
    playing = asyncio.create_task(play(scenario, simulator))
    await simulator.clock.run_for(scenario.seconds, simulator.deliveries.drain)
    return await playing


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_scenario_has_its_actions_in_order(name: str) -> None:
    """The actions of each scenario are in order, within its length, and the same for the same seed."""
    scenario = SCENARIOS[name]
    simulator = small()
    times = [at for at, _ in planned_actions(scenario, simulator, Rng(1))]
    assert times == sorted(times)
    assert times
    assert times[-1] <= scenario.seconds
    assert [at for at, _ in planned_actions(scenario, simulator, Rng(1))] == times


async def test_quick_stage(receiver: WebhookReceiver) -> None:
    """People pass through a stage in thirty seconds and return; for half an hour no webhook reports it."""
    simulator = small()
    simulator.subscribe("peopleStageUpdated", receiver.url)
    async with simulator.running():
        await play_through(SCENARIOS["quick-stage"], simulator)
    changes = simulator.truth.changes
    assert 180 < len(changes) <= 200
    passing = [change for change in changes if change.stage_to == "ACQ - Offers Made"]
    leaving = {change.person_id: change for change in changes if change.stage_from == "ACQ - Offers Made"}
    assert {round((leaving[one.person_id].at - one.at).total_seconds()) for one in passing if one.person_id in leaving} >= {30}
    unseen = sum(not simulator.sightings.of(change).is_shown for change in changes)
    assert 50 <= unseen <= 62
    assert len(receiver.got) == len(changes) - unseen


async def test_a_bulk_edit_moves_many_at_one_instant() -> None:
    """A bulk edit moves many different people at the same instant."""
    simulator = small()
    scenario = Scenario("bulk", "a small bulk edit", 400, 100.0, (BulkMove(60.0, 200, "Nurture", split=50),))
    assert await play_through(scenario, simulator) == 1
    assert len({change.person_id for change in simulator.truth.changes}) == len(simulator.truth.changes) > 150
    assert {(change.at - NINE).total_seconds() for change in simulator.truth.changes} == {60.0}


async def test_a_surge_creates_and_moves_on() -> None:
    """The lead flow creates each lead of a surge, and an automation moves it half a minute later."""
    simulator = small()
    await play_through(Scenario("surge", "a small surge", 400, 200.0, (LeadSurge(10.0, 30, 60.0),)), simulator)
    assert Counter(change.actor for change in simulator.truth.changes) == {"lead_flow": 30, "automation": 30}


def test_traffic_follows_the_hours_of_a_day() -> None:
    """A day's traffic is high in the morning and almost none at night."""
    hours = Counter(int(at // HOUR) for at, _ in planned_actions(Scenario("day", "a day", 400, DAY, (Traffic(),)), small(), Rng(2)))
    assert hours[10] > 300
    assert sum(hours[hour] for hour in range(5)) < 100


async def test_a_person_deleted_during_a_quick_passage_stays_deleted() -> None:
    """A person deleted while passing through a stage does not come back."""
    simulator = small(people=1)
    playing = asyncio.create_task(play(Scenario("quick", "one", 1, 100.0, (QuickPassage(10.0, 1, "Past Client"),)), simulator))
    await simulator.clock.run_for(20, simulator.deliveries.drain)
    simulator.account.delete(simulator.account.ids[0])
    await simulator.clock.run_for(80, simulator.deliveries.drain)
    await playing
    assert len(simulator.truth.changes) == 1
