"""What prevents an adoption, each with the statement by which the table's owner removes it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fubd.store.adoption.survey import RENAMED_VIEWS, STAGES, DependentView, Survey
from fubd.store.quoting import quote_identifier
from fubd.store.stage_changes import COLUMN_TYPES, TABLE, Column
from fubd.store.table_definition import COLUMN_LENGTHS

# Without these it is not a table of stage changes.
REQUIRED_COLUMNS = ("id", "person_id", "stage_to", "changed_at")
# fubd's other columns, with the types of those that are added.
ADDED_COLUMNS = {name: sql_type for name, sql_type in COLUMN_TYPES.items() if name not in REQUIRED_COLUMNS}
_OLDEST_VERSION = 14
_MICROSECONDS = 6
# Enough for years: each report about a person uses one.
_MIN_NUMBERS_LEFT = 100_000_000

_INSTANTS = ("changed_at", "changed_after", "received_at", "confirmed_at")
_STAGES = ("stage_from", "stage_to")
_NUMBERS = frozenset({"smallint", "integer", "bigint", "numeric", "real", "double precision"})
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "p": "a partitioned one"}
_ALWAYS_FILLED = frozenset({"id", "person_id", "stage_to", "changed_at", "received_at", "source"})
# A default may replace what is not known of a person, but not these: null has a meaning there.
_MEANINGFUL_NULLS = frozenset({"stage_from", "changed_after", "confirmed_by", "confirmed_at", "event_id"})


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why the table cannot be adopted as it is, and the statement by which its owner can change that."""

    reason: str
    statement: str


def find_obstacles(found: Survey, filled: frozenset[str]) -> Iterator[Obstacle]:
    """Return the obstacles of a table in which fubd fills these columns."""
    unusable = tuple(_unusable(found))
    yield from unusable
    if not unusable:
        yield from _privileges(found)
        yield from _names(found)
        yield from _ids(found)
        yield from _texts(found)
        yield from _instants(found)
        yield from _constraints(found, filled)
        yield from _nulls(found, filled)


def _unusable(found: Survey) -> Iterator[Obstacle]:
    facts = found.facts
    if facts.version < _OLDEST_VERSION:
        yield Obstacle(f"the server is PostgreSQL {facts.version}; fubd needs {_OLDEST_VERSION} or newer", "upgrade the server")
    if facts.kind != "r" or facts.inherits:
        yield Obstacle(
            f"{TABLE} is not a plain table, but {_KINDS.get(facts.kind, 'one that inherits')}: replace it by a copy of the same name"
            " (views on it stay with the older one)",
            f"BEGIN;\nALTER TABLE {TABLE} RENAME TO stage_changes_older;\n"
            f"CREATE TABLE {TABLE} AS TABLE public.stage_changes_older;\nCOMMIT",
        )
    missing = [name for name in REQUIRED_COLUMNS if name not in found.columns]
    if missing:
        yield Obstacle(
            f"{TABLE} has no {' and no '.join(missing)}: it is not a table of stage changes", f"ALTER TABLE {TABLE} RENAME TO other"
        )


def _privileges(found: Survey) -> Iterator[Obstacle]:
    facts = found.facts
    if not facts.may_alter:
        reason = f"the table belongs to {facts.owner}, and only its owner may change it: use {facts.owner} as the user of DATABASE_URL, or"
        yield Obstacle(f"{reason}, as an administrator", f"GRANT {facts.owner} TO {facts.user}")
    if facts.rows_hidden:
        yield Obstacle("row level security hides rows from the user of DATABASE_URL", f"ALTER TABLE {TABLE} NO FORCE ROW LEVEL SECURITY")
    if not facts.may_create_schema or not facts.may_use_schema:
        yield Obstacle(
            "the user of DATABASE_URL may not create the schema fubd", f"GRANT CREATE ON DATABASE {facts.database} TO {facts.user}"
        )
    if not facts.may_create_views:
        yield Obstacle("the user of DATABASE_URL may not create fubd's views in public", f"GRANT CREATE ON SCHEMA public TO {facts.user}")


def _names(found: Survey) -> Iterator[Obstacle]:
    facts = found.facts
    if facts.foreign_schema:
        yield Obstacle("there is a schema fubd that fubd did not make", "ALTER SCHEMA fubd RENAME TO fubd_before")
    for name in facts.taken_names:
        yield Obstacle(f"public.{name} is no view, and fubd needs the name", f"ALTER TABLE public.{name} RENAME TO {name}_of_others")
    needed = {*(RENAMED_VIEWS[name] for name in facts.older_views), *found.missing_indexes()}
    for name in sorted(needed.intersection(facts.other_taken_names)):
        yield Obstacle(f"there is a public.{name} already, and fubd needs the name", f"ALTER TABLE public.{name} RENAME TO {name}_2")


def _ids(found: Survey) -> Iterator[Obstacle]:
    column, facts = found.columns["id"], found.facts
    if column.domain or column.udt not in {"int4", "int8"}:
        yield Obstacle(f"id is {column.sql_type}, not integer or bigint", _make_id_a_number(found))
        return
    if not any(index.is_unique_on("id") or index.is_primary for index in found.indexes):
        yield Obstacle("two rows could have the same id", f"ALTER TABLE {TABLE} ADD PRIMARY KEY (id)")
    if facts.sequence is None:
        default = "ALTER COLUMN id DROP DEFAULT, " if column.default is not None else ""
        yield Obstacle(
            "id has no sequence, so two writers would take the same numbers",
            f"ALTER TABLE {TABLE} {default}ALTER COLUMN id SET NOT NULL, ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY"
            f" (START WITH {(found.highest_id or 0) + 1})",
        )
    elif not facts.may_use_sequence:
        yield Obstacle(
            f"the user of DATABASE_URL may not use the sequence {facts.sequence}",
            f"GRANT USAGE, SELECT, UPDATE ON SEQUENCE {facts.sequence} TO {facts.user}",
        )
    elif (facts.increment or 0) < 1:
        yield Obstacle(
            f"the sequence {facts.sequence} counts downwards",
            f"ALTER SEQUENCE {facts.sequence} INCREMENT BY 1 NO MINVALUE NO MAXVALUE START WITH 1 RESTART",
        )
    elif (facts.numbers_left or 0) < _MIN_NUMBERS_LEFT:
        yield Obstacle(
            f"id is {column.sql_type}, and only {facts.numbers_left:,} numbers are left",
            f"{_change_type(found, 'id', 'bigint')};\nALTER SEQUENCE {facts.sequence} AS bigint NO MAXVALUE",
        )


def _make_id_a_number(found: Survey) -> str:
    """Return the statements that widen `id` where it is a number, or else add a new column."""
    sequence = found.facts.sequence
    if found.columns["id"].udt in {"int2", "numeric"}:
        return _change_type(found, "id", "bigint") + (f";\nALTER SEQUENCE {sequence} AS bigint NO MAXVALUE" if sequence else "")
    return f"ALTER TABLE {TABLE} RENAME COLUMN id TO older_id;\nALTER TABLE {TABLE} ADD COLUMN id bigint GENERATED BY DEFAULT AS IDENTITY"


def _texts(found: Survey) -> Iterator[Obstacle]:
    unfit = [name for name, length in COLUMN_LENGTHS.items() if name in found.columns and not _holds(found.columns[name], length)]
    for name in unfit:
        if name not in _STAGES:
            yield Obstacle(
                f"{name} is {found.columns[name].sql_type}, which cannot hold everything that fubd writes",
                _change_type(found, name, "text"),
            )
    stages = [name for name in _STAGES if name in unfit]
    if stages:
        types = " and ".join(f"{name} is {found.columns[name].sql_type}" for name in stages)
        alter = f"ALTER TABLE {TABLE} " + ", ".join(f"ALTER COLUMN {name} TYPE varchar(200)" for name in stages)
        yield Obstacle(f"{types}: too short for the name of a stage", _recreate_views(alter, found.views[STAGES]))


def _change_type(found: Survey, name: str, sql_type: str) -> str:
    using = _using(found.columns[name], sql_type)
    return _recreate_views(f"ALTER TABLE {TABLE} ALTER COLUMN {name} TYPE {sql_type}{using}", found.views[name])


def _using(column: Column, sql_type: str) -> str:
    if column.is_instant:
        return ""
    if sql_type == "timestamp" and column.is_text:
        return f" USING ({column.name} || CASE WHEN {column.name} ~ '[Z+]|:[0-9.]+-' THEN '' ELSE 'Z' END)::timestamptz AT TIME ZONE 'UTC'"
    if sql_type == "timestamp" and column.type in _NUMBERS:
        return f" USING to_timestamp({column.name}) AT TIME ZONE 'UTC'"
    return f" USING {column.name}::{sql_type}"


def _holds(column: Column, characters: int) -> bool:
    return column.is_text and column.type != "character" and (column.length is None or column.length >= characters)


def _recreate_views(alter: str, views: Sequence[DependentView]) -> str:
    """Drop and make again the views in the same transaction, because a column that a view uses cannot be altered."""
    if not views:
        return alter
    kind = {view.name: "MATERIALIZED VIEW" if view.kind == "m" else "VIEW" for view in views}
    lines = ["BEGIN", *(f"DROP {kind[view.name]} {view.name}" for view in views), alter]
    for view in reversed(views):
        options = f" WITH ({view.options})" if view.options else ""
        lines.append(f"CREATE {kind[view.name]} {view.name}{options} AS {view.definition.strip().removesuffix(';')}")
        lines.append(f"ALTER {kind[view.name]} {view.name} OWNER TO {quote_identifier(view.owner)}")
        lines += view.grants
    return ";\n".join([*lines, "COMMIT"])


def _instants(found: Survey) -> Iterator[Obstacle]:
    for name in _INSTANTS:
        column = found.columns.get(name)
        if column is not None and not (column.is_instant and column.precision == _MICROSECONDS):
            sql_type = "timestamptz" if column.type == "timestamp with time zone" else "timestamp"
            yield Obstacle(
                f"{name} is {column.sql_type}, which does not store instants to the microsecond", _change_type(found, name, sql_type)
            )


def _nulls(found: Survey, filled: frozenset[str]) -> Iterator[Obstacle]:
    for name, column in found.columns.items():
        alter = f"ALTER TABLE {TABLE} ALTER COLUMN {quote_identifier(name)}"
        if name in filled and column.generated:
            yield Obstacle(f"{name} is a generated column, which fubd cannot write", f"{alter} DROP EXPRESSION")
        if not column.required or name in _ALWAYS_FILLED or column.identity or column.generated:
            continue
        if column.default is None or name in _MEANINGFUL_NULLS:
            reason = "fubd leaves it null while nothing is known" if name in filled else "fubd has no value for it"
            yield Obstacle(f"{name} must not be null, but {reason}", f"{alter} DROP NOT NULL")


def _constraints(found: Survey, filled: frozenset[str]) -> Iterator[Obstacle]:
    for name in found.facts.exclusions:
        drop = f"ALTER TABLE {TABLE} DROP CONSTRAINT {quote_identifier(name)}"
        yield Obstacle(f"the exclusion constraint {name} may refuse genuine rows", drop)
    for index in found.indexes:
        if index.is_primary and ("id" not in index.keys or not _ALWAYS_FILLED.issuperset(index.keys)):
            change = f"ALTER TABLE {TABLE} DROP CONSTRAINT {quote_identifier(index.name)}, ADD PRIMARY KEY (id)"
            yield Obstacle(
                f"the primary key is not id, but {index.shown_keys}, and may refuse genuine rows",
                ";\n".join((*index.release_statements, change)),
            )
        elif index.release_statements and found.may_reject(index, filled):
            yield Obstacle(
                f"the unique index {index.name} rejects genuine rows, and a foreign key or the replication depends on it",
                ";\n".join(index.release_statements),
            )
