"""The first read of a small account by the whole daemon, as `python -m tests.benchmarks.sweep` measures it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.sweep import LIMIT, PAGE_SIZE, SHARE, sweep

pytestmark = pytest.mark.slow

PEOPLE = 8000
# Half-filled pages at the ends of ranges, the probes, and the first poll and scrub; small accounts have small ranges.
_SPARE_CALLS = 60
# Calls between two saves of the frontier, those that sixteen workers had begun, and sixteen pages that were not recorded yet.
_READ_TWICE = 20 + 3 * 16


async def test_a_baseline_keeps_to_our_share_and_its_memory_is_flat(database: str, tmp_path: Path) -> None:
    """8,000 people: no 429, at most 200 of 250 calls in a window, no wasted page, and memory independent of the number of people."""
    swept = await sweep(database, tmp_path, people=PEOPLE, latency_seconds=0.02, killed=False)
    assert swept.refused == 0
    assert swept.peak <= SHARE * LIMIT
    assert PEOPLE / PAGE_SIZE <= swept.calls <= PEOPLE / PAGE_SIZE + _SPARE_CALLS
    assert swept.share_of_memory <= 1.2


async def test_a_baseline_killed_in_the_middle_goes_on_from_there(database: str, tmp_path: Path) -> None:
    """After SIGKILL with half of 8,000 people read, the next process continues from the frontier and rereads few of them."""
    swept = await sweep(database, tmp_path, people=PEOPLE, latency_seconds=0.5, killed=True)
    assert swept.went_on_from is not None
    assert swept.went_on_from > 0
    assert swept.refused == 0
    assert swept.calls <= PEOPLE / PAGE_SIZE + _SPARE_CALLS + _READ_TWICE
