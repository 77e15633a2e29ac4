"""Random days of a random account, with every fault and every odd answer: fubd keeps its promises."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fubd.core.history import Stage
from fubd.simulator.scenario_steps import HOUR
from tests.proofs.proof import prove
from tests.proofs.world import World, WorldSettings
from tests.support.virtual_time import run_virtual

SEEDS = 200
DAYS = 5.0
# Seeds of one test: few, so that no core is left alone with the last tests.
_TOGETHER = 5


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, _TOGETHER))
def test_random_days_keep_every_promise(first: int) -> None:
    """Nothing recoverable is lost, doubled or invented, coverage is never ahead, and no problem stays unsaid."""
    for seed in range(first, first + _TOGETHER):
        result = prove(seed, days=DAYS)
        assert not result.failures, f"seed {seed}, {result.failures}, {result.conditions}"


def test_a_completeness_above_the_truth_is_found() -> None:
    """With a row of another stage than the person's, a round of the scrub must not say that everybody matched."""

    async def scenario() -> None:
        world = World(1, WorldSettings(people=6))
        await world.simulator.deliveries.start()
        world.start()
        await world.clock.pause(HOUR)
        moved = world.account.ids[0]
        world.account.move(moved, "Nurture")
        await world.clock.pause(6 * HOUR)
        (row,) = world.store.people[moved].rows.values()
        world.store.people[moved].rows[row.id] = replace(row, stage=Stage("another"))
        world.check_completeness(1)
        assert world.violations == []
        world.check_completeness(0)
        assert [violation.split(":")[0] for violation in world.violations] == ["completeness"]
        await world.kill()
        await world.simulator.deliveries.stop()

    run_virtual(scenario())


@pytest.mark.slow
def test_a_seed_gives_the_same_days_again() -> None:
    """So that a failure can be examined by its seed."""
    first, again = prove(1, days=0.5), prove(1, days=0.5)
    assert (first.calls, first.score) == (again.calls, again.score)
