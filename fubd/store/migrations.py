"""Brings a database to this version's schema by numbered, hashed, append-only migrations, all in one transaction under one lock."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import asyncpg

from fubd.errors import UserError
from fubd.store import stage_changes, statements
from fubd.store.quoting import quote_identifier, quote_literal

# The key of the advisory lock: 'fubd' in ASCII, and a number.
_LOCK_KEY = 0x66756264_0001
# The migration that makes the product table. In an adopted database it counts as applied.
PRODUCT = 2
# The digest of another text that a migration had before a later one was split from it. A database that applied it gets the later one again,
# which changes nothing there.
_UNSPLIT = {29: "68dcfa02e2bc8b2f6cb2b1c4fad2c4ca28ff2dbefad51f8bff7068b6c94ef516"}

_NOT_ADOPTED = (
    "the table public.stage_changes was not made by fubd, so fubd does not write into it: "
    "run `python -m fubd adopt` to take it over (it shows its plan first)"
)


class SchemaRefused(UserError):
    """The database's schema is one that this version must not change; the message says what to do."""


async def migrate(connection: asyncpg.Connection, *, columns: Mapping[str, str] | None = None) -> None:
    """Apply the missing migrations and add the missing columns of FUBD_COLUMNS. Several processes may do so at once, any number of times.

    Where nothing is missing it takes no lock. Raises SchemaRefused for a newer schema, for a migration that was changed, and for a table
    that fubd did not make.
    """
    if not columns and await is_current(connection):
        return
    async with connection.transaction():
        await connection.execute(statements.text("state/begin_migration"))
        await lock(connection)
        applied = await _applied(connection)
        known = statements.migrations()
        _refuse_unknown(applied)
        if not applied and await has_product_table(connection):
            raise SchemaRefused(_NOT_ADOPTED)
        missing = [migration for migration in known if migration[0] not in applied]
        await statements.query("state/note_public_objects").execute(connection)
        for number, name, text in missing:
            await apply(connection, number, name, text)
        if missing:
            await connection.execute(statements.text("state/secure"))
        await _add_columns(connection, columns or {})


async def is_current(connection: asyncpg.Connection) -> bool:
    """Return whether the schema is this version's, in one round trip, outside a transaction."""
    try:
        found = await statements.combine(migrations="state/applied_migrations").fetch(connection)
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
        return False
    return are_all({row["number"]: row["sha256"] for row in found["migrations"]})


async def lock(connection: asyncpg.Connection) -> None:
    """Wait until no other process migrates, and let none begin before the transaction ends."""
    await statements.query("state/lock_migrations").execute(connection, key=_LOCK_KEY)


async def apply(connection: asyncpg.Connection, number: int, name: str, text: str) -> None:
    """Run one migration and record it, in the caller's transaction."""
    await connection.execute(statements.text("state/create_migration_table"))
    await connection.execute(text)
    await record(connection, number, name, text)


async def record(connection: asyncpg.Connection, number: int, name: str, text: str) -> None:
    """Record a migration as applied, in the caller's transaction."""
    await statements.query("state/insert_migration").execute(connection, number=number, name=name, sha256=_digest(text))


async def not_ready_reason(connection: asyncpg.Connection) -> str | None:
    """Return why the schema is not this version's and what to do; None when it is."""
    applied = await _applied(connection)
    known = _digests()
    if applied == known:
        return None
    if not applied and await has_product_table(connection):
        return _NOT_ADOPTED
    if set(applied) < set(known):
        state = "is older than this fubd" if applied else "does not exist yet"
        return f"the schema {state}: start the daemon once, or run `python -m fubd --poll-only`"
    return "the schema belongs to another version of fubd: run that version"


def are_all(applied: Mapping[int, str]) -> bool:
    """Return whether these migrations, number to digest, are exactly this version's."""
    ours = _digests()
    return applied.keys() == ours.keys() and not _changed(applied, ours)


def _changed(applied: Mapping[int, str], ours: Mapping[int, str]) -> list[int]:
    """Return the migrations that were applied with another text than ours."""
    return [number for number, sha256 in applied.items() if sha256 not in {ours[number], _UNSPLIT.get(number)}]


def _digests() -> dict[int, str]:
    return {number: _digest(text) for number, _, text in statements.migrations()}


async def count_missing(connection: asyncpg.Connection) -> int:
    """Count the migrations that are not applied yet. Raises SchemaRefused where another version's were applied."""
    applied = await _applied(connection)
    known = statements.migrations()
    _refuse_unknown(applied)
    return sum(number not in applied for number, _, _ in known)


async def has_product_table(connection: asyncpg.Connection) -> bool:
    """Return whether public.stage_changes exists."""
    row = await statements.query("adopt/existing_tables").fetchrow(connection)
    return bool(row["has_product_table"])


async def has_migration_table(connection: asyncpg.Connection) -> bool:
    """Return whether any migration of fubd was ever applied."""
    row = await statements.query("adopt/existing_tables").fetchrow(connection)
    return bool(row["has_migration_table"])


async def _applied(connection: asyncpg.Connection) -> dict[int, str]:
    if not await has_migration_table(connection):
        return {}
    return {row["number"]: row["sha256"] for row in await statements.query("state/applied_migrations").fetch(connection)}


def _refuse_unknown(applied: dict[int, str]) -> None:
    ours = _digests()
    if newer := sorted(set(applied) - set(ours)):
        raise SchemaRefused(
            f"the database's schema is newer (migration {newer[-1]}) than this fubd knows ({max(ours)}): start the newer version"
        )
    if changed := _changed(applied, ours):
        raise SchemaRefused(f"migration {changed[0]} was applied with another text than this fubd has: start the version that applied it")


async def _add_columns(connection: asyncpg.Connection, columns: Mapping[str, str]) -> None:
    present = await stage_changes.read_columns(connection) if columns else {}
    for name in sorted(columns.keys() - present):
        quoted = quote_identifier(name)
        await connection.execute(f"ALTER TABLE public.stage_changes ADD COLUMN {quoted} text")
        meaning = f"{columns[name]} of the person at the time of the change (FUBD_COLUMNS)."
        await connection.execute(f"COMMENT ON COLUMN public.stage_changes.{quoted} IS {quote_literal(meaning)}")
        # Undoing an adoption removes the columns that were added.
        await statements.query("adopt/add_column").execute(connection, column=name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
