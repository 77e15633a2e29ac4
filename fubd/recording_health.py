"""Whether evidence can be recorded now, and why not. Begins and ends the problems `not_recording` and `table_refuses`."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from datetime import datetime

from fubd.core.problems import COLUMN_CAUSE, ProblemName
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
    kept = "up to 10,000 deliveries are kept in memory while fubd keeps running, and stored when the database is back"
    return f"{reason[:1].upper()}{reason[1:]}. Nothing is recorded; {kept}."


class RecordingHealth:
    """Notes what became of each try to record. `failure` is None while recording works."""

    def __init__(self, clock: Clock, metrics: Metrics, problems: Problems) -> None:
        self._clock = clock
        self._metrics = metrics
        self._problems = problems
        # Why each was refused; and why the definition of the table says that rows will be.
        self._refused: dict[Hashable, str] = {}
        self._definition_refuses: str | None = None
        self.failure: RecordingFailure | None = None

    def on_outage(self, error: Unavailable) -> None:
        """Note that the database did not take the last batch."""
        self._metrics.db_up.set(0)
        self._fail(str(error), by_table=False)
        self._problems.begin(ProblemName.NOT_RECORDING, not_recording_text(str(error)))

    def on_refusal(self, refused: Collection[Hashable], error: TableRefused) -> None:
        """Note that the table refused these, each alone."""
        if not self._refused.keys() >= set(refused):
            self._fail(str(error), by_table=True)
        self._refused |= dict.fromkeys(refused, str(error))
        self._problems.begin(ProblemName.TABLE_REFUSES, str(error))

    def on_table_checked(self, refusal: str | None) -> None:
        """Note why the table, by its present definition, refuses rows; None when it does not."""
        before, self._definition_refuses = self._definition_refuses, refusal
        if refusal is not None:
            self._fail(refusal, by_table=True)
            self._problems.begin(ProblemName.TABLE_REFUSES, refusal)
        elif before is not None or self._inherits_column():
            self._forget_people(before)
            self._end_refusal()

    def on_commit(self, recorded: Collection[Hashable], *, wrote_rows: bool) -> None:
        """Note that these were recorded; `wrote_rows`: rows of stage_changes among it."""
        self._metrics.db_up.set(1)
        self._problems.end(ProblemName.NOT_RECORDING)
        for key in recorded:
            self._refused.pop(key, None)
        if wrote_rows and self._definition_refuses is not None:
            self._forget_people(self._definition_refuses)
            self._definition_refuses = None
        # What writes no row proves nothing about a table that refuses rows.
        if self.failure is not None and (wrote_rows or not self.failure.by_table):
            self.failure = None
        if wrote_rows or self._problems.undecided(ProblemName.TABLE_REFUSES) is None:
            self._end_refusal()

    def _forget_people(self, reason: str | None) -> None:
        """Forget the people refused for a reason that is over: the next poll, which may be half an hour away, reads them again.

        Deliveries are kept, and tried again within seconds.
        """
        self._refused = {key: known for key, known in self._refused.items() if known != reason or not isinstance(key, int)}

    def _inherits_column(self) -> bool:
        inherited = self._problems.undecided(ProblemName.TABLE_REFUSES)
        return inherited is not None and COLUMN_CAUSE in inherited.text

    def _end_refusal(self) -> None:
        """End the refusal when nothing is left that was refused, or would be."""
        if self._refused or self._definition_refuses is not None:
            return
        self._problems.end(ProblemName.TABLE_REFUSES)
        if self.failure is not None and self.failure.by_table:
            self.failure = None

    def _fail(self, reason: str, *, by_table: bool) -> None:
        since = self._clock.now() if self.failure is None else self.failure.since
        self.failure = RecordingFailure(reason, since, by_table)
