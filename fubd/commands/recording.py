"""What commands that read Follow Up Boss or record share: the components, and an ingest that gives up instead of waiting forever.

Apart from the session, so that commands that only read the database start without an HTTP library.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fubd.commands.session import database
from fubd.components import Components, build, build_ingest
from fubd.core.observation import Delivery, Snapshot
from fubd.core.vocabulary import DeliveryOutcome
from fubd.errors import FubRefused, Malformed, Unavailable, UserError
from fubd.ingest import CommitListener, Ingest
from fubd.ports import SnapshotResult
from fubd.settings import Settings
from fubd.store import migrate

# The daemon waits for its database as long as it takes; a person who waits for a command wants an answer.
_TIMEOUT_SECONDS = 60.0


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


async def verify_account(components: Components) -> None:
    """Compare the account of the API key with that of the database, where both are set. Raises AccountMismatch, Unavailable.

    For commands that need no key, because they write without reading Follow Up Boss: they do not give the database an account either.
    """
    if components.settings.fub_api_key is not None and await components.state.account() is not None:
        async with components.client:
            await components.account.verify()


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
        except (Unavailable, UserError, FubRefused, Malformed, OSError) as error:
            # Raised outside the group, which would wrap it in an ExceptionGroup. OSError: the result cannot be printed.
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

    def is_partly_recorded(self, delivery: Delivery) -> bool:
        """Return whether some of the people of a queued delivery are committed."""
        return self._ingest.is_partly_recorded(delivery)

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
