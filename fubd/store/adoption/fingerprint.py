"""The proof that no row was lost or changed: a count, and a hash over every row's columns that does not depend on the order of rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from fubd.store import statements
from fubd.store.quoting import quote_identifier


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The number of rows and their hash. Two tables with the same rows, in any order, have the same fingerprint."""

    rows: int
    digest: str


async def fingerprint(connection: asyncpg.Connection, relation: str, columns: Sequence[str], *, timeout_seconds: float) -> Fingerprint:
    """Return the fingerprint of these columns of a relation, which is inserted as it is; time zone and date style are the transaction's."""
    query = statements.query("adopt/fingerprint").fill(columns=", ".join(map(quote_identifier, columns)), relation=relation)
    row = await connection.fetchrow(query.text, timeout=timeout_seconds)
    text = f"{','.join(columns)}|{row['rows']}|{row['first']}|{row['second']}"
    return Fingerprint(row["rows"], hashlib.sha256(text.encode()).hexdigest())
