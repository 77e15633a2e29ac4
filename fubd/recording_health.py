"""Whether evidence can be recorded now, and why not. Begins and ends the problems `not_recording` and `table_refuses`."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from datetime import datetime

from fubd.core.problems import ProblemName
from fubd.errors import TableRefused, Unavailable
from fubd.metrics import Metrics
from fubd.ports import Clock
from fubd.problems import Problems


@dataclass(frozen=True, slots=True)
class RecordingFailure:
    """Why nothing is recorded, and since when (our clock). `by_table`: the database answers, but the table refuses the rows."""

    reason: str
    since: datetime
    by_table: bool


def not_recording_text(reason: str) -> str:
    """Return the text of the problem `not_recording`."""
    return f"{reason}. Nothing is recorded; deliveries are kept in memory until the database is back and stored then."


class RecordingHealth:
    """Notes what became of each try to record. `failure` is None while recording works."""

    def __init__(self, clock: Clock, metrics: Metrics, problems: Problems) -> None:
        self._clock = clock
        self._metrics = metrics
        self._problems = problems
        self._refused: set[Hashable] = set()
        self.failure: RecordingFailure | None = None

    def on_outage(self, error: Unavailable) -> None:
        """Note that the database did not take the last batch."""
        self._metrics.db_up.set(0)
        self._fail(str(error), by_table=False)
        self._problems.begin(ProblemName.NOT_RECORDING, not_recording_text(str(error)))

    def on_refusal(self, refused: Collection[Hashable], error: TableRefused) -> None:
        """Note that the table refused these, each alone."""
        if not self._refused.issuperset(refused):
            self._fail(str(error), by_table=True)
        self._refused.update(refused)
        self._problems.begin(ProblemName.TABLE_REFUSES, str(error))

    def on_commit(self, recorded: Collection[Hashable], *, wrote_rows: bool) -> None:
        """Note that these were recorded; `wrote_rows`: rows of stage_changes among it."""
        self._metrics.db_up.set(1)
        self._problems.end(ProblemName.NOT_RECORDING)
        self._refused.difference_update(recorded)
        if not self._refused:
            self._problems.end(ProblemName.TABLE_REFUSES)
        # What writes no row proves nothing about a table that refuses rows.
        if self.failure is not None and (wrote_rows or not self.failure.by_table or not self._refused):
            self.failure = None

    def _fail(self, reason: str, *, by_table: bool) -> None:
        since = self._clock.now() if self.failure is None else self.failure.since
        self.failure = RecordingFailure(reason, since, by_table)
