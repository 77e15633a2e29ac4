"""Fuzz the poller for changes that it misses: accounts with random behaviour and faults, each from a seed.

`python -m tests.poller.fuzz [--seeds 200] [--first 0]` moves, edits, trashes, deletes and creates people while the poller reads, over
real HTTP. After each run that claims to be complete it checks that everything that changed before coverage was read. The seed decides how
the service treats its filter, totals and pages, which faults occur, and how far our clock is off.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass

from fubd.simulator import Behaviour, Faults, UpdatedAfter
from fubd.simulator.rng import Rng
from tests.poller.simulated import SimulatorHarness, change_people, simulated

_TRASH = "Trash"
_RUNS = 5


@dataclass(frozen=True, slots=True)
class FuzzResult:
    """The result of a seed: how many runs were complete and incomplete, which people were missed, and under which conditions."""

    seed: int
    complete: int
    incomplete: int
    missed: tuple[int, ...]
    conditions: str


def _behaviour(rng: Rng) -> Behaviour:
    return Behaviour(
        updated_after=rng.choice(list(UpdatedAfter)),
        updated_after_inclusive=rng.random() < 0.5,
        total_as_text=rng.random() < 0.5,
        next_absent_at_end=rng.random() < 0.5,
        double_ampersand=rng.random() < 0.3,
        lists_hide_trash=rng.random() < 0.3,
        deep_offset=rng.choice([500, 2000]),
        answer_seconds=rng.choice([0.0, 0.3, 2.0]),
    )


def _faults(rng: Rng) -> Faults:
    if rng.random() < 0.4:
        return Faults()

    def probability() -> float:
        return rng.choice([0.0, 0.01, 0.05])

    return Faults(
        server_error=probability(),
        bad_gateway=probability(),
        throttled=probability(),
        reset=probability(),
        truncated=probability(),
        cut=probability(),
        html=probability(),
        wrong_type=probability(),
    )


async def fuzz(seed: int) -> FuzzResult:
    """Do some recovery runs against the account of this seed."""
    rng = Rng(seed)
    behaviour, faults = _behaviour(rng), _faults(rng)
    ahead_seconds = rng.choice([0.0, -86_400.0, -2.5, 3.0, 7_200.0])
    people = rng.choice([3, 99, 101, 800])
    missed: set[int] = set()
    runs = {True: 0, False: 0}
    async with simulated(people=people, behaviour=behaviour, seed=seed, ahead_seconds=ahead_seconds, speed=1500.0) as harness:
        harness.simulator.faults = faults
        for _ in range(_RUNS):
            # Few changes, many changes, and a bulk edit of more people than any offset reaches.
            every_seconds = rng.choice([0.5, 5.0, 60.0])
            changing = asyncio.create_task(
                change_people(harness.account, rng, times=max(1, min(250, int(400 / every_seconds))), every_seconds=every_seconds)
            )
            if rng.random() < 0.2:
                harness.account.bulk_move(harness.account.ids[:600], "Nurture")
            await harness.account.clock.pause(rng.uniform(1.0, 300.0))
            result = await harness.recover(full=rng.random() < 0.1)
            runs[result.caught_up] += 1
            missed.update(_missed(harness, hidden=behaviour.lists_hide_trash))
            await changing
    return FuzzResult(seed, runs[True], runs[False], tuple(sorted(missed)), f"{people} people, {ahead_seconds:+g} s, {behaviour}, {faults}")


def _missed(harness: SimulatorHarness, *, hidden: bool) -> list[int]:
    """Return who changed before coverage and was not read since; where lists hide Trash, people who passed through it do not count."""
    if harness.database.stored_coverage.watermark is None:
        return []
    through_trash = {change.person_id for change in harness.account.truth.changes if hidden and change.stage_to == _TRASH}
    return [person_id for person_id in harness.unrecorded() if person_id not in through_trash]


async def _fuzz_seeds(first: int, seeds: int) -> int:
    began, failed_seeds, runs, incomplete = time.monotonic(), 0, 0, 0
    for seed in range(first, first + seeds):
        result = await fuzz(seed)
        runs += result.complete + result.incomplete
        incomplete += result.incomplete
        if result.missed:
            failed_seeds += 1
            sys.stdout.write(f"seed {seed}: missed {result.missed} ({result.conditions})\n")
            sys.stdout.flush()
    seconds = time.monotonic() - began
    sys.stdout.write(
        f"{seeds} seeds, {runs} runs, {incomplete} of them not complete, {failed_seeds} seeds with a missed change, {seconds:.0f} s\n"
    )
    return 1 if failed_seeds else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.poller.fuzz", description="Fuzz the poller for changes that it misses.")
    parser.add_argument("--seeds", type=int, default=200, help="how many accounts to try (default 200)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    args = parser.parse_args()
    sys.exit(asyncio.run(_fuzz_seeds(args.first, args.seeds)))
