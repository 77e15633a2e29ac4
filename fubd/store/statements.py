"""The SQL files, one statement a file, by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources

_VALUE = re.compile(r"\{(?P<new>new )?(?P<column>[a-z_][a-z0-9_]*): (?P<value>[^{}]+)\}")


@cache
def text(name: str) -> str:
    """Give the text of `fubd/sql/NAME.sql`."""
    return (resources.files("fubd") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


@cache
def names() -> tuple[str, ...]:
    """List every statement as FOLDER/NAME; migrations are not among them."""
    folders = (folder for folder in (resources.files("fubd") / "sql").iterdir() if folder.is_dir() and folder.name != "migrations")
    files = (f"{folder.name}/{file.name}" for folder in folders for file in folder.iterdir())
    return tuple(sorted(name.removesuffix(".sql") for name in files if name.endswith(".sql")))


def migrations() -> list[tuple[int, str, str]]:
    """Give number, name and text of each migration, in order."""
    folder = resources.files("fubd") / "sql" / "migrations"
    found = []
    for file in folder.iterdir():
        if file.name.endswith(".sql"):
            number, _, name = file.name.removesuffix(".sql").partition("_")
            found.append((int(number), name, file.read_text(encoding="utf-8")))
    return sorted(found)


def with_columns(statement: str, columns: Mapping[str, str], fitted: Callable[[str, str, bool], str] | None = None) -> str:
    """Put the columns of FUBD_COLUMNS (column to FUB field; both checked to be plain when read) into a statement.

    `fitted` writes a {column: value} as the column takes it, told whether it is for a new row; without it the value is taken as it is.
    """
    names = sorted(columns)
    filled = (
        statement.replace("{fill_columns}", "".join(f', "{name}" = coalesce({_value(name, "r", columns)}, c."{name}")' for name in names))
        .replace("{insert_columns}", "".join(f', "{name}"' for name in names))
        .replace("{insert_values}", "".join(f", {_value(f'new {name}', 'p', columns)}" for name in names))
    )
    fit = fitted or _as_it_is
    return _VALUE.sub(lambda found: fit(found["column"], found["value"], found["new"] is not None), filled)


def _value(marked: str, alias: str, columns: Mapping[str, str]) -> str:
    quoted = columns[marked.removeprefix("new ")].replace("'", "''")
    return f"{{{marked}: {alias}.fields->>'{quoted}'}}"


def _as_it_is(_column: str, value: str, _new: bool) -> str:
    return value
