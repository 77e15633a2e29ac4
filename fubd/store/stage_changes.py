"""The product table as it stands: made by fubd, or an older one that was taken over and keeps the types it has.

Nothing that is written may fail on an older column or be mangled by it: a name that is too long is cut, any other value that does not fit
is null there. Both are whole in fubd's own tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import asyncpg

from fubd.store import statements
from fubd.store.statements import Query

# Longer than any name of a stage that is read (`fubd.core`).
_UNBOUNDED = 10_000

_NAMES = frozenset({"first_name", "last_name", "stage_from", "stage_to", "assigned_user_name"})
_STAGES = ("stage_from", "stage_to")
_TEXT = frozenset({"text", "character varying", "character"})
_INSTANTS = frozenset({"timestamp with time zone", "timestamp without time zone"})


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `type` is information_schema's data_type, `written` what a cast to it says, `otherwise` its default as SQL.

    `length` is in characters, `precision` in decimal digits of a second; None where there is no such thing.
    """

    name: str
    type: str
    udt: str
    length: int | None
    precision: int | None
    required: bool
    otherwise: str | None
    identity: bool
    generated: bool
    domain: bool
    written: str

    @property
    def is_text(self) -> bool:
        """Tell whether any text goes in as it is, up to the length."""
        return not self.domain and (self.type in _TEXT or self.udt == "citext")

    @property
    def is_instant(self) -> bool:
        """Tell whether it holds instants."""
        return not self.domain and self.type in _INSTANTS

    @property
    def shown(self) -> str:
        """Write the column (of alias c) for readers. An instant without a zone, in a table of older scripts, is UTC."""
        quoted = self.name.replace('"', '""')
        return f'c."{quoted}" AT TIME ZONE \'UTC\' AS "{quoted}"' if self.type == "timestamp without time zone" else f'c."{quoted}"'

    def takes(self, value: str) -> str:
        """Write a value (SQL, of the type that a table of fubd's own has there) so that this column takes it."""
        if self.is_instant:
            return value
        if self.name == "raw_payload":
            value = value if self.udt == "jsonb" else f"({value})::text"
        elif self.udt == "jsonb":
            value = f"to_jsonb({value})"
        if self.is_text:
            return self._short(value)
        taken_as_it_is = self.udt == "jsonb" and not self.domain
        return value if taken_as_it_is else f"fubd.fitted(({value})::text, '{_quoted(self.written)}')::{self.written}"

    def _short(self, value: str) -> str:
        if self.length is None:
            return value
        if self.name in _NAMES:
            return f"left({value}, {self.length})"
        return f"CASE WHEN length({value}) <= {self.length} THEN {value} END"


@dataclass(frozen=True, slots=True)
class StageChangesTable:
    """The product table. `sequence` is what its ids are drawn from, and the seq of claims with them."""

    columns: Mapping[str, Column]
    sequence: str

    @property
    def stage_length(self) -> int:
        """To how many characters the table cuts the name of a stage."""
        return min(self.columns[name].length or _UNBOUNDED for name in _STAGES)

    def fitted(self, name: str, value: str, new: bool) -> str:
        """Write a value as the column takes it. `new`: for a new row, where a default stands in for what a column must have."""
        column = self.columns[name]
        taken = column.takes(value)
        return f"coalesce({taken}, {column.otherwise})" if new and column.required and column.otherwise else taken

    @property
    def shown(self) -> str:
        """Write a row (alias c) as JSON text for readers: every column but the evidence, instants in UTC."""
        columns = ", ".join(column.shown for column in self.columns.values() if column.name != "raw_payload")
        return f"(SELECT row_to_json(shown)::text FROM (SELECT {columns}) shown)"

    def query(self, name: str, columns: Mapping[str, str] | None = None) -> Query:
        """Return a statement of `fubd/sql` for this table, with the columns of FUBD_COLUMNS."""
        query = statements.query(name)
        return replace(query, text=statements.with_columns(query.text, columns or {}, self.fitted).replace("{shown}", self.shown))

    def statement(self, name: str, columns: Mapping[str, str] | None = None) -> str:
        """Give a statement of `fubd/sql` for this table, with the columns of FUBD_COLUMNS."""
        return statements.with_columns(statements.text(name), columns or {}, self.fitted).replace("{shown}", self.shown)


async def read(connection: asyncpg.Connection) -> StageChangesTable:
    """Read how the table looks, once the schema is made."""
    columns = await read_columns(connection)
    sequence = await connection.fetchval(
        "SELECT d.refobjid::regclass::text FROM pg_depend d JOIN pg_attrdef a ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid"
        " JOIN pg_class s ON d.refclassid = 'pg_class'::regclass AND s.oid = d.refobjid AND s.relkind = 'S'"
        " WHERE a.adrelid = 'fubd.claim'::regclass"
    )
    return StageChangesTable(columns, sequence)


async def read_columns(connection: asyncpg.Connection) -> dict[str, Column]:
    """Read the columns, in their order; none when there is no table."""
    return {row["name"]: Column(**dict(row)) for row in await connection.fetch(statements.text("adopt/columns"))}


def _quoted(text: str) -> str:
    return text.replace("'", "''")
