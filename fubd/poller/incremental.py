"""The incremental read: everyone who changed since a watermark, in as few calls as the account allows.

There are two ways, and a probe at start-up decides between them:

- `updatedAfter` with the default order and the `next` cursor. The cursor is keyed by id, and an edit changes neither a person's id nor
  whether they belong to the list, so one page never hides another. The documentation promises the filter
  (https://docs.followupboss.com/reference/common-filters); on live accounts it was seen to return nothing, and any parameter may be
  silently ignored (observed). It is therefore trusted only after it returned people known to be newer than the requested instant, and
  no person for an instant in the future. Each read proves it again, at no cost: it starts slightly before the newest person ever seen (the
  canary), who must be in the answer.
- `sort=-updated` by offset. People who change during the read move to the front and push rows right: they repeat, nothing is lost. A
  deletion shifts rows left, past the read. So each page must *begin* with a person who changed later than the last row of the page
  before: then everything between them was on one of the two pages. People of one second have no order and must therefore fit on one page.
  A person below the current page who is edited moves to the front unread, together with the earlier change; so another pass follows, down
  to the instant at which this one began, until a pass is a single page, which is one moment.

When neither way proves that it saw everyone, `changed_since` returns None and the account is swept.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from itertools import pairwise

from fubd.core.api import PeoplePage
from fubd.core.observation import Reading
from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.poller.poll_run import PAGE_SIZE, MonotonicIds, PollRun
from fubd.ports import PeopleQuery

_log = logging.getLogger("fubd.poller")

_SECOND = timedelta(seconds=1)
_FUTURE = timedelta(days=1)
# The index behind FUB's lists may trail by minutes, and looking back further costs no call.
_LOOK_BACK = timedelta(minutes=15)
# FUB refuses offsets from here on, with "Deep pagination disabled, use 'nextLink' url" (observed).
_MAX_OFFSET = 2000
# Rows read again on the next page, so that a few deletions do not cost a step back.
_OVERLAP_ROWS = 10
_MAX_STEPS_BACK = 3
_MAX_PASSES = 5
_PROBED_ROW = 10
_MAX_EMPTY_PAGES = 3


class UpdatedAfterSupport(StrEnum):
    """What the probe showed of the `updatedAfter` filter."""

    UNPROVEN = "could not be proven yet"
    WORKS = "works"
    UNRELIABLE = "hides people who changed, so it is not used"
    IGNORED = "is ignored, so it is not used"


@dataclass(frozen=True, slots=True)
class _Canary:
    """A person that every read from `updated` on must return."""

    person_id: int
    updated: datetime


class IncrementalRead:
    """Reads the people who changed. It remembers what the probe showed of the account."""

    def __init__(self) -> None:
        self.updated_after = UpdatedAfterSupport.UNPROVEN
        self._canary: _Canary | None = None

    def invalidate_probe(self) -> None:
        """Probe again before the next read: a change was found that the last read should have returned."""
        self.updated_after = UpdatedAfterSupport.UNPROVEN

    async def changed_since(self, run: PollRun, watermark: datetime) -> datetime | None:
        """Record everyone whose `updated` is at or after `watermark` (FUB's clock); return the instant at which the read began.

        Returns None when it cannot prove that it saw everyone. Raises Unavailable and FubRefused.
        """
        # FUB dates by whole seconds, and "after" may or may not include the second itself.
        watermark = watermark.replace(microsecond=0) - _SECOND
        if self.updated_after is UpdatedAfterSupport.UNPROVEN:
            await self._probe(run)
        if self.updated_after is UpdatedAfterSupport.WORKS:
            began = await self._read_by_cursor(run, watermark)
            if began is not None:
                return began
            _log.warning("The updatedAfter filter of Follow Up Boss no longer returns everyone; reading by sort=-updated instead")
            self.updated_after = UpdatedAfterSupport.UNRELIABLE
        return await _OffsetRead(run, watermark).run()

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
        after = watermark - _LOOK_BACK
        if canary is not None:
            after = min(after, canary.updated - _SECOND)
        read = _CursorRead(run, after, canary)
        if not await read.run():
            return None
        if canary is not None and not read.canary_seen:
            # The canary was deleted, or the filter has begun to hide people.
            await self._probe(run)
            if self.updated_after is not UpdatedAfterSupport.WORKS:
                return None
        elif read.newest is not None:
            self._canary = read.newest
        return read.began


class _CursorRead:
    """One read by `updatedAfter` and `next`. `canary_seen`: the canary was returned; `newest`: the next canary."""

    def __init__(self, run: PollRun, after: datetime, canary: _Canary | None) -> None:
        self._run = run
        self._after = after
        self._canary = canary
        self._ids = MonotonicIds()
        self._rows = 0
        self._counted: int | None = None
        self.began: datetime | None = None
        self.canary_seen = False
        self.newest: _Canary | None = None

    async def run(self) -> bool:
        """Record page after page; return whether filter and cursor behaved as documented. Raises Unavailable and FubRefused."""
        page = await self._run.page(PeopleQuery(limit=PAGE_SIZE, updated_after=self._after))
        self.began = page.read_at
        self._counted = page.total
        empty = 0
        while self._is_valid(page):
            await self._run.record_page(page)
            self._observe(page)
            if self._is_last(page):
                return self._counted is None or self._rows >= min(self._counted, page.total or 0)
            empty = 0 if page.ids else empty + 1
            if empty == _MAX_EMPTY_PAGES:
                raise Unavailable("Follow Up Boss's pages of changed people do not end")
            page = await self._next_page(page)
        return False

    def _is_last(self, page: PeoplePage) -> bool:
        """Return whether nothing suggests another page: no token, no full page, no larger total."""
        if page.next is not None or page.next_is_unusable:
            return False
        return page.rows < PAGE_SIZE or not page.ids

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
        if not page.ids:
            raise Unavailable("Follow Up Boss's pages of changed people do not continue")
        return await self._run.page(PeopleQuery(limit=PAGE_SIZE, updated_after=self._after, id_less_than=page.ids[-1]))

    def _is_valid(self, page: PeoplePage) -> bool:
        return all(reading.updated >= self._after for reading in page.readings) and self._ids.accept(page.ids)

    def _observe(self, page: PeoplePage) -> None:
        self._rows += page.rows
        self.canary_seen |= self._canary is not None and self._canary.person_id in page.ids
        newest = _choose_canary(page.readings)
        if newest is not None and (self.newest is None or newest.updated > self.newest.updated):
            self.newest = newest


def _choose_canary(readings: tuple[Reading, ...]) -> _Canary | None:
    """Return the newest person, or None when a bulk edit left so many of that second that each read would have to repeat them all."""
    if not readings:
        return None
    newest = max(readings, key=lambda reading: reading.updated)
    same_second = sum(reading.updated >= newest.updated - _SECOND for reading in readings)
    return _Canary(newest.person_id, newest.updated) if same_second <= PAGE_SIZE // 2 else None


async def _probe(run: PollRun) -> tuple[UpdatedAfterSupport, _Canary | None]:
    newest = await run.page(PeopleQuery(limit=PAGE_SIZE, sort="-updated"))
    if not newest.readings or not _is_newest_first(newest.readings):
        return UpdatedAfterSupport.UNPROVEN, None
    probed = newest.readings[min(_PROBED_ROW, len(newest.readings)) - 1]
    after = probed.updated - _SECOND
    expected = {reading.person_id for reading in newest.readings if reading.updated >= probed.updated}
    page = await run.page(PeopleQuery(limit=PAGE_SIZE, updated_after=after))
    if any(reading.updated < after for reading in page.readings):
        return UpdatedAfterSupport.IGNORED, None
    if not page.ids or (page.next is None and not page.next_is_unusable and not expected <= set(page.ids)):
        return UpdatedAfterSupport.UNRELIABLE, None
    future = await run.page(PeopleQuery(limit=1, updated_after=newest.read_at + _FUTURE))
    return (UpdatedAfterSupport.IGNORED, None) if future.ids else (UpdatedAfterSupport.WORKS, _choose_canary(newest.readings))


def _is_newest_first(readings: tuple[Reading, ...]) -> bool:
    return all(newer.updated >= older.updated for newer, older in pairwise(readings))


class _OffsetRead:
    """One read by `sort=-updated`, in passes. `_bound`: everyone who changed later than this was on a page of the current pass."""

    def __init__(self, run: PollRun, watermark: datetime) -> None:
        self._run = run
        self._watermark = watermark
        self._bound: datetime | None = None
        self._recorded: set[tuple[int, datetime, str]] = set()
        self._steps_back = 0

    async def run(self) -> datetime | None:
        """Return the instant of the first page; None when it cannot be proven that everyone was seen."""
        began: datetime | None = None
        for _ in range(_MAX_PASSES):
            result = await self._pass()
            if result is None:
                return None
            pass_began, pages = result
            began = began or pass_began
            if pages == 1:
                return began
            self._watermark = pass_began - _SECOND
        return None

    async def _pass(self) -> tuple[datetime, int] | None:
        """Read down to the watermark once; return the instant of the first page and the number of pages."""
        offset: int | None = 0
        began: datetime | None = None
        pages = 0
        self._bound = None
        while offset is not None:
            page = await self._page(offset)
            if page is None or not _is_newest_first(page.readings):
                return None
            pages += 1
            began = began or page.read_at
            if self._adjoins(page):
                await self._record_new(page)
                if self._is_last(page, offset):
                    return began, pages
                offset = self._next_offset(page, offset)
            else:
                offset = self._step_back(offset)
        return None

    async def _page(self, offset: int) -> PeoplePage | None:
        try:
            return await self._run.page(PeopleQuery(limit=PAGE_SIZE, sort="-updated", offset=offset))
        except (FubRefused, Malformed):
            if offset == 0:
                raise
            return None

    def _adjoins(self, page: PeoplePage) -> bool:
        return self._bound is None or (bool(page.readings) and page.readings[0].updated > self._bound)

    def _step_back(self, offset: int) -> int | None:
        """Return an offset further up, because rows moved left past the read; None after too many steps."""
        self._steps_back += 1
        return max(0, offset - PAGE_SIZE // 2) if offset > 0 and self._steps_back <= _MAX_STEPS_BACK else None

    async def _record_new(self, page: PeoplePage) -> None:
        keys = {reading.person_id: (reading.person_id, reading.updated, reading.stage) for reading in page.readings}
        new = tuple(reading for reading in page.readings if keys[reading.person_id] not in self._recorded)
        self._recorded.update(keys.values())
        if page.readings:
            oldest = page.readings[-1].updated
            self._bound = oldest if self._bound is None else min(self._bound, oldest)
        await self._run.record_page(replace(page, readings=new))

    def _is_last(self, page: PeoplePage, offset: int) -> bool:
        if page.readings and page.readings[-1].updated < self._watermark:
            return True
        if not page.ids and page.total and offset < page.total:
            raise Unavailable("Follow Up Boss counts people that it does not list")
        # Where the signs disagree there is more: the total may count only the page, and a page may be smaller than requested.
        is_counted = page.total is None or offset + page.rows >= page.total
        return not page.ids or (is_counted and page.next is None and not page.next_is_unusable and page.rows < PAGE_SIZE)

    def _next_offset(self, page: PeoplePage, offset: int) -> int | None:
        """Return an offset whose row is newer than everyone not yet seen; None when there is none, or when it is too deep."""
        bound = self._bound
        newer = [position for position, row in enumerate(page.readings) if bound is not None and row.updated > bound]
        if not newer:
            return None
        # Unreadable people occupy a row too, so the position is that of the id.
        position = page.ids.index(page.readings[newer[-1]].person_id)
        following = offset + (position - _OVERLAP_ROWS if position > _OVERLAP_ROWS else position)
        return following if offset < following <= _MAX_OFFSET - PAGE_SIZE else None
