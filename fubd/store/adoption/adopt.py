"""Takes a table over, or undoes that: each in one transaction, so an interruption at any point leaves the table unchanged."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import asyncpg

from fubd.errors import UserError
from fubd.store import migrations, statements
from fubd.store.adoption import dry_run
from fubd.store.adoption.fingerprint import Fingerprint, fingerprint
from fubd.store.adoption.plan import BACKUP, AdoptionPlan, make_plan
from fubd.store.adoption.survey import VIEWS, TableFacts, survey
from fubd.store.pool import Pool
from fubd.store.quoting import quote_identifier, quote_literal
from fubd.store.refusals import ROWS_DROPPED
from fubd.store.stage_changes import TABLE

# As in adopt/begin.sql.
_STATEMENT_SECONDS = 3600.0
_LOCK_SECONDS = 15

OnStep = Callable[[str], None]


class TableState(StrEnum):
    """Who made the table public.stage_changes. `OLDER`: the older scripts, and it was not adopted."""

    MISSING = "missing"
    OLDER = "older"
    ADOPTED = "adopted"
    OWN = "own"


class AdoptionRefused(UserError):
    """It cannot be done as things are, and nothing was changed; the message says why and what to do."""


class _TableInUse(AdoptionRefused):
    """Other transactions hold the table, perhaps because they wait for ours."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """The proof: the fingerprints of the table before and after, and of the copy."""

    before: Fingerprint
    copy: Fingerprint
    after: Fingerprint
    steps: int


@dataclass(frozen=True, slots=True)
class UndoResult:
    """The fingerprints before and after; `is_unchanged`: the rows are those of the day of adoption, none added or changed since."""

    before: Fingerprint
    after: Fingerprint
    is_unchanged: bool


async def plan_adoption(pool: Pool, columns: Mapping[str, str]) -> AdoptionPlan | None:
    """Return the plan of the adoption; None where there is nothing to adopt, for the reason that `table_state` returns."""
    async with _transaction(pool) as connection:
        found = await survey(connection, timeout_seconds=_STATEMENT_SECONDS)
        return None if found is None or found.facts.has_fubd_schema else make_plan(found, columns)


async def table_state(pool: Pool) -> TableState:
    """Return who made the table."""
    async with _transaction(pool) as connection:
        if not await migrations.has_product_table(connection):
            return TableState.MISSING
        if not await migrations.has_migration_table(connection):
            return TableState.OLDER
        row = await statements.query("adopt/is_adopted").fetchrow(connection)
        return TableState.ADOPTED if row["is_adopted"] else TableState.OWN


async def adopt(pool: Pool, columns: Mapping[str, str], *, plan: AdoptionPlan, on_step: OnStep = lambda _: None) -> Adopted:
    """Take the table over as planned; `on_step` is called with a description before each part of the work.

    Others can read the table until the last part of it. Raises AdoptionRefused, and Unavailable when the connection is lost; then either
    nothing was changed, or everything was done and proved.
    """
    try:
        return await _adopt(pool, columns, plan, on_step, mode="SHARE")
    except _TableInUse:
        # A script that has read the table and waits to write to it would never proceed, and neither would we: a deadlock.
        on_step("others use the table; nothing was changed: starting again with the table locked from the beginning")
        return await _adopt(pool, columns, plan, on_step, mode="ACCESS EXCLUSIVE")


async def _adopt(pool: Pool, columns: Mapping[str, str], confirmed: AdoptionPlan, on_step: OnStep, *, mode: str) -> Adopted:
    async with _transaction(pool) as connection:
        on_step("waiting for the table to be free")
        await migrations.lock(connection)
        await _lock_table(connection, mode)
        found = await survey(connection, timeout_seconds=_STATEMENT_SECONDS)
        if found is None or found.facts.has_fubd_schema:
            raise AdoptionRefused("the table was removed or adopted by another process a moment ago: run this again")
        plan = _check_plan(make_plan(found, columns), confirmed)
        on_step(f"counting and hashing {plan.rows:,} rows")
        before = await _fingerprint(connection, plan)
        on_step(f"copying {plan.rows:,} rows to {BACKUP}")
        await connection.execute("CREATE SCHEMA IF NOT EXISTS fubd")
        await connection.execute(f"CREATE TABLE {BACKUP} AS TABLE {TABLE}", timeout=_STATEMENT_SECONDS)
        copy = await _fingerprint(connection, plan, BACKUP)
        await _execute(connection, [(step.description, step.early_statements) for step in plan.steps], on_step)
        on_step("waiting until no reader uses the table")
        await _lock_table(connection, "ACCESS EXCLUSIVE")
        await _execute(connection, [(step.description, step.statements) for step in plan.steps], on_step)
        on_step("creating the schema fubd")
        await _create_schema(connection, plan, before, sequence=str(found.facts.sequence), highest_id=found.highest_id or 0)
        on_step("dry run of what the daemon will do, rolled back")
        try:
            stored = await dry_run.run(connection, columns)
        except asyncpg.PostgresError as error:
            if error.sqlstate != ROWS_DROPPED:
                raise
            stored = False
        if not stored:
            raise AdoptionRefused(_interference_message(found.facts))
        on_step("counting and hashing again")
        after = await _fingerprint(connection, plan)
        if not before == copy == after:
            raise AdoptionRefused("the rows differ from those before: everything was rolled back; please report this as a bug")
        await connection.execute(statements.text("state/secure"))
        on_step("committing")
    return Adopted(before, copy, after, len(plan.steps))


async def _lock_table(connection: asyncpg.Connection, mode: str) -> None:
    await connection.execute(f"LOCK TABLE {TABLE} IN {mode} MODE", timeout=_LOCK_SECONDS * 2)


def _check_plan(plan: AdoptionPlan, confirmed: AdoptionPlan) -> AdoptionPlan:
    if (plan.steps, plan.obstacles) != (confirmed.steps, confirmed.obstacles):
        raise AdoptionRefused("the table has changed since the plan was made: run this again")
    if plan.obstacles:
        raise AdoptionRefused("the table cannot be adopted as it is: " + "; ".join(obstacle.reason for obstacle in plan.obstacles))
    return plan


async def _execute(connection: asyncpg.Connection, steps: Sequence[tuple[str, Sequence[str]]], on_step: OnStep) -> None:
    for description, step_statements in steps:
        if step_statements:
            on_step(description)
        for statement in step_statements:
            await connection.execute(statement, timeout=_STATEMENT_SECONDS)


def _interference_message(facts: TableFacts) -> str:
    """Return the message for rows that were not stored as they were written."""
    cures = [f"ALTER TABLE {TABLE} DISABLE TRIGGER {quote_identifier(name)}" for name in facts.triggers]
    cures += [f"DROP RULE {quote_identifier(name)} ON {TABLE}" for name in facts.rules]
    return (
        "a trigger or a rule of the table drops or alters the rows that fubd writes; nothing was changed. Run this again after: "
        + "; ".join(cures)
    )


async def forgotten_people(pool: Pool) -> list[int]:
    """Return the ids of the people that `forget` removed; undoing the adoption drops this list. Raises Unavailable."""
    async with _transaction(pool) as connection:
        if not await _has_table(connection, "fubd.forgotten"):
            return []
        return [record["person_id"] for record in await statements.query("adopt/forgotten_people").fetch(connection)]


async def undo(pool: Pool, *, on_step: OnStep = lambda _: None) -> UndoResult:
    """Restore an adopted table as it was, with what other writers have added since. Raises AdoptionRefused, Unavailable."""
    async with _transaction(pool) as connection:
        on_step("waiting for the table to be free")
        await migrations.lock(connection)
        facts = await _saved_facts(connection)
        if (await statements.query("adopt/is_daemon_running").fetchrow(connection))["is_running"]:
            raise AdoptionRefused("a daemon is running on this database: stop it, and run this again")
        await _lock_table(connection, "ACCESS EXCLUSIVE")
        await _refuse_if_used(connection, facts["added"])
        on_step("counting and hashing the rows")
        before = await fingerprint(connection, TABLE, facts["columns"], timeout_seconds=_STATEMENT_SECONDS)
        on_step("removing fubd's views and its schema")
        await _drop_schema(connection)
        for statement in (*facts["back"], *_drop_columns(facts["added"])):
            on_step(statement)
            await connection.execute(statement, timeout=_STATEMENT_SECONDS)
        # Made by a migration after the adoption, where the plan did not have it yet.
        await connection.execute("DROP INDEX IF EXISTS public.fubd_stage_changes_source")
        on_step("counting and hashing again")
        after = await fingerprint(connection, TABLE, facts["columns"], timeout_seconds=_STATEMENT_SECONDS)
        if before != after:
            raise AdoptionRefused("the rows differ from those before: everything was rolled back; please report this as a bug")
        on_step("committing")
    return UndoResult(before, after, is_unchanged=before.digest == facts["digest"])


@asynccontextmanager
async def _transaction(pool: Pool) -> AsyncIterator[asyncpg.Connection]:
    """Run one transaction; a statement that Postgres refuses becomes AdoptionRefused."""
    async with pool.connection() as connection:
        try:
            async with connection.transaction():
                await connection.execute(statements.text("adopt/begin"))
                yield connection
        except asyncpg.PostgresConnectionError:
            raise
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            raise _TableInUse(
                f"another program holds {TABLE}; nothing was changed: stop the older scripts for a moment, and run this again"
            ) from None
        except asyncpg.PostgresError as error:
            raise AdoptionRefused(_refusal_message(error)) from None


def _refusal_message(error: asyncpg.PostgresError) -> str:
    if isinstance(error, asyncpg.UniqueViolationError):
        # The detail would contain the row.
        index = error.constraint_name or "a unique index"
        return f"the index {index} refuses rows that are equal; nothing was changed: remove the duplicates first"
    words = f"{error.args[0]}" + (
        f": {error.detail}" if isinstance(error, asyncpg.DependentObjectsStillExistError) and error.detail else ""
    )
    return f"Postgres refused a statement, and nothing was changed: {words} ({error.sqlstate}){_cure(error)}"


def _cure(error: asyncpg.PostgresError) -> str:
    """Return the statement that makes the table accept the rows that fubd writes, where a constraint of it refuses them."""
    if error.table_name != "stage_changes" or error.schema_name != "public":
        return ""
    if isinstance(error, asyncpg.CheckViolationError | asyncpg.ForeignKeyViolationError) and error.constraint_name:
        return f". To let fubd write: ALTER TABLE {TABLE} DROP CONSTRAINT {quote_identifier(error.constraint_name)}"
    if isinstance(error, asyncpg.NotNullViolationError) and error.column_name:
        return f". To let fubd write: ALTER TABLE {TABLE} ALTER COLUMN {quote_identifier(error.column_name)} DROP NOT NULL"
    return ""


async def _fingerprint(connection: asyncpg.Connection, plan: AdoptionPlan, relation: str = TABLE) -> Fingerprint:
    return await fingerprint(connection, relation, plan.columns, timeout_seconds=_STATEMENT_SECONDS)


async def _create_schema(
    connection: asyncpg.Connection, plan: AdoptionPlan, before: Fingerprint, *, sequence: str, highest_id: int
) -> None:
    """Apply every migration but the one that creates the table, and save how the table was."""
    # Claims draw their numbers from the sequence of the table's ids: a row's id is the number of the claim that made it.
    await statements.query("adopt/raise_sequence").execute(connection, sequence=sequence, highest_id=highest_id)
    for number, name, text in statements.migrations():
        if number != migrations.PRODUCT:
            await migrations.apply(connection, number, name, text)
            continue
        await migrations.record(connection, number, name, text)
        await connection.execute(f"ALTER TABLE fubd.claim ALTER COLUMN seq SET DEFAULT nextval({quote_literal(sequence)})")
        facts = {
            "columns": plan.columns,
            "added": plan.added,
            "rows": before.rows,
            "digest": before.digest,
            "highest_id": highest_id,
            "back": [statement for step in reversed(plan.steps) for statement in step.undo_statements],
        }
        await statements.query("adopt/insert_facts").execute(connection, facts=json.dumps(facts))


def _drop_columns(added: Sequence[str]) -> list[str]:
    return [f"ALTER TABLE {TABLE} " + ", ".join(f"DROP COLUMN {quote_identifier(name)}" for name in added)] if added else []


async def _saved_facts(connection: asyncpg.Connection) -> dict[str, Any]:
    row = await statements.query("adopt/facts").fetchrow(connection)
    facts: dict[str, Any] = json.loads(row["facts"])
    return facts


async def _has_table(connection: asyncpg.Connection, relation: str) -> bool:
    row = await statements.query("adopt/has_table").fetchrow(connection, relation=relation)
    return bool(row["is_there"])


async def _refuse_if_used(connection: asyncpg.Connection, added: Sequence[str]) -> None:
    row = await connection.fetchrow(statements.text("adopt/count_recorded"), timeout=_STATEMENT_SECONDS)
    if recorded := row["rows"]:
        copied = await _has_table(connection, BACKUP)
        copy = f"are also in {BACKUP}" if copied else f"are there; their copy {BACKUP} was dropped after FUBD_KEEP_ADOPTION_COPY_DAYS"
        raise AdoptionRefused(
            f"fubd has recorded {recorded:,} {'change' if recorded == 1 else 'changes'} in {TABLE}, which undoing would lose."
            f" To give them up: DELETE FROM {TABLE} WHERE id IN (SELECT coalesce(row_id, seq) FROM fubd.claim); then run this again."
            f" To keep them, stop fubd and leave the table as it is; the rows of before the adoption {copy}"
        )
    for name in added:
        query = statements.query("adopt/is_column_filled").fill(column=quote_identifier(name))
        if (await connection.fetchrow(query.text, timeout=_STATEMENT_SECONDS))["is_filled"]:
            raise AdoptionRefused(f"the column {name}, which undoing would drop, holds values that fubd did not write: empty it first")


async def _drop_schema(connection: asyncpg.Connection) -> None:
    """Drop what fubd made, each object by name: CASCADE, or everything in the schema, would also drop what others have built there."""
    made = "\n".join(text for _, _, text in statements.migrations())
    tables = ["fubd.migration", BACKUP, *re.findall(r"^CREATE TABLE (fubd\.\w+)", made, re.MULTILINE)]
    functions = re.findall(r"^CREATE FUNCTION (fubd\.\w+\([^)]*\))", made, re.MULTILINE)
    await connection.execute("DROP VIEW " + ", ".join(f"public.{name}" for name in VIEWS))
    await connection.execute(f"DROP TABLE IF EXISTS {', '.join(tables)}")
    await connection.execute(f"DROP FUNCTION {', '.join(functions)}")
    await connection.execute("DROP SCHEMA fubd")
