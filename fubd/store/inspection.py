"""What `check` reads from the database: how it is reached, which schema it has, and who can reach fubd's objects. Nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import asyncpg

from fubd.store import statements
from fubd.store.connecting import connector
from fubd.store.dsn import Dsn
from fubd.store.errors import translate_errors
from fubd.store.migrations import SchemaRefused, count_missing
from fubd.store.pool_mode import PoolMode, detect_pool_mode

_CONNECT_SECONDS = 8.0
_COMMAND_SECONDS = 10.0
_CLOSE_SECONDS = 5.0


class Schema(StrEnum):
    """The state of the schema. `OLDER`: a table of the older scripts. `BEHIND`: migrations are missing. `REFUSED`: another version's.

    `HIDDEN`: row level security hides it, so that nothing can be said of it.
    """

    EMPTY = "empty"
    OLDER = "older"
    BEHIND = "behind"
    READY = "ready"
    REFUSED = "refused"
    HIDDEN = "hidden"


@dataclass(frozen=True, slots=True)
class ExposedObject:
    """A table, view or sequence that web clients can reach, by these `roles`, through the privileges of these `holders`.

    Without a holder the roles are members of the `owner`.
    """

    name: str
    kind: str
    roles: Sequence[str]
    holders: Sequence[str]
    owner: str

    @property
    def closing_statement(self) -> str:
        """The statement that closes it."""
        if not self.holders:
            return f"REVOKE {self.owner} FROM {', '.join(self.roles)}"
        return f"REVOKE ALL ON {'SEQUENCE' if self.kind == 'sequence' else 'TABLE'} {self.name} FROM {', '.join(self.holders)}"


@dataclass(frozen=True, slots=True)
class DatabaseInspection:
    """What was found. `version` is the major one. `encrypted` is the server's view of its own connection: behind a pooler, the pooler's.

    `read_only`: a standby, or set so. `may_create`: the user may create the schema. `refusal`: why the schema is refused.
    `foreign_rows`: rows that other writers have added since fubd's schema was made.
    """

    version: int
    pool_mode: PoolMode
    encrypted: bool
    is_standby: bool
    read_only: bool
    schema: Schema
    refusal: str | None
    may_create: bool
    adopted: bool
    foreign_rows: int
    exposed: tuple[ExposedObject, ...]


async def inspect(dsn: Dsn) -> DatabaseInspection:
    """Inspect the database. Raises Unavailable."""
    connect = partial(connector(dsn, timeout_seconds=_CONNECT_SECONDS), command_timeout=_COMMAND_SECONDS, statement_cache_size=0)
    with translate_errors(dsn.place):
        connection = await connect()
        try:
            pool_mode = await detect_pool_mode(connection, connect)
            # In one transaction, so that a pooler uses one server for all of it.
            async with connection.transaction(readonly=True):
                await connection.execute(statements.text("check/limits"))
                return await _inspect(connection, pool_mode)
        finally:
            await connection.close(timeout=_CLOSE_SECONDS)


async def _inspect(connection: asyncpg.Connection, pool_mode: PoolMode) -> DatabaseInspection:
    row = await statements.query("check/database").fetchrow(connection)
    schema, refusal = Schema.READY, None
    try:
        missing = await count_missing(connection)
    except SchemaRefused as error:
        missing, schema, refusal = 0, Schema.REFUSED, str(error)
    if row["is_hidden"]:
        schema = Schema.HIDDEN
    elif missing:
        schema = Schema.BEHIND if row["has_migration_table"] else Schema.OLDER if row["has_product_table"] else Schema.EMPTY
    adopted, foreign_rows = False, 0
    # The schema of another version may lack these tables.
    if schema is Schema.READY:
        adopted = (await statements.query("adopt/is_adopted").fetchrow(connection))["is_adopted"]
        foreign_rows = (await statements.query("check/count_foreign_rows").fetchrow(connection))["rows"]
    exposed = await statements.query("check/exposure").fetch(connection)
    return DatabaseInspection(
        version=row["version"],
        pool_mode=pool_mode,
        encrypted=row["encrypted"],
        is_standby=row["is_standby"],
        read_only=row["read_only"],
        schema=schema,
        refusal=refusal,
        may_create=row["may_create"],
        adopted=adopted,
        foreign_rows=foreign_rows,
        exposed=tuple(ExposedObject(**dict(found)) for found in exposed),
    )
