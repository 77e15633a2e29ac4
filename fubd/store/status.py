"""What the panel, the status page and the commands ask of the database: reading only."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from fubd.core.delivery_attempts import Hour, Others, window_begins
from fubd.ports import ModeRecord, ShownRow
from fubd.store import stage_changes, statements
from fubd.store.adoption.foreign import count_foreign
from fubd.store.pool import Pool
from fubd.store.stage_changes import StageChangesTable


@dataclass(frozen=True, slots=True)
class Known:
    """One look at the whole. `*_heard` are our clock's; `*_change`, `coverage` and `oldest` are FUB's."""

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
    hints: int
    quarantined: int
    own_deliveries: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many raw deliveries were removed, and how many of them this process had stored."""

    removed: int
    own: int


class Report:
    """Reads through the pool. `instance` is this process's name."""

    def __init__(self, pool: Pool, *, instance: str) -> None:
        self._pool = pool
        self._instance = instance
        self._first_delivery = 0
        self._table: StageChangesTable | None = None
        self._settled = 0

    async def begin(self) -> None:
        """Note from where on our own deliveries can stand; to be called before the first of them is stored. Raises Unavailable."""
        async with self._pool.reading() as connection:
            self._first_delivery = await connection.fetchval("SELECT coalesce(max(id), 0) FROM fubd.delivery")

    async def known(self) -> Known:
        """Give one look at the whole. Raises Unavailable."""
        async with self._pool.reading() as connection:
            row = await connection.fetchrow(statements.text("reads/status_summary"), self._instance, self._first_delivery)
            return Known(**dict(row))

    async def broken_links(self) -> int:
        """Count rows of ours that do not follow from the row before. Raises Unavailable."""
        async with self._pool.reading() as connection:
            return int(await connection.fetchval(statements.text("reads/count_chain_violations")))

    async def count_foreign(self) -> int:
        """Notice rows that another writer added; gives how many are new. Raises Unavailable."""
        async with self._pool.transaction() as connection:
            return await count_foreign(connection)

    async def settled(self) -> int:
        """Give up to which id no row can appear any more. Raises Unavailable."""
        async with self._showing() as (connection, product):
            return await self._settle(connection, product)

    async def page(self, after: int, limit: int) -> list[ShownRow]:
        """Give rows by id, ascending, as far as no row can appear between them any more. Raises Unavailable."""
        async with self._showing() as (connection, product):
            settled = await self._settle(connection, product)
            if settled <= after:
                return []
            return _shown(await connection.fetch(product.statement("reads/changes_page"), after, settled, limit))

    async def rows(self, ids: Sequence[int]) -> list[ShownRow]:
        """Give these rows. Raises Unavailable."""
        async with self._showing() as (connection, product):
            return _shown(await connection.fetch(product.statement("reads/changes_by_ids"), list(ids)))

    async def last(self, limit: int) -> list[ShownRow]:
        """Give the last rows, newest first. Raises Unavailable."""
        async with self._showing() as (connection, product):
            return _shown(await connection.fetch(product.statement("reads/changes_recent"), limit))

    async def last_correction(self) -> int:
        """Give the highest number under which a correction is noted, 0 for none. Raises Unavailable."""
        async with self._pool.reading() as connection:
            return int(await connection.fetchval("SELECT coalesce(max(id), 0) FROM fubd.correction"))

    async def corrections(self, after: int, limit: int) -> list[tuple[int, int]]:
        """Give corrections noted under numbers above `after`, ascending: the number, and the id of the row. Raises Unavailable."""
        async with self._pool.reading() as connection:
            return [(row["id"], row["change_id"]) for row in await connection.fetch(statements.text("reads/corrections"), after, limit)]

    async def changes(self, after: int, limit: int) -> list[dict[str, Any]]:
        """Give what `page` gives as values, for commands. Raises Unavailable."""
        return [json.loads(row.json) for row in await self.page(after, limit)]

    async def chosen(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        """Give what `rows` gives as values, for commands. Raises Unavailable."""
        return [json.loads(row.json) for row in await self.rows(ids)]

    async def recent(self, limit: int) -> list[dict[str, Any]]:
        """Give what `last` gives as values, for commands. Raises Unavailable."""
        return [json.loads(row.json) for row in await self.last(limit)]

    @asynccontextmanager
    async def _showing(self) -> AsyncIterator[tuple[asyncpg.Connection, StageChangesTable]]:
        """Open a look at the rows, with how the table is made."""
        try:
            async with self._pool.reading() as connection:
                self._table = self._table or await stage_changes.read(connection)
                yield connection, self._table
        except BaseException:
            # Whatever failed, somebody may have altered the table: it is looked at anew.
            self._table = None
            raise

    async def _settle(self, connection: asyncpg.Connection, product: StageChangesTable) -> int:
        """Find out up to which id rows are settled. What was once stays so, though a new writer may say a lower id than it draws."""
        settled = await connection.fetchval(statements.text("reads/safe_id"), product.sequence)
        self._settled = max(self._settled, settled)
        return self._settled

    async def change_counts(self, start: datetime, bucket_seconds: int, buckets: int) -> dict[str, list[int]]:
        """Count rows received since `start`, by source and bucket. Raises Unavailable."""
        counts = {"webhook": [0] * buckets, "polling": [0] * buckets}
        async with self._pool.reading() as connection:
            for row in await connection.fetch(statements.text("reads/change_counts"), start, float(bucket_seconds)):
                if 0 <= row["bucket"] < buckets:
                    counts[row["source"]][row["bucket"]] += row["changes"]
        return counts

    async def modes(self, since: datetime) -> list[ModeRecord]:
        """Give the modes announced since then, and the one in force before. Raises Unavailable."""
        async with self._pool.reading() as connection:
            rows = await connection.fetch(
                "SELECT mode, reason, delay_seconds, at FROM fubd.mode_change WHERE id >= coalesce("
                " (SELECT max(id) FROM fubd.mode_change WHERE at <= $1), 0) ORDER BY id DESC LIMIT 500",
                since,
            )
            return [ModeRecord(row["mode"], row["reason"], row["delay_seconds"], row["at"]) for row in reversed(rows)]

    async def keep_settings(self, values: dict[str, float]) -> None:
        """Let the views know the settings they judge by. Raises Unavailable."""
        async with self._pool.transaction() as connection:
            await connection.execute(
                "INSERT INTO fubd.setting AS s (name, value) SELECT * FROM unnest($1::text[], $2::float8[])"
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE s.value <> excluded.value",
                list(values),
                list(values.values()),
            )

    async def keep_answers(self, hours: Sequence[Hour], now: datetime) -> Others:
        """Keep how our answers went, as counted at `now`; gives how those of other processes went. Raises Unavailable."""
        async with self._pool.transaction() as connection:
            row = await connection.fetchrow(
                statements.text("state/delivery_attempts"),
                self._instance,
                now,
                [hour.hour for hour in hours],
                [hour.failed for hour in hours],
                [hour.taken for hour in hours],
                window_begins(now),
            )
            return Others(row["failed"], row["taken"], row["until"])

    async def prune(self, *, older_than_days: float, limit: int) -> Pruned:
        """Remove raw deliveries older than this, at most `limit`; the newest of each kind we go by stays. Raises Unavailable.

        Those of another process stay a day longer: while it lives it removes them itself, and its books count on them until then.
        """
        async with self._pool.transaction() as connection:
            gone = await connection.fetchrow(
                "WITH old AS (SELECT id FROM fubd.delivery WHERE received_at < now() - make_interval(secs => $1 * 86400)"
                " AND (instance = $3 OR received_at < now() - make_interval(secs => ($1 + 1) * 86400))"
                " AND id < (SELECT max(id) FROM fubd.delivery)"
                " AND id <> coalesce((SELECT max(id) FROM fubd.delivery WHERE event = 'peopleStageUpdated'), 0) ORDER BY id LIMIT $2),"
                " gone AS (DELETE FROM fubd.delivery d USING old WHERE d.id = old.id RETURNING d.instance)"
                " SELECT count(*) AS removed, count(*) FILTER (WHERE instance = $3) AS own FROM gone",
                older_than_days,
                limit,
                self._instance,
            )
            return Pruned(gone["removed"], gone["own"])


def _shown(records: Iterable[asyncpg.Record]) -> list[ShownRow]:
    return [ShownRow(record["id"], record["json"]) for record in records]
