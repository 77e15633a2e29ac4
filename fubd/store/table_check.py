"""Whether the product table takes what the daemon writes: by looking, and by a write that is rolled back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, tzinfo

import asyncpg

from fubd.errors import Malformed, TableRefused, Unavailable
from fubd.store import refusals, stage_changes, statements
from fubd.store.adoption import dry_run
from fubd.store.connecting import connector
from fubd.store.dsn import Dsn
from fubd.store.errors import translate_errors
from fubd.store.locks import find_lock_holders, naming_lock_holders
from fubd.store.table_definition import find_refusal, read_definition

_CONNECT_SECONDS = 8.0
_COMMAND_SECONDS = 10.0
_CLOSE_SECONDS = 5.0
_NAME_LOCK_HOLDERS_AFTER_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class TableTrouble:
    """What is wrong with the table, and the statement or action that fixes it."""

    found: str
    fix: str


async def find_trouble(dsn: Dsn, columns: Mapping[str, str], zone: tzinfo = UTC) -> TableTrouble | None:
    """Return why the table refuses or alters what the daemon writes; None when it does not. `columns`: FUBD_COLUMNS; `zone`: of times.

    The schema must be ready. Nothing is changed: what is written is rolled back. Raises Unavailable.
    """
    try:
        async with (
            naming_lock_holders(lambda: _find_lock_holders(dsn, zone), after_seconds=_NAME_LOCK_HOLDERS_AFTER_SECONDS),
            _connected(dsn) as connection,
        ):
            return await _find_trouble(connection, columns)
    except TableRefused as error:
        return _split(str(error))
    except Malformed:
        return _altered()


@asynccontextmanager
async def _connected(dsn: Dsn) -> AsyncIterator[asyncpg.Connection]:
    with translate_errors(dsn.place):
        connection = await connector(dsn, timeout_seconds=_CONNECT_SECONDS)(command_timeout=_COMMAND_SECONDS, statement_cache_size=0)
        try:
            yield connection
        finally:
            await connection.close(timeout=_CLOSE_SECONDS)


async def _find_lock_holders(dsn: Dsn, zone: tzinfo) -> str | None:
    with suppress(Unavailable):
        async with _connected(dsn) as connection:
            return await find_lock_holders(connection, dsn.application_name, zone)
    return None


async def _find_trouble(connection: asyncpg.Connection, columns: Mapping[str, str]) -> TableTrouble | None:
    async with connection.transaction(readonly=True):
        await connection.execute(statements.text("check/limits"))
        definition = await read_definition(connection)
        row = await statements.query("check/rows").fetchrow(connection)
    refusal = find_refusal(definition, {})
    if refusal is not None:
        return _split(refusal)
    if row["highest_id"] is not None and (definition.last_drawn or 0) < row["highest_id"]:
        found = (
            f"the sequence of ids is at {definition.last_drawn or 0}, behind the highest id {row['highest_id']}: new rows will be refused"
        )
        return TableTrouble(found, f"run: {refusals.RAISE_SEQUENCE};")
    # The daemon creates the missing ones when it starts.
    own = {name: field for name, field in columns.items() if name in definition.columns}
    async with connection.transaction():
        await connection.execute(statements.text("check/limits"))
        if not await dry_run.run(connection, own, row["stages"]):
            return _altered()
    async with connection.transaction(readonly=True):
        unique = await statements.query("check/unique").fetch(connection, filled=[*stage_changes.COLUMN_TYPES, *own])
    return next(map(_of_unique, unique), None)


def _of_unique(row: asyncpg.Record) -> TableTrouble:
    """Return that a unique index or exclusion constraint refuses what differs in other columns, whatever the trial write met."""
    cure = refusals.drop_unique(stage_changes.TABLE, f"public.{row['quoted']}", row["quoted"])
    return TableTrouble(f"{row['what']} will refuse genuine rows: two may be equal in its columns ({row['keys']})", f"run: {cure};")


def _altered() -> TableTrouble:
    found = f"{stage_changes.TABLE} does not keep rows as fubd writes them: a trigger, a rule or the type of a column alters them"
    return TableTrouble(found, f"look for it with psql's \\d {stage_changes.TABLE}, and remove it")


def _split(refusal: str) -> TableTrouble:
    found, _, rest = refusal.partition(". Nothing is lost")
    _, _, statement = rest.partition("stored after: ")
    return TableTrouble(found, f"run: {statement}")
