"""The state of fubd as the database knows it: what the status page, the gauges and the commands show."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fubd.core.daily_summary import DayCounts
from fubd.core.delivery_attempts import HourCount, OtherProcesses, window_start
from fubd.core.stored_state import ModeRecord
from fubd.errors import Unavailable, UserError
from fubd.ports import BlindSpan
from fubd.store import errors, migrations, statements
from fubd.store.pool import Pool
from fubd.store.table_definition import definition_of, find_refusal

# Above every id: `status` shows no count of a process's own deliveries.
_NO_DELIVERY = 2**63 - 1
# The summary has a row where each of them has its one row.
_SUMMARIZED = "fubd.coverage or fubd.scrub"
_ROW_INSTANTS = ("changed_at", "changed_after", "received_at", "confirmed_at")


@dataclass(frozen=True, slots=True)
class StatusSummary:
    """Everything the status page shows at a glance. `*_heard` are our clock's; `*_change`, `coverage` and `oldest` are FUB's.

    `own_deliveries`: those of this process, from where it counts (`count_deliveries_after`). `has_unseen_rows`: rows were added that may be
    another writer's. `webhooks_fail`: the mode is failover. `table_refusal`: why stage_changes will refuse rows, by its definition.
    """

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
    last_delivery: int
    has_unseen_rows: bool
    webhooks_fail: bool
    is_read_only: bool
    table_refusal: str | None


@dataclass(frozen=True, slots=True)
class StatusSettings:
    """The daemon's settings that `status` needs, in seconds.

    `now`: the database's clock. `polled_until`: when the lease of the last instance that polled ended or will end. `reported_at`: when a
    daemon last noted that it runs.
    """

    now: datetime
    webhook_stale_after: float
    polling_stale_after: float
    polled_until: datetime | None
    reported_at: datetime | None


@dataclass(frozen=True, slots=True)
class ReportedProblem:
    """A problem as a daemon last reported it, maybe one of a later version. `since` is that daemon's clock."""

    problem: str
    since: datetime
    text: str


@dataclass(frozen=True, slots=True)
class StatusOverview:
    """All that `status` shows. `blind_seconds`: None before the first complete poll; `changes`: the last rows, newest first."""

    summary: StatusSummary
    settings: StatusSettings
    mode: ModeRecord | None
    blind_seconds: float | None
    problems: Sequence[ReportedProblem]
    changes: Sequence[dict[str, Any]]


class EmptyDatabase(UserError):
    """There is no schema of fubd's and no older table either."""


class StatusReader:
    """Reads through the pool. `instance` is this process's name; `columns` is FUBD_COLUMNS. Every method raises Unavailable."""

    def __init__(self, pool: Pool, *, instance: str = "", columns: Mapping[str, str] | None = None) -> None:
        self._pool = pool
        self._columns = dict(columns or {})
        self._instance = instance
        self._first_delivery = 0

    async def require_schema(self) -> None:
        """Raise UserError unless the schema is this version's, EmptyDatabase where there is none."""
        async with self._pool.combined() as connection:
            if await migrations.is_current(connection):
                return
        async with self._pool.reading() as connection:
            reason = await migrations.not_ready_reason(connection)
            if reason is None:
                return
            if await migrations.has_migration_table(connection) or await migrations.has_product_table(connection):
                raise UserError(reason)
            raise EmptyDatabase(reason)

    async def overview(self, *, blind_since: datetime, now: datetime, changes: int) -> StatusOverview:
        """Return all that `status` shows, in one statement; blind time from `blind_since` until `now`. Raises as `require_schema` does."""
        query = statements.combine(
            migrations="state/applied_migrations",
            settings="reads/status_settings",
            summary="reads/status_summary",
            table="check/table",
            mode="state/current_mode",
            blind="reads/blind_time",
            problems="reads/problems",
            changes="reads/status_changes",
        )
        values = {"instance": self._instance, "first_delivery": _NO_DELIVERY}
        try:
            async with self._pool.reading() as connection:
                rows = await query.fetch(connection, since=blind_since, until=now, limit=changes, **values)
        except Unavailable:
            # A schema that is missing or another version's explains it better.
            await self.require_schema()
            raise
        if not migrations.are_all({row["number"]: row["sha256"] for row in rows["migrations"]}):
            await self.require_schema()
        if not rows["summary"]:
            raise errors.emptied(_SUMMARIZED, self._pool.place)
        refusal = find_refusal(definition_of(rows["table"][0]), self._columns)
        return _overview(rows, StatusSummary(**_with_instants(rows["summary"][0]), table_refusal=refusal))

    async def mark_start(self) -> None:
        """Note the id above which this process's own deliveries lie; call it before the first of them is stored."""
        async with self._pool.reading() as connection:
            row = await statements.query("reads/last_delivery_id").fetchrow(connection)
            self.count_deliveries_after(row["id"])

    def count_deliveries_after(self, delivery_id: int) -> None:
        """Count as `own_deliveries` only those with a higher id from now on."""
        self._first_delivery = delivery_id + 1

    async def summary(self) -> StatusSummary:
        """Return the summary."""
        async with self._pool.reading_by_index() as connection:
            query = statements.nested("reads/look", summary="reads/status_summary", definition="check/table")
            row = await query.fetchrow(connection, instance=self._instance, first_delivery=self._first_delivery)
        if row is None:
            raise errors.emptied(_SUMMARIZED, self._pool.place)
        summary = dict(row)
        definition = definition_of(json.loads(summary.pop("definition")))
        return StatusSummary(**summary, table_refusal=find_refusal(definition, self._columns))

    def require_writable(self, summary: StatusSummary) -> None:
        """Raise Unavailable when the summary shows that nothing can be written."""
        if summary.is_read_only:
            raise errors.read_only(self._pool.place)

    async def mode_changes_since(self, since: datetime) -> list[ModeRecord]:
        """Return the mode changes since then, oldest first, beginning with the mode in force at that instant."""
        async with self._pool.reading() as connection:
            rows = await statements.query("reads/modes").fetch(connection, since=since)
            return [ModeRecord(row["mode"], row["reason"], row["delay_seconds"], row["at"]) for row in reversed(rows)]

    async def is_polled(self) -> bool:
        """Return whether an instance holds the lease."""
        async with self._pool.combined() as connection:
            found = await statements.combine(lease="reads/is_polled").fetch(connection)
            return bool(found["lease"][0]["is_polled"])

    async def blind_seconds(self, since: datetime, until: datetime) -> float | None:
        """Return the seconds between these instants (our clock) in which neither source was alive; None before the first complete poll."""
        spans = await self.blind_spans(since, until)
        return None if spans is None else sum((span.until - span.since).total_seconds() for span in spans)

    async def blind_spans(self, since: datetime, until: datetime) -> list[BlindSpan] | None:
        """Return the times between these instants (our clock) in which neither source was alive; None before the first complete poll."""
        async with self._pool.reading() as connection:
            rows = await statements.query("reads/blind_time").fetch(connection, since=since, until=until)
            return [BlindSpan(row["began"], row["ended"]) for row in rows if row["began"] is not None] if rows else None

    async def day_counts(self, since: datetime, until: datetime, *, missed_until: datetime, stages: Sequence[str]) -> DayCounts:
        """Return what changed between these instants (FUB's clock): all, those missed until `missed_until`, and by stage."""
        query = statements.query("reads/day_counts")
        async with self._pool.reading() as connection:
            row = await query.fetchrow(connection, since=since, until=until, missed_until=missed_until, stages=list(stages))
        return DayCounts(row["began"], row["changes"], row["missed"], dict(zip(stages, row["entries"], strict=True)))

    async def exchange_delivery_attempts(self, hours: Sequence[HourCount], now: datetime) -> OtherProcesses:
        """Save this process's delivery attempts, as counted at `now`, and return those that other processes saved."""
        async with self._pool.statement() as connection:
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


def _overview(rows: Mapping[str, list[dict[str, Any]]], summary: StatusSummary) -> StatusOverview:
    mode = next((ModeRecord(row["mode"], row["reason"], row["delay_seconds"], _instant(row["at"])) for row in rows["mode"]), None)
    return StatusOverview(
        summary=summary,
        settings=StatusSettings(**_with_instants(rows["settings"][0])),
        mode=mode,
        blind_seconds=_blind_seconds(rows["blind"]),
        problems=[ReportedProblem(row["problem"], _instant(row["since"]), row["text"]) for row in rows["problems"]],
        changes=[_in_utc(row["shown"]) for row in rows["changes"]],
    )


def _with_instants(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with instants in the place of texts."""
    return {name: _instant(value) if isinstance(value, str) else value for name, value in row.items()}


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _in_utc(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose instants all have a zone; `infinity`, and years that Python cannot hold, stay as they are."""
    shown = dict(row)
    for name in _ROW_INSTANTS:
        with suppress(ValueError, TypeError):
            at = _instant(row[name])
            shown[name] = (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()
    return shown


def _blind_seconds(spans: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the length of the spans: no row before the first complete poll, one without bounds where there is no blind time."""
    if not spans:
        return None
    return sum((_instant(span["ended"]) - _instant(span["began"])).total_seconds() for span in spans if span["began"] is not None)
