"""Read people by their ids, in smaller batches where Follow Up Boss refuses a batch because of one of them, or shows only a part of it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus

from fubd.core.api import PeoplePage
from fubd.errors import FubRefused, Malformed
from fubd.poller.poll_run import PAGE_SIZE, PollRun
from fubd.ports import PeopleQuery

# After so many refusals the ids are not the reason: of the batch, its halves and its quarters, or of all parts together.
_MAX_FAILURES_AT_FIRST = 7
_MAX_FAILURES = 30
# A page may be smaller than requested.
_MAX_PAGES = 30


async def read_id_batch(run: PollRun, person_ids: Sequence[int]) -> AsyncIterator[PeoplePage]:
    """Yield the pages that show these people (at most a hundred), usually one, at most about thirty.

    An id that is refused alone is on none of them. Raises Unavailable, and FubRefused or Malformed when parts without an odd id are
    refused, too.
    """
    waiting = deque([tuple(person_ids)])
    pages = failures = 0
    while waiting:
        part = waiting.popleft()
        try:
            page = await run.page(PeopleQuery(limit=PAGE_SIZE, ids=part))
        except (FubRefused, Malformed) as error:
            failures += 1
            if not _may_be_one_id(error) or failures >= (_MAX_FAILURES if pages else _MAX_FAILURES_AT_FIRST):
                raise
            if len(part) > 1:
                waiting += [part[: len(part) // 2], part[len(part) // 2 :]]
        else:
            pages += 1
            yield page
            left = tuple(person_id for person_id in part if person_id not in page.ids)
            if left and page.ids and pages < _MAX_PAGES and _shows_part(page, len(part)):
                waiting.append(left)


def _shows_part(page: PeoplePage, requested: int) -> bool:
    """Return whether more of those requested are there than the page shows. A larger total is not a count of them."""
    return page.may_continue or page.people < (page.total or 0) <= requested


def _may_be_one_id(error: FubRefused | Malformed) -> bool:
    return isinstance(error, Malformed) or error.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND)
