"""The incremental walk: everybody who changed since a watermark, in as few calls as the account allows.

Two ways, and a probe at start-up that tells which:

- `updatedAfter` with the default order and the `next` cursor. The cursor is keyed by id, and nobody's id or membership changes by being
  edited, so a page never hides another. The documentation promises the filter; live accounts were seen to answer it with nothing, and any
  parameter may be ignored without a word. So it is trusted only after it returned people known to be newer than the instant asked for, and
  nobody for an instant to come. And each walk proves it anew, at no cost: it asks from a little before the newest person ever seen, who
  must be in the answer.
- `sort=-updated` by offset. People who change while we walk move to the front and push rows right: they repeat, nothing is lost. A
  deletion shifts rows left, past us. So each page must *begin* with someone changed later than the last row of the page before: then
  whatever lies between was on one of the two pages. People of one second come in no order at all and must therefore fit on one page.
  Someone below us who is edited goes to the front unread, with what had changed before; so another pass follows, down to the instant at
  which this one began, until a pass is a single page, which is one moment.

When neither shows that it saw everything, `changed_since` gives None and the account is swept.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from fubd.core.api import PeoplePage
from fubd.core.observation import Reading
from fubd.errors import FubRefused, Unavailable
from fubd.poller.poll_run import PAGE_SIZE, MonotonicIds, PollRun
from fubd.ports import PeopleQuery

_log = logging.getLogger("fubd.poller")

_SECOND = timedelta(seconds=1)
_FUTURE = timedelta(days=1)
# FUB refuses offsets from here on ("Deep pagination disabled").
_DEEPEST_OFFSET = 2000
# Rows read again on the next page, so that a few deletions do not cost a step back.
_SPARE_ROWS = 10
_STEPS_BACK = 3
_PASSES = 5
_PROBED_ROW = 10
_EMPTY_PAGES = 3


class Filter(StrEnum):
    """What the probe showed of `updatedAfter`."""

    UNPROVEN = "unproven"
    WORKS = "works"
    UNRELIABLE = "lies"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class _Canary:
    """Somebody whom every walk from `updated` on must show."""

    person_id: int
    updated: datetime


class IncrementalRead:
    """Knows, once it has probed, how this account lists the people who changed."""

    def __init__(self) -> None:
        self.filter = Filter.UNPROVEN
        self._witness: _Canary | None = None

    def invalidate_probe(self) -> None:
        """Probe again before the next walk: something was found that the last one should have shown."""
        self.filter = Filter.UNPROVEN

    async def changed_since(self, run: PollRun, watermark: datetime) -> datetime | None:
        """Hand in everybody whose `updated` is at or after `watermark` (FUB's clock); give the instant at which the walk began.

        None when it could not be shown that everybody was seen. Raises Unavailable and Refused.
        """
        # FUB dates by whole seconds, and "after" may or may not mean the second itself.
        watermark = watermark.replace(microsecond=0) - _SECOND
        if self.filter is Filter.UNPROVEN:
            await self._probe(run)
        if self.filter is Filter.WORKS:
            began = await self._by_cursor(run, watermark)
            if began is not None:
                return began
            _log.warning("The updatedAfter filter no longer shows everybody: walking by the order of change instead.")
            self.filter = Filter.UNRELIABLE
        return await _OffsetWalk(run, watermark).run()

    async def _probe(self, run: PollRun) -> None:
        before, newest = self.filter, None
        for _ in range(2):
            # Twice, because the person asked for may be deleted between two calls.
            self.filter, newest = await _probe(run)
            if self.filter in (Filter.WORKS, Filter.UNPROVEN):
                break
        self._witness = newest
        if self.filter is not before:
            _log.info("Probed how this account lists changed people: the updatedAfter filter %s.", _SAID[self.filter])

    async def _by_cursor(self, run: PollRun, watermark: datetime) -> datetime | None:
        witness = self._witness
        after = watermark if witness is None else min(watermark, witness.updated - _SECOND)
        walked = _CursorWalk(run, after, witness)
        if not await walked.run():
            return None
        if witness is not None and not walked.witnessed:
            # Deleted, or hidden by a filter that has begun to lie.
            await self._probe(run)
            if self.filter is not Filter.WORKS:
                return None
        elif walked.newest is not None:
            self._witness = walked.newest
        return walked.began


class _CursorWalk:
    """One walk by `updatedAfter` and `next`. `witnessed`: the witness was seen; `newest`: who may bear witness next."""

    def __init__(self, run: PollRun, after: datetime, witness: _Canary | None) -> None:
        self._run = run
        self._after = after
        self._witness = witness
        self._order = MonotonicIds()
        self.began: datetime | None = None
        self.witnessed = False
        self.newest: _Canary | None = None

    async def run(self) -> bool:
        """Hand in page after page; tell whether they kept what the filter and the cursor promise. Raises Unavailable and Refused."""
        page = await self._run.page(PeopleQuery(limit=PAGE_SIZE, updated_after=self._after))
        self.began = page.read_at
        if page.next is None and page.total is not None and len(page.ids) < page.total:
            # One answer, which counts more people than it shows.
            return False
        empty = 0
        while self._keeps_promises(page):
            await self._run.record_page(page)
            self._remember(page)
            if page.next is None:
                return True
            empty = 0 if page.ids else empty + 1
            if empty == _EMPTY_PAGES:
                raise Unavailable("the pages of changed people do not end")
            page = await self._run.page(PeopleQuery(limit=PAGE_SIZE, updated_after=self._after, next=page.next))
        return False

    def _keeps_promises(self, page: PeoplePage) -> bool:
        return all(reading.updated >= self._after for reading in page.readings) and self._order.goes_on(page.ids)

    def _remember(self, page: PeoplePage) -> None:
        self.witnessed |= self._witness is not None and self._witness.person_id in page.ids
        newest = _newest(page.readings)
        if newest is not None and (self.newest is None or newest.updated > self.newest.updated):
            self.newest = newest


def _newest(readings: tuple[Reading, ...]) -> _Canary | None:
    """Choose the witness; none where a bulk edit left so many of that second that each walk would have to read them all again."""
    if not readings:
        return None
    chosen = max(readings, key=lambda reading: reading.updated)
    crowd = sum(reading.updated >= chosen.updated - _SECOND for reading in readings)
    return _Canary(chosen.person_id, chosen.updated) if crowd <= PAGE_SIZE // 2 else None


_SAID = {
    Filter.WORKS: "works",
    Filter.UNRELIABLE: "hides people who changed, so it is not used",
    Filter.IGNORED: "is ignored, so it is not used",
    Filter.UNPROVEN: "could not be proven yet",
}


async def _probe(run: PollRun) -> tuple[Filter, _Canary | None]:
    newest = await run.page(PeopleQuery(limit=PAGE_SIZE, sort="-updated"))
    if not newest.readings or not _descends(newest.readings):
        return Filter.UNPROVEN, None
    probed = newest.readings[min(_PROBED_ROW, len(newest.readings)) - 1]
    after = probed.updated - _SECOND
    known = {reading.person_id for reading in newest.readings if reading.updated >= probed.updated}
    page = await run.page(PeopleQuery(limit=PAGE_SIZE, updated_after=after))
    if any(reading.updated < after for reading in page.readings):
        return Filter.IGNORED, None
    if not page.ids or (page.next is None and not known <= set(page.ids)):
        return Filter.UNRELIABLE, None
    future = await run.page(PeopleQuery(limit=1, updated_after=newest.read_at + _FUTURE))
    return (Filter.IGNORED, None) if future.ids else (Filter.WORKS, _newest(newest.readings))


def _descends(rows: tuple[Reading, ...]) -> bool:
    return all(newer.updated >= older.updated for newer, older in pairwise(rows))


class _OffsetWalk:
    """One walk by `sort=-updated`, in passes. `bound`: everybody who changed later than this was on a page of the pass under way."""

    def __init__(self, run: PollRun, watermark: datetime) -> None:
        self._run = run
        self._watermark = watermark
        self._bound: datetime | None = None
        self._handed_in: set[tuple[int, datetime, str]] = set()
        self._steps_back = 0

    async def run(self) -> datetime | None:
        """Give the instant of the first page; None when not everybody can be shown to have been seen."""
        began: datetime | None = None
        for _ in range(_PASSES):
            passed = await self._pass()
            if passed is None:
                return None
            passed_from, pages = passed
            began = began or passed_from
            if pages == 1:
                return began
            self._watermark = passed_from - _SECOND
        return None

    async def _pass(self) -> tuple[datetime, int] | None:
        """Go down to the watermark once; give the instant of the first page and the number of pages."""
        offset: int | None = 0
        began: datetime | None = None
        pages = 0
        self._bound = None
        while offset is not None:
            page = await self._page(offset)
            if page is None or not _descends(page.readings):
                return None
            pages += 1
            began = began or page.read_at
            if self._adjoins(page):
                await self._hand_in_new(page)
                if self._is_last(page, offset):
                    return began, pages
                offset = self._next_offset(page, offset)
            else:
                offset = self._step_back(offset)
        return None

    async def _page(self, offset: int) -> PeoplePage | None:
        try:
            return await self._run.page(PeopleQuery(limit=PAGE_SIZE, sort="-updated", offset=offset))
        except FubRefused:
            if offset == 0:
                raise
            return None

    def _adjoins(self, page: PeoplePage) -> bool:
        return self._bound is None or (bool(page.readings) and page.readings[0].updated > self._bound)

    def _step_back(self, offset: int) -> int | None:
        """Rows moved left past us: read further up, a bounded number of times."""
        self._steps_back += 1
        return max(0, offset - PAGE_SIZE // 2) if offset > 0 and self._steps_back <= _STEPS_BACK else None

    async def _hand_in_new(self, page: PeoplePage) -> None:
        keys = {reading.person_id: (reading.person_id, reading.updated, reading.stage) for reading in page.readings}
        fresh = tuple(reading for reading in page.readings if keys[reading.person_id] not in self._handed_in)
        self._handed_in.update(keys.values())
        if page.readings:
            oldest = page.readings[-1].updated
            self._bound = oldest if self._bound is None else min(self._bound, oldest)
        await self._run.record_page(PeoplePage(fresh, page.ids, page.unreadable, page.total, page.next, page.read_at))

    def _is_last(self, page: PeoplePage, offset: int) -> bool:
        if page.readings and page.readings[-1].updated < self._watermark:
            return True
        if page.total is None:
            return len(page.ids) < PAGE_SIZE
        if not page.ids and page.total > 0:
            raise Unavailable("Follow Up Boss counts people whom it does not list")
        return offset + len(page.ids) >= page.total

    def _next_offset(self, page: PeoplePage, offset: int) -> int | None:
        """Begin the next page at a row that is newer than all we have not seen; None when there is none, or it lies too deep."""
        bound = self._bound
        newer = [position for position, row in enumerate(page.readings) if bound is not None and row.updated > bound]
        if not newer:
            return None
        # Unreadable people take a row too, so the row's place is that of its id.
        place = page.ids.index(page.readings[newer[-1]].person_id)
        following = offset + (place - _SPARE_ROWS if place > _SPARE_ROWS else place)
        return following if offset < following <= _DEEPEST_OFFSET - PAGE_SIZE else None
