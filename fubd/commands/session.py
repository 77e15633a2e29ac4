"""What the commands that record share: the parts on a database of this version, and a recorder beside the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import ExitStack, asynccontextmanager

from fubd.components import Components, build, build_ingest
from fubd.core.observation import Delivery, Snapshot
from fubd.errors import FubRefused, Malformed, Unavailable, UserError
from fubd.ingest import CommitListener, Ingest
from fubd.ports import DeliveryOutcome, SnapshotResult
from fubd.settings import Settings, load
from fubd.store import Pool, migrate
from fubd.store.dsn import Dsn, parse
from fubd.store.embedded import installed, running
from fubd.store.status import StatusReader

# The daemon waits for its database however long that takes; who waits for a command wants to be told.
_PATIENCE_SECONDS = 60.0


def configured(need: Collection[str] = frozenset()) -> Settings:
    """Read the settings; `need` names those that must be there. Raises SettingsError with all that is wrong, no database included."""
    return load(need=need, check_database=lambda url: installed() if url is None else parse(url))


@asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[Dsn]:
    """Give where to connect; an embedded server runs as long as the block. Raises SettingsError when there is neither."""
    if settings.database_url is not None:
        yield parse(settings.database_url.get_secret_value(), ca_certificates=settings.database_ca_cert)
        return
    with ExitStack() as stack:
        # Starting and stopping a server takes a moment; the loop goes on meanwhile.
        url = await asyncio.to_thread(stack.enter_context, running())
        try:
            yield parse(url)
        finally:
            await asyncio.to_thread(stack.close)


@asynccontextmanager
async def opened(settings: Settings, *, writing: bool) -> AsyncIterator[Components]:
    """Give the parts on the settings' database, its schema made where `writing` allows. Raises SettingsError, Unavailable, Refused."""
    async with database(settings) as dsn:
        components = build(settings, dsn)
        try:
            if writing:
                async with components.pool.connection() as connection:
                    await migrate(connection, columns=settings.columns)
            else:
                await components.status.require_schema()
            yield components
        finally:
            await components.pool.close()


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[Pool]:
    """Give a pool to look through. Raises SettingsError, and Unavailable also when there is nothing of ours to look at."""
    async with database(settings) as dsn:
        pool = Pool(dsn)
        try:
            await StatusReader(pool).require_schema()
            yield pool
        finally:
            await pool.close()


@asynccontextmanager
async def recording(components: Components, *, on_commit: CommitListener | None = None) -> AsyncIterator[Impatient]:
    """Run the recorder until the block ends; what was handed in is recorded then, unless the database is away."""
    stop = asyncio.Event()
    failure: Exception | None = None
    ingest = build_ingest(components, on_commit=on_commit)
    async with asyncio.TaskGroup() as group:
        group.create_task(ingest.run(stop))
        try:
            yield Impatient(ingest)
        except (Unavailable, UserError, FubRefused, Malformed) as error:
            # Raised below: out of the group it would come wrapped.
            failure = error
        finally:
            stop.set()
    if failure is not None:
        raise failure


class Impatient:
    """The junction, for those who do not wait for ever. Satisfies `fubd.ports.Ingestor`; every method raises Unavailable."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    def submit(self, delivery: Delivery) -> asyncio.Future[DeliveryOutcome]:
        """Take a delivery."""
        return self._ingest.submit(delivery)

    async def deliver(self, delivery: Delivery) -> DeliveryOutcome:
        """Record a delivery; returns once it is committed."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await self.submit(delivery)
        except TimeoutError:
            raise Unavailable("the database does not answer") from None

    async def observe(self, snapshot: Snapshot) -> SnapshotResult:
        """Record readings; returns once they are committed."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await self._ingest.observe(snapshot)
        except TimeoutError:
            raise Unavailable("the database does not answer") from None
