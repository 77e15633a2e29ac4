"""The incremental read without a filter: by `sort=-updated` and offset, newest first.

People who change during the read move to the front and push rows right: they repeat, nothing is lost. A deletion shifts rows left, past
the read. So each page must *begin* with a person who changed later than the last row of the page before: then everything between them was
on one of the two pages. A person below the current page who is edited moves to the front unread, together with the earlier change; so
another pass follows, down to the instant at which this one began, until a pass is a single page, which is one moment.

People of one second have no order, and a bulk edit leaves more of them than fit on a page. Such a crowd is *counted*: from the position of
its first row to that of the first row after it. It is complete when as many different people were read. No change during the read can
make that true by chance:

- an edit within the crowd moves a person to the front, where the next pass reads them, and an edit from outside moves the end of the crowd
  further right, so more people are required than there are;
- only deletions move the end left, and each also lowers FUB's count of the account. So many more people are required.

A crowd before coverage is not read again when its rows are no more than were recorded. Where counting does not settle, the offset becomes
too deep or too many passes were needed, the rest is read by ranges of ids.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from http import HTTPStatus

from fubd.core.api import PeoplePage
from fubd.errors import FubRefused, Malformed, Unavailable
from fubd.poller.poll_run import PAGE_SIZE, PollRun
from fubd.poller.range_read import RangeRead, ends_with, is_newest_first
from fubd.poller.recent_readings import RecentReadings
from fubd.ports import PeopleQuery

_SECOND = timedelta(seconds=1)
# FUB refuses offsets from here on, with "Deep pagination disabled, use 'nextLink' url" (observed).
_MAX_OFFSET = 2000
# Rows read again on the next page, so that a few deletions do not cost a step back.
_OVERLAP_ROWS = 10
_MAX_STEPS_BACK = 3
_MAX_PASSES = 5
# More rows of one second than this at the end of a page are counted.
_CROWD_ROWS = PAGE_SIZE // 2
# Fewer rows that are seen twice may come from people who changed meanwhile.
_MIN_REPEATED = 3


@dataclass(slots=True)
class _Crowd:
    """The people of one second. `first`: the position of the first row that may be of it; `total`: FUB's count of the account then."""

    second: datetime
    first: int
    total: int
    people: set[int] = field(default_factory=set)

    def take(self, page: PeoplePage) -> int | None:
        """Add the page's people of this second; return the position on the page of the first row after them, None for none."""
        newer = [reading.person_id for reading in page.readings if reading.updated > self.second]
        older = next((reading.person_id for reading in page.readings if reading.updated < self.second), None)
        # Unreadable people have no second; those next to the crowd count as part of it, as people and as rows.
        start = page.ids.index(newer[-1]) + 1 if newer else 0
        end = None if older is None else page.ids.index(older)
        self.people.update(page.ids[start:end])
        return end

    def is_complete(self, end: int, total: int) -> bool:
        """Return whether nobody is missing, given the position of the first row after the crowd and FUB's count by then."""
        return len(self.people) >= end - self.first + max(0, self.total - total)


class OffsetRead:
    """One read by `sort=-updated`. `people`: everyone it showed, each with the time of their last change; `is_ordered`: FUB so orders them.

    `_bound`: everyone who changed later than this was on a page of the current pass. It must fall below `watermark`; on to `look_back_to`
    pages are read as far as that is possible.
    """

    def __init__(self, run: PollRun, watermark: datetime, *, look_back: timedelta, recent: RecentReadings) -> None:
        self._run = run
        self._watermark = watermark
        self._look_back_to = watermark - look_back
        self._recent = recent
        self._bound: datetime | None = None
        self._recorded: set[tuple[int, datetime, str]] = set()
        self._steps_back = 0
        self._pages = 0
        self._pages_needed: int | None = None
        self.is_ordered = True
        self._total: int | None = None
        self._page_rows = 1
        self._crowd_estimate = 0
        self.people: dict[int, datetime] = {}

    async def run(self) -> datetime | None:
        """Return the instant of the first page; None when it cannot be proven that everyone was seen."""
        began: datetime | None = None
        watermark = self._watermark
        for _ in range(_MAX_PASSES):
            pass_began = await self._pass()
            began = began or pass_began
            if pass_began is None or self._pages_needed is None:
                break
            if self._pages_needed == 1:
                return began
            self._watermark = self._look_back_to = pass_began - _SECOND
        if not self.is_ordered:
            return None
        changed = [person_id for person_id, updated in self.people.items() if updated >= watermark]
        ranges = RangeRead(self._run, watermark, account_total=self._total, page_rows=self._page_rows)
        is_proven = await ranges.run(changed, expected=max(len(changed), self._crowd_estimate))
        self.people.update(ranges.people)
        return began if is_proven else None

    async def _pass(self) -> datetime | None:
        """Read down once; return the instant of the first page. `_pages_needed`: pages until everyone was seen, None for never."""
        offset: int | None = 0
        began: datetime | None = None
        self._bound, self._pages, self._pages_needed = None, 0, None
        while offset is not None:
            page = await self._page(offset)
            if page is None:
                break
            began = began or page.read_at
            if not self._adjoins(page):
                offset = self._step_back(offset)
                continue
            await self._record_new(page)
            self._lower_bound(page)
            if await self._is_last(page, offset):
                break
            crowd = _crowd_at_end(page, offset)
            if crowd is not None:
                end = await self._read_crowd(crowd, offset + page.rows)
                if end is None:
                    break
                page, offset = end
                self._lower_bound(page)
                if await self._is_last(page, offset):
                    break
            offset = self._next_offset(page, offset)
        return began

    async def _page(self, offset: int) -> PeoplePage | None:
        """Read a page; None when the offset is too deep or refused, or when the order is not by time."""
        if offset > _MAX_OFFSET - PAGE_SIZE:
            return None
        try:
            page = await self._run.page(PeopleQuery(limit=PAGE_SIZE, sort="-updated", offset=offset))
        except (FubRefused, Malformed) as error:
            if offset == 0:
                if not isinstance(error, FubRefused) or error.status != HTTPStatus.BAD_REQUEST:
                    raise
                self.is_ordered = False
            return None
        self._pages += 1
        self._total = page.total if self._total is None else self._total
        self._page_rows = max(self._page_rows, page.rows)
        if not is_newest_first(page.readings):
            self.is_ordered, self._pages_needed = False, None
            return None
        return page

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
        self.people.update({reading.person_id: reading.updated for reading in page.readings})
        await self._run.record_ahead(replace(page, readings=new))

    def _lower_bound(self, page: PeoplePage) -> None:
        """Note that everyone who changed later than the page's last row was seen."""
        if page.readings:
            oldest = page.readings[-1].updated
            self._bound = oldest if self._bound is None else min(self._bound, oldest)
            if self._pages_needed is None and self._bound < self._watermark:
                self._pages_needed = self._pages

    async def _is_last(self, page: PeoplePage, offset: int) -> bool:
        if page.readings and page.readings[-1].updated < self._look_back_to:
            return True
        if await self._is_end(page, offset):
            self._pages_needed = self._pages_needed or self._pages
            return True
        return False

    async def _is_end(self, page: PeoplePage, offset: int) -> bool:
        """Return whether nobody comes after this page."""
        if not page.ids and page.total and offset < page.total:
            raise Unavailable("Follow Up Boss counts people that it does not list")
        # Where the signs disagree there is more: the total may count only the page, and a page may be smaller than requested.
        is_counted = page.total is None or offset + page.rows >= page.total
        if page.ids and (page.rows >= PAGE_SIZE or page.next is not None or not is_counted):
            return False
        return not page.may_continue or await ends_with(self._run, PeopleQuery(limit=PAGE_SIZE, sort="-updated"), page, offset)

    def _next_offset(self, page: PeoplePage, offset: int) -> int | None:
        """Return an offset whose row is newer than everyone not yet seen; None when there is none."""
        bound = self._bound
        newer = [position for position, row in enumerate(page.readings) if bound is not None and row.updated > bound]
        if not newer:
            return None
        # Unreadable people occupy a row too, so the position is that of the id.
        position = page.ids.index(page.readings[newer[-1]].person_id)
        following = offset + (position - _OVERLAP_ROWS if position > _OVERLAP_ROWS else position)
        return following if following > offset else None

    # --- Crowds ---

    async def _read_crowd(self, crowd: _Crowd, offset: int) -> tuple[PeoplePage, int] | None:
        """Read the crowd to its end; return the last page and its offset, None when it cannot be proven complete."""
        known = await self._skip_known(crowd)
        if known is not None:
            return known
        while (page := await self._page(offset)) is not None and page.total is not None and not page.unidentified + page.repeated:
            await self._record_new(page)
            before = len(crowd.people)
            end = crowd.take(page)
            self._estimate(before, len(crowd.people), page.rows if end is None else end)
            if end is None and await self._is_end(page, offset):
                end = page.rows
            if end is not None:
                if not crowd.is_complete(offset + end, page.total):
                    return None
                return page, offset
            offset += page.rows
            if not crowd.is_complete(offset, page.total):
                # Each further row is at most one further person.
                return None
        return None

    def _estimate(self, before: int, after: int, rows: int) -> None:
        """Estimate the crowd by how many of its next rows had been seen: without an order of ties, pages are random samples."""
        repeated = before + rows - after
        if repeated >= _MIN_REPEATED:
            self._crowd_estimate = max(self._crowd_estimate, before * rows // repeated)

    async def _skip_known(self, crowd: _Crowd) -> tuple[PeoplePage, int] | None:
        """Return the page on which a crowd ends that is covered and has no more rows than were recorded; None for any other crowd."""
        if crowd.second >= self._watermark:
            return None
        left = {one for one in self._recent.of_second(crowd.second) if self.people.get(one, crowd.second) == crowd.second}
        if len(left) <= PAGE_SIZE:
            return None
        offset = crowd.first + len(left) - _OVERLAP_ROWS
        page = await self._page(offset)
        if page is None or not page.readings or page.readings[0].updated < crowd.second or page.unidentified + page.repeated:
            return None
        end = _Crowd(crowd.second, crowd.first, crowd.total).take(page)
        if end is None or offset + end > crowd.first + len(left):
            return None
        await self._record_new(page)
        return page, offset


def _crowd_at_end(page: PeoplePage, offset: int) -> _Crowd | None:
    """Return the crowd of the page's last second; None where its rows are few, or cannot be counted."""
    if page.total is None or page.unidentified + page.repeated or not page.readings:
        return None
    crowd = _Crowd(page.readings[-1].updated, offset, page.total)
    crowd.take(page)
    crowd.first = offset + page.rows - len(crowd.people)
    begins_here = crowd.first > offset or offset == 0
    return crowd if begins_here and len(crowd.people) > _CROWD_ROWS else None
