"""Take a table over, or give it back: each in one transaction, so that wherever it is interrupted nothing has happened."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from fubd.errors import UserError
from fubd.store import migrations, statements
from fubd.store.adoption import dry_run
from fubd.store.adoption import plan as planning
from fubd.store.adoption.fingerprint import Fingerprint, fingerprint
from fubd.store.adoption.plan import BACKUP, Plan
from fubd.store.adoption.survey import VIEWS, Facts, survey
from fubd.store.pool import Pool

_TABLE = "public.stage_changes"
_LONGEST_SECONDS = 3600.0
_LOCK_SECONDS = 15

# Bounds of ours instead of the server's, which may be too short for a large table; and one way to write values, for the proof.
_BEGIN = (
    f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'; SET LOCAL statement_timeout = '{_LONGEST_SECONDS:.0f}s';"
    " SET LOCAL idle_in_transaction_session_timeout = '60s'; SET LOCAL client_min_messages = warning;"
    " SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres';"
    " SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex';"
    # So that the server ends a long statement, and lets the table go, when we were killed. Some systems do not know it.
    " DO $$BEGIN SET LOCAL client_connection_check_interval = '1s'; EXCEPTION WHEN others THEN NULL; END$$"
)

Told = Callable[[str], None]


class AdoptionRefused(UserError):
    """It cannot be done as things stand, and nothing was changed; the message says why and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class _Crowded(AdoptionRefused):
    """Others hold the table, perhaps because we do."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """The proof: the rows before and after, and the copy that was made of them."""

    before: Fingerprint
    copy: Fingerprint
    after: Fingerprint
    steps: int


@dataclass(frozen=True, slots=True)
class UndoResult:
    """The rows before and after; `as_found` tells whether they are those of the day of adoption, none added or changed by anybody."""

    before: Fingerprint
    after: Fingerprint
    as_found: bool


async def look(pool: Pool, columns: Mapping[str, str]) -> Plan | None:
    """Plan the adoption; None where there is nothing to adopt, and `state` says why."""
    async with _transaction(pool) as connection:
        found = await survey(connection, timeout_seconds=_LONGEST_SECONDS)
        return None if found is None or found.facts.fubd_was_here else planning.make(found, columns)


async def state(pool: Pool) -> str:
    """Say what the table is: `missing`, `older` (nobody has taken it over), `adopted`, or `own`."""
    async with _transaction(pool) as connection:
        if not await connection.fetchval("SELECT to_regclass('public.stage_changes') IS NOT NULL"):
            return "missing"
        if not await connection.fetchval("SELECT to_regclass('fubd.migration') IS NOT NULL"):
            return "older"
        return "adopted" if await connection.fetchval("SELECT EXISTS (SELECT FROM fubd.adoption)") else "own"


async def adopt(pool: Pool, columns: Mapping[str, str], *, shown: Plan, told: Told = lambda _: None) -> Adopted:
    """Take the table over as planned. `told` is called before each part of the work.

    Others can read the table until the last part of it. Raises AdoptionRefused, and Unavailable when the connection is lost; then, too,
    nothing has changed, or all has and is proved.
    """
    try:
        return await _adopt(pool, columns, shown, told, mode="SHARE")
    except _Crowded:
        # Who has read, and now waits for us to let it write, would wait for ever for us to wait for it.
        told("others are at the table: nothing was changed; once more, with the table to ourselves from the beginning")
        return await _adopt(pool, columns, shown, told, mode="ACCESS EXCLUSIVE")


async def _adopt(pool: Pool, columns: Mapping[str, str], shown: Plan, told: Told, *, mode: str) -> Adopted:
    async with _transaction(pool) as connection:
        told("waiting for the table to be free")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", migrations.LOCK)
        await _lock(connection, mode)
        found = await survey(connection, timeout_seconds=_LONGEST_SECONDS)
        if found is None or found.facts.fubd_was_here:
            raise AdoptionRefused("somebody else has just taken the table over, or removed it: run this again")
        plan = _still_right(planning.make(found, columns), shown)
        told(f"counting and hashing {plan.rows:,} rows")
        before = await _fingerprint(connection, plan)
        told(f"copying {plan.rows:,} rows to {BACKUP}")
        await connection.execute("CREATE SCHEMA IF NOT EXISTS fubd")
        await connection.execute(f"CREATE TABLE {BACKUP} AS TABLE {_TABLE}", timeout=_LONGEST_SECONDS)
        copy = await _fingerprint(connection, plan, BACKUP)
        await _carry_out(connection, [(step.what, step.ahead) for step in plan.steps], told)
        told("waiting for readers to be done")
        await _lock(connection, "ACCESS EXCLUSIVE")
        await _carry_out(connection, [(step.what, step.forward) for step in plan.steps], told)
        told("making the schema fubd")
        await _make_schema(connection, plan, before, sequence=str(found.facts.sequence), highest_id=found.highest_id or 0)
        told("trying what the daemon will do, and taking it back")
        if not await dry_run.attempt(connection, columns):
            raise AdoptionRefused(_interference_message(found.facts))
        told("counting and hashing again")
        after = await _fingerprint(connection, plan)
        if not before == copy == after:
            raise AdoptionRefused("the rows are not what they were before: all of it has been taken back; please report this")
        await connection.execute(statements.text("state/secure"))
        told("committing")
    return Adopted(before, copy, after, len(plan.steps))


async def _lock(connection: asyncpg.Connection, mode: str) -> None:
    await connection.execute(f"LOCK TABLE {_TABLE} IN {mode} MODE", timeout=_LOCK_SECONDS * 2)


def _still_right(plan: Plan, shown: Plan) -> Plan:
    if (plan.steps, plan.obstacles) != (shown.steps, shown.obstacles):
        raise AdoptionRefused("the table is no longer as the plan was made for: run this again")
    if plan.obstacles:
        raise AdoptionRefused("the table cannot be taken over as it is: " + "; ".join(obstacle.why for obstacle in plan.obstacles))
    return plan


async def _carry_out(connection: asyncpg.Connection, steps: Sequence[tuple[str, Sequence[str]]], told: Told) -> None:
    for what, doing in steps:
        if doing:
            told(what)
        for statement in doing:
            await connection.execute(statement, timeout=_LONGEST_SECONDS)


def _interference_message(facts: Facts) -> str:
    """Say that rows did not come to stand as they were written."""
    off = [f"ALTER TABLE {_TABLE} DISABLE TRIGGER {_quoted(name)}" for name in facts.triggers]
    off += [f"DROP RULE {_quoted(name)} ON {_TABLE}" for name in facts.rules]
    return (
        "a trigger or a rule of the table drops or alters rows that fubd writes; nothing was changed. Run this again after: "
        + "; ".join(off)
    )


async def undo(pool: Pool, *, told: Told = lambda _: None) -> UndoResult:
    """Give an adopted table (see `state`) back as it was, with what other writers have added. Raises AdoptionRefused, Unavailable."""
    async with _transaction(pool) as connection:
        told("waiting for the table to be free")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", migrations.LOCK)
        facts = await _facts(connection)
        if await connection.fetchval("SELECT EXISTS (SELECT FROM fubd.lease l WHERE l.expires_at > clock_timestamp())"):
            raise AdoptionRefused("a daemon is running on this database: stop it, and run this again")
        await connection.execute(f"LOCK TABLE {_TABLE} IN ACCESS EXCLUSIVE MODE", timeout=_LOCK_SECONDS * 2)
        await _refuse_written(connection, facts["added"])
        told("counting and hashing the rows")
        before = await fingerprint(connection, _TABLE, facts["columns"], timeout_seconds=_LONGEST_SECONDS)
        told("removing fubd's views and its schema")
        await _remove_schema(connection)
        for statement in (*facts["back"], *_drops(facts["added"])):
            told(statement)
            await connection.execute(statement, timeout=_LONGEST_SECONDS)
        told("counting and hashing again")
        after = await fingerprint(connection, _TABLE, facts["columns"], timeout_seconds=_LONGEST_SECONDS)
        if before != after:
            raise AdoptionRefused("the rows are not what they were before: all of it has been taken back; please report this")
        told("committing")
    return UndoResult(before, after, as_found=before.digest == facts["digest"])


@asynccontextmanager
async def _transaction(pool: Pool) -> AsyncIterator[asyncpg.Connection]:
    """Run one transaction, and say what Postgres refuses in words that help."""
    async with pool.connection() as connection:
        try:
            async with connection.transaction():
                await connection.execute(_BEGIN)
                yield connection
        except asyncpg.PostgresConnectionError:
            raise
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            raise _Crowded(
                "somebody else holds the table; nothing was changed: stop the older scripts for a moment, and run this again"
            ) from None
        except asyncpg.PostgresError as error:
            raise AdoptionRefused(_said(error)) from None


def _said(error: asyncpg.PostgresError) -> str:
    if isinstance(error, asyncpg.UniqueViolationError):
        # The detail would hold the row.
        return f"rows are refused by {error.constraint_name or 'a unique index'}; nothing was changed: remove those that are alike first"
    words = f"{error.args[0]}" + (
        f": {error.detail}" if isinstance(error, asyncpg.DependentObjectsStillExistError) and error.detail else ""
    )
    return f"Postgres refused, and nothing was changed: {words} ({error.sqlstate}){_remedy(error)}"


def _remedy(error: asyncpg.PostgresError) -> str:
    """What lets in the rows that fubd writes, where a constraint of the table refuses them."""
    if error.table_name != "stage_changes" or error.schema_name != "public":
        return ""
    if isinstance(error, asyncpg.CheckViolationError | asyncpg.ForeignKeyViolationError) and error.constraint_name:
        return f". It would let them in without it: ALTER TABLE {_TABLE} DROP CONSTRAINT {_quoted(error.constraint_name)}"
    if isinstance(error, asyncpg.NotNullViolationError) and error.column_name:
        return f". It would let them in after: ALTER TABLE {_TABLE} ALTER COLUMN {_quoted(error.column_name)} DROP NOT NULL"
    return ""


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def _fingerprint(connection: asyncpg.Connection, plan: Plan, relation: str = _TABLE) -> Fingerprint:
    return await fingerprint(connection, relation, plan.columns, timeout_seconds=_LONGEST_SECONDS)


async def _make_schema(connection: asyncpg.Connection, plan: Plan, before: Fingerprint, *, sequence: str, highest_id: int) -> None:
    """Apply every migration but the one that would make the table, and keep how it was."""
    # Claims draw from the sequence of the table's ids, so that a row can bear the number of the claim that made it.
    await connection.execute(
        "SELECT setval(s.sequence, $2) FROM (SELECT $1::text::regclass AS sequence) s WHERE nextval(s.sequence) < $2", sequence, highest_id
    )
    for number, name, text in statements.migrations():
        if number != migrations.PRODUCT:
            await migrations.apply(connection, number, name, text)
            continue
        await migrations.note(connection, number, name, text)
        await connection.execute(f"ALTER TABLE fubd.claim ALTER COLUMN seq SET DEFAULT nextval('{sequence.replace(chr(39), chr(39) * 2)}')")
        facts = {
            "columns": plan.columns,
            "added": plan.added,
            "rows": before.rows,
            "digest": before.digest,
            "highest_id": highest_id,
            "back": [statement for step in reversed(plan.steps) for statement in step.back],
        }
        await connection.execute("INSERT INTO fubd.adoption (facts) VALUES ($1::jsonb)", json.dumps(facts))


def _drops(added: list[str]) -> list[str]:
    return [f"ALTER TABLE {_TABLE} " + ", ".join(f'DROP COLUMN "{name}"' for name in added)] if added else []


async def _facts(connection: asyncpg.Connection) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(await connection.fetchval("SELECT facts FROM fubd.adoption"))
    return facts


async def _refuse_written(connection: asyncpg.Connection, added: list[str]) -> None:
    ours = "SELECT count(*) FROM public.stage_changes c WHERE c.id IN (SELECT coalesce(k.row_id, k.seq) FROM fubd.claim k)"
    written = await connection.fetchval(ours, timeout=_LONGEST_SECONDS)
    if written:
        raise AdoptionRefused(
            f"fubd has recorded {written:,} {'change' if written == 1 else 'changes'} in the table since: they would have to go first."
            f" To give them up: DELETE FROM"
            f" {_TABLE} WHERE id IN (SELECT coalesce(row_id, seq) FROM fubd.claim); then run this again. To keep them, stop fubd and leave"
            f" the table as it is; the rows of before are also in {BACKUP}"
        )
    for name in added:
        if await connection.fetchval(f'SELECT EXISTS (SELECT FROM {_TABLE} WHERE "{name}" IS NOT NULL)', timeout=_LONGEST_SECONDS):
            raise AdoptionRefused(f"somebody has filled the column {name}, which was added by adoption and would go: empty it first")


async def _remove_schema(connection: asyncpg.Connection) -> None:
    """Remove what fubd made, by name: with CASCADE, or all that is in the schema, what others have built there would go without a word."""
    made = "\n".join(text for _, _, text in statements.migrations())
    tables = ["fubd.migration", BACKUP, *re.findall(r"^CREATE TABLE (fubd\.\w+)", made, re.MULTILINE)]
    functions = re.findall(r"^CREATE FUNCTION (fubd\.\w+\([^)]*\))", made, re.MULTILINE)
    await connection.execute("DROP VIEW " + ", ".join(f"public.{name}" for name in VIEWS))
    await connection.execute(f"DROP TABLE IF EXISTS {', '.join(tables)}")
    await connection.execute(f"DROP FUNCTION {', '.join(functions)}")
    await connection.execute("DROP SCHEMA fubd")
