"""`check` on the owner's table: whatever refuses rows is found before it bites, with the statement that fixes it."""

from __future__ import annotations

import asyncpg
import pytest

from fubd.store.dsn import parse
from fubd.store.table_check import find_trouble

_ROW = "INSERT INTO stage_changes (id, person_id, stage_to, changed_at, received_at, source) VALUES (7, '1', 'A', now(), now(), 'webhook')"
_DROPPING = """
    CREATE FUNCTION public.drop_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER dropping BEFORE INSERT ON stage_changes FOR EACH ROW EXECUTE FUNCTION public.drop_it()
"""
_SLOW = _DROPPING.replace("RETURN NULL", "PERFORM pg_sleep(600); RETURN NEW")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            "ALTER TABLE stage_changes ADD COLUMN office text NOT NULL DEFAULT ''; ALTER TABLE stage_changes ALTER office DROP DEFAULT",
            "its column office must not be null",
        ),
        ("ALTER TABLE stage_changes ADD CONSTRAINT known CHECK (stage_to IN ('Lead')) NOT VALID", "the constraint known"),
        (
            "INSERT INTO fubd.stage VALUES ('Nurture', 4); ALTER TABLE stage_changes ADD CONSTRAINT no CHECK (stage_to <> 'Nurture')",
            "the constraint no",
        ),
        (
            "INSERT INTO fubd.stage VALUES ('Nurture', 4); ALTER TABLE stage_changes ADD CONSTRAINT no CHECK (stage_from <> 'Nurture')",
            "the constraint no",
        ),
        ("ALTER TABLE stage_changes ADD CONSTRAINT one CHECK (confirmed_by IS DISTINCT FROM 'webhook')", "the constraint one"),
        ("ALTER TABLE stage_changes ADD CONSTRAINT one CHECK (confirmed_by IS DISTINCT FROM 'polling')", "the constraint one"),
        ("CREATE RULE nothing AS ON UPDATE TO stage_changes DO INSTEAD NOTHING", "a rule replaces what fubd writes (nothing)"),
        ("CREATE UNIQUE INDEX once ON stage_changes (person_id)", "the constraint once"),
        ("CREATE UNIQUE INDEX apart ON stage_changes (changed_at)", "the unique index apart will refuse genuine rows"),
        (
            "CREATE UNIQUE INDEX recent ON stage_changes (person_id, stage_to) WHERE changed_at > '2026-01-01'",
            "the unique index recent will",
        ),
        ("ALTER TABLE stage_changes ADD CONSTRAINT other EXCLUDE (stage_to WITH =)", "the exclusion constraint other will"),
        ("ALTER TABLE stage_changes ADD CONSTRAINT ratio CHECK (1 / (length(source) - 7) > 0) NOT VALID", "the constraint ratio fails"),
        (_SLOW, "a trigger calls the function drop_it, which takes too long"),
        ("ALTER TABLE stage_changes RENAME stage_from TO previous", "its column stage_from is missing"),
        ("ALTER TABLE stage_changes DROP COLUMN confirmed_by CASCADE", "its column confirmed_by is missing"),
        ("SELECT setval(pg_get_serial_sequence('stage_changes', 'id'), 1, false)", "the sequence of ids is at 0, behind the highest id 7"),
        (
            _DROPPING.replace("RETURN NULL", "NEW.stage_to := lower(NEW.stage_to); RETURN NEW"),
            "a trigger drops or alters rows without an error (triggers: dropping)",
        ),
        (_DROPPING, "a trigger drops or alters rows without an error (triggers: dropping)"),
    ],
)
async def test_what_refuses_rows_is_found(database: str, change: str, words: str) -> None:
    """Each by its name, and its fix is a statement that cures it as it is written; nothing is left behind by the write that was tried."""
    dsn = parse(database)
    connection = await asyncpg.connect(**dsn.connect_arguments())
    assert await find_trouble(dsn, {}) is None
    await connection.execute(f"SELECT setval(pg_get_serial_sequence('stage_changes', 'id'), 7); {_ROW}")
    assert await find_trouble(dsn, {}) is None
    await connection.execute(change)
    trouble = await find_trouble(dsn, {})
    assert trouble is not None
    assert words in trouble.found
    assert trouble.fix.startswith("run: ")
    assert await connection.fetchval("SELECT count(*) FROM stage_changes") == 1
    await connection.execute(trouble.fix.removeprefix("run: "))
    assert await find_trouble(dsn, {}) is None
    await connection.close()


async def test_what_refuses_only_the_past_is_no_trouble(database: str) -> None:
    """Fubd records what happens now, so the write that is tried is of now too."""
    dsn = parse(database)
    connection = await asyncpg.connect(**dsn.connect_arguments())
    await connection.execute(
        "ALTER TABLE stage_changes ADD CONSTRAINT young CHECK (changed_at > '2020-01-01' AND received_at > '2020-01-01')"
    )
    assert await find_trouble(dsn, {}) is None
    await connection.close()
