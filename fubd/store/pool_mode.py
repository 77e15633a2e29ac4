"""What stands between us and the server: nothing, a pooler of sessions, or one of transactions.

The first kind lends us a server for as long as we stay, the second for a transaction at a time. There, a statement that was prepared
earlier may be another client's by now, so nothing may stay prepared, and even a single statement needs a transaction around it: it is
prepared in one message and run in the next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum

import asyncpg

_CLOSE_SECONDS = 5.0


class PoolMode(StrEnum):
    """What stands between us and the server."""

    NONE = "none"
    SESSION = "session"
    TRANSACTION = "transaction"


async def find_pooling(first: asyncpg.Connection, connect: Callable[[], Awaitable[asyncpg.Connection]]) -> PoolMode:
    """Tell by the server processes that answer; `connect` opens a second connection for it. Raises what the driver raises.

    A pooler names another process than the one that answers. In transaction mode it lends a server to whoever asks: the one given back
    last, or each in turn. So two clients are asked now and then twice in a row: with the first kind they meet the same server, with the
    second one of them meets two, however many there are.
    """
    own = await _server_of(first)
    if own == first.get_server_pid():
        return PoolMode.NONE
    try:
        second = await connect()
    except (asyncpg.PostgresError, OSError, TimeoutError):
        # No room for a second: what is safe in every mode is safe.
        return PoolMode.TRANSACTION
    try:
        again = await _server_of(first)
        others = await _server_of(second)
        if again != own or others == own or await _server_of(first) != own or await _server_of(second) != others:
            return PoolMode.TRANSACTION
        return PoolMode.SESSION
    finally:
        await second.close(timeout=_CLOSE_SECONDS)


async def _server_of(connection: asyncpg.Connection) -> int:
    async with connection.transaction():
        process: int = await connection.fetchval("SELECT pg_backend_pid()")
        return process
