"""What the status page shows of the last hours and of the present day, in two statements: an open page asks for it again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fubd.core.stored_state import ModeRecord
from fubd.ports import Absence, BlindSpan, ShownRow, StageCounts
from fubd.store import statements
from fubd.store.changes import ChangeReader
from fubd.store.statements import parse_instant

# A running process is noted every 30 s, and a deploy takes half as long.
_LEAST_ABSENCE_SECONDS = 45.0


@dataclass(frozen=True, slots=True)
class OverviewSpan:
    """What is asked for: `buckets` of `bucket_seconds` from `start` on (our clock), and the days that began at these instants.

    `now`: our clock. `started_at`: since when this process runs.
    """

    start: datetime
    bucket_seconds: int
    buckets: int
    now: datetime
    today: datetime
    yesterday: datetime
    week: datetime
    started_at: datetime


@dataclass(frozen=True, slots=True)
class StoredOverview:
    """`safe_id`: the id up to which no further row can appear; `recent`: the latest rows, newest first; `counts`: those of each bucket.

    `modes`: ascending from the mode in force at the start of the span. `stages` and `agents`: of the week. `blind`: the times since the
    start of the span or of the day in which neither source was alive, None before the first complete poll. `absences`: in which no process
    ran or one could not record.
    """

    safe_id: int
    recent: Sequence[ShownRow]
    modes: Sequence[ModeRecord]
    counts: Mapping[str, Sequence[int]]
    stages: Sequence[StageCounts]
    agents: Sequence[str]
    blind: Sequence[BlindSpan] | None
    absences: Sequence[Absence]


class OverviewReader:
    """Reads what a page shows. Every method raises Unavailable."""

    def __init__(self, changes: ChangeReader) -> None:
        self._changes = changes

    async def read(self, span: OverviewSpan, *, recent: int) -> StoredOverview:
        """Return the overview of a span, with so many of the latest rows."""
        query = statements.combine(
            recent="reads/changes_recent",
            modes="reads/modes",
            counts="reads/change_counts",
            stages="reads/stage_counts",
            agents="reads/agents",
            blind="reads/blind_time",
            absences="reads/absences",
        )
        # The rows are read after the safe id, so each of them up to it is there.
        async with self._changes.reading_rows() as (connection, table, safe_id):
            rows = await query.fill(shown=table.shown).fetch(
                connection,
                limit=recent,
                since=span.start,
                until=span.now,
                bucket_seconds=span.bucket_seconds,
                today=span.today,
                yesterday=span.yesterday,
                week=span.week,
                agents_since=span.week,
                blind_since=min(span.start, span.today),
                started_at=span.started_at,
                least_seconds=_LEAST_ABSENCE_SECONDS,
            )
        return StoredOverview(
            safe_id=safe_id,
            recent=[ShownRow(row["id"], row["json"]) for row in rows["recent"]],
            modes=[ModeRecord(row["mode"], row["reason"], row["delay_seconds"], _instant(row["at"])) for row in reversed(rows["modes"])],
            counts=_by_bucket(rows["counts"], span.buckets),
            stages=[StageCounts(**row) for row in rows["stages"]],
            agents=[row["agent"] for row in rows["agents"]],
            blind=_blind_spans(rows["blind"]),
            absences=[Absence(row["kind"], _instant(row["since"]), _instant(row["until"])) for row in rows["absences"]],
        )


def _by_bucket(rows: Sequence[Mapping[str, Any]], buckets: int) -> dict[str, list[int]]:
    counts = {"webhook": [0] * buckets, "polling": [0] * buckets}
    for row in rows:
        if 0 <= row["bucket"] < buckets:
            counts[row["source"]][row["bucket"]] += row["changes"]
    return counts


def _blind_spans(rows: Sequence[Mapping[str, Any]]) -> list[BlindSpan] | None:
    """Return the spans: no row before the first complete poll, one without bounds where there is no blind time."""
    return [BlindSpan(_instant(row["began"]), _instant(row["ended"])) for row in rows if row["began"] is not None] if rows else None


def _instant(text: str) -> datetime:
    instant = parse_instant(text)
    if instant is None:
        raise TypeError("the instant is missing")
    return instant
