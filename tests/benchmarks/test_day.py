"""What a part of a day costs the whole daemon, counted where the calls arrive, as `python -m tests.benchmarks.day` measures a whole one."""

from __future__ import annotations

from math import ceil
from pathlib import Path

from tests.benchmarks.day import Pace, household

_STEADY_SHARE = 1 / 12
_FAILOVER_SHARE = 1 / 144


async def test_a_part_of_a_day_costs_no_more_than_its_part(database: str, tmp_path: Path) -> None:
    """Two hours of steady cost their part of 300 calls and one round, ten minutes of failover theirs of 4,000; who changed is beside."""
    async with household(database, tmp_path, people=1000, pace=Pace(day_seconds=240.0)) as home:
        await home.becomes("steady")
        steady = await home.lives("steady", share=_STEADY_SHARE)
        assert steady.mode == "steady"
        # A round under way at either end: a poll, a look, four batches and a look at the newest.
        assert 6 <= steady.running <= ceil(300 * _STEADY_SHARE) + 7
        assert steady.changes >= 28
        assert steady.changed <= steady.changes + 1
    async with household(database, tmp_path, people=1000, pace=Pace(day_seconds=1440.0)) as home:
        home.built.simulator.deliveries.kill()
        await home.becomes("failover")
        failover = await home.lives("failover", share=_FAILOVER_SHARE)
        assert failover.mode == "failover"
        assert failover.polls >= 2
        assert failover.running <= ceil(4000 * _FAILOVER_SHARE) + 6
        assert home.refused() == 0
