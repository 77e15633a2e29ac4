"""Bring a database to this version's schema: numbered, hashed, append-only, all in one transaction under one lock."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import asyncpg

from fubd.errors import UserError
from fubd.store import statements

# Drawn once at random; transaction-level, so it works through a transaction pooler too.
LOCK = 0x66756264_0001
# The migration that makes the product table. Where that was taken over from older scripts it counts as applied.
PRODUCT = 2

_NOT_OURS = (
    "the table public.stage_changes was made by something else and fubd writes nothing into it: "
    "run `python -m fubd adopt` to take it over (it shows its plan first)"
)


class SchemaRefused(UserError):
    """The database's schema is not one this version may touch; the message says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


async def migrate(connection: asyncpg.Connection, *, columns: Mapping[str, str] | None = None) -> None:
    """Apply what is missing. Safe to run by several at once and any number of times.

    `columns`: FUBD_COLUMNS, made where missing. Raises SchemaRefused for a newer schema, a changed migration, or a foreign table.
    """
    async with connection.transaction():
        await connection.execute("SET LOCAL timezone = 'UTC'; SET LOCAL lock_timeout = '60s'; SET LOCAL client_min_messages = warning")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        applied = await _applied(connection)
        known = statements.migrations()
        _refuse_unknown(applied, known)
        if not applied and await connection.fetchval("SELECT to_regclass('public.stage_changes') IS NOT NULL"):
            raise SchemaRefused(_NOT_OURS)
        missing = [migration for migration in known if migration[0] not in applied]
        for number, name, text in missing:
            await apply(connection, number, name, text)
        if missing:
            await connection.execute(statements.text("state/secure"))
        await _make_columns(connection, columns or {})


async def apply(connection: asyncpg.Connection, number: int, name: str, text: str) -> None:
    """Run one migration and note it, in the caller's transaction."""
    await connection.execute("CREATE SCHEMA IF NOT EXISTS fubd")
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS fubd.migration (number integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now())"
    )
    await connection.execute(text)
    await note(connection, number, name, text)


async def note(connection: asyncpg.Connection, number: int, name: str, text: str) -> None:
    """Note a migration as applied, in the caller's transaction."""
    await connection.execute("INSERT INTO fubd.migration (number, name, sha256) VALUES ($1, $2, $3)", number, name, digest(text))


def digest(text: str) -> str:
    """Give the hash a migration is known by."""
    return hashlib.sha256(text.encode()).hexdigest()


async def unready(connection: asyncpg.Connection) -> str | None:
    """Say why the schema is not this version's and what to do, or None when it is."""
    applied = await _applied(connection)
    known = {number: digest(text) for number, _, text in statements.migrations()}
    if applied == known:
        return None
    if not applied and await connection.fetchval("SELECT to_regclass('public.stage_changes') IS NOT NULL"):
        return _NOT_OURS
    if set(applied) < set(known):
        state = "older than this fubd" if applied else "not made yet"
        return f"the schema is {state}: start the daemon once, or run `python -m fubd --poll-only`"
    return "the schema belongs to another version of fubd: run that one"


async def examine_applied(connection: asyncpg.Connection) -> int:
    """Count the migrations that are still to come. Raises SchemaRefused where another version's were applied."""
    applied = await _applied(connection)
    known = statements.migrations()
    _refuse_unknown(applied, known)
    return sum(number not in applied for number, _, _ in known)


async def _applied(connection: asyncpg.Connection) -> dict[int, str]:
    if not await connection.fetchval("SELECT to_regclass('fubd.migration') IS NOT NULL"):
        return {}
    return {row["number"]: row["sha256"] for row in await connection.fetch("SELECT number, sha256 FROM fubd.migration")}


def _refuse_unknown(applied: dict[int, str], known: list[tuple[int, str, str]]) -> None:
    ours = {number: digest(text) for number, _, text in known}
    if newer := sorted(set(applied) - set(ours)):
        raise SchemaRefused(
            f"the database's schema is newer (migration {newer[-1]}) than this fubd knows ({max(ours)}): start the newer version"
        )
    if changed := [number for number, sha256 in applied.items() if ours[number] != sha256]:
        raise SchemaRefused(f"migration {changed[0]} was applied with another text than this fubd has: start the version that applied it")


async def _make_columns(connection: asyncpg.Connection, columns: Mapping[str, str]) -> None:
    for name in sorted(columns):
        present = await connection.fetchval(
            "SELECT true FROM information_schema.columns"
            " WHERE table_schema = 'public' AND table_name = 'stage_changes' AND column_name = $1",
            name,
        )
        if not present:
            await connection.execute(f'ALTER TABLE public.stage_changes ADD COLUMN "{name}" text')
            # A table that was taken over can be given back without it.
            await connection.execute(
                "UPDATE fubd.adoption SET facts = jsonb_set(facts, '{added}', facts->'added' || to_jsonb($1::text))", name
            )
