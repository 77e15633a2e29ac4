"""The plan of an adoption: what prevents it, what is changed, and how each change is undone. Pure.

No existing row is changed, and no existing column's type or name. What only the table's owner may decide (a column too short for the name
of a stage, one that must never be null) is not a step of the plan: it is an obstacle, shown with the statement that removes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fubd.store.adoption.obstacles import ADDED_COLUMNS, REQUIRED_COLUMNS, Obstacle, find_obstacles
from fubd.store.adoption.survey import INDEXES, RENAMED_VIEWS, Survey
from fubd.store.quoting import quote_identifier
from fubd.store.stage_changes import DERIVED_COLUMNS, TABLE
from fubd.store.table_definition import COLUMN_LENGTHS

BACKUP = "fubd.stage_changes_backup"

_UNIQUE_INDEX = re.compile(r'^CREATE UNIQUE INDEX (?:"(?:[^"]|"")+"|\S+) ON')


@dataclass(frozen=True, slots=True)
class AdoptionStep:
    """One change, and the statements that make and undo it. Others may read the table while the `early_statements` run."""

    description: str
    statements: tuple[str, ...]
    undo_statements: tuple[str, ...]
    early_statements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AdoptionPlan:
    """What adopting the table takes.

    `size` is that of a copy. `columns` are the table's own, whose content is proved to stay as it is. `added` are those that are added,
    by a step without undo statements: undoing drops all that were ever added. `notes` are for the owner to know.
    """

    rows: int
    size: str
    columns: tuple[str, ...]
    added: tuple[str, ...]
    obstacles: tuple[Obstacle, ...]
    steps: tuple[AdoptionStep, ...]
    notes: tuple[str, ...]


def make_plan(found: Survey, columns: Mapping[str, str]) -> AdoptionPlan:
    """Return the plan for a table. `columns` is FUBD_COLUMNS."""
    types = ADDED_COLUMNS | dict.fromkeys(columns, "text")
    added = {name: sql_type for name, sql_type in types.items() if name not in found.columns}
    filled = frozenset((*REQUIRED_COLUMNS, *types))
    return AdoptionPlan(
        rows=found.rows,
        size=found.facts.size,
        columns=tuple(found.columns),
        added=tuple(added),
        obstacles=tuple(find_obstacles(found, filled)),
        steps=(*_rename_views(found), *_add_columns(added), *_replace_indexes(found, filled), *_add_indexes(found, added)),
        notes=tuple(_notes(found, columns, filled)),
    )


def _rename_views(found: Survey) -> Iterator[AdoptionStep]:
    for name in found.facts.older_views:
        new_name = RENAMED_VIEWS[name]
        yield AdoptionStep(
            f"rename the older view {name} to {new_name}: fubd has a view of that name",
            (f"ALTER VIEW public.{name} RENAME TO {new_name}",),
            (f"ALTER VIEW public.{new_name} RENAME TO {name}",),
        )


def _add_columns(added: Mapping[str, str]) -> Iterator[AdoptionStep]:
    if added:
        clauses = ", ".join(f"ADD COLUMN {quote_identifier(name)} {sql_type}" for name, sql_type in added.items())
        yield AdoptionStep(f"add the nullable columns {', '.join(added)}", (f"ALTER TABLE {TABLE} {clauses}",), ())


def _replace_indexes(found: Survey, filled: frozenset[str]) -> Iterator[AdoptionStep]:
    """Replace each unique index that may reject genuine rows. The names stay, so that no script creates the unique ones again."""
    for number, index in enumerate(found.indexes):
        if not found.may_reject(index, filled):
            continue
        name, temporary = quote_identifier(index.name), f"fubd_instead_{number}"
        if index.constraint_definition is None:
            drop, restore = f"DROP INDEX public.{name}", index.definition
        else:
            drop = f"ALTER TABLE {TABLE} DROP CONSTRAINT {name}"
            restore = f"ALTER TABLE {TABLE} ADD CONSTRAINT {name} {index.constraint_definition}"
        plain = _UNIQUE_INDEX.sub(f"CREATE INDEX {temporary} ON", index.definition).replace(" NULLS NOT DISTINCT", "")
        yield AdoptionStep(
            f"replace the unique index {index.name} ({index.shown_keys}), which rejects genuine rows, by a plain index of the same name",
            early_statements=(plain,),
            statements=(drop, f"ALTER INDEX public.{temporary} RENAME TO {name}"),
            undo_statements=(f"DROP INDEX public.{name}", restore, *index.restore_statements),
        )


def _add_indexes(found: Survey, added: Mapping[str, str]) -> Iterator[AdoptionStep]:
    for name in found.missing_indexes():
        keys = INDEXES[name]
        create = (f"CREATE INDEX {name} ON {TABLE} ({', '.join(keys)})",)
        needs_added_column = not added.keys().isdisjoint(keys)
        yield AdoptionStep(
            f"add the index {name} ({', '.join(keys)})",
            early_statements=() if needs_added_column else create,
            statements=create if needs_added_column else (),
            undo_statements=(f"DROP INDEX public.{name}",),
        )


def _notes(found: Survey, columns: Mapping[str, str], filled: frozenset[str]) -> Iterator[str]:
    replaced = [index.shown_keys for index in found.indexes if found.may_reject(index, filled)]
    if replaced:
        clauses = " or ".join(f"ON CONFLICT ({keys})" for keys in replaced)
        yield f"an older script that inserts with {clauses} fails from then on; plain inserts and ON CONFLICT DO NOTHING go on working"
    limited = (ADDED_COLUMNS.keys() | columns.keys()) - COLUMN_LENGTHS.keys()
    short = [column for name, column in found.columns.items() if name in limited and column.length is not None]
    if short:
        lengths = ", ".join(f"{column.name} {column.length}" for column in short)
        yield f"columns of limited length: {lengths}; a longer value is null there, a longer name is cut; fubd keeps both in full"
    other = [column for name, column in found.columns.items() if name in columns and not column.is_text]
    if other:
        yield "values that do not fit the type are stored as null: " + ", ".join(f"{column.name} {column.sql_type}" for column in other)
    if "id" in found.columns and found.columns["id"].udt == "int4" and found.facts.numbers_left is not None:
        yield f"id is integer: {found.facts.numbers_left:,} numbers are left, and fubd also uses one for each report about a person"
    determined = [name for name in DERIVED_COLUMNS if name in found.columns and name not in columns]
    if determined:
        yield f"filled in new rows, by the order of each person's rows: {', '.join(determined)}"
    left = (name for name in found.columns if name not in filled and name not in determined)
    empty = [name for name in left if found.columns[name].default is None]
    if empty:
        yield f"left empty in new rows, unless FUBD_COLUMNS names a field of Follow Up Boss for them: {', '.join(empty)}"
    if found.facts.triggers:
        yield f"triggers that also fire for fubd's rows: {', '.join(found.facts.triggers)}"
