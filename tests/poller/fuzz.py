"""A hunt for changes that polling misses: accounts of every way and weather, each from a seed.

`python -m tests.poller.fuzz [--seeds 200] [--first 0]` lets people move, be edited, trashed, deleted and created while the poller reads,
over real HTTP, and asks after each run that claims to be complete whether everything that changed before coverage was read. What the
service does with its filter, its totals and its pages, what goes wrong on the way, and by how much our clock is off, the seed decides.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass

from fubd.simulator import Behaviour, Faults, UpdatedAfter
from fubd.simulator.rng import Rng
from tests.poller.simulated import World, simulated, stir

_TRASH = "Trash"
_RUNS = 5


@dataclass(frozen=True, slots=True)
class Hunted:
    """What came of a seed: how many runs were complete and how many not, and who was missed."""

    seed: int
    complete: int
    incomplete: int
    missed: tuple[int, ...]
    weather: str


def _behaviour(dice: Rng) -> Behaviour:
    return Behaviour(
        updated_after=dice.choice(list(UpdatedAfter)),
        updated_after_inclusive=dice.random() < 0.5,
        total_as_text=dice.random() < 0.5,
        next_absent_at_end=dice.random() < 0.5,
        double_ampersand=dice.random() < 0.3,
        lists_hide_trash=dice.random() < 0.3,
        deep_offset=dice.choice([500, 2000]),
        answer_seconds=dice.choice([0.0, 0.3, 2.0]),
    )


def _faults(dice: Rng) -> Faults:
    if dice.random() < 0.4:
        return Faults()

    def chance() -> float:
        return dice.choice([0.0, 0.01, 0.05])

    return Faults(
        server_error=chance(),
        bad_gateway=chance(),
        throttled=chance(),
        reset=chance(),
        truncated=chance(),
        cut=chance(),
        html=chance(),
        wrong_type=chance(),
    )


async def hunt(seed: int) -> Hunted:
    """Live a while in the account of this seed."""
    dice = Rng(seed)
    behaviour, faults = _behaviour(dice), _faults(dice)
    ahead_seconds = dice.choice([0.0, -86_400.0, -2.5, 3.0, 7_200.0])
    people = dice.choice([3, 99, 101, 800])
    missed: set[int] = set()
    runs = {True: 0, False: 0}
    async with simulated(people=people, behaviour=behaviour, seed=seed, ahead_seconds=ahead_seconds, speed=1500.0) as world:
        world.simulator.faults = faults
        for _ in range(_RUNS):
            # Sparse, lively, and a bulk edit of more people than any offset reaches.
            every_seconds = dice.choice([0.5, 5.0, 60.0])
            stirring = asyncio.create_task(
                stir(world.account, dice, times=max(1, min(250, int(400 / every_seconds))), every_seconds=every_seconds)
            )
            if dice.random() < 0.2:
                world.account.bulk_move(world.account.ids[:600], "Nurture")
            await world.account.clock.pause(dice.uniform(1.0, 300.0))
            caught = await world.poller.catch_up(full=dice.random() < 0.1)
            runs[caught.caught_up] += 1
            missed.update(_missed(world, hidden=behaviour.lists_hide_trash))
            await stirring
    return Hunted(seed, runs[True], runs[False], tuple(sorted(missed)), f"{people} people, {ahead_seconds:+g} s, {behaviour}, {faults}")


def _missed(world: World, *, hidden: bool) -> list[int]:
    """Give who changed before coverage and was not read since; where lists hide Trash, nobody can see there who passed through it."""
    if world.memory.cover.watermark is None:
        return []
    unseen = {change.person_id for change in world.account.truth.changes if hidden and change.stage_to == _TRASH}
    return [person_id for person_id in world.unrecorded() if person_id not in unseen]


async def _hunts(first: int, seeds: int) -> int:
    began, found, runs, incomplete = time.monotonic(), 0, 0, 0
    for seed in range(first, first + seeds):
        hunted = await hunt(seed)
        runs += hunted.complete + hunted.incomplete
        incomplete += hunted.incomplete
        if hunted.missed:
            found += 1
            sys.stdout.write(f"seed {seed}: missed {hunted.missed} ({hunted.weather})\n")
            sys.stdout.flush()
    seconds = time.monotonic() - began
    sys.stdout.write(
        f"{seeds} seeds, {runs} runs, {incomplete} of them not complete, {found} seeds with a missed change, {seconds:.0f} s\n"
    )
    return 1 if found else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.poller.fuzz", description="Hunt for changes that polling misses.")
    parser.add_argument("--seeds", type=int, default=200, help="how many accounts to try (default 200)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    told = parser.parse_args()
    sys.exit(asyncio.run(_hunts(told.first, told.seeds)))
