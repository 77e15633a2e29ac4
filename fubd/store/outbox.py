"""The outbox of alerts: one instance at a time claims an alert, sends it, and removes it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import asyncpg

from fubd.core.alerts import Alert, AlertEvent
from fubd.store import statements
from fubd.store.pool import Pool


class Outbox:
    """Works through the pool. Every method raises Unavailable."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim(self, limit: int, *, for_seconds: float) -> list[Alert]:
        """Return alerts to send now, none before an older one of the same person; no other instance gets them within that time."""
        async with self._pool.statement() as connection:
            rows = await statements.query("alerts/claim").fetch(connection, limit=limit, for_seconds=for_seconds)
        grouped: defaultdict[tuple[int | None, int], list[asyncpg.Record]] = defaultdict(list)
        for row in rows:
            grouped[row["digest"], 0 if row["digest"] else row["id"]].append(row)
        return [Alert([_event(row) for row in events], max(row["attempts"] for row in events)) for events in grouped.values()]

    async def settle(self, sent: Sequence[int], postponed: Mapping[int, float]) -> None:
        """Remove the events that were sent, and postpone the others by so many seconds each."""
        async with self._pool.transaction() as connection:
            await statements.query("alerts/settle").execute(
                connection, sent=list(sent), postponed=list(postponed), delays=list(postponed.values())
            )

    async def add_summary(self, day: date, content: Mapping[str, Any]) -> None:
        """Add the summary of a day, unless the day has one."""
        async with self._pool.transaction() as connection:
            await statements.query("alerts/add_summary").execute(connection, day=day, content=json.dumps(content))

    async def give_up(self, *, older_than_days: float) -> int:
        """Remove the alerts that could not be sent for so long, and return their number."""
        async with self._pool.transaction() as connection:
            row = await statements.query("alerts/give_up").fetchrow(connection, older_than_days=older_than_days)
            return int(row["alerts"])


def _event(row: asyncpg.Record) -> AlertEvent:
    return AlertEvent(row["id"], json.loads(row["content"]), row["first_name"], row["last_name"], row["assigned_user_name"])
