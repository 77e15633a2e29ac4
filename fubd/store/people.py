"""What the database knows of people: their facts, the stage they are in, and the history with its evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg

from fubd.core.explanation import Correction, KnownPerson, PersonEvidence
from fubd.core.history import Stage
from fubd.core.reconcile import Claim, PersonHistory, Row
from fubd.store import stage_changes, statements
from fubd.store.pool import Pool
from fubd.store.recording import load_history
from fubd.store.stage_changes import StageChangesTable
from fubd.store.statements import parse_instant

_MAX_ROWS = 10_000
# No row and no claim can be dated earlier than this (`fubd.core.webhook`, `fubd.load_history`).
_BEFORE_ALL = datetime(1900, 1, 1, tzinfo=UTC)


class PeopleReader:
    """Reads through the pool. Every method raises Unavailable."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def list_ids(self, after: int, limit: int) -> list[int]:
        """Return ids of known people above `after`, ascending; people marked as gone are left out."""
        return [row["id"] for row in await self._fetch("reads/known_people", after=after, limit=limit)]

    async def find_by_name(self, text: str, limit: int) -> list[KnownPerson]:
        """Return people whose first and last name contain the text in any case, the last changed first."""
        rows = await self._fetch("reads/people_by_name", text=text.strip(), limit=limit)
        return [KnownPerson(**dict(row)) for row in rows]

    async def evidence(self, person_id: int) -> PersonEvidence | None:
        """Return everything stored about a person, also of one known only from an older script's table; None for an unknown id.

        Rows and claims are loaded as the recording transaction loads them. It takes five round trips.
        """
        query = statements.combine(
            person="reads/person",
            ignored="reads/person_ignored_claims",
            corrections="reads/person_corrections",
            coverage="state/coverage",
            columns="adopt/columns",
        )
        async with self._pool.reading() as connection:
            parts = await query.fetch(connection, person_id=person_id, limit=_MAX_ROWS)
            table = StageChangesTable(stage_changes.columns_of(parts["columns"]), "")
            history = await load_history(connection, person_id, _BEFORE_ALL, stage_length=table.stage_length) if parts["person"] else None
        if history is None:
            foreign = await self.foreign_history(person_id)
            return None if foreign is None else PersonEvidence(*foreign)
        return PersonEvidence(
            KnownPerson(**_with_instants(parts["person"][0], "created", "updated", "verified_at", "gone_at")),
            history,
            ignored=[
                Claim(
                    **{
                        **_with_instants(row, "at", "received_at", "read_at"),
                        "person_id": person_id,
                        "stage": Stage(row["stage"]),
                        "ignored": True,
                    }
                )
                for row in parts["ignored"]
            ],
            corrections=[Correction(**_with_instants(row, "corrected_at")) for row in parts["corrections"]],
            began=_began(parts["coverage"]),
        )

    async def foreign_history(self, person_id: int) -> tuple[KnownPerson, PersonHistory] | None:
        """Return the rows of a person known only from an older script's table; None when there are none."""
        found = await self._fetch("reads/person_foreign_rows", person_id=person_id, limit=_MAX_ROWS)
        if not found:
            return None
        rows = tuple(
            Row(
                id=row["id"],
                person_id=person_id,
                stage_from=row["stage_from"],
                stage=Stage(row["stage"]),
                changed_at=row["changed_at"],
                changed_after=row["changed_after"],
                source=row["source"],
                received_at=row["received_at"],
                confirmed_by=row["confirmed_by"],
                confirmed_at=row["confirmed_at"],
                event_id=row["event_id"],
                foreign=True,
            )
            for row in found
        )
        person = KnownPerson(person_id, found[-1]["first_name"], found[-1]["last_name"], None, None, None, None, None, asked_for=False)
        return person, PersonHistory(person_id, None, rows, ())

    async def _fetch(self, name: str, **values: object) -> list[asyncpg.Record]:
        async with self._pool.reading() as connection:
            return await statements.query(name).fetch(connection, **values)


def _began(coverage: Sequence[Mapping[str, Any]]) -> datetime | None:
    """Return when recording began; None while a restore has emptied the table."""
    return parse_instant(coverage[0]["began"]) if coverage else None


def _with_instants(row: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return the values with instants in the place of these texts."""
    return {**row, **{name: parse_instant(row[name]) for name in names}}
