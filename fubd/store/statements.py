"""The SQL files, one statement a file, by name.

Parameters are written `:name`. Postgres numbers them, so a file is translated once: `:name` becomes `$n`, in the order of first use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, cast

import asyncpg

from fubd.store.quoting import quote_literal

# A parameter, or what may contain something that only looks like one: a string, a quoted name, a comment, a cast.
_PARAMETER = re.compile(r"""'[^']*'|"[^"]*"|--[^\n]*|::|:(?P<name>[a-z_][a-z0-9_]*)""")
# No JSON text contains it.
_COPY_QUOTE = "\x01"
_VALUE = re.compile(r"\{(?P<new>new )?(?P<column>[a-z_][a-z0-9_]*): (?P<value>[^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Query:
    """One statement as Postgres takes it. `parameters` are the names of $1, $2, ... in that order."""

    name: str
    text: str
    parameters: tuple[str, ...]

    def fill(self, **parts: str) -> Query:
        """Return the statement with generated SQL in the place of each {part}."""
        return replace(self, text=_filled(self.text, parts))

    def arguments(self, values: Mapping[str, object]) -> list[object]:
        """Return the values in the order of the parameters. Raises TypeError unless each parameter has one and nothing is left over."""
        if values.keys() != set(self.parameters):
            raise TypeError(f"{self.name} takes {sorted(self.parameters)}, not {sorted(values)}")
        return [values[parameter] for parameter in self.parameters]

    async def fetch(self, connection: asyncpg.Connection, **values: object) -> list[asyncpg.Record]:
        """Run it and return all rows."""
        rows: list[asyncpg.Record] = await connection.fetch(self.text, *self.arguments(values))
        return rows

    async def fetchrow(self, connection: asyncpg.Connection, **values: object) -> asyncpg.Record:
        """Run it and return the first row, None when there is none."""
        return await connection.fetchrow(self.text, *self.arguments(values))

    async def execute(self, connection: asyncpg.Connection, **values: object) -> None:
        """Run it for its effect."""
        await connection.execute(self.text, *self.arguments(values))


@cache
def query(name: str) -> Query:
    """Return the statement of `fubd/sql/NAME.sql`."""
    return parse(name, text(name))


@cache
def nested(name: str, **parts: str) -> Query:
    """Return the statement of `fubd/sql/NAME.sql` with those of other files in the place of each {part}."""
    return parse(name, _filled(text(name), {part: text(file) for part, file in parts.items()}))


def parse(name: str, written: str) -> Query:
    """Return a statement with its named parameters numbered."""
    parameters: list[str] = []

    def numbered(found: re.Match[str]) -> str:
        parameter = found["name"]
        if parameter is None:
            return found[0]
        if parameter not in parameters:
            parameters.append(parameter)
        return f"${parameters.index(parameter) + 1}"

    numbered_text = _PARAMETER.sub(numbered, written)
    return Query(name, numbered_text, tuple(parameters))


@dataclass(frozen=True, slots=True)
class CombinedQuery:
    """Several statements that only read, as one. `parts`: the text of each, with its parameters by name."""

    parts: Mapping[str, str]

    def fill(self, **generated: str) -> CombinedQuery:
        """Return the statements with generated SQL in the place of each {name}."""
        return CombinedQuery({part: _filled(written, generated) for part, written in self.parts.items()})

    async def fetch(self, connection: asyncpg.Connection, **values: object) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of each statement by its name; instants are texts. A value named PART_PARAMETER is for that part alone.

        It takes one round trip, in a transaction or alone: `COPY` is one message and needs no preparation, but takes no parameters, so that
        the values stand in it as literals.
        """
        part = text("reads/part_as_json")
        parts = [_filled(part, {"name": name, "query": _with_literals(name, written, values)}) for name, written in self.parts.items()]
        statement = _filled(text("reads/parts"), {"parts": "UNION ALL\n".join(parts)})
        return cast("dict[str, list[dict[str, Any]]]", await _copy_json(connection, statement))


def combine(**names: str) -> CombinedQuery:
    """Return one statement that runs several, by the names given here."""
    return CombinedQuery({part: text(name) for part, name in names.items()})


async def fetch_directly(connection: asyncpg.Connection, name: str, **values: object) -> list[dict[str, Any]]:
    """Run the statement of `fubd/sql/NAME.sql`, which may write, and return its rows; instants are texts.

    It takes one round trip as a combined query does, where a statement that is prepared takes two the first time: for what is run rarely.
    """
    statement = _filled(text("state/rows_as_json"), {"query": _with_literals(name, text(name), values)})
    return cast("list[dict[str, Any]]", await _copy_json(connection, statement))


async def _copy_json(connection: asyncpg.Connection, statement: str) -> object:
    received: list[bytes] = []

    async def receive(chunk: bytes) -> None:
        received.append(chunk)

    await connection.copy_from_query(statement, output=receive, format="csv", quote=_COPY_QUOTE)
    document: object = json.loads(b"".join(received).strip(_COPY_QUOTE.encode() + b"\n"))
    return document


def _with_literals(part: str, written: str, values: Mapping[str, object]) -> str:
    def literal(found: re.Match[str]) -> str:
        parameter = found["name"]
        if parameter is None:
            return found[0]
        own = f"{part}_{parameter}"
        return _literal(values[own] if own in values else values[parameter])

    return _PARAMETER.sub(literal, written)


def _filled(written: str, parts: Mapping[str, str]) -> str:
    for name, part in parts.items():
        written = written.replace(f"{{{name}}}", part)
    return written


def parse_instant(text: str | None) -> datetime | None:
    """Return an instant among the rows of a combined query; None stays None."""
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)


def _literal(value: object) -> str:
    return "NULL" if value is None else quote_literal(value.isoformat() if isinstance(value, datetime) else str(value))


@cache
def text(name: str) -> str:
    """Return the text of `fubd/sql/NAME.sql`."""
    return (resources.files("fubd") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


@cache
def names() -> tuple[str, ...]:
    """Return the name of every statement, FOLDER/NAME, without the migrations."""
    folders = (folder for folder in (resources.files("fubd") / "sql").iterdir() if folder.is_dir() and folder.name != "migrations")
    files = (f"{folder.name}/{file.name}" for folder in folders for file in folder.iterdir())
    return tuple(sorted(name.removesuffix(".sql") for name in files if name.endswith(".sql")))


def migrations() -> list[tuple[int, str, str]]:
    """Return number, name and text of each migration, in order."""
    folder = resources.files("fubd") / "sql" / "migrations"
    found = []
    for file in folder.iterdir():
        if file.name.endswith(".sql"):
            number, _, name = file.name.removesuffix(".sql").partition("_")
            found.append((int(number), name, file.read_text(encoding="utf-8")))
    return sorted(found)


def with_columns(statement: str, columns: Mapping[str, str], coerce: Callable[[str, str, bool], str]) -> str:
    """Return a statement with the columns of FUBD_COLUMNS (column to FUB field, both checked to be plain when the settings are read).

    `coerce` is called for each `{column: value}` of the statement with whether it is for a new row; it returns the SQL to write there.
    """
    values = {name: f"fields->>{quote_literal(columns[name])}" for name in sorted(columns)}
    filled = (
        statement.replace(
            "{fill_columns}", "".join(f', "{name}" = coalesce({{{name}: r.{value}}}, c."{name}")' for name, value in values.items())
        )
        .replace("{insert_columns}", "".join(f', "{name}"' for name in values))
        .replace("{insert_values}", "".join(f", {{new {name}: p.{value}}}" for name, value in values.items()))
    )
    return _VALUE.sub(lambda found: coerce(found["column"], found["value"], found["new"] is not None), filled)
