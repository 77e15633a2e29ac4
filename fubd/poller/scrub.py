"""The scrub: the people verified longest ago are read again, by id, so that in time everybody is.

It finds what both sources missed. People who do not come back are asked for one by one, a bounded number each time, and only those for
whom FUB answers 404 are gone. When a great part of those asked for is absent, it is far likelier that the key lost sight of them than that
they were all deleted: nobody is marked, and they go to the end of the queue.

Now and then it also looks at the newest people. FUB may show someone only long after they were created, and `updated` then lies before
what is covered: neither the walk nor a scrub of the known would ever meet them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fubd.core.observation import Reading
from fubd.metrics import Metrics
from fubd.poller.errand import PAGE_SIZE, Errand
from fubd.ports import Book, Malformed, PeopleQuery, Refused

_log = logging.getLogger("fubd.poller")

_CONFIRMED_AT_ONCE = 20
# More absent people than this, and more than one in ten, are a key that lost sight of them. Not marking the deleted costs little;
# marking the hidden would take them out of the scrub.
_PLAUSIBLY_DELETED = 5
_ONE_IN = 10
_MOST_REMEMBERED = 100_000
# One call in eight scrubs is six a day.
_SCRUBS_PER_LOOK = 8
_MOST_LOOKS = 20


@dataclass(slots=True)
class Scrubbed:
    """What a scrub found. `stale`: one of the mismatches had changed before what is covered, so a walk should have shown it."""

    matched: int = 0
    mismatched: int = 0
    gone: int = 0
    stale: bool = False


class Scrub:
    """Re-verifies people. It remembers whom the key lost sight of, and how often it ran."""

    def __init__(self, book: Book, metrics: Metrics) -> None:
        self._book = book
        self._metrics = metrics
        self._out_of_sight: set[int] = set()
        self._scrubs = 0

    async def run(self, errand: Errand, *, batches: int) -> Scrubbed:
        """Read up to `batches` times 100 people again. Raises Unavailable and Refused."""
        scrubbed = Scrubbed()
        people = await self._book.oldest_verified(PAGE_SIZE * batches)
        absent: list[int] = []
        for first in range(0, len(people), PAGE_SIZE):
            absent += await self._read(errand, people[first : first + PAGE_SIZE], scrubbed)
        await self._settle_absent(errand, absent, len(people), scrubbed)
        if self._scrubs % _SCRUBS_PER_LOOK == 0:
            await self._look_at_newest(errand)
        self._scrubs += 1
        return scrubbed

    async def _look_at_newest(self, errand: Errand) -> None:
        """Read the people with the highest ids, further down for as long as all of them are new to us."""
        below: int | None = None
        for _ in range(_MOST_LOOKS):
            page = await errand.page(PeopleQuery(limit=PAGE_SIZE, sort="-id", id_less_than=below))
            findings = await errand.hand_in_page(page)
            if not page.ids or findings.first_seen < len(page.ids):
                return
            below = min(page.ids)

    async def _read(self, errand: Errand, asked: list[int], scrubbed: Scrubbed) -> list[int]:
        """Read one batch; give those of it who were not there, or could not be read."""
        page = await errand.page(PeopleQuery(limit=PAGE_SIZE, ids=tuple(asked)))
        wanted = set(asked)
        present = [reading for reading in page.readings if reading.person_id in wanted]
        findings = await errand.hand_in(present, page.read_at)
        await self._note(errand, present, findings.mismatched, scrubbed)
        seen = {reading.person_id for reading in present}
        self._out_of_sight -= seen
        return sorted(wanted - seen)

    async def _note(self, errand: Errand, present: list[Reading], mismatched: frozenset[int], scrubbed: Scrubbed) -> None:
        wrong = [reading for reading in present if reading.person_id in mismatched]
        right = len(present) - len(wrong)
        scrubbed.matched += right
        scrubbed.mismatched += len(wrong)
        scrubbed.stale |= any(errand.covered is not None and reading.updated < errand.covered for reading in wrong)
        self._metrics.scrubbed_people.labels("match").inc(right)
        self._metrics.scrubbed_people.labels("mismatch").inc(len(wrong))
        await self._book.note_scrub(matched=right, mismatched=len(wrong))

    async def _settle_absent(self, errand: Errand, absent: list[int], asked: int, scrubbed: Scrubbed) -> None:
        crowd = len(absent) > _PLAUSIBLY_DELETED and _ONE_IN * len(absent) > asked
        if crowd and not self._out_of_sight:
            _log.warning("%d of %d people re-read are out of the key's sight; none of them is taken for deleted.", len(absent), asked)
        if crowd and len(self._out_of_sight) < _MOST_REMEMBERED:
            self._out_of_sight.update(absent)
        doubtful = [person_id for person_id in absent if not crowd and person_id not in self._out_of_sight][:_CONFIRMED_AT_ONCE]
        settled = {person_id for person_id in doubtful if await self._confirm(errand, person_id, scrubbed)}
        unsettled = [person_id for person_id in absent if person_id not in settled]
        if unsettled:
            await self._book.send_to_back(unsettled)

    async def _confirm(self, errand: Errand, person_id: int, scrubbed: Scrubbed) -> bool:
        """Ask for one person by id; tell whether it is settled where they are."""
        try:
            reading, read_at = await errand.person(person_id)
        except (Refused, Malformed):
            return False
        if reading is None:
            await self._book.gone(person_id, read_at)
            scrubbed.gone += 1
            return True
        findings = await errand.hand_in([reading], read_at)
        await self._note(errand, [reading], findings.mismatched, scrubbed)
        return True
