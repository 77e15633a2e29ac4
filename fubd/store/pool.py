"""Connections to Postgres: limited in number and in time, whatever stands between us and the server.

After a refused login the pool waits before the next one, because some servers lock out a client after several refusals.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING

import asyncpg

from fubd.errors import Unavailable
from fubd.store import statements
from fubd.store.connecting import connector
from fubd.store.errors import LoginRefused, translate_errors
from fubd.store.locks import find_lock_holders, naming_lock_holders
from fubd.store.pool_mode import PoolMode, detect_pool_mode

if TYPE_CHECKING:
    from fubd.store.dsn import Dsn

# A pooler in session mode limits the clients of the whole project, so each instance opens few.
_POOL_SIZE = 4
_CONNECT_SECONDS = 8.0
# A network that went silent is noticed within 10 s.
_COMMAND_SECONDS = 9.0
_CLOSE_SECONDS = 1.0
_IDLE_SECONDS = 240.0
# Two instances then make at most eight logins in 150 s; some poolers lock out a client after ten refused ones.
_FIRST_HOLD_SECONDS = 15.0
_LAST_HOLD_SECONDS = 60.0

_CACHED_STATEMENTS = 100
# What the scripts that begin a transaction set. A connection without a pooler is ours alone and has it from its log-in on: there the
# scripts only say what is special, and a single statement needs no transaction.
_LIMITS = {
    "timezone": "UTC",
    "default_transaction_isolation": "read committed",
    "statement_timeout": "8s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    "jit": "off",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
# Before the limit of the wait for a lock (sql/state/begin.sql).
_NAME_LOCK_HOLDERS_AFTER_SECONDS = 2.0

_BROKEN = (
    *(OSError, TimeoutError, asyncio.CancelledError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError),
    asyncpg.ReadOnlySQLTransactionError,
)
# The server on which a statement was prepared now serves another client.
_SHARED = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)


class Pool:
    """At most four connections, opened on demand.

    `mode`: None to find it out. `zone`: of times in errors. `monotonic` returns seconds that only grow.
    """

    def __init__(
        self,
        dsn: Dsn,
        *,
        size: int = _POOL_SIZE,
        mode: PoolMode | None = None,
        zone: tzinfo = UTC,
        monotonic: Callable[[], float] = time.monotonic,
        name_lock_holders_after_seconds: float = _NAME_LOCK_HOLDERS_AFTER_SECONDS,
    ) -> None:
        self._dsn = dsn
        self._connect = connector(dsn, timeout_seconds=_CONNECT_SECONDS)
        self._name_lock_holders_after_seconds = name_lock_holders_after_seconds
        self._zone = zone
        self._monotonic = monotonic
        self._refusal: LoginRefused | None = None
        self._held_until = float("-inf")
        self._hold_seconds = _FIRST_HOLD_SECONDS
        self._size = size
        self._pool: asyncpg.Pool | None = None
        self._mode = mode
        self._first: asyncpg.Connection | None = None
        self._is_read_only = False
        self._opening = asyncio.Lock()

    @property
    def place(self) -> str:
        """The host, port and name of the database, for messages."""
        return self._dsn.place

    async def _open(self) -> asyncpg.Pool:
        async with self._opening:
            if self._pool is None:
                self._check_login_allowed()
                self._mode = self._mode or await self._detect_mode()
                with translate_errors(self._dsn.place):
                    self._pool = await asyncpg.create_pool(
                        min_size=0,
                        max_size=self._size,
                        max_inactive_connection_lifetime=_IDLE_SECONDS,
                        command_timeout=_COMMAND_SECONDS,
                        statement_cache_size=0 if self._mode is PoolMode.TRANSACTION else _CACHED_STATEMENTS,
                        server_settings=_LIMITS if self._mode is PoolMode.NONE else None,
                        reset=_skip_reset,
                        connect=self._log_in,
                    )
            return self._pool

    async def _detect_mode(self) -> PoolMode:
        """Return the mode, and keep the connection that showed it where the pool can use it: that spares a log-in."""

        async def connect(cached_statements: int = 0) -> asyncpg.Connection:
            return await self._connect(statement_cache_size=cached_statements, command_timeout=_COMMAND_SECONDS)

        with translate_errors(self._dsn.place):
            first = await connect(_CACHED_STATEMENTS)
            try:
                mode = await detect_pool_mode(first, connect, settings=_LIMITS)
            except BaseException:
                first.terminate()
                raise
            if mode is PoolMode.TRANSACTION:
                await first.close(timeout=_CLOSE_SECONDS)
            else:
                self._first = first
            return mode

    async def _log_in(self, *_: object, **arguments: object) -> asyncpg.Connection:
        first, self._first = self._first, None
        connection = await self._connect(**arguments) if first is None or first.is_closed() else first
        was_read_only, self._is_read_only = self._is_read_only, _is_read_only(connection)
        if was_read_only and not self._is_read_only and self._pool is not None:
            # The other sessions stay read-only although the database can be written again: they are not lent again.
            await self._pool.expire_connections()
        return connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection without a transaction. Raises Unavailable or Malformed, never the driver's errors."""
        pool, connection = await self._acquire()
        with translate_errors(self._dsn.place):
            try:
                yield connection
            except _BROKEN as error:
                # The protocol state is unknown, or the server has become a standby: the connection is not lent again.
                connection.terminate()
                if not isinstance(error, asyncio.CancelledError):
                    # The others are probably broken too, and each would cost another timeout to find out.
                    await pool.expire_connections()
                raise
            except _SHARED:
                # A pooler turns out to be in transaction mode: from now on no statement stays prepared.
                self._mode = PoolMode.TRANSACTION
                if self._pool is pool:
                    self._pool = None
                pool.terminate()
                raise
            finally:
                await pool.release(connection, timeout=_CLOSE_SECONDS)

    async def _acquire(self) -> tuple[asyncpg.Pool, asyncpg.Connection]:
        """Acquire a connection, unless that needs a login and the last one was refused a moment ago."""
        if self._pool is not None and self._pool.get_idle_size() == 0:
            self._check_login_allowed()
        try:
            pool = self._pool or await self._open()
            with translate_errors(self._dsn.place):
                connection = await pool.acquire(timeout=_CONNECT_SECONDS)
        except LoginRefused as error:
            self._refusal = error
            self._held_until = self._monotonic() + max(self._hold_seconds, error.retry_after or 0.0)
            self._hold_seconds = min(self._hold_seconds * 2, _LAST_HOLD_SECONDS)
            raise
        self._refusal, self._hold_seconds = None, _FIRST_HOLD_SECONDS
        return pool, connection

    def _check_login_allowed(self) -> None:
        """Raise Unavailable while it is too early for another login. When it is time, one caller tries and the others keep waiting."""
        if self._refusal is not None:
            now = self._monotonic()
            if now < self._held_until:
                raise Unavailable(str(self._refusal), retry_after=self._held_until - now)
            self._held_until = now + self._hold_seconds

    def transaction(self) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """Open a transaction with our limits; it is committed at the end, rolled back on any error."""
        return self._named_transaction("state/begin", "state/begin_direct")

    def reading(self) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """Open a read-only transaction."""
        return self._named_transaction("reads/begin", "reads/begin_direct")

    def statement(self) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """Lend a connection for one statement that may write and finds its rows by key: alone where nothing shares the connection."""
        return self._named_transaction("state/begin", None)

    @asynccontextmanager
    async def _named_transaction(self, begin: str, begin_direct: str | None) -> AsyncIterator[asyncpg.Connection]:
        """Open a transaction whose error names who held it up."""
        naming = naming_lock_holders(self._find_lock_holders, after_seconds=self._name_lock_holders_after_seconds)
        async with naming, self._transaction(begin, begin_direct) as connection:
            yield connection

    async def _find_lock_holders(self) -> str | None:
        with suppress(Unavailable):
            async with self._transaction("reads/begin", "reads/begin_direct") as connection:
                return await find_lock_holders(connection, self._dsn.application_name, self._zone)
        return None

    def combined(self) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """Lend a connection for combined queries about little: each is one message, so no pooler makes it need a transaction."""
        return self.connection()

    def reading_by_index(self) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """Lend a connection for statements that are repeated all the time: each reads a few rows, by index."""
        return self._transaction("reads/begin_by_index", None)

    @asynccontextmanager
    async def _transaction(self, begin: str, begin_direct: str | None) -> AsyncIterator[asyncpg.Connection]:
        """Open a transaction by the script for this mode of the pool; without one, each statement is its own."""
        async with self.connection() as connection:
            script = begin_direct if self._mode is PoolMode.NONE else begin
            if script is None:
                yield connection
                return
            await connection.execute(statements.text(script))
            try:
                yield connection
            except _BROKEN:
                # A ROLLBACK could hang on a dead connection; closing the connection ends the transaction too.
                raise
            except BaseException:
                if not connection.is_closed() and connection.is_in_transaction():
                    await connection.execute("ROLLBACK")
                raise
            # The last script of a transaction may commit it itself.
            if connection.is_in_transaction():
                await connection.execute("COMMIT")

    async def close(self) -> None:
        """Close every connection, by force when the server does not answer."""
        if self._first is not None:
            self._first.terminate()
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        try:
            await asyncio.wait_for(pool.close(), _CLOSE_SECONDS)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pool.terminate()


def _is_read_only(connection: asyncpg.Connection) -> bool:
    """Return whether the server says, as it does since Postgres 14, that the session's transactions are read-only unless they ask."""
    return getattr(connection.get_settings(), "default_transaction_read_only", "off") == "on"


async def _skip_reset(_connection: object) -> None:
    """Replace the driver's reset, which costs a round trip at each release: we only use SET LOCAL, so there is nothing to reset."""
