"""The problems that hold, as the database keeps them over the end of a process."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from fubd.core.problems import Problem, ProblemName
from fubd.store import statements
from fubd.store.pool import Pool

_NAMES = frozenset(ProblemName)


class ProblemStore:
    """Works through the pool. `instance` names this process. Every method raises Unavailable."""

    def __init__(self, pool: Pool, *, instance: str) -> None:
        self._pool = pool
        self._instance = instance

    async def load(self) -> list[Problem]:
        """Return the problems that other processes reported last, the longest first."""
        async with self._pool.reading() as connection:
            rows = await statements.query("state/problems").fetch(connection, instance=self._instance)
        # A later version may have reported a problem that this one does not know.
        return [
            Problem(ProblemName(row["problem"]), row["since"], row["text"], announced=row["announced"])
            for row in rows
            if row["problem"] in _NAMES
        ]

    async def unfinished_run(self) -> datetime | None:
        """Return until when the process before this one ran, by its clock; None when it stopped in good order, or when there was none."""
        async with self._pool.reading() as connection:
            row = await statements.query("state/last_run").fetchrow(connection)
        return None if row is None or row["is_stopped"] or row["instance"] == self._instance else row["alive_at"]

    async def save(self, problems: Collection[Problem], *, ended: Collection[str], alerts: Sequence[Mapping[str, object]]) -> None:
        """Report the problems that hold and those that ended, and put alerts into the outbox, in this order."""
        async with self._pool.statement() as connection:
            await statements.query("state/save_problems").execute(
                connection,
                instance=self._instance,
                ended=list(ended),
                problem=[problem.name for problem in problems],
                since=[problem.since for problem in problems],
                text=[problem.text for problem in problems],
                announced=[problem.announced for problem in problems],
                alerts=[json.dumps(alert) for alert in alerts],
            )
