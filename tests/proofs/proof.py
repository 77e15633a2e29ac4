"""Play a random scenario in virtual time, and compare what fubd recorded and claimed with what happened."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fubd.core.problems import ProblemName
from fubd.simulator import Faults, Score, score
from fubd.simulator.random_scenario import draw_scenario
from fubd.simulator.rng import Rng
from fubd.simulator.scenario import Scenario, play
from fubd.simulator.scenario_steps import (
    DAY,
    HOUR,
    AgentKeyPeriod,
    BehaviourPeriod,
    FaultPeriod,
    LeadSurge,
    QuickPassage,
    ScenarioStep,
    StageNameReuse,
    Traffic,
    move_random_person,
)
from fubd.simulator.score import Discrepancy
from tests.proofs.world import World, WorldSettings, policy
from tests.support.virtual_time import EPOCH, run_virtual

CALM_SECONDS = 10 * HOUR
"""After every fault: longer than the last retry of a delivery, and than the longest wait for a person who could not be read."""
_LAST_MOVES = 6
_LOOK_SECONDS = 600.0
# An owner has to end these.
_LASTING = {ProblemName.SUBSCRIPTIONS_CONTESTED, ProblemName.SUBSCRIPTIONS_BLOCKED}

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ProofResult:
    """What a seed brought. `rounds`: how often completeness was compared with the truth. `failures`: each broken promise, in a line."""

    seed: int
    days: float
    calls: int
    rounds: int
    score: Score
    failures: tuple[str, ...]
    conditions: str


def prove(seed: int, *, days: float) -> ProofResult:
    """Play the scenario of this seed. The last hours are calm."""
    return run_virtual(_prove(seed, days))


def _draw_settings(rng: Rng) -> WorldSettings:
    """Return settings: few seeds poll as often as by default, and few accounts need more than a page. That is where time goes."""
    slowness = rng.choice((1.0, *(2.0,) * 3, *(4.0,) * 14, *(8.0,) * 22))
    return WorldSettings(
        people=rng.choice((*(6,) * 6, *(12,) * 4, 25, *(110,) * (slowness == 1.0))),
        ahead_seconds=rng.choice((0.0, 0.0, 0.0, -2.5, 7_200.0, -86_400.0)),
        policy=policy(
            slowness=slowness,
            failover_seconds=rng.choice((30.0, 300.0, 600.0)) if slowness == 1.0 else rng.choice((300.0, 900.0)),
            scrub_batches=rng.choice((1, 4)),
        ),
    )


def _draw_scenario(rng: Rng, people: int, seconds: float) -> Scenario:
    """Return a scenario of as much work as so few people cause."""
    scenario = draw_scenario(rng, people=people, seconds=seconds)
    return replace(scenario, steps=tuple(_fitting(step, people, rng) for step in scenario.steps))


def _fitting(step: ScenarioStep, people: int, rng: Rng) -> ScenarioStep:
    match step:
        case Traffic():
            return Traffic(end=step.end, moves_per_hour=1.0, edits_per_hour=0.5, leads_per_hour=0.02, office=rng.chance(0.7))
        case LeadSurge():
            return replace(step, leads=min(step.leads, people))
        case QuickPassage():
            return replace(step, people=min(step.people, people))
        case _:
            return step


@dataclass(frozen=True, slots=True)
class _Disturbances:
    """What happens to the daemon itself: kills with how long it is down, times without the database, and lost replies to COMMIT."""

    kills: tuple[Span, ...]
    outages: tuple[Span, ...]
    lost_replies: tuple[float, ...]

    async def play(self, world: World) -> None:
        """Let them happen, each at its time."""
        actions: list[tuple[float, Callable[[float], Awaitable[None]], float]] = []
        actions += [(at, world.restart_after, for_seconds) for at, for_seconds in self.kills]
        actions += [(at, world.lose_database, for_seconds) for at, for_seconds in self.outages]
        actions += [(at, world.lose_replies, 1.0) for at in self.lost_replies]
        for at, act, value in sorted(actions, key=lambda action: action[0]):
            await world.clock.pause(max(0.0, at - world.clock.monotonic()))
            await act(value)


def _draw_disturbances(rng: Rng, seconds: float) -> _Disturbances:
    def at() -> float:
        return rng.uniform(0.0, 0.9 * seconds)

    if rng.chance(0.3):
        return _Disturbances((), (), ())
    return _Disturbances(
        kills=tuple((at(), rng.choice((0.0, 5.0, 900.0, 3 * HOUR))) for _ in range(rng.randrange(4))),
        outages=tuple((at(), rng.choice((2.0, 30.0, 1_200.0))) for _ in range(rng.randrange(3))),
        lost_replies=tuple(at() for _ in range(rng.randrange(5))),
    )


async def _prove(seed: int, days: float) -> ProofResult:
    rng = Rng(seed)
    settings = _draw_settings(rng)
    seconds = days * DAY - CALM_SECONDS
    scenario, disturbances = _draw_scenario(rng, settings.people, seconds), _draw_disturbances(rng, seconds)
    world = World(seed, settings)
    if not world.has_anybody_in("Nurture"):
        # A stage in which nobody was ever read is known by its name alone, and cannot be recognised under another.
        scenario = replace(scenario, steps=tuple(step for step in scenario.steps if not isinstance(step, StageNameReuse)))
    simulator, clock = world.simulator, world.account.clock
    agent = [(step.begin - 2 * HOUR, step.end) for step in scenario.steps if isinstance(step, AgentKeyPeriod)]
    world.hides_deleted_stages = any(
        isinstance(step, BehaviourPeriod) and step.switches.get("stage_deletion_moves_updated") is False for step in scenario.steps
    )
    world.is_blind = lambda at: _is_within((at - EPOCH).total_seconds(), agent)
    world.start()
    await simulator.deliveries.start()
    async with asyncio.TaskGroup() as group:
        group.create_task(disturbances.play(world))
        looking = group.create_task(_look(world))
        await play(scenario, simulator, Rng(seed + 1))
        looking.cancel()
    simulator.faults = Faults()
    simulator.deliveries.release()
    for _ in range(_LAST_MOVES):
        await clock.sleep(HOUR / 2)
        move_random_person(world.account, rng)
    await clock.sleep(CALM_SECONDS - _LAST_MOVES * HOUR / 2)
    found = _score(world)
    failures = [*world.violations, *_broken_promises(world, found), *_unsaid_misses(world, scenario), *_lasting_problems(world)]
    await world.kill()
    await simulator.deliveries.stop()
    return ProofResult(
        seed, days, simulator.calls.total(), world.rounds, found, tuple(failures), f"{settings}, {scenario.steps}, {disturbances}"
    )


def _is_within(at: float, spans: Iterable[Span]) -> bool:
    return any(begin <= at <= end for begin, end in spans)


# --- what was recorded ------------------------------------------------------------------------------------------------


def _score(world: World) -> Score:
    rows = [
        {
            "person_id": row.person_id,
            "stage_from": row.stage_from,
            "stage_to": row.stage.name,
            "changed_at": row.changed_at,
            "changed_after": row.changed_after,
            "source": row.source,
        }
        for row in world.store.rows()
    ]
    return score(world.simulator.truth, rows, sightings=world.simulator.sightings)


def _broken_promises(world: World, found: Score) -> list[str]:
    lost = {
        (one.person_id, one.at) for one in found.discrepancies if one.kind == "lost_shown" and _is_excused(world, one.person_id, one.at)
    }

    def is_broken(one: Discrepancy) -> bool:
        match one.kind:
            case "lost_shown":
                return (one.person_id, one.at) not in lost
            case "wrong_from":
                earlier = [change.at for change in world.simulator.truth.of(one.person_id) if change.at < one.at]
                return not earlier or (one.person_id, max(earlier)) not in lost
            case "wrong_time":
                return not world.is_silent(one.person_id, one.at)
            case _:
                return True

    return [f"{one.kind}: {one.person_id} -> {one.stage} at {one.at}, {one.detail}" for one in found.discrepancies if is_broken(one)]


def _is_excused(world: World, person_id: int, at: datetime) -> bool:
    """Return whether the change was shown only to a daemon that was killed, or had no database, before it had recorded what it saw."""
    truth, margin = world.simulator.truth, timedelta(seconds=30)
    (change,) = [change for change in truth.of(person_id) if change.at == at]
    sighting = world.simulator.sightings.of(change)
    if sighting.acknowledged_at is not None:
        return False
    is_current = max(truth.of(person_id), key=lambda one: one.number) == change and world.account.has(person_id)
    shown_at = [shown for shown in (sighting.delivered_at, sighting.read_at) if shown is not None]
    return not is_current and all(any(begin - margin <= shown <= end + margin for begin, end in world.disturbed) for shown in shown_at)


# --- what was said ----------------------------------------------------------------------------------------------------


async def _look(world: World) -> None:
    """Look again and again whether a state that lasts is said as a problem."""
    lasting: dict[ProblemName, datetime] = {}
    within = timedelta(seconds=_LOOK_SECONDS + world.settings.policy.pacing.poll_interval_seconds)
    while True:
        await world.clock.pause(_LOOK_SECONDS)
        now = world.account.clock.now()
        states = {
            ProblemName.KEY_REFUSED: world.simulator.behaviour.account_expired and world.up_since is not None,
            ProblemName.NOT_RECORDING: world.store.outage is not None and world.up_since is not None,
        }
        for name, holds in states.items():
            if not holds:
                lasting.pop(name, None)
            elif now - max(lasting.setdefault(name, now), world.up_since or now) > within and name not in world.problems():
                world.violations.append(f"unsaid: {name} at {now}")


def _unsaid_misses(world: World, scenario: Scenario) -> list[str]:
    """Return the changes that no webhook reported in time, that nothing prevented polling from finding, and that led to no failover."""
    within_seconds = HOUR + 2 * world.settings.policy.pacing.poll_interval_seconds
    impeded = [
        (step.begin - within_seconds, step.end)
        for step in scenario.steps
        if isinstance(step, AgentKeyPeriod | FaultPeriod) or (isinstance(step, BehaviourPeriod) and step.switches.get("account_expired"))
    ]
    impeded += [((begin - EPOCH).total_seconds() - within_seconds, (end - EPOCH).total_seconds()) for begin, end in world.disturbed]
    ahead = timedelta(seconds=world.settings.ahead_seconds)
    failing = [(begin - ahead, end - ahead) for begin, end in _failing(world)]
    unsaid = []
    for row in world.store.rows():
        is_miss = row.source == "polling" and row.confirmed_by is None and row.stage.name != "Trash" and row.stage_from is not None
        latest = row.changed_at + timedelta(seconds=within_seconds)
        is_free = not _is_within((row.changed_at - EPOCH).total_seconds(), impeded) and row.changed_at > EPOCH
        if is_miss and is_free and not any(begin <= latest and row.changed_at <= end for begin, end in failing):
            unsaid.append(f"unsaid: no failover after {row}")
    return unsaid


def _failing(world: World) -> list[tuple[datetime, datetime]]:
    """Return the spans (our clock) in which webhooks were said to fail, or to recover."""
    modes = world.store.modes
    ends = [*(record.since for record in modes[1:]), world.clock.now()]
    return [(record.since, end) for record, end in zip(modes, ends, strict=True) if record.mode in ("failover", "recovering")]


def _lasting_problems(world: World) -> Sequence[str]:
    """Return what is still said after hours without a fault."""
    problems = [f"still said: {name}" for name in world.problems() if name not in _LASTING]
    mode = world.store.modes[-1]
    if mode.mode not in ("steady", "watch") and not _LASTING & set(world.problems()):
        problems.append(f"still {mode}")
    if world.store.completeness != 1.0:
        problems.append(f"completeness {world.store.completeness} after everybody was read again")
    return problems
