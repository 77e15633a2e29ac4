"""What the database knows of people: their facts, the stage they are in, and the history with its evidence."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg

from fubd.core.explanation import Correction, KnownPerson, PersonEvidence
from fubd.core.reconcile import Claim, PersonHistory, Row
from fubd.core.timeline import Stage
from fubd.store import statements
from fubd.store.pool import Pool
from fubd.store.recording import ChangeStore
from fubd.store.state import StateStore

_MAX_ROWS = 10_000
# No row and no claim can be dated earlier than this (`fubd.core.webhook`, `recording/load_history.sql`).
_BEFORE_ALL = datetime(1900, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class CurrentStage:
    """The stage a person is in here. `gone`: they are marked as deleted in FUB."""

    stage: Stage
    gone: bool


class PeopleReader:
    """Reads through the pool. Every method raises Unavailable."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def current_stages(self, person_ids: Collection[int]) -> dict[int, CurrentStage]:
        """Return the stage each of these people is in; people without a known stage are left out."""
        rows = await self._fetch("reads/current_stages", person_ids=sorted(person_ids))
        return {row["id"]: CurrentStage(Stage(row["stage"], row["stage_id"]), row["gone"]) for row in rows}

    async def list_ids(self, after: int, limit: int) -> list[int]:
        """Return ids of known people above `after`, ascending; people marked as gone are left out."""
        return [row["id"] for row in await self._fetch("reads/known_people", after=after, limit=limit)]

    async def find_by_name(self, text: str, limit: int) -> list[KnownPerson]:
        """Return people whose first and last name contain the text in any case, the last changed first."""
        rows = await self._fetch("reads/people_by_name", text=text.strip(), limit=limit)
        return [KnownPerson(**dict(row)) for row in rows]

    async def evidence(self, person_id: int) -> PersonEvidence | None:
        """Return everything stored about a person, also of one known only from an older script's table; None for an unknown id."""
        person = await self.person(person_id)
        history = await self.history(person_id)
        if person is None or history is None:
            foreign = await self.foreign_history(person_id)
            return None if foreign is None else PersonEvidence(*foreign)
        return PersonEvidence(
            person,
            history,
            ignored=await self.ignored_claims(person_id),
            corrections=await self.corrections(person_id),
            began=(await StateStore(self._pool).coverage()).began,
        )

    async def person(self, person_id: int) -> KnownPerson | None:
        """Return a person as last read; None for an unknown id."""
        rows = await self._fetch("reads/person", person_id=person_id)
        return KnownPerson(**dict(rows[0])) if rows else None

    async def ignored_claims(self, person_id: int) -> list[Claim]:
        """Return a person's claims that make no row because of FUBD_IGNORE_STAGES."""
        rows = await self._fetch("reads/person_ignored_claims", person_id=person_id, limit=_MAX_ROWS)
        return [Claim(**{**dict(row), "person_id": person_id, "stage": Stage(row["stage"]), "ignored": True}) for row in rows]

    async def corrections(self, person_id: int) -> list[Correction]:
        """Return what was corrected in a person's rows, oldest first."""
        rows = await self._fetch("reads/person_corrections", person_id=person_id, limit=_MAX_ROWS)
        return [
            Correction(row["change_id"], row["corrected_at"], json.loads(row["was"]), row["became"] and json.loads(row["became"]))
            for row in rows
        ]

    async def history(self, person_id: int) -> PersonHistory | None:
        """Return all rows and claims of a person, loaded as the recording transaction loads them; None for an unknown id."""
        async with ChangeStore(self._pool, instance="", columns={}).recording() as recording:
            found = await recording.load_history({person_id: _BEFORE_ALL})
        return found[0] if found else None

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
