"""The database in memory records as Postgres does: else the proof would be about another program."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import datetime

import pytest

from fubd.core.observation import Delivery, Snapshot
from fubd.simulator.random_scenario import draw_scenario
from fubd.simulator.rng import Rng
from fubd.simulator.scenario import play
from fubd.simulator.scenario_steps import HOUR
from tests.proofs.world import World, WorldSettings
from tests.recorder import Recorder, running_recorder
from tests.support.virtual_time import run_virtual

_PEOPLE = 12
_SECONDS = 4 * HOUR
# So many are recorded together.
_TOGETHER = 25
_Row = tuple[str | None, str, datetime, datetime | None, str, str | None, str | None]


async def _play(seed: int) -> tuple[list[Delivery | Snapshot], datetime, dict[int, list[_Row]]]:
    """Play some hours of a random account; return what was recorded in memory, since when, and the rows of each person."""
    world = World(seed, WorldSettings(people=_PEOPLE))
    world.start()
    await world.simulator.deliveries.start()
    await play(draw_scenario(Rng(seed), people=_PEOPLE, seconds=_SECONDS), world.simulator, Rng(seed))
    await world.kill()
    await world.simulator.deliveries.stop()
    rows = defaultdict(list)
    for row in sorted(world.store.rows(), key=lambda row: row.changed_at):
        # In which case a stage is written depends on who was read in it before, so on the batches.
        columns = (
            row.stage_from and row.stage_from.casefold(),
            row.stage.name.casefold(),
            row.changed_at,
            row.changed_after,
            row.source,
            row.confirmed_by,
            row.event_id,
        )
        rows[row.person_id].append(columns)
    began = world.store.stored_coverage.began
    assert began is not None
    return world.journal, began, dict(rows)


async def _rows(recorder: Recorder, person_id: int) -> list[_Row]:
    names = ("stage_from", "stage_to", "changed_at", "changed_after", "source", "confirmed_by", "event_id")
    found = [[row[name] for name in names] for row in await recorder.records(person_id)]
    return [(before and before.casefold(), stage.casefold(), *others) for before, stage, *others in found]


@pytest.mark.parametrize("seed", [4])
def test_the_same_evidence_gives_the_same_rows(seed: int, database: str) -> None:
    """Everything that some hours of an account brought is recorded again, on Postgres, in other batches."""
    evidence, began, expected = run_virtual(_play(seed))

    async def record() -> dict[int, list[_Row]]:
        async with running_recorder(database) as recorder:
            await recorder.state.advance_coverage(began, sweep=False)
            for first in range(0, len(evidence), _TOGETHER):
                await recorder.record_concurrently(*evidence[first : first + _TOGETHER])
            return {person_id: await _rows(recorder, person_id) for person_id in expected}

    assert asyncio.run(record()) == expected
    assert sum(map(len, expected.values())) > _PEOPLE
