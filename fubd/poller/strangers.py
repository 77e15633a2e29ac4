"""People that Follow Up Boss shows on pages that they do not belong on: without them, the other people of a page still prove something.

Such a person breaks the order and the filter of each page that they are on, so that no read could show that it saw everyone. A page on
which nobody belongs shows who they are. They are put off: left out of every page of a walk, which may show an old copy of them, and read by
id instead. When such a page shows many, nobody is odd; ranges of ids are ignored.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

from fubd.core.api import PeoplePage
from fubd.core.text import format_count
from fubd.ports import PeopleQuery

_log = logging.getLogger("fubd.poller")

_MOST = 3
NOBODY = PeopleQuery(limit=10, id_less_than=1)
"""A query that no person fits. Where ranges of ids are ignored, it shows more people than could be strangers."""


class Strangers:
    """The ids of these people, as this process has learned them."""

    def __init__(self) -> None:
        self.ids: frozenset[int] = frozenset()

    def learn(self, page: PeoplePage) -> bool:
        """Learn from the answer to `NOBODY`; return whether it shows others than before."""
        before, self.ids = self.ids, frozenset(page.ids if len(page.ids) <= _MOST else ())
        if self.ids - before:
            _log.warning(
                "Follow Up Boss shows %s on pages that they do not belong on (%s); they are read by id, everybody else as usual",
                format_count(len(self.ids), "person"),
                ", ".join(map(str, sorted(self.ids))),
            )
        return self.ids != before

    def leave_out(self, page: PeoplePage, query: PeopleQuery) -> PeoplePage:
        """Return the page without them, and its total without those who belong on the list; as it is when people were requested by id."""
        if query.ids is not None or self.ids.isdisjoint(page.ids):
            return page
        updated = {reading.person_id: reading.updated for reading in page.readings}
        counted = sum(person_id in self.ids and _fits(query, person_id, updated.get(person_id)) for person_id in page.ids)
        return replace(
            page,
            total=None if page.total is None else max(0, page.total - counted),
            readings=tuple(reading for reading in page.readings if reading.person_id not in self.ids),
            ids=tuple(person_id for person_id in page.ids if person_id not in self.ids),
            unreadable=tuple(person_id for person_id in page.unreadable if person_id not in self.ids),
        )


def _fits(query: PeopleQuery, person_id: int, updated: datetime | None) -> bool:
    """Return whether a person belongs on some page of the query, as far as that can be seen."""
    is_above = query.id_greater_than is None or person_id > query.id_greater_than
    is_below = query.id_less_than is None or person_id < query.id_less_than
    is_later = query.updated_after is None or updated is None or updated >= query.updated_after
    return is_above and is_below and is_later
