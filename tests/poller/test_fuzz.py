"""A few seeds of the fuzzer; `python -m tests.poller.fuzz` tries any number of them."""

from __future__ import annotations

import pytest

from tests.poller.fuzz import fuzz


@pytest.mark.parametrize("seed", [2, 8, 15, 1011])
async def test_no_change_is_missed(seed: int) -> None:
    """Whatever FUB's behaviour and faults, a run that claims to be complete has read everything that changed before coverage."""
    result = await fuzz(seed)
    assert result.missed == (), result.conditions
    assert result.complete > 0, result.conditions
