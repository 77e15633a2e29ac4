"""What the commands that record share: the parts on a database of this version, and a recorder beside the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fubd.commands.database import database
from fubd.core.observation import Delivery, Snapshot
from fubd.daemon import Parts, build
from fubd.ingest import Ingest
from fubd.ports import Findings, Malformed, Receipt, Refused, Unavailable
from fubd.settings import Settings
from fubd.store import Pool, migrate
from fubd.store.people import Inquiry

# The daemon waits for its database however long that takes; who waits for a command wants to be told.
_PATIENCE_SECONDS = 60.0


@asynccontextmanager
async def opened(settings: Settings, *, writing: bool) -> AsyncIterator[Parts]:
    """Give the parts on the settings' database, its schema made where `writing` allows. Raises SettingsError, Unavailable, Refused."""
    async with database(settings) as dsn:
        parts = build(settings, dsn)
        try:
            if writing:
                async with parts.pool.connection() as connection:
                    await migrate(connection, columns=settings.columns)
            else:
                await Inquiry(parts.pool).must_be_ready()
            yield parts
        finally:
            await parts.pool.close()


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[Pool]:
    """Give a pool to look through. Raises SettingsError, and Unavailable also when there is nothing of ours to look at."""
    async with database(settings) as dsn:
        pool = Pool(dsn)
        try:
            await Inquiry(pool).must_be_ready()
            yield pool
        finally:
            await pool.close()


@asynccontextmanager
async def recording(parts: Parts) -> AsyncIterator[Impatient]:
    """Run the recorder until the block ends; what was handed in is recorded then, unless the database is away."""
    stop = asyncio.Event()
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        group.create_task(parts.ingest.run(stop))
        try:
            yield Impatient(parts.ingest)
        except (Unavailable, Refused, Malformed) as error:
            # Raised below: out of the group it would come wrapped.
            failure = error
        finally:
            stop.set()
    if failure is not None:
        raise failure


class Impatient:
    """The junction, for those who do not wait for ever. Satisfies `fubd.ports.Inbox`; every method raises Unavailable."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    def submit(self, delivery: Delivery) -> asyncio.Future[Receipt]:
        """Take a delivery."""
        return self._ingest.submit(delivery)

    async def deliver(self, delivery: Delivery) -> Receipt:
        """Record a delivery; returns once it is committed."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await self.submit(delivery)
        except TimeoutError:
            raise Unavailable("the database does not answer") from None

    async def observe(self, snapshot: Snapshot) -> Findings:
        """Record readings; returns once they are committed."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await self._ingest.observe(snapshot)
        except TimeoutError:
            raise Unavailable("the database does not answer") from None
