"""Why stage_changes refuses a row, and the statement by which the table's owner cures it.

The table is the owner's: a constraint, trigger or rule of theirs, or a column that they renamed, dropped or retyped, is a state of the
database and not an error in what was received. Only names of database objects are repeated, never values or the texts of foreign triggers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping

import asyncpg

from fubd.core.problems import COLUMN_CAUSE
from fubd.errors import Malformed, TableRefused
from fubd.store.quoting import quote_identifier
from fubd.store.stage_changes import COLUMN_TYPES, TABLE

RAISE_SEQUENCE = f"SELECT setval(pg_get_serial_sequence('{TABLE}', 'id'), (SELECT max(id) FROM {TABLE}))"
# Stands for the user's name in statements, because problems are shown to everybody. `check` fills it in.
ANY_USER = "user_of_DATABASE_URL"
_SWITCH_OFF_TRIGGERS = f"ALTER TABLE {TABLE} DISABLE TRIGGER USER"

# A function of another schema on the stack of an error: a trigger of the owner's called it.
_FUNCTION = re.compile(r"PL/\w+ function ((?!fubd\.)[\w.\"]+)")
_MISSING_COLUMN = re.compile(r"column (?:\w+\.)?\"?(\w+)\"? .*does not exist")
# Raised by fubd.require_all_written.
ROWS_DROPPED = "FUBD1"
_GENERATED = re.compile(r"Column \"(\w+)\" is a")
_SEQUENCE = re.compile(r"of sequence \"([^\"]+)\"")
_INDEX = re.compile(r"for index \"([^\"]+)\"")
# Not the table's doing: the connection, resources, a standby, conflicts with others, an administrator's or a time limit's end.
_NOT_BY_THE_TABLE = ("08", "25", "40", "53", "55", "57", "58", "XX")
_WRONG_TYPE = ("a column that fubd fills was given another type", "give it back the type that `python -m fubd check` names")
ROWS_HIDDEN = "row level security applies to the user of DATABASE_URL, and no policy admits its rows"
SHOW_ROWS_TO_OWNER = f"ALTER TABLE {TABLE} NO FORCE ROW LEVEL SECURITY"


def show_rows_to(user: str) -> str:
    """Return the statement that admits the rows of a user who does not own the table."""
    return f"CREATE POLICY fubd ON {TABLE} TO {user} USING (true) WITH CHECK (true)"


# Whether the user owns the table decides which of the two it takes, and no error tells.
_A_ROW_HIDDEN = (ROWS_HIDDEN, f"{SHOW_ROWS_TO_OWNER}; or, where another role owns the table, {show_rows_to(ANY_USER)}")
_NO_PARTITION = (
    "it is partitioned, and no partition takes the row",
    f"CREATE TABLE public.stage_changes_others PARTITION OF {TABLE} DEFAULT",
)
_RULE = ("it has a rule, which replaces what fubd writes", f"DROP RULE name ON {TABLE} (psql's \\d {TABLE} shows the name)")
# SQLSTATE, a word of the text, and the cause with its remedy.
_CAUSES = (
    *(("0A000", word, _RULE) for word in ("rules", "RETURNING")),
    ("42501", "row-level security", _A_ROW_HIDDEN),
    *((code, "", _WRONG_TYPE) for code in ("22001", "22003", "22007", "22008", "22P02", "42804", "42846", "42883")),
)


def is_unexplained(error: BaseException) -> bool:
    """Return whether a value was refused, and the error does not tell by what: an expression of the table may fail on it."""
    return isinstance(error, Malformed) or (isinstance(error, TableRefused) and _WRONG_TYPE[0] in str(error))


def describe(error: asyncpg.PostgresError) -> str | None:
    """Return why the table refused a row and the remedy; None when the error is no refusal of the table."""
    code = error.sqlstate or ""
    if code.startswith(_NOT_BY_THE_TABLE) and not _is_by_trigger(error, code):
        return None
    cause = _cause(error, code)
    return None if cause is None else sentence(*cause)


def _is_by_trigger(error: asyncpg.PostgresError, code: str) -> bool:
    """Return whether a trigger raised an error of any kind by itself, or ran into the time limit of a statement."""
    context = error.context or ""
    return _FUNCTION.search(context) is not None and (code == "57014" or " at RAISE" in context)


def _cause(error: asyncpg.PostgresError, code: str) -> tuple[str, str] | None:
    if code == ROWS_DROPPED:
        return _dropped_rows(json.loads(error.detail or "[]"))
    if called := _FUNCTION.search(error.context or ""):
        failure = "takes too long" if code == "57014" else "fails"
        return f"a trigger calls the function {called[1]}, which {failure} ({code})", _SWITCH_OFF_TRIGGERS
    if code.startswith("23"):
        return _NO_PARTITION if "no partition" in str(error) else _violated(error, code)
    if code in ("42703", "428C9"):
        return _of_column(error, code)
    if found := _of_named(error, code):
        return found
    return next((cause for known, word, cause in _CAUSES if known == code and word in str(error)), None)


def _of_named(error: asyncpg.PostgresError, code: str) -> tuple[str, str] | None:
    """Return what is wrong with the sequence or index that only the error's text names."""
    if code == "2200H" and (found := _SEQUENCE.search(str(error))):
        raised = f"ALTER SEQUENCE public.{quote_identifier(found[1])} NO MAXVALUE; {RAISE_SEQUENCE}"
        return f"the sequence of its ids, {found[1]}, is used up", raised
    if code == "54000" and error.schema_name != "fubd" and (found := _INDEX.search(str(error))):
        return f"a value is too long for its index {found[1]}", f"DROP INDEX public.{quote_identifier(found[1])}"
    return None


def _of_column(error: asyncpg.PostgresError, code: str) -> tuple[str, str] | None:
    """Return what is wrong with the column that an error names: it is missing (42703) or generated."""
    if code == "42703":
        found = _MISSING_COLUMN.search(str(error))
        return _missing([found[1]], {}) if found and found[1] in COLUMN_TYPES else None
    found = _GENERATED.search(error.detail or "")
    return generated_column(found[1]) if found else None


def _violated(error: asyncpg.PostgresError, code: str) -> tuple[str, str]:
    """Return which constraint was violated, and how to remove it."""
    table = f"{error.schema_name}.{error.table_name}" if error.table_name else TABLE
    constraint = error.constraint_name
    quoted = quote_identifier(constraint or "")
    if code == "23502":
        return must_not_be_null(table, error.column_name or "")
    if code == "23505" and (error.detail or "").startswith("Key (id)="):
        return f"the sequence of its ids is behind its rows (constraint {constraint})", RAISE_SEQUENCE
    if error.data_type_name:
        domain = f"{error.schema_name}.{error.data_type_name}"
        return (
            f"the domain {domain} has the constraint {constraint}",
            f"ALTER DOMAIN {domain} DROP CONSTRAINT {quoted}",
        )
    cause = f"the constraint {constraint} of {table} is violated"
    if code == "23505":
        return cause, drop_unique(table, f"{error.schema_name}.{quoted}", quoted)
    return cause, f"ALTER TABLE {table} DROP CONSTRAINT {quoted}"


def drop_unique(table: str, index: str, constraint: str) -> str:
    """Return the statements that remove a unique index, be it a constraint or not; the names are quoted."""
    return f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {constraint}; DROP INDEX IF EXISTS {index}"


def find_missing_columns(present: Mapping[str, str], custom: Mapping[str, str]) -> str | None:
    """Return what is wrong when a column that fubd fills is missing, FUBD_COLUMNS (`custom`) included; None when all are there.

    `present`: the type of each column, in the table's order.
    """
    if not present:
        return sentence("it does not exist", "restore it from a backup; its rows cannot all be recreated")
    missing = [name for name in (*COLUMN_TYPES, *custom) if name not in present]
    return sentence(*_missing(missing, present)) if missing else None


def must_not_be_null(table: str, column: str) -> tuple[str, str]:
    """Return the cause and the remedy of a column that has to be given a value."""
    return f"{COLUMN_CAUSE} {column} must not be null", f"ALTER TABLE {table} ALTER COLUMN {quote_identifier(column)} DROP NOT NULL"


def generated_column(column: str) -> tuple[str, str]:
    """Return the cause and the remedy of a column that the server computes."""
    return f"{COLUMN_CAUSE} {column} is generated", f"ALTER TABLE {TABLE} ALTER COLUMN {quote_identifier(column)} DROP EXPRESSION"


def _missing(names: Collection[str], present: Mapping[str, str]) -> tuple[str, str]:
    """Return that columns are missing, and the statements that bring them back, under the names that they seem to have now."""
    new_names = {name: new for name in names if (new := _new_name(name, present)) is not None}
    rename = f"ALTER TABLE {TABLE} RENAME COLUMN"
    statements = [f"{rename} {quote_identifier(new)} TO {quote_identifier(name)}" for name, new in new_names.items()]
    if lost := [name for name in names if name not in new_names]:
        added = ", ".join(f"ADD COLUMN {quote_identifier(name)} {COLUMN_TYPES.get(name, 'text')}" for name in lost)
        renamed = "; ".join(f"{rename} its_new_name TO {quote_identifier(name)}" for name in lost)
        may_be_renamed = not present or not present.keys() <= COLUMN_TYPES.keys()
        statements.append(f"{renamed}; or, where it was dropped, " * may_be_renamed + f"ALTER TABLE {TABLE} {added}")
    return f"{COLUMN_CAUSE} {', '.join(names)} is missing", "; ".join(statements)


def _new_name(name: str, present: Mapping[str, str]) -> str | None:
    """Return the column of the same type that stands in the place of one that is missing, behind the column before it."""
    expected, columns = list(COLUMN_TYPES), list(present)
    if name not in COLUMN_TYPES or name == expected[0] or (before := expected[expected.index(name) - 1]) not in present:
        return None
    there = columns[columns.index(before) + 1 :][:1]
    sql_type = {"timestamptz": "timestamp with time zone"}.get(COLUMN_TYPES[name], COLUMN_TYPES[name])
    return next((column for column in there if column not in COLUMN_TYPES and present[column] == sql_type), None)


def _dropped_rows(triggers: Collection[str]) -> tuple[str, str]:
    """Return that rows were taken without an error and do not stand as they were written. `triggers`: the owner's, by name."""
    names = ", ".join(triggers) or "none is known"
    statement = "; ".join(f"ALTER TABLE {TABLE} DISABLE TRIGGER {quote_identifier(name)}" for name in triggers) or _SWITCH_OFF_TRIGGERS
    return f"a trigger drops or alters rows without an error (triggers: {names})", statement


def sentence(cause: str, statement: str) -> str:
    """Return a cause and its remedy as one text."""
    kept = "Nothing is lost while fubd keeps running: what it refuses is kept, and stored after"
    return f"{TABLE} refuses rows: {cause}. {kept}: {statement};"
