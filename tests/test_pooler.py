"""Through a pooler: which kind it is is found out, and every promise is kept there too."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from random import Random

import pytest

from fubd.errors import Unavailable
from fubd.store import Pool
from fubd.store.dsn import parse
from tests.stack import running_stack
from tests.support.pooler import pooled
from tests.support.waiting import eventually
from tests.test_daemon import assert_clean, move_some

_CLIENTS = 12


@pytest.mark.parametrize("in_turn", [True, False], ids=["each server in turn", "the last server first"])
@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_everything_is_recorded_through_a_pooler(database: str, tmp_path: Path, mode: str, in_turn: bool) -> None:
    """Quick moves, a bulk edit, a failover and a return: each change once, the books in balance, nothing said of trouble."""
    async with (
        pooled(database, mode=mode, in_turn=in_turn) as pooler,
        running_stack(database, tmp_path, daemon_dsn=pooler.url) as stack,
        stack.ready_daemon() as process,
    ):
        chance = Random(9)
        people = chance.sample(list(stack.account.ids), 110)
        for person in people[:40]:
            move_some(stack, chance, 1, people=[person])
        stack.account.bulk_move(people[40:80], "Nurture")
        assert_clean(await stack.final_score())
        stack.simulator.deliveries.kill()
        for person in people[80:90]:
            move_some(stack, chance, 1, people=[person])
        assert_clean(await stack.final_score())
        stack.simulator.deliveries.revive()
        for person in people[90:]:
            move_some(stack, chance, 1, people=[person])
        assert_clean(await stack.final_score())

        async def balanced() -> bool:
            metrics = await stack.metrics()
            return metrics["fubd_ledger_imbalance"] == 0 == metrics["fubd_chain_violations"] and metrics["fubd_lease_held"] == 1

        await eventually(balanced, 15.0)
        assert [line for line in process.lines if '"level": "warn"' in line or '"level": "error"' in line] == []
        process.terminate()
        assert await process.ended() == os.EX_OK


@pytest.mark.parametrize("in_turn", [True, False], ids=["each server in turn", "the last server first"])
async def test_clients_beside_each_other_get_their_own_answers(database: str, in_turn: bool) -> None:
    """What one client prepares no other runs, though the pooler lends them the same few servers by the transaction."""
    async with pooled(database, in_turn=in_turn) as pooler:
        pools = [Pool(parse(pooler.url)) for _ in range(_CLIENTS)]
        try:
            answers = await asyncio.gather(*(_ask(pool, number) for number, pool in enumerate(pools) for _ in range(4)))
        finally:
            await asyncio.gather(*(pool.close() for pool in pools))
    assert all(answers)


async def _ask(pool: Pool, number: int) -> bool:
    """Ask statements of different kinds, each prepared under a name that other clients use for theirs."""
    right = True
    for turn in range(25):
        async with pool.reading() as connection:
            found = await connection.fetchval(f"SELECT $1::bigint + {number}", turn)
        right = right and found == turn + number
    return right


async def test_a_pooler_that_goes_over_to_transactions_is_noticed(database: str) -> None:
    """What was prepared before is another's then: some statements fail as an outage does, and soon none does any more."""
    async with pooled(database, mode="session") as pooler:
        pools = [Pool(parse(pooler.url)) for _ in range(2)]
        await asyncio.gather(*(_ask(pool, number) for number, pool in enumerate(pools)))
        pooler.change("transaction")

        async def right(pool: Pool, number: int) -> bool:
            try:
                return await _ask(pool, number)
            except Unavailable:
                return False

        async def all_right() -> bool:
            return all(await asyncio.gather(*(right(pool, number) for number, pool in enumerate(pools) for _ in range(4))))

        await eventually(all_right, 30.0)
        await asyncio.gather(*(pool.close() for pool in pools))


# They make a transaction of their own on it.
_WITH_A_BARE_CONNECTION = {"fubd/daemon.py", "fubd/commands/recording.py", "fubd/store/adoption/adopt.py", "fubd/store/pool.py"}


def test_no_statement_runs_outside_a_transaction() -> None:
    """Who only wants to ask or write something uses `reading` or `transaction`: a bare connection is safe through no transaction pooler."""
    checkout = Path(__file__).parents[1]
    files = (path for path in (checkout / "fubd").rglob("*.py") if "pool.connection()" in path.read_text() or path.name == "pool.py")
    assert {str(path.relative_to(checkout)) for path in files} == _WITH_A_BARE_CONNECTION
