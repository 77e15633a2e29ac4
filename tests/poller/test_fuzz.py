"""A few seeds of the hunt; `python -m tests.poller.fuzz` tries as many as there is time for."""

from __future__ import annotations

import pytest

from tests.poller.fuzz import hunt


@pytest.mark.parametrize("seed", [2, 8, 15, 1011])
async def test_no_change_is_missed(seed: int) -> None:
    """Whatever FUB's ways and its weather, a run that claims to be complete has read all that changed before coverage."""
    hunted = await hunt(seed)
    assert hunted.missed == (), hunted.weather
    assert hunted.complete > 0, hunted.weather
