"""The API calls of a part of a day, counted where they arrive; `python -m tests.benchmarks.day` measures a whole one."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import pytest

from tests.benchmarks.day import Pace, measured_daemon

pytestmark = pytest.mark.slow

_STEADY_SHARE = 1 / 12
_FAILOVER_SHARE = 1 / 144


async def test_a_part_of_a_day_costs_no_more_than_its_part(database: str, tmp_path: Path) -> None:
    """Two hours of steady cost their share of 300 calls and one round, ten minutes of failover theirs of 4,000; refetches not counted."""
    async with measured_daemon(database, tmp_path, people=1000, pace=Pace(day_seconds=240.0)) as daemon:
        await daemon.wait_for_mode("steady")
        steady = await daemon.run("steady", share=_STEADY_SHARE)
        assert steady.mode == "steady"
        # One round in progress at either end: a poll, a subscription check, four scrub batches and a probe.
        assert 6 <= steady.running <= ceil(300 * _STEADY_SHARE) + 7
        assert steady.changes >= 28
        assert steady.changed <= steady.changes + 1
    async with measured_daemon(database, tmp_path, people=1000, pace=Pace(day_seconds=1440.0)) as daemon:
        daemon.stack.simulator.deliveries.kill()
        await daemon.wait_for_mode("failover")
        failover = await daemon.run("failover", share=_FAILOVER_SHARE)
        assert failover.mode == "failover"
        assert failover.polls >= 2
        assert failover.running <= ceil(4000 * _FAILOVER_SHARE) + 6
        assert daemon.refused() == 0
