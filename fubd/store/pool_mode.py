"""Detects what stands between us and the server: nothing, or a pooler in session or in transaction mode.

In session mode a pooler gives us a server for as long as we are connected, in transaction mode for one transaction at a time. Then a
statement prepared earlier may be on another server, so nothing may stay prepared, and even a single statement needs a transaction around
it: it is prepared in one message and run in the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum

import asyncpg

from fubd.store import statements
from fubd.store.quoting import quote_document

_CLOSE_SECONDS = 5.0
# With other clients at work, each of these is right by chance at most once in as many times as there are servers, for each of the two.
_CONFIRMATIONS = 3


class PoolMode(StrEnum):
    """What stands between us and the server."""

    NONE = "none"
    SESSION = "session"
    TRANSACTION = "transaction"


async def detect_pool_mode(
    first: asyncpg.Connection, connect: Callable[[], Awaitable[asyncpg.Connection]], *, settings: Mapping[str, str] | None = None
) -> PoolMode:
    """Return the mode, judged by the server processes that answer. `connect` opens a second connection. Raises the driver's errors.

    Where nothing stands between us and the server, `first` has these `settings` of the server from then on.

    A pooler reports another process id than that of the server that answers. In transaction mode it uses for each transaction the server
    released last, or each server in turn. So two clients ask alternately, and then each again: in the first case both see the same server,
    in the second at least one of them sees two, however many servers there are. Other clients may disturb that, so what looks like session
    mode is confirmed.
    """
    # Only the number of rows is asked for, which takes one round trip.
    query = statements.query("check/is_server_process").fill(pid=str(first.get_server_pid()), settings=quote_document(dict(settings or {})))
    if await first.execute(query.text) == "SELECT 1":
        return PoolMode.NONE
    own = await _server_process(first)
    try:
        second = await connect()
    except (asyncpg.PostgresError, OSError, TimeoutError):
        # There is no room for a second connection. What works in transaction mode works in every mode.
        return PoolMode.TRANSACTION
    try:
        again = await _server_process(first)
        other = await _server_process(second)
        if again != own or other == own or await _server_process(first) != own or await _server_process(second) != other:
            return PoolMode.TRANSACTION
        for _ in range(_CONFIRMATIONS):
            if await _server_processes(first, second) != [own, other]:
                return PoolMode.TRANSACTION
        return PoolMode.SESSION
    finally:
        await second.close(timeout=_CLOSE_SECONDS)


async def _server_processes(*connections: asyncpg.Connection) -> list[int]:
    """Ask all at the same time. Raises an error only when all have answered, so that each can be closed."""
    answers = await asyncio.gather(*map(_server_process, connections), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if isinstance(answer, int)]


async def _server_process(connection: asyncpg.Connection) -> int:
    found = await statements.combine(server="check/server_process").fetch(connection)
    return int(found["server"][0]["pid"])
