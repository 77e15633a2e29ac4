"""The time that a reading still takes, as it is told meanwhile."""

from __future__ import annotations

import pytest

from fubd.commands.eta import seconds_left
from fubd.poller import Progress


@pytest.mark.parametrize(
    ("people", "calls", "elapsed", "least", "most"),
    [
        # 202,000 people are 2,020 calls and more, 200 in a window: that takes 100 s and a little, whatever the first seconds look like.
        (100, 3, 0.1, 100, 200),
        (20_000, 200, 2.0, 95, 110),
        (100_000, 1_000, 50.0, 48, 55),
        (201_900, 2_020, 101.0, 0, 5),
        # Where Follow Up Boss is slow, its pace decides.
        (20_000, 200, 100.0, 900, 920),
        (202_000, 2_020, 101.0, 0, 0),
    ],
)
def test_the_time_left_follows_the_limit_and_the_pace(people: int, calls: int, elapsed: float, least: float, most: float) -> None:
    """It is never below what the limit's windows still take, nor below what the pace so far promises."""
    left = seconds_left(Progress("sweep", people, 202_000, 0, calls, None), elapsed, 200)
    assert left is not None
    assert least <= left <= most


def test_without_a_known_end_no_time_is_told() -> None:
    """A reading whose length nobody knows has no time left to tell, nor has one of nobody."""
    assert seconds_left(Progress("incremental", 100, None, 0, 1, None), 5.0, 200) is None
    assert seconds_left(Progress("sweep", 0, 0, 0, 2, None), 5.0, 200) is None
