"""The state of fubd as the database knows it: what the status page, the gauges and the commands show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fubd.core.delivery_attempts import HourCount, OtherProcesses, window_start
from fubd.errors import UserError
from fubd.ports import ModeRecord
from fubd.store import migrations, statements
from fubd.store.pool import Pool


@dataclass(frozen=True, slots=True)
class StatusSummary:
    """Everything the status page shows at a glance. `*_heard` are our clock's; `*_change`, `coverage` and `oldest` are FUB's."""

    webhook_heard: datetime | None
    polling_heard: datetime | None
    webhook_today: int
    polling_today: int
    webhook_change: datetime | None
    polling_change: datetime | None
    coverage: datetime | None
    completeness: float | None
    people: int
    oldest: datetime | None
    pending_refetches: int
    quarantined: int
    own_deliveries: int


@dataclass(frozen=True, slots=True)
class StatusSettings:
    """The daemon's settings that `status` needs, in seconds.

    `now`: the database's clock. `polled_until`: when the lease of the last instance that polled ended or will end.
    """

    now: datetime
    webhook_stale_after: float
    polling_stale_after: float
    polled_until: datetime | None


class EmptyDatabase(UserError):
    """There is no schema of fubd's and no older table either."""


class StatusReader:
    """Reads through the pool; `instance` is this process's name. Every method raises Unavailable."""

    def __init__(self, pool: Pool, *, instance: str = "") -> None:
        self._pool = pool
        self._instance = instance
        self._first_delivery = 0

    async def require_schema(self) -> None:
        """Raise UserError unless the schema is this version's, EmptyDatabase where there is none."""
        async with self._pool.reading() as connection:
            reason = await migrations.not_ready_reason(connection)
            if reason is None:
                return
            if await migrations.has_migration_table(connection) or await migrations.has_product_table(connection):
                raise UserError(reason)
            raise EmptyDatabase(reason)

    async def mark_start(self) -> None:
        """Note the id above which this process's own deliveries lie; call it before the first of them is stored."""
        async with self._pool.reading() as connection:
            row = await statements.query("reads/last_delivery_id").fetchrow(connection)
            self._first_delivery = row["id"]

    async def summary(self) -> StatusSummary:
        """Return the summary."""
        async with self._pool.reading() as connection:
            query = statements.query("reads/status_summary")
            row = await query.fetchrow(connection, instance=self._instance, first_delivery=self._first_delivery)
            return StatusSummary(**dict(row))

    async def settings(self) -> StatusSettings:
        """Return the settings by which the daemon judges the sources."""
        async with self._pool.reading() as connection:
            return StatusSettings(**dict(await statements.query("reads/status_settings").fetchrow(connection)))

    async def modes(self, since: datetime) -> list[ModeRecord]:
        """Return the mode changes since then, oldest first, beginning with the mode in force at that instant."""
        async with self._pool.reading() as connection:
            rows = await statements.query("reads/modes").fetch(connection, since=since)
            return [ModeRecord(row["mode"], row["reason"], row["delay_seconds"], row["at"]) for row in reversed(rows)]

    async def is_polled(self) -> bool:
        """Return whether an instance holds the lease."""
        async with self._pool.reading() as connection:
            row = await statements.query("reads/is_polled").fetchrow(connection)
            return bool(row["is_polled"])

    async def blind_seconds(self, since: datetime, until: datetime) -> float | None:
        """Return the seconds between these instants (our clock) in which neither source was alive; None before the first complete poll."""
        async with self._pool.reading() as connection:
            row = await statements.query("reads/blind_time").fetchrow(connection, since=since, until=until)
            return None if row is None else float(row["seconds"] or 0.0)

    async def exchange_delivery_attempts(self, hours: Sequence[HourCount], now: datetime) -> OtherProcesses:
        """Save this process's delivery attempts, as counted at `now`, and return those that other processes saved."""
        async with self._pool.transaction() as connection:
            row = await statements.query("state/delivery_attempts").fetchrow(
                connection,
                instance=self._instance,
                now=now,
                hours=[hour.hour for hour in hours],
                failed=[hour.failed for hour in hours],
                taken=[hour.accepted for hour in hours],
                window_begins=window_start(now),
            )
            return OtherProcesses(row["failed"], row["taken"], row["until"])
