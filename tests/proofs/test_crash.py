"""Commands killed at their awaits: nothing is half done, and the next attempt succeeds.

The ordinary run kills at a sample of them. `python -m tests.proofs.crash` kills at each, and the daemon too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proofs import crash
from tests.store.adopting import connected
from tests.support import legacy_tables

pytestmark = pytest.mark.slow


async def test_an_adoption_killed_at_its_awaits_changed_nothing_or_everything(empty_database: str, tmp_path: Path) -> None:
    """No row differs, and the next attempt succeeds."""
    async with connected(empty_database) as connection:
        await legacy_tables.make(connection, rows=50)
    await crash.kill_adoption(empty_database, tmp_path, steps=(140,))


async def test_forgetting_killed_at_its_awaits_can_be_repeated(database: str, tmp_path: Path) -> None:
    """Either the person is still known, or gone everywhere."""
    await crash.kill_forgetting(database, tmp_path, steps=(25,))
