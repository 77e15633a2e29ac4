"""The proxy fails as requested; otherwise the tests that use it would prove nothing."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from fubd.store.dsn import parse
from tests.support.proxy import Proxy

_LOST = (asyncpg.ConnectionDoesNotExistError, asyncpg.InterfaceError, ConnectionError)


async def _connect(url: str) -> asyncpg.Connection:
    return await asyncpg.connect(**parse(url).connect_arguments(), timeout=5)


async def test_carries_everything(empty_database: str) -> None:
    """What arrives is what was sent, also when it is large."""
    async with Proxy(empty_database) as proxy:
        connection = await _connect(proxy.dsn)
        sent = "x" * 3_000_000
        assert await connection.fetchval("SELECT $1::text", sent) == sent
        await connection.close()
        assert proxy.connections == 1


async def test_delays_each_direction(empty_database: str) -> None:
    """A round trip takes at least twice the delay."""
    async with Proxy(empty_database) as proxy:
        connection = await _connect(proxy.dsn)
        proxy.delay_seconds = 0.05
        began = time.monotonic()
        await connection.execute("SELECT 1")
        assert time.monotonic() - began >= 0.1
        proxy.delay_seconds = 0
        await connection.close()


async def test_cuts_and_refuses(empty_database: str) -> None:
    """Open connections break, and new ones are refused until it accepts again."""
    async with Proxy(empty_database) as proxy:
        connection = await _connect(proxy.dsn)
        await proxy.refuse()
        await proxy.cut()
        with pytest.raises(_LOST):
            await connection.execute("SELECT 1")
        with pytest.raises(OSError, match=r"refused|failed"):
            await _connect(proxy.dsn)
        await proxy.accept()
        again = await _connect(proxy.dsn)
        await again.close()


async def test_blackhole_holds_everything_back(empty_database: str) -> None:
    """Nothing arrives until it is switched off; then what was sent arrives."""
    async with Proxy(empty_database) as proxy:
        connection = await _connect(proxy.dsn)
        proxy.blackhole = True
        query = asyncio.create_task(connection.fetchval("SELECT 7"))
        done, _ = await asyncio.wait([query], timeout=0.1)
        assert not done
        proxy.blackhole = False
        assert await query == 7
        await connection.close()


async def test_drops_the_reply_to_a_commit(empty_database: str) -> None:
    """The COMMIT is executed; its sender never gets the reply."""
    async with Proxy(empty_database) as proxy:
        connection = await _connect(proxy.dsn)
        await connection.execute("CREATE TABLE kept (number integer)")
        proxy.lost_commit_replies = 1
        await connection.execute("BEGIN")
        await connection.execute("INSERT INTO kept VALUES (1)")
        with pytest.raises(_LOST):
            await connection.execute("COMMIT")
        assert (proxy.lost_commit_replies, proxy.commits) == (0, 1)
        again = await _connect(proxy.dsn)
        assert await again.fetchval("SELECT count(*) FROM kept") == 1
        proxy.lost_commit_replies = 1
        with pytest.raises(_LOST):
            await again.execute("BEGIN; INSERT INTO kept VALUES (2); COMMIT")
        last = await _connect(proxy.dsn)
        assert await last.fetchval("SELECT count(*) FROM kept") == 2
        await last.close()


async def test_cuts_after_a_number_of_bytes(empty_database: str) -> None:
    """What is sent before the cut arrives, what is sent after it does not, and the next connection works."""
    async with Proxy(empty_database) as proxy:
        connection = await _connect(proxy.dsn)
        assert await connection.fetchval("SELECT 7") == 7
        before = proxy.bytes
        assert await connection.fetchval("SELECT 7") == 7
        needed = proxy.bytes - before
        proxy.cut_after_bytes = needed
        assert await connection.fetchval("SELECT 7") == 7
        assert proxy.cut_after_bytes == 0
        proxy.cut_after_bytes = needed // 2
        with pytest.raises(_LOST):
            await connection.fetchval("SELECT 7")
        again = await _connect(proxy.dsn)
        assert await again.fetchval("SELECT 7") == 7
        await again.close()
