"""Deliveries that were genuine and could not be used: what `replay` takes up again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fubd.core.observation import Delivery, RefetchEvent, StageEvent
from fubd.store import statements
from fubd.store.pool import Pool


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A delivery as it came, with why it could not be used. `received_at` is our clock's."""

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
            return int(await connection.fetchval("SELECT count(*) FROM fubd.delivery WHERE quarantine IS NOT NULL"))

    async def after(self, delivery_id: int, limit: int) -> list[Quarantined]:
        """Give quarantined deliveries with a higher id, in order."""
        async with self._pool.reading() as connection:
            rows = await connection.fetch(statements.text("reads/quarantined"), delivery_id, limit)
            return [Quarantined(**dict(row)) for row in rows]

    async def release(self, delivery: Delivery, *, asked_at: datetime) -> bool:
        """Let a delivery out that is understood and recorded, and have its people read; False when something of it is not recorded.

        `asked_at` (our clock): rows received from then on are filled by that read.
        """
        told = delivery.content
        people = sorted(told.person_ids) if isinstance(told, StageEvent | RefetchEvent) else []
        async with self._pool.transaction() as connection:
            released = await connection.fetchval(
                statements.text("state/release_quarantined"),
                delivery.key,
                delivery.event_id,
                delivery.event,
                people,
                None if told is None else told.at,
                told.stage if isinstance(told, StageEvent) else None,
                asked_at,
            )
        return bool(released)
