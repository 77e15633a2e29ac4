"""The incremental read: everyone who changed since a watermark, in as few calls as the account allows.

There are two ways, and a probe at start-up decides between them:

- `updatedAfter` with the default order and the `next` cursor. The cursor is keyed by id, and an edit changes neither a person's id nor
  whether they belong to the list, so one page never hides another. The documentation promises the filter
  (https://docs.followupboss.com/reference/common-filters); on live accounts it was seen to return nothing, and any parameter may be
  silently ignored (observed). It is therefore trusted only after it returned people known to be newer than the requested instant, and
  no person for an instant in the future. Each read proves it again, at no cost: it starts slightly before the newest person ever seen (the
  canary), who must be in the answer.
- `sort=-updated` by offset, where the filter does not work (`offset_read`), and by ranges of ids where that proves nothing.

Where FUB refuses or ignores the order by time, any page of people serves as the proof of the filter. When neither way proves that it saw
everyone, `changed_since` returns None and the account is swept.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from http import HTTPStatus

from fubd.core.api import PeoplePage
from fubd.core.observation import Reading
from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.poller.id_batch import read_id_batch
from fubd.poller.offset_read import OffsetRead
from fubd.poller.poll_run import PAGE_SIZE, MonotonicIds, PollRun
from fubd.poller.range_read import is_newest_first
from fubd.poller.recent_readings import RecentReadings
from fubd.ports import PeopleQuery

_log = logging.getLogger("fubd.poller")

_SECOND = timedelta(seconds=1)
_FUTURE = timedelta(days=1)
# The index behind FUB's lists may trail by minutes, and looking back further costs no call.
_LOOK_BACK = timedelta(minutes=15)
_PROBED_ROW = 10
_MAX_EMPTY_PAGES = 3


class UpdatedAfterSupport(StrEnum):
    """What the probe showed of the `updatedAfter` filter."""

    UNPROVEN = "could not be proven yet"
    WORKS = "works"
    UNRELIABLE = "hides people who changed, so it is not used"
    IGNORED = "is ignored, so it is not used"
    REFUSED = "is refused, so it is not used"


@dataclass(frozen=True, slots=True)
class _Canary:
    """A person that every read from `updated` on must return. `in_crowd`: it would also return more people than are worth it."""

    person_id: int
    updated: datetime
    in_crowd: bool


class IncrementalRead:
    """Reads the people who changed. It remembers what the probe showed of the account."""

    def __init__(self) -> None:
        self.updated_after = UpdatedAfterSupport.UNPROVEN
        self._canary: _Canary | None = None
        self._recent = RecentReadings()
        self.is_possible = True
        """False while lists were found neither filtered nor ordered by time: then every read ends without a proof."""
        self.shows_nobody = False
        """Whether the last read showed an account without any person."""

    def invalidate_probe(self) -> None:
        """Probe again before the next read: a change was found that the last read should have returned."""
        self.updated_after = UpdatedAfterSupport.UNPROVEN

    async def changed_since(self, run: PollRun, watermark: datetime) -> datetime | None:
        """Record everyone whose `updated` is at or after `watermark` (FUB's clock); return the instant at which the read began.

        Returns None when it cannot prove that it saw everyone. Raises Unavailable and FubRefused.
        """
        # FUB dates by whole seconds, and "after" may or may not include the second itself.
        after = watermark.replace(microsecond=0) - _SECOND
        async with run.reading_ahead():
            if run.strangers.ids:
                await run.learn_strangers()
            began = await self._read(run, after)
            if began is None and await run.learn_strangers():
                self.invalidate_probe()
                began = await self._read(run, after)
            if run.strangers.ids:
                async for page in read_id_batch(run, sorted(run.strangers.ids)):
                    await run.record_ahead(page)
            return began

    async def _read(self, run: PollRun, watermark: datetime) -> datetime | None:
        if self.updated_after is UpdatedAfterSupport.UNPROVEN:
            await self._probe(run)
        if self.updated_after is UpdatedAfterSupport.WORKS:
            began = await self._read_by_cursor(run, watermark)
            if began is None and await run.learn_strangers():
                began = await self._read_by_cursor(run, watermark)
            if began is not None:
                return began
            _log.warning("The updatedAfter filter of Follow Up Boss no longer returns everyone; reading by sort=-updated instead")
            self.updated_after = UpdatedAfterSupport.UNRELIABLE
        return await self._read_by_offset(run, watermark)

    async def _read_by_offset(self, run: PollRun, watermark: datetime) -> datetime | None:
        read = OffsetRead(run, watermark, look_back=_LOOK_BACK, recent=self._recent)
        began = await read.run()
        self.is_possible = read.is_ordered
        self.shows_nobody = began is not None and not read.people
        await run.recorded()
        if began is not None:
            self._recent.add(read.people, keep_since=watermark - _LOOK_BACK)
        return began

    async def _probe(self, run: PollRun) -> None:
        before, newest = self.updated_after, None
        for _ in range(2):
            # Twice, because the person requested may be deleted between two calls.
            self.updated_after, newest = await _probe(run)
            if self.updated_after in (UpdatedAfterSupport.WORKS, UpdatedAfterSupport.UNPROVEN):
                break
        self._canary = newest
        if self.updated_after is not before:
            _log.info("Probed the updatedAfter filter of Follow Up Boss: it %s", self.updated_after.value)

    async def _read_by_cursor(self, run: PollRun, watermark: datetime) -> datetime | None:
        canary = self._canary
        # Where looking back would cost further pages, a count shows whether the lists hold anyone who was not read yet.
        by_count = len(self._recent.since(watermark - _LOOK_BACK)) > PAGE_SIZE
        after = watermark if by_count else watermark - _LOOK_BACK
        if canary is not None and not canary.in_crowd:
            after = min(after, canary.updated - _SECOND)
        read = _CursorRead(run, after, canary)
        if not await read.run() or read.began is None:
            return None
        self.is_possible = True
        self.shows_nobody = False
        await run.recorded()
        if canary is not None and not read.canary_seen and not await _shows_crowd(run, canary):
            # The canary was deleted, or the filter has begun to hide people.
            await self._probe(run)
            if self.updated_after is not UpdatedAfterSupport.WORKS:
                return None
        elif read.newest is not None:
            self._canary = _canary(read.newest, read.people.values())
        self._recent.add(read.people, keep_since=watermark - _LOOK_BACK)
        if by_count and not await self._look_back(run, watermark - _LOOK_BACK):
            return None
        return read.began

    async def _look_back(self, run: PollRun, after: datetime) -> bool:
        """Read everyone since this instant again when FUB counts more of them than were recorded; return whether the filter held."""
        page = await run.page(PeopleQuery(limit=1, updated_after=after))
        if page.total is not None and page.people < page.total <= len(self._recent.since(after + _SECOND)):
            return True
        read = _CursorRead(run, after, None)
        if not await read.run():
            return False
        await run.recorded()
        self._recent.add(read.people, keep_since=after)
        return True


class _CursorRead:
    """One read by `updatedAfter` and `next`.

    `canary_seen`: the canary was returned; `newest`: who changed last; `people`: all of them, each with the time of their last change.
    """

    def __init__(self, run: PollRun, after: datetime, canary: _Canary | None) -> None:
        self._run = run
        self._after = after
        self._canary = canary
        self._ids = MonotonicIds()
        self._rows = 0
        self._counted: int | None = None
        self.began: datetime | None = None
        self.canary_seen = False
        self.newest: Reading | None = None
        self.people: dict[int, datetime] = {}

    async def run(self) -> bool:
        """Record page after page; return whether filter and cursor behaved as documented. Raises Unavailable and FubRefused."""
        try:
            page = await self._run.page(PeopleQuery(limit=PAGE_SIZE, updated_after=self._after))
        except FubRefused as error:
            if error.status == HTTPStatus.BAD_REQUEST:
                return False
            raise
        self.began = page.read_at
        self._counted = page.total
        empty = 0
        while self._is_valid(page):
            await self._run.record_ahead(page)
            self._observe(page)
            if page.total is not None and not page.may_continue and page.rows < PAGE_SIZE:
                return self._rows >= min(self._counted or 0, page.total)
            if not page.ids and page.next is None:
                return self._rows >= (self._counted or 0) and await self._is_end()
            empty = 0 if page.ids else empty + 1
            if empty == _MAX_EMPTY_PAGES:
                raise Unavailable("Follow Up Boss's pages of changed people do not end")
            page = await self._next_page(page)
        return False

    async def _is_end(self) -> bool:
        """Return whether nobody follows the last person, shown by a page from that person on: an empty page may be any answer."""
        last = self._ids.last
        if last is None:
            return False
        page = await self._run.page(PeopleQuery(limit=PAGE_SIZE, updated_after=self._after, id_less_than=last + 1))
        return page.ids == (last,)

    async def _next_page(self, page: PeoplePage) -> PeoplePage:
        """Read the page after this one: by its token, else by the last id, as the default order is by descending id."""
        if page.next is not None:
            try:
                return await self._run.page(PeopleQuery(limit=PAGE_SIZE, updated_after=self._after, next=page.next))
            except (FubRefused, Malformed) as error:
                if isinstance(error, FubRefused) and error.status != HTTPStatus.BAD_REQUEST:
                    raise
                if not page.ids:
                    raise
                _log.warning("Follow Up Boss does not accept its own token of the next page; reading on by id: %s", error)
        return await self._run.page(PeopleQuery(limit=PAGE_SIZE, updated_after=self._after, id_less_than=page.ids[-1]))

    def _is_valid(self, page: PeoplePage) -> bool:
        return all(reading.updated >= self._after for reading in page.readings) and self._ids.accept(page.ids)

    def _observe(self, page: PeoplePage) -> None:
        self._rows += page.people
        self.canary_seen |= self._canary is not None and self._canary.person_id in page.ids
        self.people.update((reading.person_id, reading.updated) for reading in page.readings)
        shown = page.readings if self.newest is None else (self.newest, *page.readings)
        self.newest = max(shown, key=_updated, default=None)


def _updated(reading: Reading) -> datetime:
    return reading.updated


def _canary(newest: Reading, updated: Iterable[datetime]) -> _Canary:
    """Return the newest person as canary, given when everybody changed."""
    same_second = sum(at >= newest.updated - _SECOND for at in updated)
    return _Canary(newest.person_id, newest.updated, in_crowd=same_second > PAGE_SIZE // 2)


async def _shows_crowd(run: PollRun, canary: _Canary) -> bool:
    """Return whether the filter still shows anyone of the canary's crowd."""
    if not canary.in_crowd:
        return False
    page = await run.page(PeopleQuery(limit=1, updated_after=canary.updated - _SECOND))
    return bool(page.ids)


async def _probe(run: PollRun) -> tuple[UpdatedAfterSupport, _Canary | None]:
    sample = await run.page_in_any_order(PeopleQuery(limit=PAGE_SIZE, sort="-updated"))
    await run.record_ahead(sample)
    if not sample.readings:
        return UpdatedAfterSupport.UNPROVEN, None
    newest = sorted(sample.readings, key=_updated, reverse=True)
    probed = newest[min(_PROBED_ROW, len(newest)) - 1]
    after = probed.updated - _SECOND
    expected = {reading.person_id for reading in newest if reading.updated >= probed.updated}
    try:
        page = await run.page(PeopleQuery(limit=PAGE_SIZE, updated_after=after))
    except FubRefused as error:
        if error.status != HTTPStatus.BAD_REQUEST:
            raise
        return UpdatedAfterSupport.REFUSED, None
    if any(reading.updated < after for reading in page.readings):
        return UpdatedAfterSupport.IGNORED, None
    if not page.ids or (page.next is None and not page.next_is_unusable and not expected <= set(page.ids)):
        return UpdatedAfterSupport.UNRELIABLE, None
    future = await run.page(PeopleQuery(limit=1, updated_after=sample.read_at + _FUTURE))
    if future.ids:
        return UpdatedAfterSupport.IGNORED, None
    # The newest of any page may have changed long ago, and reading from there would cost many pages.
    is_newest = is_newest_first(sample.readings)
    return UpdatedAfterSupport.WORKS, _canary(newest[0], map(_updated, newest)) if is_newest else None
