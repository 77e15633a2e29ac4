"""What is at public.stage_changes, read from information_schema and the catalogs without assumptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from fubd.store import statements
from fubd.store.stage_changes import Column, read_columns

# The views that fubd makes (`fubd/sql/migrations`); an older database may have views of the same names.
VIEWS = ("source_health", "rapid_transitions", "stage_durations", "stage_changes_daily", "current_stages")
# The names to which those are renamed.
RENAMED_VIEWS = {name: f"{name}_before_fubd" for name in VIEWS}
# The indexes that fubd's statements need; each is made unless another one serves.
INDEXES = {
    "fubd_stage_changes_person": ("person_id", "changed_at"),
    "fubd_stage_changes_time": ("changed_at",),
    "fubd_stage_changes_received": ("received_at",),
    "fubd_stage_changes_source": ("source", "changed_at"),
}
# The key in `Survey.views` of the views that use either stage column.
STAGES = "stages"

_INTEGERS = frozenset({"int2", "int4", "int8"})


@dataclass(frozen=True, slots=True)
class Index:
    """An index. `keys`: its columns in order, None for an expression. `constraint_definition`: of the constraint that it implements.

    `is_btree`: a valid B-tree, so ranges can be read from it. `nulls_equal`: two nulls count as equal. `release_statements` remove what
    depends on the index; `restore_statements` give an index made again its comments and clustering.
    """

    name: str
    definition: str
    constraint_definition: str | None
    is_unique: bool
    is_primary: bool
    partial: bool
    is_btree: bool
    nulls_equal: bool
    keys: Sequence[str | None]
    release_statements: Sequence[str]
    restore_statements: Sequence[str]

    @property
    def shown_keys(self) -> str:
        """The keys for people."""
        return ", ".join(key or "an expression" for key in self.keys)

    def leads_with(self, *names: str) -> bool:
        """Return whether rows can be looked up by these columns, in this order."""
        return self.is_btree and not self.partial and tuple(self.keys[: len(names)]) == names

    def is_unique_on(self, name: str) -> bool:
        """Return whether no two rows can have the same value in this column."""
        return self.is_unique and not self.partial and tuple(self.keys) == (name,)


@dataclass(frozen=True, slots=True)
class DependentView:
    """A view that uses the table, with everything needed to make it again. `grants` are statements."""

    name: str
    kind: str
    definition: str
    options: str
    owner: str
    grants: Sequence[str]


@dataclass(frozen=True, slots=True)
class TableFacts:
    """The table itself and our rights. `kind` is pg_class's relkind; `size` is that of the rows, for people.

    `owner`, `user` and `database` are names, quoted where necessary. `has_fubd_schema`: migrations of fubd were applied; `foreign_schema`:
    a schema fubd has content that fubd did not make. `older_views` have names that fubd's views need; `taken_names` are such names of
    objects that are no views; `other_taken_names` are those of RENAMED_VIEWS and INDEXES that are taken. `sequence` is that of `id`, with
    its increment and the `numbers_left`.
    """

    kind: str
    size: str
    owner: str
    user: str
    database: str
    may_alter: bool
    rows_hidden: bool
    inherits: bool
    may_create_views: bool
    may_create_schema: bool
    may_use_schema: bool
    version: int
    has_fubd_schema: bool
    foreign_schema: bool
    exclusions: Sequence[str]
    triggers: Sequence[str]
    rules: Sequence[str]
    older_views: Sequence[str]
    taken_names: Sequence[str]
    other_taken_names: Sequence[str]
    sequence: str | None
    may_use_sequence: bool
    increment: int | None
    numbers_left: int | None


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything that the plan depends on.

    `views`: by column, those to be dropped while its type is changed; under STAGES those of both stage columns. `highest_id` is None where
    there is no row, or no `id` that is an integer.
    """

    facts: TableFacts
    columns: Mapping[str, Column]
    indexes: Sequence[Index]
    views: Mapping[str, Sequence[DependentView]]
    rows: int
    highest_id: int | None

    def missing_indexes(self) -> list[str]:
        """Return the names in INDEXES for which the table has no index that serves."""
        return [name for name, keys in INDEXES.items() if not any(index.leads_with(*keys) for index in self.indexes)]

    def may_reject(self, index: Index, filled: frozenset[str]) -> bool:
        """Return whether a unique index may reject a genuine row of fubd's, which fills the columns `filled`.

        It cannot where the row's own id, or a column that stays null, is among the keys.
        """
        if not index.is_unique or index.is_primary or "id" in index.keys:
            return False
        stays_null = any(key is not None and key not in filled and self.columns[key].default is None for key in index.keys)
        return index.nulls_equal or not stays_null


async def survey(connection: asyncpg.Connection, *, timeout_seconds: float) -> Survey | None:
    """Read the table; None when there is none."""
    facts = await statements.query("adopt/table").fetchrow(
        connection, view_names=list(VIEWS), other_names=[*RENAMED_VIEWS.values(), *INDEXES]
    )
    if facts is None:
        return None
    columns = await read_columns(connection)
    counted = await connection.fetchrow(statements.text("adopt/count_rows"), timeout=timeout_seconds)
    highest_id = None
    if "id" in columns and columns["id"].udt in _INTEGERS:
        highest = await connection.fetchrow(statements.text("adopt/highest_id"), timeout=timeout_seconds)
        highest_id = highest["id"]
    return Survey(
        facts=TableFacts(**dict(facts)),
        columns=columns,
        indexes=[Index(**dict(index)) for index in await statements.query("adopt/indexes").fetch(connection)],
        views={name: await _views(connection, [name]) for name in columns} | {STAGES: await _views(connection, ["stage_from", "stage_to"])},
        rows=counted["rows"],
        highest_id=highest_id,
    )


async def _views(connection: asyncpg.Connection, columns: list[str]) -> list[DependentView]:
    return [DependentView(**dict(view)) for view in await statements.query("adopt/views").fetch(connection, columns=columns)]
