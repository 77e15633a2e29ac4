"""The product table as it is: made by fubd, or an older one that was adopted and keeps its own types.

A value never fails on an older column: a name that is too long is cut, and any other value that does not fit is stored as null. fubd's own
tables hold both in full.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import asyncpg

from fubd.store import statements
from fubd.store.quoting import quote_identifier, quote_literal
from fubd.store.statements import Query

TABLE = "public.stage_changes"
# The columns that fubd fills, with their types in a fresh table.
COLUMN_TYPES = {
    "id": "bigint",
    "person_id": "text",
    "first_name": "text",
    "last_name": "text",
    "stage_from": "text",
    "stage_to": "text",
    "changed_at": "timestamptz",
    "changed_after": "timestamptz",
    "received_at": "timestamptz",
    "source": "text",
    "confirmed_by": "text",
    "confirmed_at": "timestamptz",
    "event_id": "text",
    "raw_payload": "jsonb",
    "assigned_user_id": "text",
    "assigned_user_name": "text",
    "lead_source_tag": "text",
}

# Longer than any stage name that is accepted (`fubd.core`).
_UNBOUNDED = 10_000

_NAMES = frozenset({"first_name", "last_name", "stage_from", "stage_to", "assigned_user_name"})
_STAGES = ("stage_from", "stage_to")
# Columns of older tables that the order of a person's rows determines (sql/recording/update_derived.sql).
DERIVED_COLUMNS = (
    "previous_stage_entered_at",
    *("time_in_previous_stage_days", "time_in_previous_stage_hours", "time_in_previous_stage_minutes"),
    *("stage_priority_from", "stage_priority_to", "is_forward_progression"),
)
_INTEGERS = frozenset({"int2", "int4", "int8"})
# Types that hold every derived number.
_WIDE = frozenset({"int4", "int8", "float8"})
_TEXT = frozenset({"text", "character varying", "character"})
_INSTANTS = frozenset({"timestamp with time zone", "timestamp without time zone"})


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `type` is information_schema's data_type, `sql_type` the type in a cast, `default` an SQL expression.

    `length` is in characters, `precision` in decimal digits of a second; None where the type has no such limit.
    """

    name: str
    type: str
    udt: str
    length: int | None
    precision: int | None
    required: bool
    default: str | None
    identity: bool
    generated: bool
    domain: bool
    sql_type: str

    @property
    def is_text(self) -> bool:
        """Whether the column takes any text up to its length unchanged."""
        return not self.domain and (self.type in _TEXT or self.udt == "citext")

    @property
    def is_instant(self) -> bool:
        """Whether the column holds instants."""
        return not self.domain and self.type in _INSTANTS

    @property
    def shown(self) -> str:
        """The SQL that selects the column (of alias c) for readers. An instant without a zone, in an older table, is UTC."""
        quoted = quote_identifier(self.name)
        return f"c.{quoted} AT TIME ZONE 'UTC' AS {quoted}" if self.type == "timestamp without time zone" else f"c.{quoted}"

    def coerce(self, value: str) -> str:
        """Return the SQL that makes a value fit this column; `value` is SQL of the type that a fresh table has here."""
        if self.is_instant:
            return value
        if self.name == "raw_payload":
            value = value if self.udt == "jsonb" else f"({value})::text"
        elif self.udt == "jsonb":
            value = f"to_jsonb({value})"
        if self.is_text:
            return self._limit_length(value)
        if self.udt == "jsonb" and not self.domain:
            return value
        return self._fit(value)

    def coerce_derived(self, value: str) -> str:
        """Return the SQL that makes a derived value fit this column; a whole number counts completed days, hours or minutes."""
        if self.name == "previous_stage_entered_at" and self.is_instant:
            return value
        if self.name.startswith("time_in_") and self.udt in _INTEGERS:
            value = f"trunc({value})"
        if self.name.startswith(("time_in_", "stage_priority_")) and self.udt in _WIDE and not self.domain:
            return f"({value})::{self.udt}"
        return self._fit(value) if self.is_instant else self.coerce(f"({value})::text")

    def _fit(self, value: str) -> str:
        return f"fubd.fitted(({value})::text, {quote_literal(self.sql_type)})::{self.sql_type}"

    def _limit_length(self, value: str) -> str:
        if self.length is None:
            return value
        if self.name in _NAMES:
            return f"left({value}, {self.length})"
        return f"CASE WHEN length({value}) <= {self.length} THEN {value} END"


@dataclass(frozen=True, slots=True)
class StageChangesTable:
    """The product table. `sequence` is the sequence of its ids, from which the seq of claims is drawn too."""

    columns: Mapping[str, Column]
    sequence: str

    @property
    def stage_length(self) -> int:
        """The number of characters to which the table cuts a stage name."""
        return min(self.columns[name].length or _UNBOUNDED for name in _STAGES)

    def coerce(self, name: str, value: str, new: bool) -> str:
        """Return the SQL that makes a value fit a column. `new`: for a new row, where the default replaces a null in a NOT NULL column."""
        column = self.columns[name]
        coerced = column.coerce(value)
        return f"coalesce({coerced}, {column.default})" if new and column.required and column.default else coerced

    @property
    def shown(self) -> str:
        """The SQL that selects a row (alias c) as JSON text for readers: every column but the evidence, instants in UTC."""
        columns = ", ".join(column.shown for column in self.columns.values() if column.name != "raw_payload")
        return f"(SELECT row_to_json(shown)::text FROM (SELECT {columns}) shown)"

    def query(self, name: str, columns: Mapping[str, str] | None = None) -> Query:
        """Return a statement of `fubd/sql` for this table, with the columns of FUBD_COLUMNS."""
        query = statements.query(name)
        text = statements.with_columns(query.text, columns or {}, self.coerce)
        return replace(query, text=text).fill(shown=self.shown, update_derived=self._update_derived(columns or {}))

    def _update_derived(self, taken: Collection[str]) -> str:
        """Return the statement that fills the derived columns, as an SQL literal; NULL where there are none but those of FUBD_COLUMNS."""
        columns = [self.columns[name] for name in DERIVED_COLUMNS if name in self.columns and name not in taken]
        columns = [column for column in columns if not column.generated]
        quoted = [quote_identifier(column.name) for column in columns]
        if not quoted:
            return "NULL"
        values = [f"{column.coerce_derived(f'd.{column.name}')} AS {name}" for column, name in zip(columns, quoted, strict=True)]
        filled = statements.query("recording/update_derived").fill(
            values=", ".join(values),
            assignments=", ".join(f"{name} = n.{name}" for name in quoted),
            differences=" OR ".join(f"c.{name} IS DISTINCT FROM n.{name}" for name in quoted),
        )
        return quote_literal(filled.text)


async def read(connection: asyncpg.Connection) -> StageChangesTable:
    """Read the table's definition, in one round trip. fubd's schema must exist."""
    found = await statements.combine(columns="adopt/columns", sequence="adopt/sequence").fetch(connection)
    return StageChangesTable(columns_of(found["columns"]), found["sequence"][0]["sequence"])


async def read_columns(connection: asyncpg.Connection) -> dict[str, Column]:
    """Read the columns by name, in their order; none when there is no table."""
    return columns_of(await statements.query("adopt/columns").fetch(connection))


def columns_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, Column]:
    """Return the columns in the rows of sql/adopt/columns.sql, by name."""
    return {row["name"]: Column(**dict(row)) for row in rows}
