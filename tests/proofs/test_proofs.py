"""Random days of a random account, with every fault and every odd answer: fubd keeps its promises."""

from __future__ import annotations

import pytest

from tests.proofs.proof import prove

DAYS = 2.0
SEEDS = (0, 1, 2, 6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_random_days_keep_every_promise(seed: int) -> None:
    """Nothing recoverable is lost, doubled or invented, coverage is never ahead, and no problem stays unsaid."""
    result = prove(seed, days=DAYS)
    assert not result.failures, f"seed {seed}, {result.failures}, {result.conditions}"


@pytest.mark.slow
def test_a_seed_gives_the_same_days_again() -> None:
    """So that a failure can be examined by its seed."""
    first, again = prove(1, days=0.5), prove(1, days=0.5)
    assert (first.calls, first.score) == (again.calls, again.score)
