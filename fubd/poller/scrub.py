"""The scrub: the people verified longest ago are read again, by id, so that in time everybody is.

It finds what both sources missed. People who do not come back are asked for one by one, and only those for whom FUB answers 404 are gone.
When a great part of those asked for is absent, it is far likelier that the key lost sight of them than that they were all deleted: nobody
is marked, and they go to the end of the queue. So does, and is not asked for again, who is there by id and yet on no list (in Trash, where
lists leave it out) and for whom FUB refuses to answer: should they come back, `updated` moves and the walk meets them.

A scrub makes no more calls than the owner allows it batches, whatever it meets: questions by id come out of the same number, and those for
which nothing was left come first the next time, up to half of the calls.

Now and then it also looks at the newest people. FUB may show someone only long after they were created, and `updated` then lies before
what is covered: neither the walk nor a scrub of the known would ever meet them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fubd.core.observation import Reading
from fubd.errors import FubRefused, Malformed
from fubd.metrics import Metrics
from fubd.poller.poll_run import PAGE_SIZE, PollRun
from fubd.ports import PeopleQuery, StateStore

_log = logging.getLogger("fubd.poller")

# More absent people than this, and more than one in ten, are a key that lost sight of them. Not marking the deleted costs little;
# marking the hidden would take them out of the scrub.
_PLAUSIBLY_DELETED = 5
_ONE_IN = 10
_MOST_REMEMBERED = 100_000
# One call in twelve scrubs is four a day.
_SCRUBS_PER_LOOK = 12
_MOST_LOOKS = 20


@dataclass(slots=True)
class Scrubbed:
    """What a scrub found. `stale`: one of the mismatches had changed before what is covered, so a walk should have shown it."""

    matched: int = 0
    mismatched: int = 0
    gone: int = 0
    stale: bool = False


class Scrub:
    """Re-verifies people. It remembers whom no list shows, who is still to be asked for by id, and how often it ran."""

    def __init__(self, state: StateStore, metrics: Metrics) -> None:
        self._state = state
        self._metrics = metrics
        self._out_of_sight: set[int] = set()
        self._doubtful: dict[int, None] = {}
        self._scrubs = 0

    async def run(self, run: PollRun, *, batches: int) -> Scrubbed:
        """Read up to `batches` times 100 people again, in as many calls. Raises Unavailable and Refused."""
        scrubbed = Scrubbed()
        # Half of them, and of one batch every other time.
        asked = await self._confirm_doubtful(run, (batches + self._scrubs % 2) // 2, scrubbed)
        people = await self._state.oldest_verified(PAGE_SIZE * (batches - asked))
        absent: list[int] = []
        for first in range(0, len(people), PAGE_SIZE):
            absent += await self._read(run, people[first : first + PAGE_SIZE], scrubbed)
            asked += 1
        if absent:
            self._doubt(absent, len(people))
            # Whoever is found by id or gone leaves the queue by that.
            await self._state.requeue(absent)
        await self._confirm_doubtful(run, batches - asked, scrubbed)
        if self._scrubs % _SCRUBS_PER_LOOK == 0:
            await self._look_at_newest(run)
        self._scrubs += 1
        return scrubbed

    async def _look_at_newest(self, run: PollRun) -> None:
        """Read the people with the highest ids, further down for as long as all of them are new to us."""
        below: int | None = None
        for _ in range(_MOST_LOOKS):
            page = await run.page(PeopleQuery(limit=PAGE_SIZE, sort="-id", id_less_than=below))
            findings = await run.record_page(page)
            if not page.ids or findings.first_seen < len(page.ids):
                return
            below = min(page.ids)

    async def _read(self, run: PollRun, asked: list[int], scrubbed: Scrubbed) -> list[int]:
        """Read one batch; give those of it who were not there, or could not be read."""
        page = await run.page(PeopleQuery(limit=PAGE_SIZE, ids=tuple(asked)))
        wanted = set(asked)
        present = [reading for reading in page.readings if reading.person_id in wanted]
        findings = await run.record(present, page.read_at)
        await self._note(run, present, findings.mismatched, scrubbed)
        seen = {reading.person_id for reading in present}
        self._out_of_sight -= seen
        return sorted(wanted - seen)

    async def _note(self, run: PollRun, present: list[Reading], mismatched: frozenset[int], scrubbed: Scrubbed) -> None:
        wrong = [reading for reading in present if reading.person_id in mismatched]
        right = len(present) - len(wrong)
        scrubbed.matched += right
        scrubbed.mismatched += len(wrong)
        scrubbed.stale |= any(run.watermark is not None and reading.updated < run.watermark for reading in wrong)
        self._metrics.scrubbed_people.labels("match").inc(right)
        self._metrics.scrubbed_people.labels("mismatch").inc(len(wrong))
        await self._state.note_scrub(matched=right, mismatched=len(wrong))

    def _doubt(self, absent: list[int], asked: int) -> None:
        # Those in doubt come round together, at the end of the queue, and are no new crowd.
        newly = [person_id for person_id in absent if person_id not in self._doubtful]
        crowd = len(newly) > _PLAUSIBLY_DELETED and _ONE_IN * len(newly) > asked
        if crowd and not self._out_of_sight:
            _log.warning("%d of %d people re-read are out of the key's sight; none of them is taken for deleted.", len(newly), asked)
        if crowd:
            self._lose_sight(*newly)
        room = _MOST_REMEMBERED - len(self._doubtful)
        self._doubtful.update(dict.fromkeys([person_id for person_id in newly if person_id not in self._out_of_sight][:room]))

    def _lose_sight(self, *person_ids: int) -> None:
        for person_id in person_ids:
            self._doubtful.pop(person_id, None)
        if len(self._out_of_sight) < _MOST_REMEMBERED:
            self._out_of_sight.update(person_ids)

    async def _confirm_doubtful(self, run: PollRun, at_most: int, scrubbed: Scrubbed) -> int:
        """Ask for some by id; give how many."""
        people = list(self._doubtful)[: max(0, at_most)]
        for person_id in people:
            await self._confirm(run, person_id, scrubbed)
            self._doubtful.pop(person_id, None)
        return len(people)

    async def _confirm(self, run: PollRun, person_id: int, scrubbed: Scrubbed) -> None:
        """Ask for one person by id, and settle where they are."""
        try:
            reading, read_at = await run.person(person_id)
        except (FubRefused, Malformed):
            self._lose_sight(person_id)
            return
        if reading is None:
            await self._state.mark_deleted(person_id, read_at)
            scrubbed.gone += 1
            return
        findings = await run.record([reading], read_at)
        await self._note(run, [reading], findings.mismatched, scrubbed)
        self._lose_sight(person_id)
