"""People that Follow Up Boss shows without usable data: kept by id, asked for again, and reported as a problem.

One odd person must not stop the others, and must not count as read either. So everybody else on the page is recorded and coverage may go
on; the odd one is verified by nothing until a reading of theirs is recorded. When more than a tenth of a run was odd, the fault is not a
person's but FUB's or ours: such a run moves no coverage. An element without a usable id cannot be asked for again; it makes every run
incomplete, but no longer than a day, as it may never be repaired.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from fubd.core.api import PeoplePage
from fubd.core.problems import ProblemName
from fubd.core.text import format_count
from fubd.metrics import Metrics
from fubd.ports import Clock, StateStore
from fubd.problems import Problems

WITHOUT_ID = 0
"""Stands for elements without a usable id among the ids of unread people."""

_BLOCKS_FOR = timedelta(days=1)
_EXAMPLES = 5


class UnreadPeople:
    """The people who could not be read, as the database keeps them."""

    def __init__(self, state: StateStore, clock: Clock, metrics: Metrics, problems: Problems) -> None:
        self._state = state
        self._clock = clock
        self._metrics = metrics
        self._problems = problems
        self._since: dict[int, datetime] = {}
        self._due: list[int] = []
        # Those of them that Follow Up Boss shows as it should. Their problem is `table_refuses`.
        self._refused: frozenset[int] = frozenset()

    async def load(self) -> None:
        """Read the table: another process may have read some of them. Raises Unavailable."""
        unread = await self._state.unread_people()
        now = self._clock.now()
        self._since = {person.person_id: person.since for person in unread}
        self._due = [person.person_id for person in unread if person.not_before <= now and person.person_id != WITHOUT_ID]
        self._show()

    def due(self, limit: int) -> list[int]:
        """Return people to ask for again, those due longest first."""
        return self._due[:limit]

    async def observe_page(self, page: PeoplePage) -> None:
        """Note those of the page who cannot be used. Raises Unavailable."""
        await self.add([*page.unreadable, *([WITHOUT_ID] if page.unidentified else [])])

    async def add(self, person_ids: Iterable[int], *, by_table: bool = False) -> None:
        """Note people who were shown and could not be read, or, `by_table`, whose rows the table refused. Raises Unavailable."""
        ids = frozenset(person_ids)
        if ids:
            self._refused = self._refused | ids if by_table else self._refused - ids
            now = self._clock.now()
            await self._state.add_unread(ids, now)
            self._since = dict.fromkeys(ids, now) | self._since
            self._forget_due(ids)

    async def settle(self, person_ids: Iterable[int]) -> None:
        """Drop people whose reading is recorded, or who are gone. Raises Unavailable."""
        ids = frozenset(person_ids) & self._since.keys()
        if ids:
            await self._state.drop_unread(ids)
            # Another page of a run may have settled them meanwhile.
            for person_id in ids:
                self._since.pop(person_id, None)
            self._forget_due(ids)

    async def settle_unidentified(self) -> None:
        """Drop the elements without an id: a run that read again all since coverage has shown none. Raises Unavailable."""
        await self.settle([WITHOUT_ID])

    def blocks_coverage(self, unidentified: int) -> bool:
        """Return whether a run with that many elements without an id must move no coverage."""
        since = self._since.get(WITHOUT_ID)
        return unidentified > 0 and since is not None and self._clock.now() - since < _BLOCKS_FOR

    def _forget_due(self, ids: frozenset[int]) -> None:
        self._due = [person_id for person_id in self._due if person_id not in ids]
        self._show()

    def _show(self) -> None:
        self._metrics.people_unreadable.set(len(self._since))
        if self._refused >= self._since.keys():
            self._problems.end(ProblemName.PEOPLE_UNREADABLE)
            return
        self._problems.begin(
            ProblemName.PEOPLE_UNREADABLE,
            f"Follow Up Boss shows {self._description()}. Everybody else is recorded. {self._remedy()}",
        )

    def _remedy(self) -> str:
        if self._since.keys() - self._refused == {WITHOUT_ID}:
            return "Coverage waits for them for at most a day; if they stay, ask Follow Up Boss's support."
        return "These are asked for again: open them in Follow Up Boss and set their stage."

    def _description(self) -> str:
        people = sorted(self._since.keys() - {WITHOUT_ID} - self._refused)
        examples = f", for example {', '.join(map(str, people[:_EXAMPLES]))}"
        parts = [f"{format_count(len(people), 'person')} without a usable stage or time of change{examples}"] if people else []
        parts += ["elements without a usable id on its lists"] if WITHOUT_ID in self._since else []
        return " and ".join(parts)
