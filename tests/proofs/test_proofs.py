"""Random days of a random account, with every fault and every odd answer: fubd keeps its promises."""

from __future__ import annotations

import pytest

from tests.proofs.proof import prove

SEEDS = 200
DAYS = 5.0
# Seeds of one test: the tests are spread over the cores.
_TOGETHER = 10


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, _TOGETHER))
def test_random_days_keep_every_promise(first: int) -> None:
    """Nothing recoverable is lost, doubled or invented, coverage is never ahead, and no problem stays unsaid."""
    for seed in range(first, first + _TOGETHER):
        result = prove(seed, days=DAYS)
        assert not result.failures, f"seed {seed}, {result.failures}, {result.conditions}"


@pytest.mark.slow
def test_a_seed_gives_the_same_days_again() -> None:
    """So that a failure can be examined by its seed."""
    first, again = prove(1, days=0.5), prove(1, days=0.5)
    assert (first.calls, first.score) == (again.calls, again.score)
