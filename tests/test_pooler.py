"""The daemon through a transaction pooler: it finds out by itself, and keeps every promise there too."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

from tests.house import house
from tests.support.pooler import pooled
from tests.support.waiting import eventually
from tests.test_daemon import assert_clean, move_some


async def test_everything_is_recorded_through_a_transaction_pooler(database: str, tmp_path: Path) -> None:
    """Quick moves, a bulk edit, a failover and a return: each change once, the books in balance, nothing said of trouble."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    async with pooled(database, tmp_path) as through, house(database, tmp_path, through=through) as built, built.ready() as process:
        chance = Random(9)
        move_some(built, chance, 60)
        built.account.bulk_move(list(built.account.ids)[:50], "Nurture")
        assert_clean(await built.settled())
        built.simulator.deliveries.kill()
        for person in chance.sample(list(built.account.ids), 10):
            move_some(built, chance, 1, people=[person])
        assert_clean(await built.settled())
        built.simulator.deliveries.revive()
        move_some(built, chance, 20)
        assert_clean(await built.settled())

        async def balanced() -> bool:
            metrics = await built.metrics()
            return metrics["fubd_ledger_imbalance"] == 0 == metrics["fubd_chain_violations"] and metrics["fubd_lease_held"] == 1

        await eventually(balanced, 15.0)
        assert [line for line in process.lines if '"level": "error"' in line] == []
        process.terminate()
        assert await process.ended() == os.EX_OK
