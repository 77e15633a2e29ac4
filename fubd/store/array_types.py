"""Tells the driver about arrays of the server's own types.

The driver asks the server for each type that it does not know, arrays among them, once in each connection and in four round trips. Those of
the server's own types have the same numbers everywhere (https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import asyncpg

# The array type's number, its name, and the number of the type of its elements.
_ARRAYS = {
    number: {
        "oid": number,
        "ns": "pg_catalog",
        "name": name,
        "kind": b"b",
        "basetype": None,
        "elemtype": element,
        "elemdelim": ",",
        "range_subtype": None,
        "attrtypoids": None,
    }
    for number, name, element in (
        (1000, "_bool", 16),
        (1001, "_bytea", 17),
        (1005, "_int2", 21),
        (1007, "_int4", 23),
        (1016, "_int8", 20),
        (1022, "_float8", 701),
        (1185, "_timestamptz", 1184),
        (3807, "_jsonb", 3802),
    )
}


@dataclass(frozen=True, slots=True)
class _NotAsked:
    """Stands for the statement by which the driver would have asked. It has a name, so the driver's unnamed statement was not replaced."""

    name: str = "none"


class PostgresConnection(asyncpg.Connection):
    """A connection of the driver that knows these types.

    The driver has no public way to say so. A later version that no longer calls this method asks the server, which is slower and no less
    right.
    """

    async def _introspect_types(self, typeoids: Collection[int], timeout_seconds: float | None) -> tuple[list[Any], Any]:
        if unknown := [number for number in typeoids if number not in _ARRAYS]:
            types, statement = await super()._introspect_types(unknown, timeout_seconds)
        else:
            types, statement = [], _NotAsked()
        return [*types, *(_ARRAYS[number] for number in typeoids if number in _ARRAYS)], statement
