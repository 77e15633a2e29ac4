"""The SQL files, one statement a file, by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources


@cache
def text(name: str) -> str:
    """Give the text of `fubd/sql/NAME.sql`."""
    return (resources.files("fubd") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


@cache
def names() -> tuple[str, ...]:
    """Name every statement."""
    folder = resources.files("fubd") / "sql"
    return tuple(sorted(file.name.removesuffix(".sql") for file in folder.iterdir() if file.name.endswith(".sql")))


def migrations() -> list[tuple[int, str, str]]:
    """Give number, name and text of each migration, in order."""
    folder = resources.files("fubd") / "sql" / "migrations"
    found = []
    for file in folder.iterdir():
        if file.name.endswith(".sql"):
            number, _, name = file.name.removesuffix(".sql").partition("_")
            found.append((int(number), name, file.read_text(encoding="utf-8")))
    return sorted(found)


def with_columns(statement: str, columns: Mapping[str, str]) -> str:
    """Put the columns of FUBD_COLUMNS (column to FUB field; both checked to be plain when read) into a statement."""
    names = sorted(columns)
    return (
        statement.replace("{fill_columns}", "".join(f', "{name}" = coalesce({_field("r", columns[name])}, c."{name}")' for name in names))
        .replace("{insert_columns}", "".join(f', "{name}"' for name in names))
        .replace("{insert_values}", "".join(f", {_field('p', columns[name])}" for name in names))
    )


def _field(alias: str, field: str) -> str:
    quoted = field.replace("'", "''")
    return f"{alias}.fields->>'{quoted}'"
