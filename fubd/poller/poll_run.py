"""What every kind of reading shares: request a page, record it, count it, and stop when asked to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from http import HTTPStatus

from fubd.core.api import PeoplePage
from fubd.core.observation import Channel, Reading, Snapshot
from fubd.core.pacing import Policy
from fubd.core.text import format_count
from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.poller.read_ahead import ReadAhead
from fubd.poller.strangers import NOBODY, Strangers
from fubd.poller.trash_visibility import TrashVisibility
from fubd.poller.unread import UnreadPeople
from fubd.ports import FubApi, PeopleQuery, SnapshotResult, SnapshotSink

PAGE_SIZE = 100
"""The most people that FUB returns on one page (https://docs.followupboss.com/reference/people-get)."""
_BATCH_SHARE = 1 / 30
# Of a run, more than one in ten unusable people mean that the fault is not theirs. One alone is only ever one odd person.
_TOLERATED_ONE_IN = 10
_TOLERATED = 1
# Two pages: those of a probe.
_REMEMBERED = 2 * PAGE_SIZE
_ReadingKey = tuple[int, datetime, str]
NOTHING = SnapshotResult(changes=0, mismatched=frozenset(), first_seen=0)


@dataclass(frozen=True, slots=True)
class PollPolicy:
    """How the poller works. `pacing` and `scrub_batches` (of 100 people, verified with a poll) are settings of the owner.

    `overlap_seconds`: how far coverage stays behind the instant at which a poll began (at most 120). `refetch_batch_seconds`: how long
    refetch requests are collected for one call, at most a thirtieth of the poll interval. `refetch_settle_seconds`: how long the first of
    them waits for others. `refetch_retry_seconds`: the first wait for a person who cannot be read yet; it doubles. `follower_seconds`: how
    often an instance without the lease looks at what the leader decided. `sweep_workers`: pages in flight at once. `progress_seconds`:
    the time between two progress lines in the log.
    """

    pacing: Policy = field(default_factory=Policy)
    scrub_batches: int = 4
    overlap_seconds: float = 60.0
    refetch_batch_seconds: float = 60.0
    refetch_settle_seconds: float = 2.0
    refetch_retry_seconds: float = 2.0
    follower_seconds: float = 5.0
    sweep_workers: int = 16
    progress_seconds: float = 10.0

    @property
    def batch_seconds(self) -> float:
        """How long refetch requests are collected: a minute by default, less when all intervals are shorter."""
        return min(self.refetch_batch_seconds, self.pacing.poll_interval_seconds * _BATCH_SHARE)

    @property
    def settle_seconds(self) -> float:
        """How long the first refetch request waits for others."""
        return min(self.refetch_settle_seconds, self.batch_seconds)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come. `total` and `seconds_left` are None while they are unknown."""

    kind: str
    people: int
    total: int | None
    changes: int
    calls: int
    seconds_left: float | None


@dataclass(slots=True)
class RunStats:
    """What was read and found so far. `people`: readings recorded. `unreadable`: people on a page without a usable stage or date.

    `unidentified`: elements of a page without a usable id. `refused`: people whose rows the table refused.
    """

    people: int = 0
    calls: int = 0
    changes: int = 0
    unreadable: int = 0
    unidentified: int = 0
    refused: int = 0

    @property
    def unusable(self) -> int:
        """How many were shown and not recorded."""
        return self.unreadable + self.unidentified + self.refused

    def add(self, other: RunStats) -> None:
        """Add the figures of another run."""
        self.people += other.people
        self.calls += other.calls
        self.changes += other.changes
        self.unreadable += other.unreadable
        self.unidentified += other.unidentified
        self.refused += other.refused


class PollRun:
    """One run of reading people. Pages are recorded while the next are read, a bounded number at once, so memory stays flat.

    `watermark`: the coverage before this run (FUB's clock). `should_continue` is asked before each call; `on_page` is called after each
    page. `incomplete_reason`: why a run without an error still moves no coverage. `strangers`: the people that `page` leaves out.
    """

    def __init__(
        self,
        api: FubApi,
        ingestor: SnapshotSink,
        *,
        watermark: datetime | None,
        should_continue: Callable[[], bool],
        on_page: Callable[[RunStats], None] | None = None,
        trash: TrashVisibility | None = None,
        unread: UnreadPeople | None = None,
        strangers: Strangers | None = None,
    ) -> None:
        self._api = api
        self._ingestor = ingestor
        self._should_continue = should_continue
        self._on_page = on_page
        self._trash = trash or TrashVisibility()
        self._unread = unread
        self.strangers = strangers or Strangers()
        self._ahead = ReadAhead()
        self._unrecorded: dict[_ReadingKey, tuple[Reading, datetime]] = {}
        # Of the last readings: shown again, they say nothing new.
        self._recorded: deque[_ReadingKey] = deque(maxlen=_REMEMBERED)
        self.watermark = watermark
        self.stats = RunStats()
        self.incomplete_reason: str | None = None

    async def page(self, query: PeopleQuery) -> PeoplePage:
        """Read a page. Raises Unavailable and FubRefused as the API does, and Unavailable when asked to stop."""
        self._count_call()
        page = self.strangers.leave_out(await self._api.people(query), query)
        self._trash.observe_page(page)
        if self._unread is not None:
            await self._unread.observe_page(page)
        shown = {_key(reading): (reading, page.read_at) for reading in page.readings}
        for key in shown.keys() & set(self._recorded):
            del shown[key]
        self._unrecorded.update(shown)
        return page

    async def page_in_any_order(self, query: PeopleQuery) -> PeoplePage:
        """Read a page as `page` does; where FUB refuses its order, in the default order, which is by descending id."""
        try:
            return await self.page(query)
        except FubRefused as error:
            if error.status != HTTPStatus.BAD_REQUEST:
                raise
            return await self.page(replace(query, sort=None))

    async def learn_strangers(self) -> bool:
        """Learn who is on pages that they do not belong on; return whether others are than before. Raises as `page` does."""
        self._count_call()
        try:
            return self.strangers.learn(await self._api.people(NOBODY))
        except FubRefused as error:
            if error.status != HTTPStatus.BAD_REQUEST:
                raise
            return False

    async def person(self, person_id: int) -> tuple[Reading | None, datetime]:
        """Read one person by id; None for a 404. Raises as `page` does.

        The first person found in Trash this way is also requested on a list, once: that shows whether lists include Trash.
        """
        self._count_call()
        reading, read_at = await self._api.person(person_id)
        if reading is not None and self._trash.needs_probe(reading):
            self._trash.observe_absence(person_id, await self.page(PeopleQuery(limit=1, ids=(person_id,))))
        return reading, read_at

    async def record(self, readings: Sequence[Reading], read_at: datetime, channel: Channel = Channel.POLLING) -> SnapshotResult:
        """Record what was read; return once it is committed. People that the table refused count as unread. Raises Unavailable."""
        if not readings:
            return NOTHING
        for reading in readings:
            self._unrecorded.pop(_key(reading), None)
            self._recorded.append(_key(reading))
        result = await self._ingestor.observe(Snapshot(tuple(readings), read_at, self.watermark, channel))
        self.stats.people += len(readings) - len(result.refused)
        self.stats.refused += len(result.refused)
        self.stats.changes += result.changes
        if self._unread is not None:
            await self._unread.add(result.refused, by_table=True)
            await self._unread.settle({reading.person_id for reading in readings} - result.refused)
        return result

    async def record_page(self, page: PeoplePage) -> SnapshotResult:
        """Record everyone on the page. Raises Unavailable."""
        self.stats.unreadable += len(page.unreadable)
        self.stats.unidentified += page.unidentified
        result = await self.record(page.readings, page.read_at)
        if self._on_page is not None:
            self._on_page(self.stats)
        return result

    @asynccontextmanager
    async def reading_ahead(self) -> AsyncIterator[None]:
        """Allow `record_ahead` in the block. After it everything that any page showed is recorded, if possible also when it fails.

        Raises Unavailable.
        """
        try:
            yield
            await self._ahead.finish()
            await self._record_rest()
        except asyncio.CancelledError:
            self._ahead.cancel()
            raise
        except (Unavailable, FubRefused, Malformed):
            await self._ahead.settle()
            with suppress(Unavailable):
                await self._record_rest()
            raise
        finally:
            await self._ahead.settle()

    async def record_ahead(self, page: PeoplePage, on_recorded: Callable[[], object] | None = None) -> None:
        """Record everyone on the page in the background. Raises Unavailable when an earlier page could not be recorded."""

        async def record() -> None:
            await self.record_page(page)
            if on_recorded is not None:
                on_recorded()

        await self._ahead.add(record)

    async def recorded(self) -> None:
        """Wait until every page is recorded. Raises Unavailable."""
        await self._ahead.finish()

    async def _record_rest(self) -> None:
        """Record what pages showed that served only to count or to prove: a person may have changed again since. Raises Unavailable."""
        by_instant: dict[datetime, list[Reading]] = {}
        for reading, read_at in self._unrecorded.values():
            by_instant.setdefault(read_at, []).append(reading)
        for read_at, readings in by_instant.items():
            await self._ahead.add(partial(self.record, readings, read_at))
        await self._ahead.finish()

    def require_usable(self) -> None:
        """Raise Unavailable when too much of what was shown could not be used for this run to count as complete."""
        stats, unusable = self.stats, self.stats.unusable
        if unusable > _TOLERATED and unusable * _TOLERATED_ONE_IN > stats.people + unusable:
            raise Unavailable(f"{_describe_unusable(stats)}, more than a tenth of those read")
        if self._unread is not None and self._unread.blocks_coverage(stats.unidentified):
            raise Unavailable(f"{format_count(stats.unidentified, 'element')} on Follow Up Boss's pages had no usable id")

    def _count_call(self) -> None:
        if not self._should_continue():
            raise Unavailable("stopped before the end")
        self.stats.calls += 1


def _describe_unusable(stats: RunStats) -> str:
    unreadable = stats.unreadable + stats.unidentified
    causes = [f"Follow Up Boss sent nothing usable for {format_count(unreadable, 'person')}"] if unreadable else []
    if stats.refused:
        causes.append(f"stage_changes refused the rows of {format_count(stats.refused, 'person')}")
    return " and ".join(causes)


def _key(reading: Reading) -> _ReadingKey:
    return reading.person_id, reading.updated, reading.stage


class MonotonicIds:
    """Checks that ids only decrease, or only increase, across pages: otherwise the cursor is not keyed by id and may skip people.

    `last`: the last id so far.
    """

    def __init__(self) -> None:
        self.last: int | None = None
        self._rising: bool | None = None

    def accept(self, ids: Sequence[int]) -> bool:
        """Return whether the ids of the next page continue in the same direction, none of them twice."""
        for person_id in ids:
            if self.last is not None:
                rising = person_id > self.last
                if person_id == self.last or (self._rising is not None and rising is not self._rising):
                    return False
                self._rising = rising
            self.last = person_id
        return True
