"""The proof that no row was lost or changed: a count, and a hash over every row's columns that does not depend on their order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a table's rows come to. Two tables with the same rows, in whatever order, have the same."""

    rows: int
    digest: str


async def fingerprint(
    connection: asyncpg.Connection, relation: str, columns: Sequence[str], *, where: str = "true", timeout_seconds: float
) -> Fingerprint:
    """Take it of these columns of a relation. Both are written as they stand; time zone and date style are the transaction's.

    Each row's sha256 is split into halves that are summed: a sum, unlike XOR, also tells a row that stands twice from one that does not.
    """
    row = await connection.fetchrow(
        "SELECT count(*) AS rows, coalesce(sum(('x' || left(r.hash, 16))::bit(64)::bigint::numeric), 0)::text AS first,"
        " coalesce(sum(('x' || substr(r.hash, 17, 16))::bit(64)::bigint::numeric), 0)::text AS second"
        f" FROM (SELECT encode(sha256(convert_to(ROW({', '.join(_quoted(name) for name in columns)})::text, 'UTF8')), 'hex') AS hash"
        f" FROM {relation} WHERE {where}) r",
        timeout=timeout_seconds,
    )
    told = f"{','.join(columns)}|{row['rows']}|{row['first']}|{row['second']}"
    return Fingerprint(row["rows"], hashlib.sha256(told.encode()).hexdigest())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
