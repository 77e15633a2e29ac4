"""Through a connection pooler: its mode is detected, and every promise holds there too."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from random import Random

import pytest

from fubd.errors import Unavailable
from fubd.store import Pool
from fubd.store.dsn import parse
from tests.stack import assert_perfect, running_stack
from tests.support.pooler import pooled
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

_CLIENTS = 12


@pytest.mark.parametrize("round_robin", [True, False], ids=["each server in turn", "the last server first"])
@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_everything_is_recorded_through_a_pooler(database: str, tmp_path: Path, mode: str, round_robin: bool) -> None:
    """Quick moves, a bulk edit, a failover and a recovery: each change once, the invariants hold, and no warning is logged."""
    async with (
        pooled(database, mode=mode, round_robin=round_robin) as pooler,
        running_stack(database, tmp_path, daemon_dsn=pooler.url) as stack,
        stack.ready_daemon() as process,
    ):
        rng = Random(9)
        people = rng.sample(list(stack.account.ids), 110)
        for person in people[:40]:
            stack.move_randomly(rng, people=[person])
        stack.account.bulk_move(people[40:80], "Nurture")
        assert_perfect(await stack.final_score())
        stack.simulator.deliveries.kill()
        for person in people[80:90]:
            stack.move_randomly(rng, people=[person])
        assert_perfect(await stack.final_score())
        stack.simulator.deliveries.revive()
        for person in people[90:]:
            stack.move_randomly(rng, people=[person])
        assert_perfect(await stack.final_score())

        await eventually(stack.is_balanced, 45.0)
        assert [line for line in process.lines if '"level": "warn"' in line or '"level": "error"' in line] == []
        process.terminate()
        assert await process.ended() == os.EX_OK


@pytest.mark.parametrize("round_robin", [True, False], ids=["each server in turn", "the last server first"])
async def test_concurrent_clients_get_their_own_answers(database: str, round_robin: bool) -> None:
    """No client runs a statement that another one prepared, although the pooler gives them the same few servers in turn."""
    async with pooled(database, round_robin=round_robin) as pooler:
        pools = [Pool(parse(pooler.url)) for _ in range(_CLIENTS)]
        try:
            answers = await asyncio.gather(*(_is_answered(pool, number) for number, pool in enumerate(pools) for _ in range(4)))
        finally:
            await asyncio.gather(*(pool.close() for pool in pools))
    assert all(answers)


async def _is_answered(pool: Pool, number: int) -> bool:
    """Run different statements under names that other clients use too. Return whether each result is right."""
    all_right = True
    for turn in range(25):
        async with pool.reading() as connection:
            found = await connection.fetchval(f"SELECT $1::bigint + {number}", turn)
        all_right = all_right and found == turn + number
    return all_right


async def test_a_change_to_transaction_mode_is_noticed(database: str) -> None:
    """Prepared statements are lost then: some statements fail as in an outage, and soon none does any more."""
    async with pooled(database, mode="session") as pooler:
        pools = [Pool(parse(pooler.url)) for _ in range(2)]
        await asyncio.gather(*(_is_answered(pool, number) for number, pool in enumerate(pools)))
        pooler.change_mode("transaction")

        async def is_right(pool: Pool, number: int) -> bool:
            try:
                return await _is_answered(pool, number)
            except Unavailable:
                return False

        async def all_are_right() -> bool:
            return all(await asyncio.gather(*(is_right(pool, number) for number, pool in enumerate(pools) for _ in range(4))))

        await eventually(all_are_right, 30.0)
        await asyncio.gather(*(pool.close() for pool in pools))


# These open a transaction of their own.
_FILES_WITH_BARE_CONNECTIONS = {
    "fubd/daemon.py",
    "fubd/commands/recording.py",
    "fubd/store/adoption/adopt.py",
    "fubd/store/pool.py",
    "fubd/store/recording.py",
}


def test_no_statement_runs_outside_a_transaction() -> None:
    """Everything else uses `reading` or `transaction`: a bare connection is not safe through a transaction pooler."""
    checkout = Path(__file__).parents[1]
    files = (path for path in (checkout / "fubd").rglob("*.py") if "pool.connection()" in path.read_text() or path.name == "pool.py")
    assert {str(path.relative_to(checkout)) for path in files} == _FILES_WITH_BARE_CONNECTIONS
