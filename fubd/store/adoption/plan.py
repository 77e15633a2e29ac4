"""What taking over a table comes to: what is in the way of it, what is changed, and how each change is undone. Pure.

No existing row is changed, and no existing column's type or name. What only its owner may decide (a column that is too short for the name
of a stage, one that must never be null) is no step of the plan: it is told, with the statement that does it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fubd.store.adoption.survey import ASIDE, INDEXES, STAGES, Index, Survey, View
from fubd.store.stage_changes import Column

BACKUP = "fubd.stage_changes_backup"

_TABLE = "public.stage_changes"
_OLDEST_VERSION = 14
_SHORTEST_STAGE = 100
_SHORTEST_PERSON = 19  # a FUB id is a number of 64 bits
_SHORTEST_SOURCE = len("polling")
_MICROSECONDS = 6
# Years of them: one goes with each report of a person.
_FEWEST_NUMBERS = 100_000_000

# fubd's own columns, by the type of those that are made where missing. The first four make the table what it is.
_NEEDED = ("id", "person_id", "stage_to", "changed_at")
_MADE = {
    "first_name": "text",
    "last_name": "text",
    "stage_from": "text",
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
_INSTANTS = ("changed_at", "changed_after", "received_at", "confirmed_at")
_SHORTEST = {
    "person_id": _SHORTEST_PERSON,
    "stage_from": _SHORTEST_STAGE,
    "stage_to": _SHORTEST_STAGE,
    "source": _SHORTEST_SOURCE,
    "confirmed_by": _SHORTEST_SOURCE,
}
_STAGES = ("stage_from", "stage_to")
_NUMBERS = frozenset({"smallint", "integer", "bigint", "numeric", "real", "double precision"})
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "p": "one in partitions"}
_ALWAYS_FILLED = frozenset({"id", "person_id", "stage_to", "changed_at", "received_at", "source"})
_UNIQUE = re.compile(r'^CREATE UNIQUE INDEX (?:"(?:[^"]|"")+"|\S+) ON')
# A default may stand in for what is not known of a person, but not for these: null says something there.
_NULL_SPEAKS = frozenset({"stage_from", "changed_after", "confirmed_by", "confirmed_at", "event_id"})


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why the table cannot be taken over as it is, and the statement with which its owner can change that."""

    why: str
    statement: str


@dataclass(frozen=True, slots=True)
class Step:
    """One change: in words, as statements, and the statements that take it back. Others may go on reading during those of `ahead`."""

    what: str
    forward: tuple[str, ...]
    back: tuple[str, ...]
    ahead: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What taking the table over comes to.

    `size` is what a copy takes. `columns` are the table's own, whose content is proved to stay as it is. `added` are those that are made,
    in a step without a way back: undoing drops all that were ever added. `notes` are to be known.
    """

    rows: int
    size: str
    columns: tuple[str, ...]
    added: tuple[str, ...]
    obstacles: tuple[Obstacle, ...]
    steps: tuple[Step, ...]
    notes: tuple[str, ...]


def make(found: Survey, columns: Mapping[str, str]) -> Plan:
    """Plan the adoption of a table. `columns` is FUBD_COLUMNS."""
    added = {name: kind for name, kind in (*_MADE.items(), *((name, "text") for name in columns)) if name not in found.columns}
    filled = frozenset((*_NEEDED, *_MADE, *columns))
    steps = (*_views(found), *_columns(added), *_replacements(found, filled), *_indexes(found, added))
    return Plan(
        rows=found.rows,
        size=found.facts.size,
        columns=tuple(found.columns),
        added=tuple(added),
        obstacles=tuple(_obstacles(found, filled)),
        steps=steps,
        notes=tuple(_notes(found, columns, filled)),
    )


# --- What is changed --------------------------------------------------------------------------------------------------


def _views(found: Survey) -> Iterator[Step]:
    for name in found.facts.older_views:
        aside = ASIDE[name]
        yield Step(
            f"rename the older view {name} to {aside}: fubd has one of that name",
            (f"ALTER VIEW public.{name} RENAME TO {aside}",),
            (f"ALTER VIEW public.{aside} RENAME TO {name}",),
        )


def _columns(added: Mapping[str, str]) -> Iterator[Step]:
    if added:
        yield Step(
            f"add the nullable columns {', '.join(added)}",
            (f"ALTER TABLE {_TABLE} " + ", ".join(f'ADD COLUMN "{name}" {kind}' for name, kind in added.items()),),
            (),
        )


def _replacements(found: Survey, filled: frozenset[str]) -> Iterator[Step]:
    """Find the unique indexes that reject genuine rows, by what they are. Their names stay, so that no script makes them again."""
    for number, index in enumerate(found.indexes):
        if not _rejects(index, found, filled):
            continue
        name, new = _quoted(index.name), f"fubd_instead_{number}"
        if index.constraint_definition is None:
            drop, restore = f"DROP INDEX public.{name}", index.definition
        else:
            drop = f"ALTER TABLE {_TABLE} DROP CONSTRAINT {name}"
            restore = f"ALTER TABLE {_TABLE} ADD CONSTRAINT {name} {index.constraint_definition}"
        plain = _UNIQUE.sub(f"CREATE INDEX {new} ON", index.definition).replace(" NULLS NOT DISTINCT", "")
        yield Step(
            f"replace the unique {index.name} ({_keys(index)}), which rejects genuine rows, by one of the same name that is not unique",
            ahead=(plain,),
            forward=(drop, f"ALTER INDEX public.{new} RENAME TO {name}"),
            back=(f"DROP INDEX public.{name}", restore, *index.remarks),
        )


def _keys(index: Index) -> str:
    return ", ".join(key or "an expression" for key in index.keys)


def _rejects(index: Index, found: Survey, filled: frozenset[str]) -> bool:
    """Tell whether a genuine row of fubd's could be refused: not where the row's own id, or a column that stays null, is among the keys."""
    if not index.is_unique or index.is_primary or "id" in index.keys:
        return False
    stays_null = any(key is not None and key not in filled and found.columns[key].otherwise is None for key in index.keys)
    return index.nulls_equal or not stays_null


def _indexes(found: Survey, added: Mapping[str, str]) -> Iterator[Step]:
    for name in _missing_indexes(found):
        keys = INDEXES[name]
        create = (f"CREATE INDEX {name} ON {_TABLE} ({', '.join(keys)})",)
        later = not added.keys().isdisjoint(keys)
        yield Step(
            f"add the index {name} ({', '.join(keys)})",
            ahead=() if later else create,
            forward=create if later else (),
            back=(f"DROP INDEX public.{name}",),
        )


def _missing_indexes(found: Survey) -> list[str]:
    return [name for name, keys in INDEXES.items() if not any(index.leads_with(*keys) for index in found.indexes)]


# --- What is in the way -----------------------------------------------------------------------------------------------


def _obstacles(found: Survey, filled: frozenset[str]) -> Iterator[Obstacle]:
    impossible = tuple(_no_such_table(found))
    yield from impossible
    if not impossible:
        yield from _rights(found)
        yield from _ids(found)
        yield from _texts(found)
        yield from _instants(found)
        yield from _constraints(found, filled)
        yield from _nulls(found, filled)


def _no_such_table(found: Survey) -> Iterator[Obstacle]:
    facts = found.facts
    if facts.version < _OLDEST_VERSION:
        yield Obstacle(f"this is PostgreSQL {facts.version}; fubd needs {_OLDEST_VERSION} or newer", "upgrade the server")
    if facts.kind != "r" or facts.inherits:
        yield Obstacle(
            f"{_TABLE} is not a plain table, but {_KINDS.get(facts.kind, 'one that inherits')}: let a copy take its name and its writers"
            " (views on it stay with the older one)",
            f"BEGIN;\nALTER TABLE {_TABLE} RENAME TO stage_changes_older;\n"
            f"CREATE TABLE {_TABLE} AS TABLE public.stage_changes_older;\nCOMMIT",
        )
    missing = [name for name in _NEEDED if name not in found.columns]
    if missing:
        yield Obstacle(
            f"{_TABLE} has no {' and no '.join(missing)}: it is not a table of stage changes", f"ALTER TABLE {_TABLE} RENAME TO other"
        )


def _rights(found: Survey) -> Iterator[Obstacle]:
    facts = found.facts
    if not facts.may_change:
        why = f"the table belongs to {facts.owner}, and only its owner may change it: use {facts.owner} as the user of DATABASE_URL, or"
        yield Obstacle(f"{why}, as an administrator", f"GRANT {facts.owner} TO {facts.ourselves}")
    if facts.rows_hidden:
        yield Obstacle("row level security hides rows from the user of DATABASE_URL", f"ALTER TABLE {_TABLE} NO FORCE ROW LEVEL SECURITY")
    if not facts.may_make_schema or not facts.may_use_schema:
        yield Obstacle(
            "the user of DATABASE_URL may not make the schema fubd", f"GRANT CREATE ON DATABASE {facts.database} TO {facts.ourselves}"
        )
    if not facts.may_make_views:
        yield Obstacle(
            "the user of DATABASE_URL may not make fubd's views in public", f"GRANT CREATE ON SCHEMA public TO {facts.ourselves}"
        )
    if facts.schema_filled:
        yield Obstacle("there is a schema fubd that fubd did not make", "ALTER SCHEMA fubd RENAME TO fubd_before")
    yield from _names(found)


def _names(found: Survey) -> Iterator[Obstacle]:
    facts = found.facts
    for name in facts.names_taken:
        yield Obstacle(f"public.{name} is no view, and fubd needs the name", f"ALTER TABLE public.{name} RENAME TO {name}_of_others")
    needed = {*(ASIDE[name] for name in facts.older_views), *_missing_indexes(found)}
    for name in sorted(needed.intersection(facts.also_taken)):
        yield Obstacle(f"there is a public.{name} already, and fubd needs the name", f"ALTER TABLE public.{name} RENAME TO {name}_2")


def _ids(found: Survey) -> Iterator[Obstacle]:
    column, facts = found.columns["id"], found.facts
    if column.domain or column.udt not in {"int4", "int8"}:
        yield Obstacle(f"id is {column.written}, not integer or bigint", _numbered(found))
        return
    if not any(index.assures("id") or index.is_primary for index in found.indexes):
        yield Obstacle("nothing keeps two rows from having one id", f"ALTER TABLE {_TABLE} ADD PRIMARY KEY (id)")
    if facts.sequence is None:
        default = "ALTER COLUMN id DROP DEFAULT, " if column.otherwise is not None else ""
        yield Obstacle(
            "id is drawn from no sequence, so two writers would take the same numbers",
            f"ALTER TABLE {_TABLE} {default}ALTER COLUMN id SET NOT NULL, ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY"
            f" (START WITH {(found.highest_id or 0) + 1})",
        )
    elif not facts.may_draw:
        yield Obstacle(
            f"the user of DATABASE_URL may not draw ids from {facts.sequence}",
            f"GRANT USAGE, SELECT, UPDATE ON SEQUENCE {facts.sequence} TO {facts.ourselves}",
        )
    elif (facts.step or 0) < 1:
        yield Obstacle(
            "ids are drawn downwards", f"ALTER SEQUENCE {facts.sequence} INCREMENT BY 1 NO MINVALUE NO MAXVALUE START WITH 1 RESTART"
        )
    elif (facts.numbers_left or 0) < _FEWEST_NUMBERS:
        yield Obstacle(
            f"id is {column.written}, and only {facts.numbers_left:,} numbers are left",
            f"{_retype(found, 'id', 'bigint')};\nALTER SEQUENCE {facts.sequence} AS bigint NO MAXVALUE",
        )


def _numbered(found: Survey) -> str:
    """What gives the table an id that is a number: of a wider type where it is one, else a new column."""
    sequence = found.facts.sequence
    if found.columns["id"].udt in {"int2", "numeric"}:
        return _retype(found, "id", "bigint") + (f";\nALTER SEQUENCE {sequence} AS bigint NO MAXVALUE" if sequence else "")
    return f"ALTER TABLE {_TABLE} RENAME COLUMN id TO older_id;\nALTER TABLE {_TABLE} ADD COLUMN id bigint GENERATED BY DEFAULT AS IDENTITY"


def _texts(found: Survey) -> Iterator[Obstacle]:
    wrong = [name for name in _SHORTEST if name in found.columns and not _holds(found.columns[name], _SHORTEST[name])]
    for name in wrong:
        if name not in _STAGES:
            yield Obstacle(
                f"{name} is {found.columns[name].written}, which does not hold all that fubd writes", _retype(found, name, "text")
            )
    stages = [name for name in _STAGES if name in wrong]
    if stages:
        shown = " and ".join(f"{name} is {found.columns[name].written}" for name in stages)
        alter = f"ALTER TABLE {_TABLE} " + ", ".join(f"ALTER COLUMN {name} TYPE varchar(200)" for name in stages)
        yield Obstacle(f"{shown}: too short for the name of a stage", _around_views(alter, found.views[STAGES]))


def _retype(found: Survey, name: str, kind: str) -> str:
    return _around_views(f"ALTER TABLE {_TABLE} ALTER COLUMN {name} TYPE {kind}{_using(found.columns[name], kind)}", found.views[name])


def _using(column: Column, kind: str) -> str:
    if column.is_instant:
        return ""
    if kind == "timestamp" and column.is_text:
        return f" USING ({column.name} || CASE WHEN {column.name} ~ '[Z+]|:[0-9.]+-' THEN '' ELSE 'Z' END)::timestamptz AT TIME ZONE 'UTC'"
    if kind == "timestamp" and column.type in _NUMBERS:
        return f" USING to_timestamp({column.name}) AT TIME ZONE 'UTC'"
    return f" USING {column.name}::{kind}"


def _holds(column: Column, characters: int) -> bool:
    return column.is_text and column.type != "character" and (column.length is None or column.length >= characters)


def _around_views(alter: str, views: Sequence[View]) -> str:
    """A column that a view reads cannot be altered, so the views go and come back in the same transaction."""
    if not views:
        return alter
    kind = {view.name: "MATERIALIZED VIEW" if view.kind == "m" else "VIEW" for view in views}
    lines = ["BEGIN", *(f"DROP {kind[view.name]} {view.name}" for view in views), alter]
    for view in reversed(views):
        options = f" WITH ({view.options})" if view.options else ""
        lines.append(f"CREATE {kind[view.name]} {view.name}{options} AS {view.definition.strip().removesuffix(';')}")
        lines.append(f"ALTER {kind[view.name]} {view.name} OWNER TO {_quoted(view.owner)}")
        lines += view.grants
    return ";\n".join([*lines, "COMMIT"])


def _instants(found: Survey) -> Iterator[Obstacle]:
    for name in _INSTANTS:
        column = found.columns.get(name)
        if column is not None and not (column.is_instant and column.precision == _MICROSECONDS):
            kind = "timestamptz" if column.type == "timestamp with time zone" else "timestamp"
            yield Obstacle(f"{name} is {column.written}, which does not keep instants to the microsecond", _retype(found, name, kind))


def _nulls(found: Survey, filled: frozenset[str]) -> Iterator[Obstacle]:
    for name, column in found.columns.items():
        if name in filled and column.generated:
            yield Obstacle(
                f"{name} is generated, so fubd could not write it", f"ALTER TABLE {_TABLE} ALTER COLUMN {_quoted(name)} DROP EXPRESSION"
            )
        if not column.required or name in _ALWAYS_FILLED or column.identity or column.generated:
            continue
        if column.otherwise is None or name in _NULL_SPEAKS:
            why = "fubd leaves it null while nothing is known" if name in filled else "fubd knows nothing to put there"
            yield Obstacle(f"{name} must not be null, but {why}", f"ALTER TABLE {_TABLE} ALTER COLUMN {_quoted(name)} DROP NOT NULL")


def _constraints(found: Survey, filled: frozenset[str]) -> Iterator[Obstacle]:
    for name in found.facts.exclusions:
        yield Obstacle(f"the exclusion constraint {name} may refuse genuine rows", f"ALTER TABLE {_TABLE} DROP CONSTRAINT {_quoted(name)}")
    for index in found.indexes:
        if (index.is_primary and not _ALWAYS_FILLED.issuperset(index.keys)) or (index.is_primary and "id" not in index.keys):
            why = f"the primary key is not id, but {_keys(index)}, and may refuse genuine rows"
            yield Obstacle(why, _freed(index, f"ALTER TABLE {_TABLE} DROP CONSTRAINT {_quoted(index.name)}, ADD PRIMARY KEY (id)"))
        elif index.freeing and _rejects(index, found, filled):
            yield Obstacle(f"{index.name} rejects genuine rows, and a foreign key or the replication leans on it", _freed(index))


def _freed(index: Index, *then: str) -> str:
    return ";\n".join((*index.freeing, *then))


# --- What is to be known ----------------------------------------------------------------------------------------------


def _notes(found: Survey, columns: Mapping[str, str], filled: frozenset[str]) -> Iterator[str]:
    replaced = [_keys(index) for index in found.indexes if _rejects(index, found, filled)]
    if replaced:
        told = " or ".join(f"ON CONFLICT ({keys})" for keys in replaced)
        yield f"an older script that inserts with {told} is refused from then on; plain inserts and ON CONFLICT DO NOTHING go on working"
    short = [column for name, column in found.columns.items() if name in {*_MADE, *columns} - {*_SHORTEST} and column.length is not None]
    if short:
        held = ", ".join(f"{column.name} {column.length}" for column in short)
        yield f"columns that hold so many characters: {held}; a longer value is null there, a longer name is cut; fubd keeps them whole"
    other = [column for name, column in found.columns.items() if name in columns and not column.is_text]
    if other:
        yield "values that do not fit the type are null: " + ", ".join(f"{column.name} {column.written}" for column in other)
    if "id" in found.columns and found.columns["id"].udt == "int4" and found.facts.numbers_left is not None:
        yield f"id is integer: {found.facts.numbers_left:,} numbers are left, and fubd also draws one for each report of a person"
    empty = [name for name, column in found.columns.items() if name not in {*_NEEDED, *_MADE, *columns} and column.otherwise is None]
    if empty:
        yield f"left empty in new rows, unless FUBD_COLUMNS names a field of Follow Up Boss for them: {', '.join(empty)}"
    if found.facts.triggers:
        yield f"triggers that also fire for fubd's rows: {', '.join(found.facts.triggers)}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
