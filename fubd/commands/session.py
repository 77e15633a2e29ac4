"""What commands share: the settings, the database, the components on it, and an ingest that gives up instead of waiting forever."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import ExitStack, asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from fubd.components import Components, build, build_ingest
from fubd.core.observation import Delivery, Snapshot
from fubd.core.vocabulary import DeliveryOutcome
from fubd.errors import FubRefused, Malformed, Unavailable, UserError
from fubd.ingest import CommitListener, Ingest
from fubd.ports import SnapshotResult
from fubd.settings import DATABASE_VARIABLES, InvalidSetting, Settings, SettingsError, load, unknown_variables
from fubd.store import Pool, migrate
from fubd.store.dsn import Dsn, parse
from fubd.store.pool_mode import PoolMode
from fubd.store.status import StatusReader

# The daemon waits for its database as long as it takes; a person who waits for a command wants an answer.
_TIMEOUT_SECONDS = 60.0


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
    misspelled = "".join(f"; {unknown.line()}" for unknown in unknown_variables() if unknown.nearest in DATABASE_VARIABLES)
    sys.stderr.write(f"fubd: DATABASE_URL is not set, so the embedded Postgres in {embedded().default_home()} is used{misspelled}\n")
    with ExitStack() as stack:
        # Starting and stopping a server takes a moment, during which the event loop must not block.
        options = {} if on_fault is None else {"on_fault": on_fault}
        url = await asyncio.to_thread(stack.enter_context, embedded().embedded_server(**options))
        try:
            yield parse(url)
        finally:
            await asyncio.to_thread(stack.close)


@asynccontextmanager
async def open_components(settings: Settings, *, migrated: bool) -> AsyncIterator[Components]:
    """Yield the components on the database of the settings.

    `migrated`: bring the schema up to date first; otherwise it must be. Raises SettingsError, UserError, Unavailable.
    """
    async with database(settings) as dsn:
        components = build(settings, dsn)
        try:
            if migrated:
                async with components.pool.connection() as connection:
                    await migrate(connection, columns=settings.columns)
            else:
                await components.status.require_schema()
            yield components
        finally:
            await components.pool.close()


@asynccontextmanager
async def open_pool(settings: Settings, *, require_schema: bool = True) -> AsyncIterator[Pool]:
    """Yield a pool on a database whose schema is up to date. Raises SettingsError, UserError, Unavailable.

    What works through a pooler in transaction mode works everywhere, so no time is spent to find out the mode.
    """
    async with database(settings) as dsn:
        pool = Pool(dsn, mode=PoolMode.TRANSACTION)
        try:
            if require_schema:
                await StatusReader(pool).require_schema()
            yield pool
        finally:
            await pool.close()


@asynccontextmanager
async def run_ingest(
    components: Components, *, on_commit: CommitListener | None = None, timeout_seconds: float = _TIMEOUT_SECONDS
) -> AsyncIterator[TimeLimitedIngest]:
    """Run an ingest during the block; what was submitted is committed before this returns, unless the database is unavailable."""
    stop = asyncio.Event()
    failure: Exception | None = None
    ingest = build_ingest(components, on_commit=on_commit)
    async with asyncio.TaskGroup() as group:
        group.create_task(ingest.run(stop))
        try:
            yield TimeLimitedIngest(ingest, components.pool.place, timeout_seconds)
        except (Unavailable, UserError, FubRefused, Malformed) as error:
            # Raised outside the group, which would wrap it in an ExceptionGroup.
            failure = error
        finally:
            stop.set()
    if failure is not None:
        raise failure


class TimeLimitedIngest:
    """An ingest whose methods raise Unavailable when a commit takes longer than the timeout. Implements `fubd.ports.Ingestor`."""

    def __init__(self, ingest: Ingest, place: str, timeout_seconds: float) -> None:
        self._ingest = ingest
        self._place = place
        self._timeout_seconds = timeout_seconds

    def submit(self, delivery: Delivery) -> asyncio.Future[DeliveryOutcome]:
        """Queue a delivery, without a time limit."""
        return self._ingest.submit(delivery)

    async def deliver(self, delivery: Delivery) -> DeliveryOutcome:
        """Record a delivery; returns once it is committed."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self.submit(delivery)
        except TimeoutError:
            raise Unavailable(f"the database at {self._place} does not answer") from None

    async def observe(self, snapshot: Snapshot) -> SnapshotResult:
        """Record readings; returns once they are committed."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._ingest.observe(snapshot)
        except TimeoutError:
            raise Unavailable(f"the database at {self._place} does not answer") from None
