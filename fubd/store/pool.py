"""Connections to Postgres: bounded in number and in time, whatever stands between us and the server.

What asyncpg and the network raise is sorted here by its remedy: Unavailable (try again), Malformed (this data can never be written).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from fubd.ports import Malformed, Unavailable

if TYPE_CHECKING:
    from fubd.store.dsn import Dsn

_log = logging.getLogger("fubd.store")

# Session pooling caps the clients of the whole project, so an instance stays small (platform: at most 4).
_POOL_SIZE = 4
_CONNECT_SECONDS = 8.0
_COMMAND_SECONDS = 10.0
_CLOSE_SECONDS = 5.0

_BROKEN = (OSError, TimeoutError, asyncio.CancelledError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError)

# The planner of an empty table chooses to read it whole, and a prepared statement may keep that choice while the table grows.
_BEGIN = (
    "BEGIN; SET LOCAL timezone = 'UTC'; SET LOCAL statement_timeout = '9s'; SET LOCAL lock_timeout = '5s'; "
    "SET LOCAL idle_in_transaction_session_timeout = '30s'; "
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL jit = off"
)

_BEGIN_READING = "BEGIN READ ONLY; SET LOCAL timezone = 'UTC'; SET LOCAL statement_timeout = '9s'; SET LOCAL jit = off"


class Pool:
    """At most four connections, opened on demand."""

    def __init__(self, dsn: Dsn, *, size: int = _POOL_SIZE) -> None:
        self._dsn = dsn
        self._size = size
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()

    async def _opened(self) -> asyncpg.Pool:
        """Connect for the first time. Raises Unavailable."""
        async with self._opening:
            if self._pool is None:
                cache = await self._statement_cache()
                with SortedErrors():
                    self._pool = await asyncpg.create_pool(
                        min_size=0,
                        max_size=self._size,
                        max_inactive_connection_lifetime=240.0,
                        command_timeout=_COMMAND_SECONDS,
                        statement_cache_size=cache,
                        reset=_leave_as_is,
                        **self._arguments(),
                    )
            return self._pool

    def _arguments(self) -> dict[str, Any]:
        return {**self._dsn.connect_arguments(), "timeout": _CONNECT_SECONDS}

    async def _statement_cache(self) -> int:
        """Find out whether a server connection is ours for longer than one transaction; only then may statements stay prepared.

        Two clients of a transaction pooler are given the same server connection in turn; direct and session connections never are.
        """
        with SortedErrors():
            first = await asyncpg.connect(statement_cache_size=0, command_timeout=_COMMAND_SECONDS, **self._arguments())
            try:
                own = await first.fetchval("SELECT pg_backend_pid()")
                if own == first.get_server_pid():
                    return 100
                second = await asyncpg.connect(statement_cache_size=0, command_timeout=_COMMAND_SECONDS, **self._arguments())
                try:
                    shared = await second.fetchval("SELECT pg_backend_pid()") == own
                finally:
                    await second.close(timeout=_CLOSE_SECONDS)
                return 0 if shared else 100
            finally:
                await first.close(timeout=_CLOSE_SECONDS)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection. Raises Unavailable or Malformed, never a driver's error."""
        pool = self._pool or await self._opened()
        with SortedErrors():
            connection = await pool.acquire(timeout=_CONNECT_SECONDS)
            try:
                yield connection
            except _BROKEN:
                # What is on this connection's wire is unknown; the pool must not lend it again.
                connection.terminate()
                raise
            finally:
                await pool.release(connection, timeout=_CLOSE_SECONDS)

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


class SortedErrors:
    """Turn what the driver raises into the errors named by remedy."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Raise the error by remedy in place of the driver's."""
        if isinstance(error, asyncpg.DataError | asyncpg.IntegrityConstraintViolationError):
            raise Malformed(f"the database cannot hold this: {type(error).__name__}") from None
        if isinstance(error, asyncpg.PostgresError):
            raise Unavailable(_said(error)) from None
        if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
            raise Unavailable(f"the connection to the database was lost ({type(error).__name__})") from None
        if isinstance(error, TimeoutError):
            raise Unavailable("the database did not answer in time") from None
        if isinstance(error, OSError):
            raise Unavailable(f"the database cannot be reached ({error.strerror or type(error).__name__})") from None


def _said(error: asyncpg.PostgresError) -> str:
    if isinstance(error, asyncpg.InvalidPasswordError | asyncpg.InvalidAuthorizationSpecificationError):
        return "the database refused the user or the password of DATABASE_URL"
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return "the database named in DATABASE_URL does not exist"
    return f"the database could not do it now ({error.sqlstate or 'no code'} {type(error).__name__})"
