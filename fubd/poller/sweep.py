"""The sweep: everybody in the account, by ranges of ids read side by side.

A range is walked by `sort=id` and `idGreaterThan`, keyed by the last id itself, so nothing that changes meanwhile moves a row past us, and
no token can grow stale. Idle workers split the range with most people left, so that gaps between ids do not leave one worker alone with
the rest. Whoever is created meanwhile has a higher id and is found by the incremental walk that follows.

The certificate, without which a sweep counts for nothing:

1. every page was answered, within its range and in ascending order;
2. the frontier is contiguous: every range ended, by a page that shows all it counts or by an empty one;
3. as many people were read as FUB counted at the start or counts at the end up to the highest id of the start, whichever is fewer: people
   deleted meanwhile lower the second number and were perhaps read. One in a thousand may be missing (people who were hidden from us and
   appear during the sweep), never less than one.

An interrupted sweep goes on from the frontier, and began when its first part began. Where an account ignores id ranges or the order by
id, the sweep follows the `next` cursor one page at a time, with the same certificate, and starts over when interrupted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from math import ceil
from typing import NoReturn

from fubd.core.api import PeoplePage
from fubd.errors import FubRefused, Unavailable
from fubd.poller.poll_run import PAGE_SIZE, MonotonicIds, PollRun
from fubd.ports import PeopleQuery, StateStore

# Small ranges keep the frontier close behind the workers, large ones waste fewer half-filled pages.
_MOST_IN_RANGE = 1000
_FEWEST_IN_RANGE = 300
_RANGES_PER_WORKER = 4
_WORTH_SPLITTING = 2 * PAGE_SIZE
_PAGES_PER_NOTE = 20
_TOLERATED_SHARE = 1000
# Two show the order. A count over a survey made in another order would be of a part, and vouch for nothing.
_SHOW_ORDER = 2


class _NoRanges(Exception):
    """The account does not honour id ranges, or the order by id."""


@dataclass(slots=True, eq=False)
class _Range:
    """Ids above `low` (all up to it are read) and below `high`. `left`: people in it by FUB's last count."""

    low: int
    high: int
    left: int | None = None


@dataclass(frozen=True, slots=True)
class _Survey:
    """The account at the start: its lowest and highest id still to be read, and the count of people between.

    `counted`: the count is surely of that part, and not of the whole account.
    """

    low: int
    top: int
    total: int | None
    counted: bool


class Sweep:
    """One sweep. `total` is the number of people it expects, once known."""

    def __init__(self, run: PollRun, state: StateStore, *, workers: int) -> None:
        self._run = run
        self._state = state
        self._workers = workers
        self._waiting: deque[_Range] = deque()
        self._active: list[_Range] = []
        self._change = asyncio.Condition()
        self._pages = 0
        self._read = 0
        self.total: int | None = None

    async def run(self, began: datetime | None, from_id: int | None) -> datetime:
        """Read everybody (from `from_id` on when `began` tells of an interrupted sweep); give the instant it began, in FUB's time.

        Raises Unavailable when the certificate cannot be given, and Refused.
        """
        first_id = from_id or 0 if began else 0
        newest = await self._run.page(PeopleQuery(limit=_SHOW_ORDER, sort="-id"))
        began = began or newest.read_at
        await self._state.begin_sweep(began, from_id=first_id)
        try:
            survey = await self._survey(newest, first_id)
            if survey is not None:
                self.total = survey.total
                await self._by_ranges(began, survey)
                await self._certify(survey)
        except _NoRanges:
            began = await self._by_cursor()
        return began

    async def _survey(self, newest: PeoplePage, first_id: int) -> _Survey | None:
        oldest = await self._run.page(PeopleQuery(limit=_SHOW_ORDER, sort="id", id_greater_than=first_id - 1))
        if not newest.ids or not oldest.ids:
            if first_id == 0 and (newest.ids or oldest.ids or newest.total):
                raise Unavailable("Follow Up Boss counts people whom it does not list")
            return None
        low, top = oldest.ids[0], newest.ids[0]
        if not first_id <= low <= top or not _rises(oldest.ids) or not _rises(newest.ids[::-1]):
            raise _NoRanges
        # A part's count that equals the account's may not be the part's at all.
        return _Survey(low, top, oldest.total, counted=first_id == 0 or oldest.total != newest.total)

    async def _by_ranges(self, began: datetime, survey: _Survey) -> None:
        total = survey.total or 0
        people = min(_MOST_IN_RANGE, max(_FEWEST_IN_RANGE, total // (self._workers * _RANGES_PER_WORKER)))
        components = max(1, ceil(total / people))
        width = max(1, ceil((survey.top - survey.low + 1) / components))
        for first in range(survey.low, survey.top + 1, width):
            self._waiting.append(_Range(first - 1, min(first + width, survey.top + 1)))
        failure: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work(began))
        except* (Unavailable, FubRefused, _NoRanges) as failures:
            failure = failures.exceptions[0]
        if failure is not None:
            await self._give_up(began, failure)

    async def _give_up(self, began: datetime, failure: BaseException) -> NoReturn:
        if not isinstance(failure, _NoRanges):
            await self._note(began)
        raise failure

    async def _work(self, began: datetime) -> None:
        while (part := await self._take()) is not None:
            while not await self._advance(part):
                await self._tell(began)
            self._active.remove(part)
            await self._tell(began)

    async def _take(self) -> _Range | None:
        """Give the next range, or half of the fullest one; None once there is nothing left to share."""
        async with self._change:
            while True:
                part = self._waiting.popleft() if self._waiting else self._split_fullest()
                if part is not None:
                    self._active.append(part)
                    return part
                if not self._active:
                    return None
                await self._change.wait()

    def _split_fullest(self) -> _Range | None:
        splittable = [part for part in self._active if (part.left or 0) >= _WORTH_SPLITTING and part.high - part.low > _WORTH_SPLITTING]
        if not splittable:
            return None
        fullest = max(splittable, key=lambda part: part.left or 0)
        middle = (fullest.low + fullest.high) // 2
        upper = _Range(middle - 1, fullest.high)
        fullest.high, fullest.left = middle, (fullest.left or 0) // 2
        return upper

    async def _advance(self, part: _Range) -> bool:
        """Read one page of the range and record it; tell whether the range is read to its end."""
        low, high = part.low, part.high
        page = await self._run.page(PeopleQuery(limit=PAGE_SIZE, sort="id", id_greater_than=low, id_less_than=high))
        if not _ascends(page.ids, low, high):
            raise _NoRanges
        await self._run.record_page(page)
        self._pages += 1
        # Another worker may have taken the upper half meanwhile; it counts those.
        mine = sum(1 for person_id in page.ids if person_id < part.high)
        self._read += mine
        shows_all = page.total is not None and page.total == len(page.ids)
        if not page.ids or mine < len(page.ids) or shows_all or page.ids[-1] >= part.high - 1:
            part.low, part.left = part.high - 1, 0
            return True
        part.low = page.ids[-1]
        if high == part.high:
            part.left = None if page.total is None else page.total - len(page.ids)
        return False

    async def _tell(self, began: datetime) -> None:
        async with self._change:
            self._change.notify_all()
        if self._pages >= _PAGES_PER_NOTE:
            self._pages = 0
            await self._note(began)

    async def _note(self, began: datetime) -> None:
        unread = [part.low for part in (*self._active, *self._waiting)]
        if unread:
            await self._state.begin_sweep(began, from_id=min(unread) + 1)

    async def _certify(self, survey: _Survey) -> None:
        if survey.total is None or not survey.counted:
            return
        query = PeopleQuery(limit=1, sort="id", id_greater_than=survey.low - 1, id_less_than=survey.top + 1)
        page = await self._run.page(query)
        await self._count_in_line(survey.total, page.total)

    async def _count_in_line(self, at_start: int, at_end: int | None) -> None:
        expected = at_start if at_end is None else min(at_start, at_end)
        if self._read < expected - max(1, expected // _TOLERATED_SHARE):
            # Which of them are missing cannot be told, so the next sweep starts over.
            fresh = await self._run.page(PeopleQuery(limit=1, sort="-id"))
            await self._state.begin_sweep(fresh.read_at, from_id=0)
            raise Unavailable(f"read {self._read} people of the {expected} that Follow Up Boss counts")

    async def _by_cursor(self) -> datetime:
        page = await self._run.page(PeopleQuery(limit=PAGE_SIZE))
        began, at_start = page.read_at, page.total
        await self._state.begin_sweep(began, from_id=0)
        self.total, self._read = at_start, 0
        order = MonotonicIds()
        while order.goes_on(page.ids):
            await self._run.record_page(page)
            self._read += len(page.ids)
            if page.next is None:
                await self._count_in_line(at_start or 0, page.total)
                return began
            if not page.ids:
                break
            page = await self._run.page(PeopleQuery(limit=PAGE_SIZE, next=page.next))
        raise Unavailable("the pages of the account do not follow one another")


def _ascends(ids: tuple[int, ...], low: int, high: int) -> bool:
    return _rises((low, *ids, high))


def _rises(ids: tuple[int, ...]) -> bool:
    return all(lower < higher for lower, higher in pairwise(ids))
