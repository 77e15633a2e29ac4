"""What the read-only routes show: the values, and the protocol of the part that knows them.

Every instant is aware; which clock it is on is said where it matters. The routes write them as ISO 8601 in UTC.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ParamSpec, Protocol, TypeVar

from fubd.errors import Malformed, Unavailable
from fubd.ports import ShownRow
from fubd.server.limits import Limits

# How far back the status page may look, in hours, and how many seconds a bucket of it holds then.
SPANS = {1: 60, 24: 900}

P = ParamSpec("P")
T = TypeVar("T")


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
    """The document of `/health`. `sources` has the keys `webhook` and `polling`.

    `subscriptions` maps an event to its status, `subscription_advice` those for which the owner can do something to what that is.
    """

    mode: str
    reason: str
    poll_interval_seconds: float | None
    coverage: datetime | None
    sources: Mapping[str, SourceHealth]
    subscriptions: Mapping[str, str]
    completeness: Completeness
    subscription_advice: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModeChange:
    """A mode that was announced at `since` (our clock), in words."""

    mode: str
    reason: str
    since: datetime


@dataclass(frozen=True, slots=True)
class ChangeCounts:
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
    """What the status page shows beyond `/health`. `recent` are the last changes, newest first; none with an id up to `settled` is to come.

    `modes` ascend; the first may lie before the window: it is the mode in force when the window began. `calls` and `started_at` are this
    process's own.
    """

    now: datetime
    started_at: datetime
    version: str
    change_counts: ChangeCounts
    modes: Sequence[ModeChange]
    api: ApiBudget
    pending: int
    quarantined: int
    settled: int
    recent: Sequence[ShownRow]


class View(Protocol):
    """What is known, for those who only look. Every coroutine raises Unavailable."""

    def unready(self) -> str | None:
        """Give why the daemon cannot record yet, in words; None once the database answered and its schema is right."""

    def health(self) -> Health:
        """Give the health document, from memory: it is there while the database is not."""

    async def overview(self, hours: int) -> Overview:
        """Give what the status page shows, the captures and modes of the last so many hours; one of SPANS."""

    async def settled(self) -> int:
        """Give up to which id no row can appear any more; it never goes back."""

    async def changes(self, after: int, limit: int) -> Sequence[ShownRow]:
        """Give at most `limit` rows with an id above `after`, ascending, none of them above `settled`.

        So a row that will become visible only later has an id above every row given, and a reader who pages by id sees it.
        """

    async def rows(self, ids: Sequence[int]) -> Sequence[ShownRow]:
        """Give these rows, as far as they stand."""

    async def last_correction(self) -> int:
        """Give the highest number under which a correction is noted, 0 for none."""

    async def corrections(self, after: int, limit: int) -> Sequence[tuple[int, int]]:
        """Give at most `limit` corrections noted under numbers above `after`, ascending: the number, and the id of the row."""


class ThrottledView:
    """A view that only so many ask at a time, and each only for so long; raises Unavailable when the time is over."""

    def __init__(self, view: View, limits: Limits) -> None:
        self.unready = view.unready
        self.health = view.health
        self._view = view
        self._seconds = limits.view_seconds
        self._turns = asyncio.Semaphore(limits.views)

    async def overview(self, hours: int) -> Overview:
        """See View."""
        return await self._ask(self._view.overview, hours)

    async def settled(self) -> int:
        """See View."""
        return await self._ask(self._view.settled)

    async def changes(self, after: int, limit: int) -> Sequence[ShownRow]:
        """See View."""
        return await self._ask(self._view.changes, after, limit)

    async def rows(self, ids: Sequence[int]) -> Sequence[ShownRow]:
        """See View."""
        return await self._ask(self._view.rows, ids)

    async def last_correction(self) -> int:
        """See View."""
        return await self._ask(self._view.last_correction)

    async def corrections(self, after: int, limit: int) -> Sequence[tuple[int, int]]:
        """See View."""
        return await self._ask(self._view.corrections, after, limit)

    async def _ask(self, question: Callable[P, Coroutine[Any, Any, T]], *arguments: P.args, **named: P.kwargs) -> T:
        try:
            async with asyncio.timeout(self._seconds), self._turns:
                return await question(*arguments, **named)
        except TimeoutError:
            raise Unavailable("the database did not answer in time") from None
        except Malformed as fault:
            # A value that somebody's column cannot even tell: no reader's fault, and no reason to end the house.
            raise Unavailable("the database cannot show a row") from fault
