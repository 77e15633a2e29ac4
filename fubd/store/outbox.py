"""Alerts on their way out, as the database keeps them: claimed by one instance at a time, removed once they were taken."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fubd.store import statements
from fubd.store.pool import Pool


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. `told`: what happened, as JSON values; `attempts`: how often it was tried, this time included.

    The names are the person's as last read, None for the mode and for whom nobody has read yet.
    """

    id: int
    told: Mapping[str, Any]
    attempts: int
    first_name: str | None
    last_name: str | None


class Outbox:
    """Works through the pool. Every method raises Unavailable."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim(self, limit: int, *, for_seconds: float) -> list[Alert]:
        """Take alerts to be sent now, the oldest of each person; nobody else takes them within that time."""
        async with self._pool.transaction() as connection:
            rows = await connection.fetch(statements.text("alerts/claim"), limit, for_seconds)
            return [Alert(row["id"], json.loads(row["told"]), row["attempts"], row["first_name"], row["last_name"]) for row in rows]

    async def settle(self, sent: Sequence[int], later: Mapping[int, float]) -> None:
        """Remove what was taken, and put off the others by so many seconds."""
        async with self._pool.transaction() as connection:
            await connection.execute(statements.text("alerts/settle"), list(sent), list(later), list(later.values()))

    async def give_up(self, *, older_than_days: float) -> int:
        """Remove what nobody has taken for so long; gives how many those were."""
        async with self._pool.transaction() as connection:
            gone = await connection.fetch(
                "DELETE FROM fubd.alert WHERE made_at < now() - make_interval(secs => $1 * 86400) RETURNING id", older_than_days
            )
            return len(gone)
