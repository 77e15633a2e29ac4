"""Genuine deliveries that could not be used, for `replay`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fubd.core.observation import Delivery, RefetchEvent, StageEvent
from fubd.store import statements
from fubd.store.pool import Pool


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A delivery as received; `quarantine` is why it could not be used. `received_at` is our clock's."""

    id: int
    key: bytes
    body: bytes
    received_at: datetime
    quarantine: str


class Quarantine:
    """Works through the pool. Every method raises Unavailable."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def count(self) -> int:
        """Count the quarantined deliveries."""
        async with self._pool.reading() as connection:
            row = await statements.query("reads/count_quarantined").fetchrow(connection)
            return int(row["deliveries"])

    async def after(self, delivery_id: int, limit: int) -> list[Quarantined]:
        """Return quarantined deliveries with a higher id, in order."""
        async with self._pool.reading() as connection:
            rows = await statements.query("reads/quarantined").fetch(connection, after=delivery_id, limit=limit)
            return [Quarantined(**dict(row)) for row in rows]

    async def release(self, delivery: Delivery, *, asked_at: datetime) -> bool:
        """Release a decoded and recorded delivery and request its people to be refetched; False when a claim of it is not recorded.

        Rows received from `asked_at` (our clock) on are filled by that refetch.
        """
        content = delivery.content
        async with self._pool.transaction() as connection:
            row = await statements.query("state/release_quarantined").fetchrow(
                connection,
                key=delivery.key,
                event_id=delivery.event_id,
                event=delivery.event,
                person_ids=sorted(content.person_ids) if isinstance(content, StageEvent | RefetchEvent) else [],
                at=None if content is None else content.at,
                stage=content.stage if isinstance(content, StageEvent) else None,
                asked_at=asked_at,
            )
        return bool(row["released"])
