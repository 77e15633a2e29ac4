"""Random scenarios: every switch, fault and step of the simulator, from a seed.

Only `ForeignAccountPeriod` is not drawn: fubd checks the account once per process, so only a test that restarts processes can use it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fubd.simulator.behaviour import Arrays, Behaviour, Merge, Spelling, UpdatedAfter
from fubd.simulator.faults import ApiFault, DeliveryFault, Faults
from fubd.simulator.rng import Rng
from fubd.simulator.scenario import Scenario
from fubd.simulator.scenario_steps import (
    HOUR,
    AgentKeyPeriod,
    BehaviourPeriod,
    BulkMove,
    FaultPeriod,
    LeadSurge,
    Merges,
    OddPeople,
    QuickPassage,
    Rivalry,
    ScenarioStep,
    StageDeletion,
    StageNameReuse,
    Traffic,
    WebhookOutage,
)


def draw_behaviour(rng: Rng) -> Behaviour:
    """Return a behaviour in which about every fourth switch is thrown."""

    def is_on() -> bool:
        return rng.chance(0.25)

    def up_to(limit: float) -> float:
        return rng.uniform(0.0, limit) if is_on() else 0.0

    return Behaviour(
        updated_after=rng.choice(list(UpdatedAfter)) if is_on() else UpdatedAfter.WORKS,
        updated_after_inclusive=is_on(),
        lists_hide_trash=is_on(),
        total_as_text=is_on(),
        total_counts_page=is_on(),
        page_limit=rng.randrange(20, 100) if is_on() else 100,
        next_absent_at_end=is_on(),
        next_refused=is_on(),
        double_ampersand=is_on(),
        deep_offset=rng.choice((500, 2000)),
        refused_field="customCampaignID" if is_on() else "",
        refused_parameter=rng.choice(("sort", "includeTrash", "includeUnclaimed")) if is_on() else "",
        instants_without_zone=is_on(),
        arrays=rng.choice(list(Arrays)) if is_on() else Arrays.LISTS,
        event_ids_as_object=is_on(),
        stage_spelling=rng.choice(list(Spelling)) if is_on() else Spelling.SAME,
        creation_sends_stage=is_on(),
        merge=rng.choice(list(Merge)),
        merge_sends_stage=not is_on(),
        stage_deletion_sends_stage=not is_on(),
        stage_deletion_moves_updated=not is_on(),
        ids_per_event=rng.choice((1, 10, 100)) if is_on() else 0,
        split_shares_event_id=is_on(),
        third_webhook_status=rng.choice((400, 403, 409)),
        php_json=not is_on(),
        delete_webhook_empty=is_on(),
        lead_flow_archived=is_on(),
        event_data_kept=is_on(),
        long_retries=is_on(),
        limit_per_key=is_on(),
        event_lag_seconds=up_to(3.0),
        replica_lag_seconds=up_to(3.0),
        list_lag_seconds=up_to(120.0),
        registry_lag_seconds=up_to(10.0),
        answer_seconds=up_to(2.0),
    )


def draw_faults(rng: Rng) -> Faults:
    """Return faults of which about every fourth is possible, at 0.1 to 5 percent each."""
    names = [fault.value for fault in (*ApiFault, *DeliveryFault)]
    possible: dict[str, Any] = {name: rng.uniform(0.001, 0.05) for name in names if rng.chance(0.25)}
    return Faults(**possible)


def draw_scenario(rng: Rng, *, people: int = 2_000, seconds: float = 24 * HOUR) -> Scenario:
    """Return a scenario of everyday work in which half of the other steps happen, each at a random time."""

    def at() -> float:
        return rng.uniform(0.0, 0.8 * seconds)

    def period() -> tuple[float, float]:
        begin = at()
        return begin, min(seconds, begin + rng.uniform(300.0, 6 * HOUR))

    steps: list[ScenarioStep] = [
        BulkMove(at(), rng.randrange(2, people // 2), "ACQ - Not Interested", split=rng.choice((None, 10, 100))),
        LeadSurge(at(), rng.randrange(1, 200), 600.0),
        QuickPassage(at(), rng.randrange(1, 50), stay=rng.uniform(0.2, 60.0)),
        WebhookOutage(*period()),
        FaultPeriod(*period(), draw_faults(rng)),
        BehaviourPeriod(*period(), {"account_expired": True}),
        Merges(at(), rng.randrange(1, 20)),
        StageNameReuse(at()),
        StageDeletion(at()),
        OddPeople(*period(), people=rng.randrange(1, 20)),
        AgentKeyPeriod(*period()),
        Rivalry(at(), rng.randrange(1, 5)),
    ]
    always: list[ScenarioStep] = [BehaviourPeriod(0.0, seconds, asdict(draw_behaviour(rng))), Traffic(end=seconds)]
    return Scenario("random", "whatever the seed brings", people, seconds, (*always, *(step for step in steps if rng.chance(0.5))))
