"""What the commands ask of the database beside the panel's report: reading only."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fubd.core.reconcile import PersonHistory, Row
from fubd.core.timeline import Stage
from fubd.errors import Unavailable
from fubd.store import statements
from fubd.store.migrations import unready
from fubd.store.pool import Pool
from fubd.store.recording import ChangeStore

_MOST = 10_000
_MOST_LIMIT = 2**63 - 1
# Earlier than this no row and no claim can be dated (`fubd.core.webhook`, `recording/load_history.sql`).
_BEFORE_ALL = datetime(1900, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class State:
    """`now`: the database's clock. `polled_until`: when the term of the last instance that polled ended or will end."""

    now: datetime
    webhook_stale_after: float
    polling_stale_after: float
    polled_until: datetime | None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a person stands here. `gone`: they are marked as deleted in FUB."""

    stage: Stage
    gone: bool


@dataclass(frozen=True, slots=True)
class Known:
    """A person as last read; `asked_for`: a webhook asked for a read that is still to come."""

    id: int
    first_name: str | None
    last_name: str | None
    stage: str | None
    created: datetime | None
    updated: datetime | None
    verified_at: datetime | None
    gone_at: datetime | None
    asked_for: bool


@dataclass(frozen=True, slots=True)
class Ignored:
    """A claim that is kept and makes nothing, because its stage is one of FUBD_IGNORE_STAGES."""

    seq: int
    kind: str
    channel: str
    at: datetime
    stage: str
    event_id: str
    received_at: datetime
    read_at: datetime | None


@dataclass(frozen=True, slots=True)
class Correction:
    """What later evidence changed in a row. `became` None: it turned out to be part of another row."""

    change_id: int
    corrected_at: datetime
    was: dict[str, Any]
    became: dict[str, Any] | None


class NothingYet(Unavailable):
    """Nobody has made anything in this database."""


class Inquiry:
    """Reads through the pool. Every method raises Unavailable."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def must_be_ready(self) -> None:
        """Raise Unavailable, saying what to do, unless the schema is this version's; NothingYet where there is none of anybody's."""
        async with self._pool.reading() as connection:
            reason = await unready(connection)
            if reason is None:
                return
            made = "to_regclass('fubd.migration') IS NOT NULL OR to_regclass('public.stage_changes') IS NOT NULL"
            raise Unavailable(reason) if await connection.fetchval(f"SELECT {made}") else NothingYet(reason)

    async def state(self) -> State:
        """Give what `status` judges by."""
        (row,) = await self._rows("reads/status_settings")
        return State(**dict(row))

    async def blind_seconds(self, since: datetime, until: datetime) -> float | None:
        """Count the seconds between these instants (our clock) in which nobody watched; None when there was no complete poll before."""
        rows = await self._rows("reads/blind_time", since, until)
        return float(rows[0]["seconds"] or 0.0) if rows else None

    async def standing(self, person_ids: Collection[int]) -> dict[int, Standing]:
        """Give where these people stand, those of whom nothing is known left out."""
        rows = await self._rows("reads/current_stages", sorted(person_ids))
        return {row["id"]: Standing(Stage(row["stage"], row["stage_id"]), row["gone"]) for row in rows}

    async def people(self, after: int, limit: int) -> list[int]:
        """Give known people by id, those who are gone left out."""
        return [row["id"] for row in await self._rows("reads/known_people", after, limit)]

    async def sample(self, number: int) -> list[int]:
        """Give so many known people, chosen at random."""
        return [row["id"] for row in await self._rows("reads/sample_people", min(number, _MOST_LIMIT))]

    async def somebody_polls(self) -> bool:
        """Tell whether an instance holds the lease."""
        async with self._pool.reading() as connection:
            return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM fubd.lease WHERE expires_at > now())"))

    async def person(self, person_id: int) -> Known | None:
        """Give a person as last read; None when nothing was ever told of them."""
        rows = await self._rows("reads/person", person_id)
        return Known(**dict(rows[0])) if rows else None

    async def ignored(self, person_id: int) -> list[Ignored]:
        """Give the claims of a person that make nothing because of their stage."""
        return [Ignored(**dict(row)) for row in await self._rows("reads/person_ignored_claims", person_id, _MOST)]

    async def corrections(self, person_id: int) -> list[Correction]:
        """Give what was corrected in a person's rows, oldest first."""
        rows = await self._rows("reads/person_corrections", person_id, _MOST)
        return [
            Correction(row["change_id"], row["corrected_at"], json.loads(row["was"]), row["became"] and json.loads(row["became"]))
            for row in rows
        ]

    async def everything(self, person_id: int) -> PersonHistory | None:
        """Give all rows and claims of a person, loaded as the recorder loads them."""
        async with ChangeStore(self._pool, instance="", columns={}).recording() as recording:
            found = await recording.load_history({person_id: _BEFORE_ALL})
        return found[0] if found else None

    async def older(self, person_id: int) -> tuple[Known, PersonHistory] | None:
        """Give the rows of a person whom only an older script knew; None when there are none."""
        found = await self._rows("reads/person_foreign_rows", person_id, _MOST)
        if not found:
            return None
        rows = tuple(
            Row(
                row["id"], row["stage_from"], Stage(row["stage"], None), row["changed_at"], row["changed_after"], row["source"],
                row["received_at"], row["confirmed_by"], row["confirmed_at"], row["event_id"], foreign=True,
            )
            for row in found
        )  # fmt: skip
        person = Known(person_id, found[-1]["first_name"], found[-1]["last_name"], None, None, None, None, None, asked_for=False)
        return person, PersonHistory(person_id, None, rows, ())

    async def _rows(self, name: str, *values: object) -> list[Any]:
        async with self._pool.reading() as connection:
            rows: list[Any] = await connection.fetch(statements.text(name), *values)
            return rows
