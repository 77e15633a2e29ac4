"""The estimate of the time that a reading still takes."""

from __future__ import annotations

import pytest

from fubd.commands.eta import estimate_seconds_left
from fubd.poller import Progress


@pytest.mark.parametrize(
    ("people", "calls", "elapsed", "least", "most"),
    [
        # 202,000 people are 2,020 calls and more, 200 per window: that takes little more than 100 s, however fast the first seconds were.
        (100, 3, 0.1, 100, 200),
        (20_000, 200, 2.0, 95, 110),
        (100_000, 1_000, 50.0, 48, 55),
        (201_900, 2_020, 101.0, 0, 5),
        # Where Follow Up Boss is slow, the speed so far decides.
        (20_000, 200, 100.0, 900, 920),
        (202_000, 2_020, 101.0, 0, 0),
    ],
)
def test_the_estimate_follows_the_rate_limit_and_the_speed(people: int, calls: int, elapsed: float, least: float, most: float) -> None:
    """It is never below what the windows of the rate limit still take, nor below what the speed so far gives."""
    left = estimate_seconds_left(Progress("sweep", people, 202_000, 0, calls, None), elapsed, 200)
    assert left is not None
    assert least <= left <= most


def test_there_is_no_estimate_without_a_total() -> None:
    """A reading of unknown length has no estimate, nor has one of no people."""
    assert estimate_seconds_left(Progress("incremental", 100, None, 0, 1, None), 5.0, 200) is None
    assert estimate_seconds_left(Progress("sweep", 0, 0, 0, 2, None), 5.0, 200) is None
