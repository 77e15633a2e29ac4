"""The incremental read by ranges of ids: where neither the filter nor the order by time alone shows everyone.

The newest people of a range come first (`sort=-updated` with `idGreaterThan` and `idLessThan`). When they reach back to the watermark, that
one page shows everyone of the range who changed, at one moment, and nobody can move out of a range. Otherwise the range is divided.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from math import ceil

from fubd.core.api import PeoplePage
from fubd.core.observation import Reading
from fubd.errors import FubRefused, Malformed
from fubd.poller.poll_run import PAGE_SIZE, PollRun
from fubd.ports import PeopleQuery

# People known to have changed in one range at the start: with some more it still fits on a page.
_PEOPLE_IN_RANGE = 80
# Beyond this many calls, or half of those of a sweep, the sweep is the better way: it reads in parallel.
_MAX_CALLS = 400
_MIN_CALLS = 10


@dataclass(frozen=True, slots=True)
class _IdRange:
    """Ids above `low` and below `high`; None for no limit."""

    low: int | None
    high: int | None

    def holds(self, person_id: int) -> bool:
        """Return whether an id is in the range."""
        return (self.low is None or person_id > self.low) and (self.high is None or person_id < self.high)

    def query(self) -> PeopleQuery:
        """Return the query of the range's newest people."""
        return PeopleQuery(limit=PAGE_SIZE, sort="-updated", id_greater_than=self.low, id_less_than=self.high)

    def split(self, middle: int) -> tuple[_IdRange, _IdRange]:
        """Return the ids below `middle`, and the others."""
        return _IdRange(self.low, middle), _IdRange(middle - 1, self.high)


class RangeRead:
    """One read by ranges. `account_total`: FUB's count of all people, None where it gave none. `page_rows`: rows of a full page.

    `people`: everyone it showed, each with the time of their last change.
    """

    def __init__(self, run: PollRun, watermark: datetime, *, account_total: int | None, page_rows: int) -> None:
        self._run = run
        self._watermark = watermark
        self._account_total = account_total
        self._page_rows = page_rows
        self.people: dict[int, datetime] = {}
        self._calls_left = min(_MAX_CALLS, max(_MIN_CALLS, (account_total or 0) // PAGE_SIZE // 2))

    async def run(self, changed: Collection[int], *, expected: int) -> bool:
        """Record everyone who changed at or after the watermark; return whether that is proven.

        `changed`: some of them; `expected`: about how many they are.
        """
        waiting = deque(_divide(sorted(changed), max(1, ceil(expected / _PEOPLE_IN_RANGE))))
        while waiting:
            part = waiting.popleft()
            page = await self._page(part)
            if page is None:
                return False
            await self._run.record_ahead(page)
            self.people.update({reading.person_id: reading.updated for reading in page.readings})
            if not await self._shows_all(part, page):
                if len(page.ids) <= 1:
                    return False
                waiting += part.split(sorted(page.ids)[len(page.ids) // 2])
        return True

    async def _page(self, part: _IdRange) -> PeoplePage | None:
        """Read the newest of the range; None when FUB does not list them so, or after too many calls."""
        self._calls_left -= 1
        if self._calls_left < 0:
            return None
        try:
            page = await self._run.page(part.query())
        except (FubRefused, Malformed):
            return None
        return page if is_newest_first(page.readings) and all(map(part.holds, page.ids)) else None

    async def _shows_all(self, part: _IdRange, page: PeoplePage) -> bool:
        """Return whether the page reaches back to the watermark, or to the end of its range."""
        if page.readings and page.readings[-1].updated < self._watermark:
            return True
        # A count that equals that of the account may not be of the range.
        is_counted = page.total is None or page.total <= page.people or page.total == self._account_total
        if page.rows >= self._page_rows or not is_counted or page.next is not None:
            return False
        if not page.may_continue:
            return True
        self._calls_left -= 1
        return await ends_with(self._run, part.query(), page, 0)


async def ends_with(run: PollRun, query: PeopleQuery, page: PeoplePage, offset: int) -> bool:
    """Return whether nobody follows the last row of this page of the query, which does not say so itself.

    From that row on the list must show it and nobody else. An empty page would show less: it may be any answer.
    """
    last = offset + page.rows - 1
    try:
        rest = await run.page(replace(query, offset=max(0, last)))
    except (FubRefused, Malformed):
        return False
    return rest.ids == page.ids[-1:] and rest.next is None


def _divide(ids: list[int], parts: int) -> list[_IdRange]:
    """Return so many ranges that together hold every id, with as many of the given ids in each."""
    firsts = sorted({ids[len(ids) * part // parts] for part in range(1, parts)} - {ids[0]}) if ids else []
    return [_IdRange(None if low is None else low - 1, high) for low, high in pairwise([None, *firsts, None])]


def is_newest_first(readings: tuple[Reading, ...]) -> bool:
    """Return whether the people stand in the order of their last change, newest first."""
    return all(newer.updated >= older.updated for newer, older in pairwise(readings))
