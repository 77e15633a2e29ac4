"""Removes reads that say nothing any more (`fubd.core.compaction`) from the database, a few people at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fubd.core.compaction import superseded_reads
from fubd.core.reconcile import PersonHistory
from fubd.store import stage_changes, statements
from fubd.store.pool import Pool
from fubd.store.recording import histories
from fubd.store.stage_changes import StageChangesTable

_PEOPLE_SCANNED = 5_000
_CLAIMS_LOADED = 2_000


@dataclass(frozen=True, slots=True)
class Compacted:
    """How many claims were removed. `last_person`: up to which id it came, 0 when everybody had a turn."""

    removed: int
    last_person: int


async def compact(pool: Pool, *, after: int, settled_days: float, window: timedelta) -> Compacted:
    """Compact the next people after the id `after`, in one transaction that locks them. Raises Unavailable.

    `settled_days`: nothing is reported so long afterwards any more. `window`: FUBD_DEDUP_WINDOW.
    """
    async with pool.transaction() as connection:
        found = await statements.query("retention/compactable_people").fetch(
            connection, after=after, scan=_PEOPLE_SCANNED, limit=_CLAIMS_LOADED, settled_days=settled_days
        )
        last_person = found[0]["last_person"] or 0
        before = {row["id"]: row["before"] for row in found if row["id"] is not None}
        if not before:
            return Compacted(0, last_person)
        parts = await statements.combine(columns="adopt/columns", coverage="state/coverage").fetch(connection)
        table = StageChangesTable(stage_changes.columns_of(parts["columns"]), "")
        records = await statements.query("retention/load_histories").fetch(connection, people=list(before), stage_length=table.stage_length)
        began = statements.parse_instant(parts["coverage"][0]["began"])
        superseded = await asyncio.to_thread(_superseded, histories(records), before, window, began)
        if superseded:
            await statements.query("retention/remove_claims").execute(
                connection, people=[person for person, _ in superseded], seqs=[seq for _, seq in superseded]
            )
        return Compacted(len(superseded), last_person)


def _superseded(
    people: Sequence[PersonHistory], before: Mapping[int, datetime], window: timedelta, began: datetime | None
) -> list[tuple[int, int]]:
    """Return the person and seq of each claim to remove."""
    return [
        (person.person_id, seq)
        for person in people
        for seq in superseded_reads(person, before=before[person.person_id], window=window, began=began)
    ]
