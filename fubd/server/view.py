"""What the read-only routes show: the values, and the protocol of the part that knows them.

Every instant is aware; which clock it is on is said where it matters. The routes write them as ISO 8601 in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """One of the two sources. `status` is `HEALTHY` or begins with `STALE`; `last_heard` is on our clock, `last_change` on FUB's."""

    status: str
    last_heard: datetime | None
    last_change: datetime | None
    records_today: int


@dataclass(frozen=True, slots=True)
class Completeness:
    """The last complete scrub round: share of people found as recorded, how many, and when the longest unverified was last read."""

    ratio: float | None
    people: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Health:
    """The document of `/health`. `sources` has the keys `webhook` and `polling`; `subscriptions` maps an event to its status."""

    mode: str
    reason: str
    poll_interval_seconds: float | None
    coverage: datetime | None
    sources: Mapping[str, SourceHealth]
    subscriptions: Mapping[str, str]
    completeness: Completeness


@dataclass(frozen=True, slots=True)
class ModeChange:
    """A mode that was announced at `since` (our clock), in words."""

    mode: str
    reason: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Captures:
    """How many changes each source was the first to bring, in buckets of `bucket_seconds` from `start` (by `received_at`, our clock).

    Every source has the same number of buckets; the last one holds the present moment.
    """

    start: datetime
    bucket_seconds: int
    by_source: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class ApiBudget:
    """FUB's global limit per `window_seconds`, what FUB said was left of it, our share of it, and our calls; null is not known yet."""

    limit: int | None
    remaining: int | None
    window_seconds: float
    share: float
    calls: int


@dataclass(frozen=True, slots=True)
class Overview:
    """What the status page shows beyond `/health`. `recent` are rows as `View.changes` gives them, newest first.

    `modes` ascend; the first may lie before the window: it is the mode in force when the window began. `calls` and `started_at` are this
    process's own.
    """

    now: datetime
    started_at: datetime
    version: str
    captures: Captures
    modes: Sequence[ModeChange]
    api: ApiBudget
    pending: int
    quarantined: int
    recent: Sequence[Mapping[str, object]]


class View(Protocol):
    """What is known, for those who only look."""

    def unready(self) -> str | None:
        """Give why the daemon cannot record yet, in words; None once the database answered and its schema is right."""

    def health(self) -> Health:
        """Give the health document, from memory: it is there while the database is not."""

    async def overview(self) -> Overview:
        """Give what the status page shows. Raises Unavailable."""

    async def changes(self, after: int, limit: int) -> Sequence[Mapping[str, object]]:
        """Give at most `limit` rows with an id above `after`, ascending: column to value, `raw_payload` left out. Raises Unavailable.

        A row that will become visible only later has an id above every row given, or a reader who pages by id would never see it.
        """
