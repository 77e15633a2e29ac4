"""What commands share: the settings and the database."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import ExitStack, asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from fubd.settings import DATABASE_VARIABLES, InvalidSetting, Settings, SettingsError, load, unknown_variables, unreadable_lines
from fubd.store import Pool
from fubd.store.dsn import Dsn, parse
from fubd.store.pool_mode import PoolMode
from fubd.store.status import StatusReader


def load_settings(need: Collection[str] = frozenset()) -> Settings:
    """Read the settings; `need` names the variables that must be set. Raises SettingsError, also when there is no database to use."""
    return load(need=need, check_database=lambda url: embedded().find_installation() if url is None else parse(url))


def embedded() -> ModuleType:
    """Return `fubd.store.embedded`, imported only where it is used. Raises SettingsError on a platform where it cannot run."""
    if find_spec("fcntl") is None:
        accepted = "postgresql://user:password@host:port/database, such as a database on Supabase"
        raise SettingsError(InvalidSetting("DATABASE_URL", "is not set, and the embedded Postgres does not run on this platform", accepted))
    return import_module("fubd.store.embedded")


@asynccontextmanager
async def database(settings: Settings, *, on_fault: Callable[[str | None], None] | None = None) -> AsyncIterator[Dsn]:
    """Yield the database of the settings. An embedded server is started, and stopped after the block. Raises SettingsError, Unavailable.

    `on_fault` is called, from another thread, when an embedded server has died, and with None when it runs again.
    """
    if settings.database_url is not None:
        yield parse(settings.database_url.get_secret_value(), ca_certificates=settings.database_ca_cert)
        return
    misspelled = [unknown.line() for unknown in unknown_variables() if unknown.nearest in DATABASE_VARIABLES]
    causes = "".join(f"; {line}" for line in (*(unreadable.line() for unreadable in unreadable_lines()), *misspelled))
    sys.stderr.write(f"fubd: DATABASE_URL is not set, so the embedded Postgres in {embedded().default_home()} is used{causes}\n")
    with ExitStack() as stack:
        # Starting and stopping a server takes a moment, during which the event loop must not block.
        options = {} if on_fault is None else {"on_fault": on_fault}
        url = await asyncio.to_thread(stack.enter_context, embedded().embedded_server(**options))
        try:
            yield parse(url)
        finally:
            await asyncio.to_thread(stack.close)


@asynccontextmanager
async def open_pool(settings: Settings, *, require_schema: bool = True) -> AsyncIterator[Pool]:
    """Yield a pool on a database whose schema is up to date. Raises SettingsError, UserError, Unavailable.

    What works through a pooler in transaction mode works everywhere, so no time is spent to find out the mode.
    """
    async with database(settings) as dsn:
        pool = Pool(dsn, mode=PoolMode.TRANSACTION, zone=settings.zone())
        try:
            if require_schema:
                await StatusReader(pool).require_schema()
            yield pool
        finally:
            await pool.close()
