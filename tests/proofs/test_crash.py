"""Commands killed at their awaits: nothing is half done, and the next attempt succeeds.

The ordinary run kills at a sample of them. `python -m tests.proofs.crash` kills at each, and the daemon too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.proofs import crash
from tests.support.databases import Databases

pytestmark = pytest.mark.slow


@pytest.fixture
async def forks(tmp_path: Path) -> AsyncIterator[crash.Forks]:
    """Start the process that forks."""
    async with crash.forks(tmp_path) as forks:
        yield forks


async def test_an_adoption_killed_at_its_awaits_changed_nothing_or_everything(databases: Databases, forks: crash.Forks) -> None:
    """No row differs, and the next attempt succeeds."""
    assert (await crash.kill_adoption(databases, forks, every=30)).killed > 0


async def test_forgetting_killed_at_its_awaits_can_be_repeated(databases: Databases, forks: crash.Forks) -> None:
    """Either the person is still known, or gone everywhere."""
    assert (await crash.kill_forgetting(databases, forks, every=12)).killed > 0
