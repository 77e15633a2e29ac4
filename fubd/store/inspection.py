"""What `check` asks of the database: how it is reached, what schema stands there, and to whom it is open. Nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import asyncpg

from fubd.store import statements
from fubd.store.dsn import Dsn
from fubd.store.errors import SortedErrors
from fubd.store.migrations import SchemaRefused, examine_applied
from fubd.store.pool_mode import PoolMode, find_pooling

_CONNECT_SECONDS = 8.0
_COMMAND_SECONDS = 10.0
_CLOSE_SECONDS = 5.0


class Schema(StrEnum):
    """What stands there. `OLDER`: a table of the older scripts. `BEHIND`: migrations are to come. `REFUSED`: of another version."""

    EMPTY = "empty"
    OLDER = "older"
    BEHIND = "behind"
    READY = "ready"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ExposedObject:
    """Something that web clients can reach: a table, view or sequence; `roles` that reach it, `holders` whose privileges let them.

    Without a holder the roles are members of the `owner`.
    """

    name: str
    kind: str
    roles: Sequence[str]
    holders: Sequence[str]
    owner: str

    @property
    def closing(self) -> str:
        """Give the statement that closes it."""
        if not self.holders:
            return f"REVOKE {self.owner} FROM {', '.join(self.roles)}"
        return f"REVOKE ALL ON {'SEQUENCE' if self.kind == 'sequence' else 'TABLE'} {self.name} FROM {', '.join(self.holders)}"


@dataclass(frozen=True, slots=True)
class DatabaseInspection:
    """One look. `version` as in 15. `encrypted` is the server's own word, of the connection that it sees: behind a pooler, the pooler's.

    `read_only`: nothing can be written (a standby, or so set). `may_make`: we could make the schema. `refusal`: why the schema is refused.
    `adopted`: the table was taken over. `foreign`: rows that other writers have added since fubd's schema was made.
    """

    version: int
    pooling: PoolMode
    encrypted: bool
    read_only: bool
    schema: Schema
    refusal: str | None
    may_make: bool
    adopted: bool
    foreign: int
    exposed: tuple[ExposedObject, ...]


async def examine(dsn: Dsn) -> DatabaseInspection:
    """Look at the database. Raises Unavailable."""
    arguments = {**dsn.connect_arguments(), "timeout": _CONNECT_SECONDS, "command_timeout": _COMMAND_SECONDS, "statement_cache_size": 0}
    with SortedErrors():
        connection = await asyncpg.connect(**arguments)
        try:
            pooling = await find_pooling(connection, partial(asyncpg.connect, **arguments))
            # In one transaction, so that a pooler gives us one server for all of it.
            async with connection.transaction(readonly=True):
                return await _look(connection, pooling)
        finally:
            await connection.close(timeout=_CLOSE_SECONDS)


async def _look(connection: asyncpg.Connection, pooling: PoolMode) -> DatabaseInspection:
    row = await connection.fetchrow(statements.text("check/database"))
    schema, refusal = Schema.READY, None
    try:
        missing = await examine_applied(connection)
    except SchemaRefused as error:
        missing, schema, refusal = 0, Schema.REFUSED, str(error)
    if missing:
        schema = Schema.BEHIND if row["made"] else Schema.OLDER if row["table_there"] else Schema.EMPTY
    # Tables of a schema that is not this version's may not be there.
    ready = schema is Schema.READY
    return DatabaseInspection(
        version=row["version"],
        pooling=pooling,
        encrypted=row["encrypted"],
        read_only=row["read_only"],
        schema=schema,
        refusal=refusal,
        may_make=row["may_make"],
        adopted=ready and await connection.fetchval("SELECT EXISTS (SELECT FROM fubd.adoption)"),
        foreign=await connection.fetchval("SELECT count(*) FROM fubd.foreign_row") if ready else 0,
        exposed=tuple(ExposedObject(**dict(thing)) for thing in await connection.fetch(statements.text("check/exposure"))),
    )
