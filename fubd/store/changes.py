"""The rows of stage_changes as readers are shown them: by page, by id, the most recent, and which of them were corrected."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict

import asyncpg

from fubd.ports import ChangeFilter, ShownRow
from fubd.store import stage_changes, statements
from fubd.store.pool import Pool
from fubd.store.stage_changes import StageChangesTable


class ChangeReader:
    """Reads through the pool. Every method raises Unavailable."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._table: StageChangesTable | None = None
        self._safe_id = 0

    async def safe_id(self) -> int:
        """Return the id up to which no further row can appear."""
        async with self._reading() as (connection, table):
            return await self._update_safe_id(connection, table)

    async def page(self, after: int, limit: int, *, up_to: int | None = None) -> list[ShownRow]:
        """Return rows with ids above `after`, ascending, up to the safe id: a later call never finds a row between them.

        `up_to`: a safe id that was read before, which spares reading it.
        """
        async with self._reading() as (connection, table):
            safe_id = await self._update_safe_id(connection, table) if up_to is None else up_to
            if safe_id <= after:
                return []
            return _shown(await table.query("reads/changes_page").fetch(connection, after=after, safe_id=safe_id, limit=limit))

    async def by_ids(self, ids: Sequence[int]) -> list[ShownRow]:
        """Return the rows with these ids, ascending; ids without a row are left out."""
        async with self._reading() as (connection, table):
            return _shown(await table.query("reads/changes_by_ids").fetch(connection, ids=list(ids)))

    async def recent(self, limit: int) -> list[ShownRow]:
        """Return the latest rows, newest first."""
        async with self._reading() as (connection, table):
            return _shown(await table.query("reads/changes_recent").fetch(connection, limit=limit))

    async def filtered(self, chosen: ChangeFilter, *, before: int | None, limit: int) -> list[ShownRow]:
        """Return the latest of the chosen rows that come before row `before`, newest first."""
        async with self._reading(self._pool.reading()) as (connection, table):
            query = table.query("reads/changes_filtered")
            return _shown(await query.fetch(connection, before=before, limit=limit, **asdict(chosen)))

    async def last_correction_id(self) -> int:
        """Return the id of the newest correction, 0 for none."""
        async with self._pool.reading_by_index() as connection:
            row = await statements.query("reads/last_correction_id").fetchrow(connection)
            return int(row["id"])

    async def corrections(self, after: int, limit: int) -> list[tuple[int, int]]:
        """Return corrections with ids above `after`, ascending: the correction's id, and the id of the corrected row."""
        async with self._pool.reading_by_index() as connection:
            rows = await statements.query("reads/corrections").fetch(connection, after=after, limit=limit)
            return [(row["id"], row["change_id"]) for row in rows]

    async def news(self, after_correction: int, limit: int) -> tuple[int, list[tuple[int, int]]]:
        """Return what `safe_id` and `corrections` return, in one statement."""
        async with self._reading() as (connection, table):
            query = statements.nested("reads/news", safe_id="reads/safe_id", corrections="reads/corrections")
            row = await query.fetchrow(connection, sequence=table.sequence, after=after_correction, limit=limit)
        self._safe_id = max(self._safe_id, row["safe_id"])
        return self._safe_id, list(zip(row["ids"], row["change_ids"], strict=True))

    @asynccontextmanager
    async def reading_rows(self) -> AsyncIterator[tuple[asyncpg.Connection, StageChangesTable, int]]:
        """Lend a connection for statements that read by index, the table, and the safe id as of before them."""
        async with self._reading() as (connection, table):
            yield connection, table, await self._update_safe_id(connection, table)

    @asynccontextmanager
    async def _reading(
        self, opened: AbstractAsyncContextManager[asyncpg.Connection] | None = None
    ) -> AsyncIterator[tuple[asyncpg.Connection, StageChangesTable]]:
        """Lend a connection, as `opened`, by default for statements that read by index, and the table."""
        try:
            async with opened or self._pool.reading_by_index() as connection:
                self._table = self._table or await stage_changes.read(connection)
                yield connection, self._table
        except BaseException:
            # Whatever failed, the table may have been altered: its columns are read again next time.
            self._table = None
            raise

    async def _update_safe_id(self, connection: asyncpg.Connection, table: StageChangesTable) -> int:
        """Read the safe id. It never goes back, although a new writer may announce a lower id than it will draw."""
        row = await statements.query("reads/safe_id").fetchrow(connection, sequence=table.sequence)
        self._safe_id = max(self._safe_id, row["safe_id"])
        return self._safe_id


def _shown(records: Iterable[asyncpg.Record]) -> list[ShownRow]:
    return [ShownRow(record["id"], record["json"]) for record in records]
