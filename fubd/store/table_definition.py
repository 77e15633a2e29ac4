"""What the definition of stage_changes says about the rows that it takes: what would refuse every row is found before the first write."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from fubd.core.problems import COLUMN_CAUSE
from fubd.store import refusals, statements
from fubd.store.quoting import quote_identifier
from fubd.store.stage_changes import COLUMN_TYPES, TABLE

# How many characters these must hold. A FUB id is a number of 64 bits.
COLUMN_LENGTHS = {
    "person_id": 19,
    "stage_from": 100,
    "stage_to": 100,
    "source": len("polling"),
    "confirmed_by": len("polling"),
}
# Columns of fubd's that no row leaves null.
_ALWAYS_FILLED = ("id", "person_id", "stage_to", "changed_at", "received_at", "source", "raw_payload")
_TEXT = re.compile(r"text|(?:\w+\.)?citext|character varying(?:\((?P<length>\d+)\))?")
_INSTANT = re.compile(r"timestamp(?:\(6\))? with(?:out)? time zone")
_NUMBER = re.compile(r"integer|bigint")


@dataclass(frozen=True, slots=True)
class TableDefinition:
    """The definition of the table, as sql/check/table.sql reads it. `last_drawn`: the last id, None when it is unknown.

    `user_name`: the user of DATABASE_URL, quoted where necessary; `is_owner`: who may alter the table.
    """

    columns: Sequence[str]
    types: Sequence[str]
    generated: Sequence[str]
    required: Sequence[str]
    rules: Sequence[str]
    lacking: Sequence[str]
    rows_refused: bool
    user_name: str
    is_owner: bool
    denied_sequence: str | None
    last_drawn: int | None
    is_behind: bool


async def read_definition(connection: asyncpg.Connection) -> TableDefinition:
    """Read the definition. fubd's schema must exist."""
    return definition_of(dict(await statements.query("check/table").fetchrow(connection)))


def definition_of(row: Mapping[str, Any]) -> TableDefinition:
    """Return the definition in a row of sql/check/table.sql."""
    return TableDefinition(**row)


def find_refusal(definition: TableDefinition, custom: Mapping[str, str]) -> str | None:
    """Return why every row will be refused or not kept as written, and the remedy; None when the definition shows nothing of that kind.

    `custom` is FUBD_COLUMNS.
    """
    missing = refusals.find_missing_columns(dict(zip(definition.columns, definition.types, strict=True)), custom)
    return missing or next((refusals.sentence(*cause) for cause in (*_of_columns(definition, custom), *_of_table(definition))), None)


def _of_columns(definition: TableDefinition, custom: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in definition.required:
        if name not in _ALWAYS_FILLED:
            yield refusals.must_not_be_null(TABLE, name)
    for name in definition.generated:
        if name in COLUMN_TYPES or name in custom:
            yield refusals.generated_column(name)
    for name, sql_type in zip(definition.columns, definition.types, strict=True):
        if not _is_fit(name, sql_type):
            alter = f"ALTER TABLE {TABLE} ALTER COLUMN {name} TYPE {COLUMN_TYPES[name]} USING {name}::{COLUMN_TYPES[name]}"
            yield f"{COLUMN_CAUSE} {name} is {sql_type}, which does not hold what fubd writes", alter


def _of_table(definition: TableDefinition) -> Iterator[tuple[str, str]]:
    if definition.rules:
        dropped = "; ".join(f"DROP RULE {quote_identifier(name)} ON {TABLE}" for name in definition.rules)
        yield f"a rule replaces what fubd writes ({', '.join(definition.rules)})", dropped
    if definition.lacking:
        rights = ", ".join(definition.lacking)
        yield f"the user of DATABASE_URL lacks the privilege {rights} on it", f"GRANT {rights} ON {TABLE} TO {definition.user_name}"
    if definition.rows_refused:
        cure = refusals.SHOW_ROWS_TO_OWNER if definition.is_owner else refusals.show_rows_to(definition.user_name)
        yield refusals.ROWS_HIDDEN, cure
    if definition.denied_sequence is not None:
        cause = f"the user of DATABASE_URL lacks the privilege USAGE on the sequence of its ids, {definition.denied_sequence}"
        yield cause, f"GRANT USAGE, SELECT ON SEQUENCE {definition.denied_sequence} TO {definition.user_name}"
    if definition.is_behind:
        yield f"the sequence of its ids is at {definition.last_drawn}, and rows have the ids after it", refusals.RAISE_SEQUENCE


def _is_fit(name: str, sql_type: str) -> bool:
    if name == "id":
        return _NUMBER.fullmatch(sql_type) is not None
    if name in ("changed_at", "changed_after", "received_at", "confirmed_at"):
        return _INSTANT.fullmatch(sql_type) is not None
    if name not in COLUMN_LENGTHS:
        return True
    text = _TEXT.fullmatch(sql_type)
    return text is not None and (text["length"] is None or int(text["length"]) >= COLUMN_LENGTHS[name])
