"""The sweep: read the whole account, by ranges of ids in parallel.

A range is read by `sort=id` and `idGreaterThan` (https://docs.followupboss.com/reference/common-filters). The position is the last id
itself, so no change during the sweep moves a row past it, and no token can expire. Idle workers split the range with most people left, so
that gaps between ids do not leave one worker with the rest. People created during the sweep have higher ids; the incremental read that
follows finds them.

The completeness proof, without which a sweep moves no coverage:

1. every page was answered, within its range and in ascending order;
2. the frontier is contiguous: every range ended, by a page that shows all it counts or by an empty one;
3. as many people were read as FUB counted at the start, or counts at the end up to the highest id of the start, whichever is less: people
   deleted during the sweep lower the second number and may have been read. One in a thousand may be missing, and always one (people who
   were invisible to the key and appear during the sweep).

An interrupted sweep resumes from the frontier, and began when its first part began. Where an account ignores or refuses id ranges or the
order by id, the sweep follows the `next` cursor one page at a time, with the same proof, and starts over when interrupted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from http import HTTPStatus
from itertools import pairwise
from math import ceil

from fubd.core.api import PeoplePage
from fubd.errors import FubRefused, Unavailable
from fubd.poller.poll_run import PAGE_SIZE, MonotonicIds, PollRun
from fubd.poller.range_read import ends_with
from fubd.ports import PeopleQuery, StateStore

# Small ranges keep the frontier close behind the workers; large ranges waste fewer half-filled pages.
_MAX_IN_RANGE = 1000
_MIN_IN_RANGE = 300
_RANGES_PER_WORKER = 4
_MIN_SPLIT = 2 * PAGE_SIZE
_PAGES_PER_SAVE = 20
_MAX_MISSING_ONE_IN = 1000
# People may be created between the two calls that find the highest id and the total.
_MOST_PEOPLE_PER_ID = 2
# Two people show the order. A count made in another order would be of a part only, and prove nothing.
_ORDER_SAMPLE = 2


class _RangesIgnored(Exception):
    """The account ignores or refuses id ranges, or the order by id."""


@dataclass(slots=True, eq=False)
class _Range:
    """Ids above `low` (those up to it are read) and below `high`. `left`: people in the range by FUB's last count."""

    low: int
    high: int
    left: int | None = None


@dataclass(frozen=True, slots=True)
class _Survey:
    """The account at the start: the lowest and highest id still to be read, and FUB's count of the people between.

    `is_count_reliable`: the count is certainly of that part, and not of the whole account.
    """

    low: int
    high: int
    total: int | None
    is_count_reliable: bool


class Sweep:
    """One sweep. `state` stores how far it has come, None for a sweep that cannot be resumed. `total`: people expected, once known."""

    def __init__(self, run: PollRun, state: StateStore | None, *, workers: int) -> None:
        self._run = run
        self._state = state
        self._workers = workers
        self._waiting: deque[_Range] = deque()
        self._active: list[_Range] = []
        self._changed = asyncio.Condition()
        self._pages = self._saved_pages = 0
        # For each page that is not recorded yet, the id before its first.
        self._unrecorded: dict[int, int] = {}
        self._read = 0
        self._is_second = False
        self.total: int | None = None

    async def run(self, began: datetime | None, from_id: int | None) -> datetime:
        """Read everyone, or resume the sweep that began at `began` from `from_id`; return when it began (FUB's clock).

        Raises Unavailable when completeness cannot be proven, and FubRefused.
        """
        async with self._run.reading_ahead():
            return await self._sweep(began, from_id or 0 if began else 0)

    async def _sweep(self, began: datetime | None, first_id: int) -> datetime:
        try:
            newest = await self._ordered(PeopleQuery(limit=_ORDER_SAMPLE, sort="-id"))
            began = began or newest.read_at
            await self._save(began, first_id)
            survey = await self._survey(newest, first_id)
            if survey is not None:
                self.total = survey.total
                await self._read_ranges(began, survey)
                await self._prove_complete(survey)
        except _RangesIgnored:
            if not self._is_second and await self._run.learn_strangers():
                self._is_second = True
                self._waiting.clear()
                self._active.clear()
                self._read = 0
                return await self._sweep(began, first_id)
            began = await self._read_by_cursor()
        return began

    async def _ordered(self, query: PeopleQuery) -> PeoplePage:
        """Read a page in the order of ids. Raises as `PollRun.page` does, and _RangesIgnored where FUB refuses the order or the range."""
        try:
            return await self._run.page(query)
        except FubRefused as error:
            if error.status != HTTPStatus.BAD_REQUEST:
                raise
            raise _RangesIgnored from None

    async def _survey(self, newest: PeoplePage, first_id: int) -> _Survey | None:
        oldest = await self._ordered(PeopleQuery(limit=_ORDER_SAMPLE, sort="id", id_greater_than=first_id - 1))
        if not newest.ids or not oldest.ids:
            if first_id == 0 and (newest.ids or oldest.ids or newest.total):
                raise Unavailable("Follow Up Boss counts people that it does not list")
            return None
        low, high = oldest.ids[0], newest.ids[0]
        if not first_id <= low <= high or not _is_rising(oldest.ids) or not _is_rising(newest.ids[::-1]):
            raise _RangesIgnored
        is_of_page = oldest.total is not None and oldest.total < len({*oldest.ids, *newest.ids}) and first_id == 0
        if is_of_page or (oldest.total or 0) > _MOST_PEOPLE_PER_ID * (high - low + 1) + PAGE_SIZE:
            # It counts the page, or far more people than there are ids: it says nothing about the account.
            return _Survey(low, high, None, is_count_reliable=False)
        # A count of a part that equals the count of the account may not be of that part.
        return _Survey(low, high, oldest.total, is_count_reliable=first_id == 0 or oldest.total != newest.total)

    async def _read_ranges(self, began: datetime, survey: _Survey) -> None:
        total = survey.total or 0
        people = min(_MAX_IN_RANGE, max(_MIN_IN_RANGE, total // (self._workers * _RANGES_PER_WORKER)))
        ranges = max(1, ceil(total / people))
        width = max(1, ceil((survey.high - survey.low + 1) / ranges))
        for first in range(survey.low, survey.high + 1, width):
            self._waiting.append(_Range(first - 1, min(first + width, survey.high + 1)))
        failure: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work(began))
            await self._run.recorded()
        except* (Unavailable, FubRefused, _RangesIgnored) as failures:
            failure = failures.exceptions[0]
        if failure is not None:
            if not isinstance(failure, _RangesIgnored):
                await self._save_frontier(began)
            raise failure

    async def _work(self, began: datetime) -> None:
        while (part := await self._next_range()) is not None:
            while not await self._read_page(part):
                await self._on_page_read(began)
            self._active.remove(part)
            await self._on_page_read(began)

    async def _next_range(self) -> _Range | None:
        """Return the next range, or half of the fullest one; None when none is left."""
        async with self._changed:
            while True:
                part = self._waiting.popleft() if self._waiting else self._split_fullest()
                if part is not None:
                    self._active.append(part)
                    return part
                if not self._active:
                    return None
                await self._changed.wait()

    def _split_fullest(self) -> _Range | None:
        splittable = [part for part in self._active if (part.left or 0) >= _MIN_SPLIT and part.high - part.low > _MIN_SPLIT]
        if not splittable:
            return None
        fullest = max(splittable, key=lambda part: part.left or 0)
        middle = (fullest.low + fullest.high) // 2
        upper = _Range(middle - 1, fullest.high)
        fullest.high, fullest.left = middle, (fullest.left or 0) // 2
        return upper

    async def _read_page(self, part: _Range) -> bool:
        """Read and record one page of the range; return whether the range is read to its end."""
        low, high = part.low, part.high
        page = await self._ordered(PeopleQuery(limit=PAGE_SIZE, sort="id", id_greater_than=low, id_less_than=high))
        if not _is_rising((low, *page.ids, high)):
            raise _RangesIgnored
        self._pages += 1
        number = self._pages
        self._unrecorded[number] = low
        await self._run.record_ahead(page, partial(self._unrecorded.pop, number))
        # Another worker may have taken the upper half during this call; it counts those people.
        mine = sum(1 for person_id in page.ids if person_id < part.high)
        self._read += mine + page.unidentified
        shows_all = self.total is not None and page.total == page.people
        if not page.ids and page.may_continue:
            await self._require_nobody(low, high)
        if not page.ids or mine < len(page.ids) or shows_all or page.ids[-1] >= part.high - 1:
            part.low, part.left = part.high - 1, 0
            return True
        part.low = page.ids[-1]
        if high == part.high:
            part.left = None if page.total is None else page.total - page.people
        return False

    async def _require_nobody(self, low: int, high: int) -> None:
        """Raise Unavailable when the other end of a range shows somebody: the empty page before says nothing."""
        page = await self._ordered(PeopleQuery(limit=_ORDER_SAMPLE, sort="-id", id_greater_than=low, id_less_than=high))
        if page.ids:
            raise Unavailable("Follow Up Boss shows nobody, and then somebody, in the same range of ids")

    async def _on_page_read(self, began: datetime) -> None:
        async with self._changed:
            self._changed.notify_all()
        if self._pages - self._saved_pages >= _PAGES_PER_SAVE:
            self._saved_pages = self._pages
            await self._save_frontier(began)

    async def _save_frontier(self, began: datetime) -> None:
        unread = [*(part.low for part in (*self._active, *self._waiting)), *self._unrecorded.values()]
        if unread:
            await self._save(began, min(unread) + 1)

    async def _save(self, began: datetime, from_id: int) -> None:
        if self._state is not None:
            await self._state.begin_sweep(began, from_id=from_id)

    async def _prove_complete(self, survey: _Survey) -> None:
        if survey.total is None or not survey.is_count_reliable:
            return
        query = PeopleQuery(limit=1, sort="id", id_greater_than=survey.low - 1, id_less_than=survey.high + 1)
        page = await self._run.page(query)
        await self._compare_count(survey.total, page.total)

    async def _compare_count(self, at_start: int, at_end: int | None) -> None:
        expected = at_start if at_end is None else min(at_start, at_end)
        if self._read < expected - max(1, expected // _MAX_MISSING_ONE_IN):
            # It is unknown which people are missing, so the next sweep starts over.
            newest = await self._run.page(PeopleQuery(limit=1))
            await self._save(newest.read_at, 0)
            raise Unavailable(f"read {self._read} people of the {expected} that Follow Up Boss counts")

    async def _read_by_cursor(self) -> datetime:
        page = await self._run.page(PeopleQuery(limit=PAGE_SIZE))
        began, at_start = page.read_at, page.total
        await self._save(began, 0)
        self.total, self._read = at_start, 0
        ids = MonotonicIds()
        while ids.accept(page.ids):
            await self._run.record_ahead(page)
            self._read += page.people
            if page.next is None:
                is_end = not page.may_continue or await ends_with(self._run, PeopleQuery(limit=PAGE_SIZE), page, self._read - page.rows)
                if not is_end:
                    break
                await self._run.recorded()
                await self._compare_count(at_start or 0, page.total)
                return began
            if not page.ids:
                break
            page = await self._run.page(PeopleQuery(limit=PAGE_SIZE, next=page.next))
        raise Unavailable("Follow Up Boss's pages of the account do not continue in the order of ids")


def _is_rising(ids: tuple[int, ...]) -> bool:
    return all(lower < higher for lower, higher in pairwise(ids))
