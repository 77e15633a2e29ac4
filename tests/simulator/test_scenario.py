from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import asdict, is_dataclass

import pytest

from fubd.simulator import Account, Arrays, Behaviour, Merge, SimClock, Simulator, Spelling, UpdatedAfter, scenario_steps
from fubd.simulator.random_scenario import draw_behaviour, draw_faults, draw_scenario
from fubd.simulator.rng import Rng
from fubd.simulator.scenario import SCENARIOS, Scenario, planned_actions, play
from fubd.simulator.scenario_steps import (
    DAY,
    HOUR,
    AgentKeyPeriod,
    BehaviourPeriod,
    BulkMove,
    ForeignAccountPeriod,
    LeadSurge,
    Merges,
    OddPeople,
    QuickPassage,
    Rivalry,
    StageDeletion,
    StageNameReuse,
    Traffic,
)
from tests.simulator.conftest import NINE
from tests.simulator.http_client import HttpClient
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


async def test_switches_are_thrown_for_a_period() -> None:
    """A period throws its switches and restores the values before, also where two periods overlap."""
    simulator = small()
    simulator.behaviour = Behaviour(page_limit=50)
    steps = (BehaviourPeriod(10.0, 30.0, {"page_limit": 20}), BehaviourPeriod(20.0, 40.0, {"next_refused": True}))
    playing = asyncio.create_task(play(Scenario("switches", "two periods", 1, 50.0, steps), simulator))
    seen = []
    for _ in range(5):
        await simulator.clock.run_for(10, simulator.deliveries.drain)
        seen.append((simulator.behaviour.page_limit, simulator.behaviour.next_refused))
    await playing
    assert seen == [(20, False), (20, True), (50, True), (50, False), (50, False)]


async def test_merges_trash_their_losers() -> None:
    """Each merge takes several people into one; the losers are in Trash."""
    simulator = small()
    await play_through(Scenario("merges", "three merges", 400, 100.0, (Merges(10.0, 3, every=10.0),)), simulator)
    assert len(set(simulator.truth.merged.values())) == 3
    assert {simulator.account.stage_of(one) for one in simulator.truth.merged} == {"Trash"}


async def test_a_stage_name_is_used_again_and_a_stage_deleted() -> None:
    """People enter the new stage of the old name, and the people of a deleted stage move on."""
    simulator = small()
    old = simulator.account.stage_id("Nurture")
    steps = (StageNameReuse(10.0), StageDeletion(400.0, "Past Client", "Lead"))
    await play_through(Scenario("stages", "changes of stages", 400, 500.0, steps), simulator)
    entered = [change for change in simulator.truth.changes if change.stage_to == "Nurture"]
    assert len(entered) >= 4
    assert old not in {change.stage_to_id for change in entered}
    assert "Past Client" not in simulator.account.stage_names


async def test_the_key_and_the_people_change_for_a_period(receiver: WebhookReceiver) -> None:
    """For a while some people are malformed, the key is an agent's or another account's, and another deployment takes a webhook."""
    simulator = small()
    simulator.subscribe("peopleStageUpdated", receiver.url)
    steps = (OddPeople(10.0, 30.0, 3), AgentKeyPeriod(10.0, 30.0), ForeignAccountPeriod(50.0, 70.0), Rivalry(90.0, 1))
    seen = []
    async with simulator.running() as url, HttpClient(url) as client:
        playing = asyncio.create_task(play(Scenario("periods", "several periods", 400, 100.0, steps), simulator))
        for _ in range(5):
            await simulator.clock.run_for(20, simulator.deliveries.drain)
            people = (await client.get("people", limit=100)).metadata["total"]
            account = (await client.get("identity")).json["account"]["id"]
            seen.append((len(simulator.conditions.oddities), people < 200, account == 4_000_011))
        await playing
    assert seen == [(3, True, True), (0, False, True), (0, False, False), (0, False, True), (0, False, True)]
    assert simulator.registry.all()[0].url == "https://rival.example.com/webhook/fub"


def test_random_scenarios_draw_everything() -> None:
    """Over some seeds every switch is thrown both ways, every fault is possible, and every step happens."""
    behaviours = [asdict(draw_behaviour(Rng(seed))) for seed in range(100)]
    fixed = {"loopback_http", "account_expired", "delivery_timeout_real_seconds", "delivery_concurrency"}
    assert {name for name in behaviours[0] if len({str(one[name]) for one in behaviours}) == 1} == fixed
    for enum in (UpdatedAfter, Arrays, Spelling, Merge):
        assert {value for one in behaviours for value in one.values() if isinstance(value, enum)} == set(enum)
    faults = [asdict(draw_faults(Rng(seed))) for seed in range(100)]
    assert all(any(one[name] for one in faults) for name in faults[0])
    steps = {type(step).__name__ for seed in range(100) for step in draw_scenario(Rng(seed)).steps}
    parts = vars(scenario_steps).items()
    existing = {name for name, part in parts if is_dataclass(part) and part.__module__ == scenario_steps.__name__}
    assert steps == existing - {"ForeignAccountPeriod"}


@pytest.mark.parametrize("seed", range(5))
async def test_a_random_scenario_can_be_played(seed: int) -> None:
    """A random scenario plays to its end, is the same for the same seed, and restores the behaviour."""
    runs = []
    for _ in range(2):
        simulator = small(people=200)
        scenario = draw_scenario(Rng(seed), people=200, seconds=12 * HOUR)
        await play_through(scenario, simulator)
        runs.append([(change.person_id, change.stage_to, change.at) for change in simulator.truth.changes])
        assert simulator.behaviour == Behaviour()
    assert runs[0] == runs[1]
    assert len(runs[0]) > 100
