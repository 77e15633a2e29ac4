"""Connections to Postgres: bounded in number and in time, whatever stands between us and the server.

Who was refused at the log-in waits before knocking again, for some servers lock out who knocks too often.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from fubd.errors import Unavailable
from fubd.store.errors import LoginRefused, SortedErrors
from fubd.store.pool_mode import PoolMode, find_pooling

if TYPE_CHECKING:
    from fubd.store.dsn import Dsn

_log = logging.getLogger("fubd.store")

# Session pooling caps the clients of the whole project, so an instance stays small (platform: at most 4).
_POOL_SIZE = 4
_CONNECT_SECONDS = 8.0
# A silent network is noticed within 10 s.
_COMMAND_SECONDS = 9.0
_CLOSE_SECONDS = 1.0
# Four log-ins of this instance, and four of one beside it, in 150 s: ten are too many for some poolers.
_FIRST_HOLD_SECONDS = 15.0
_LAST_HOLD_SECONDS = 60.0

_STATEMENTS_KEPT = 100

_BROKEN = (
    *(OSError, TimeoutError, asyncio.CancelledError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError),
    asyncpg.ReadOnlySQLTransactionError,
)
# What says that another client has been given the server on which a statement was prepared.
_SHARED = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)

# A role's own default may be another level, at which whoever waited for a lock would have to begin again.
# The planner of an empty table chooses to read it whole, and a prepared statement may keep that choice while the table grows.
_BEGIN = (
    "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL timezone = 'UTC'; SET LOCAL statement_timeout = '8s'; SET LOCAL lock_timeout = '5s'; "
    "SET LOCAL idle_in_transaction_session_timeout = '10s'; "
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL jit = off"
)

# Each statement sees what was committed before it, and not only what was before the first.
_BEGIN_READING = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL timezone = 'UTC'; SET LOCAL statement_timeout = '8s'; SET LOCAL jit = off"
)


class Pool:
    """At most four connections, opened on demand. `monotonic` gives seconds that only grow."""

    def __init__(self, dsn: Dsn, *, size: int = _POOL_SIZE, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._dsn = dsn
        self._monotonic = monotonic
        self._refusal: LoginRefused | None = None
        self._held_until = float("-inf")
        self._hold_seconds = _FIRST_HOLD_SECONDS
        self._size = size
        self._pool: asyncpg.Pool | None = None
        self._pooling: PoolMode | None = None
        self._opening = asyncio.Lock()

    async def _opened(self) -> asyncpg.Pool:
        """Connect for the first time. Raises Unavailable."""
        async with self._opening:
            if self._pool is None:
                self._wait_before_knocking()
                self._pooling = self._pooling or await self._find_pooling()
                with SortedErrors():
                    self._pool = await asyncpg.create_pool(
                        min_size=0,
                        max_size=self._size,
                        max_inactive_connection_lifetime=240.0,
                        command_timeout=_COMMAND_SECONDS,
                        statement_cache_size=0 if self._pooling is PoolMode.TRANSACTION else _STATEMENTS_KEPT,
                        reset=_leave_as_is,
                        **self._arguments(),
                    )
            return self._pool

    def _arguments(self) -> dict[str, Any]:
        return {**self._dsn.connect_arguments(), "timeout": _CONNECT_SECONDS}

    async def _find_pooling(self) -> PoolMode:
        async def connect() -> asyncpg.Connection:
            return await asyncpg.connect(statement_cache_size=0, command_timeout=_COMMAND_SECONDS, **self._arguments())

        with SortedErrors():
            first = await connect()
            try:
                return await find_pooling(first, connect)
            finally:
                await first.close(timeout=_CLOSE_SECONDS)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection, to whoever makes a transaction of their own on it. Raises Unavailable or Malformed, never a driver's error."""
        pool, connection = await self._acquired()
        with SortedErrors():
            try:
                yield connection
            except _BROKEN as error:
                # What is on this connection's wire is unknown, or it leads to a server that has become a standby: it is not lent again.
                connection.terminate()
                if not isinstance(error, asyncio.CancelledError):
                    # The others may have met the same fate, and each would cost as long to find it out.
                    await pool.expire_connections()
                raise
            except _SHARED:
                # A pooler lends its servers by the transaction after all, or has begun to: from now on nothing stays prepared.
                self._pooling = PoolMode.TRANSACTION
                if self._pool is pool:
                    self._pool = None
                pool.terminate()
                raise
            finally:
                await pool.release(connection, timeout=_CLOSE_SECONDS)

    async def _acquired(self) -> tuple[asyncpg.Pool, asyncpg.Connection]:
        """Take a connection, unless that would take a log-in and the last was refused a moment ago."""
        if self._pool is not None and self._pool.get_idle_size() == 0:
            self._wait_before_knocking()
        try:
            pool = self._pool or await self._opened()
            with SortedErrors():
                connection = await pool.acquire(timeout=_CONNECT_SECONDS)
        except LoginRefused as error:
            self._refusal = error
            self._held_until = self._monotonic() + max(self._hold_seconds, error.retry_after or 0.0)
            self._hold_seconds = min(self._hold_seconds * 2, _LAST_HOLD_SECONDS)
            raise
        self._refusal, self._hold_seconds = None, _FIRST_HOLD_SECONDS
        return pool, connection

    def _wait_before_knocking(self) -> None:
        """Raise Unavailable while it is too soon for another log-in. One of us knocks, the others wait for what it hears."""
        if self._refusal is not None:
            now = self._monotonic()
            if now < self._held_until:
                raise Unavailable(str(self._refusal), retry_after=self._held_until - now)
            self._held_until = now + self._hold_seconds

    def transaction(self) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """Run one transaction with our limits; committed at the end, rolled back on any error."""
        return self._within(_BEGIN)

    def reading(self) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """Run one read-only transaction."""
        return self._within(_BEGIN_READING)

    @asynccontextmanager
    async def _within(self, begin: str) -> AsyncIterator[asyncpg.Connection]:
        async with self.connection() as connection:
            await connection.execute(begin)
            try:
                yield connection
            except _BROKEN:
                # No ROLLBACK down a wire that may be dead: the connection is ended instead, and with it the transaction.
                raise
            except BaseException:
                if not connection.is_closed() and connection.is_in_transaction():
                    await connection.execute("ROLLBACK")
                raise
            await connection.execute("COMMIT")

    async def close(self) -> None:
        """Close every connection, by force when the server does not answer."""
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        try:
            await asyncio.wait_for(pool.close(), _CLOSE_SECONDS)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pool.terminate()


async def _leave_as_is(_connection: object) -> None:
    """Replace the driver's reset, a round trip at each release: we only ever SET LOCAL, so there is nothing to reset."""
