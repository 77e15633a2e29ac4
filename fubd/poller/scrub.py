"""The scrub: the people verified longest ago are read again, by id, so that in time everybody is.

It finds what both sources missed. People who do not come back are asked for one by one, a bounded number each time, and only those for
whom FUB answers 404 are gone. When a great part of those asked for is absent, it is far likelier that the key lost sight of them than that
they were all deleted: nobody is marked, and they go to the end of the queue.
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
# More absent people than this, and more than one in four, are a key that lost sight of them; and so long as it lasts, more than this alone.
_PLAUSIBLY_DELETED = 5
_ONE_IN = 4


@dataclass(slots=True)
class Scrubbed:
    """What a scrub found. `stale`: one of the mismatches had changed before what is covered, so a walk should have shown it."""

    matched: int = 0
    mismatched: int = 0
    gone: int = 0
    stale: bool = False


class Scrub:
    """Re-verifies people. It remembers only whether it has said that people are out of sight."""

    def __init__(self, book: Book, metrics: Metrics) -> None:
        self._book = book
        self._metrics = metrics
        self._said = False

    async def run(self, errand: Errand, *, batches: int) -> Scrubbed:
        """Read up to `batches` times 100 people again. Raises Unavailable and Refused."""
        scrubbed = Scrubbed()
        people = await self._book.oldest_verified(PAGE_SIZE * batches)
        absent: list[int] = []
        for first in range(0, len(people), PAGE_SIZE):
            absent += await self._read(errand, people[first : first + PAGE_SIZE], scrubbed)
        await self._settle_absent(errand, absent, len(people), scrubbed)
        return scrubbed

    async def _read(self, errand: Errand, asked: list[int], scrubbed: Scrubbed) -> list[int]:
        """Read one batch; give those of it who were not there, or could not be read."""
        page = await errand.page(PeopleQuery(limit=PAGE_SIZE, ids=tuple(asked)))
        wanted = set(asked)
        present = [reading for reading in page.readings if reading.person_id in wanted]
        findings = await errand.hand_in(present, page.read_at)
        await self._note(errand, present, findings.mismatched, scrubbed)
        return sorted(wanted - {reading.person_id for reading in present})

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
        out_of_sight = len(absent) > _PLAUSIBLY_DELETED and (self._said or _ONE_IN * len(absent) > asked)
        confirmed = [] if out_of_sight else absent[:_CONFIRMED_AT_ONCE]
        unsettled = absent[len(confirmed) :]
        for person_id in confirmed:
            if not await self._confirm(errand, person_id, scrubbed):
                unsettled.append(person_id)
        if unsettled:
            await self._book.send_to_back(unsettled)
        if out_of_sight and not self._said:
            _log.warning("%d of %d people re-read are out of the key's sight; none of them is taken for deleted.", len(absent), asked)
        self._said = out_of_sight

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
