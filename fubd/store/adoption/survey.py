"""What stands at public.stage_changes: read from information_schema and the catalogs, nothing assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from fubd.store import statements
from fubd.store.stage_changes import Column, read_columns

# The views of `fubd/sql/migrations`, by whose names older installations may have views of their own.
VIEWS = ("source_health", "rapid_transitions", "stage_durations", "stage_changes_daily", "current_stages")
# Where those are put aside.
ASIDE = {name: f"{name}_before_fubd" for name in VIEWS}
# The indexes that fubd's statements need, each where no other serves.
INDEXES = {
    "fubd_stage_changes_person": ("person_id", "changed_at"),
    "fubd_stage_changes_time": ("changed_at",),
    "fubd_stage_changes_received": ("received_at",),
}

STAGES = "stages"


@dataclass(frozen=True, slots=True)
class Index:
    """An index. `keys`: its columns in order, None for an expression. `constraint_definition`: of the constraint it serves, if any.

    `sorted`: valid and of the kind that ranges are read from. `nulls_equal`: two nulls count as the same. Statements: `freeing` frees it of
    what leans on it, `remarks` say of a new one what was said of it.
    """

    name: str
    definition: str
    constraint_definition: str | None
    is_unique: bool
    is_primary: bool
    partial: bool
    sorted: bool
    nulls_equal: bool
    keys: Sequence[str | None]
    freeing: Sequence[str]
    remarks: Sequence[str]

    def leads_with(self, *names: str) -> bool:
        """Tell whether rows can be looked up by these columns, in this order."""
        return self.sorted and not self.partial and tuple(self.keys[: len(names)]) == names

    def assures(self, name: str) -> bool:
        """Tell whether no two rows can have the same value in this column."""
        return self.is_unique and not self.partial and tuple(self.keys) == (name,)


@dataclass(frozen=True, slots=True)
class View:
    """A view that stands on the table, with all that is needed to make it again. `grants` are statements."""

    name: str
    kind: str
    definition: str
    options: str
    owner: str
    grants: Sequence[str]


@dataclass(frozen=True, slots=True)
class Facts:
    """The table itself. `kind` is pg_class's relkind; `size` is of its rows, to be shown.

    `owner`, `ourselves` and `database` are names, quoted where they must be. `schema_filled`: something stands in a schema fubd.
    `older_views` bear names that fubd's views need; so do `names_taken`, which are no views; of ASIDE and INDEXES `also_taken` are not
    free. `sequence` is what `id` is drawn from, in steps of `step`, with `numbers_left`.
    """

    kind: str
    size: str
    owner: str
    ourselves: str
    database: str
    may_change: bool
    rows_hidden: bool
    inherits: bool
    may_make_views: bool
    may_make_schema: bool
    may_use_schema: bool
    version: int
    fubd_was_here: bool
    schema_filled: bool
    exclusions: Sequence[str]
    triggers: Sequence[str]
    rules: Sequence[str]
    older_views: Sequence[str]
    names_taken: Sequence[str]
    also_taken: Sequence[str]
    sequence: str | None
    may_draw: bool
    step: int | None
    numbers_left: int | None


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything that the plan is made of.

    `views`: by column, those that would have to go while its type is changed; under `stages` those of both stage columns. `highest_id` is
    None where there is no row, or no `id` that is a number.
    """

    facts: Facts
    columns: Mapping[str, Column]
    indexes: Sequence[Index]
    views: Mapping[str, Sequence[View]]
    rows: int
    highest_id: int | None


async def survey(connection: asyncpg.Connection, *, timeout_seconds: float) -> Survey | None:
    """Look at the table; None when there is none."""
    row = await connection.fetchrow(statements.text("adopt/table"), list(VIEWS), [*ASIDE.values(), *INDEXES])
    if row is None:
        return None
    columns = await read_columns(connection)
    number = "id" in columns and columns["id"].udt in {"int2", "int4", "int8"}
    counted = await connection.fetchrow(
        f"SELECT count(*) AS rows, {'max(id)::bigint' if number else 'NULL::bigint'} AS highest_id FROM public.stage_changes",
        timeout=timeout_seconds,
    )
    return Survey(
        facts=Facts(**dict(row)),
        columns=columns,
        indexes=[Index(**dict(index)) for index in await connection.fetch(statements.text("adopt/indexes"))],
        views={name: await _views(connection, [name]) for name in columns} | {STAGES: await _views(connection, ["stage_from", "stage_to"])},
        rows=counted["rows"],
        highest_id=counted["highest_id"],
    )


async def _views(connection: asyncpg.Connection, names: list[str]) -> list[View]:
    return [View(**dict(view)) for view in await connection.fetch(statements.text("adopt/views"), names)]
