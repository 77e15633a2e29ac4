"""The scrub: read the people verified longest ago again, by id, so that in time everyone is verified.

It finds what both sources missed. People who are absent from the answer are read by id one by one, and only a 404 marks them deleted.
When a large part of those requested is absent, it is far likelier that the key lost sight of them than that all were deleted: none is
marked, and they go to the end of the queue. The same holds, without another read by id, for a person who is readable by id and yet on no
list (in Trash, where lists leave it out), and for one that FUB refuses to return: should such a person come back, `updated` moves and the
incremental read finds them.

A scrub makes no more calls than it is allowed batches. Reads by id count towards that number. Those for which no call was left come first
in the next scrub, up to half of its calls.

Every few scrubs also read the newest people. FUB may show a person only long after the creation, with an `updated` before coverage:
neither the incremental read nor a scrub of the known people would ever find them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from fubd.core.history import Stage
from fubd.core.observation import Reading
from fubd.core.text import format_count
from fubd.errors import FubRefused, Malformed
from fubd.log_once import LogOnce
from fubd.metrics import Metrics
from fubd.poller.context import PollContext
from fubd.poller.id_batch import read_id_batch
from fubd.poller.poll_run import PAGE_SIZE, PollRun
from fubd.ports import PeopleQuery, StateStore

_log = logging.getLogger("fubd.poller")

# More absent people than this, and more than one in ten, mean that the key lost sight of them. Leaving a deleted person unmarked costs
# little; marking a hidden one would take them out of the scrub.
_PLAUSIBLE_DELETIONS = 5
_PLAUSIBLE_ONE_IN = 10
_MAX_REMEMBERED = 100_000
# One call every twelve scrubs is four calls a day.
_SCRUBS_PER_NEWEST = 12
_MAX_NEWEST_PAGES = 20
# Lists may trail behind a move that a webhook reported: as far back as incremental reads look.
_SETTLED_AFTER = timedelta(minutes=15)
# Jitter and the duration of a poll make a round slightly shorter or longer than its interval.
_NEARLY = 0.9


@dataclass(slots=True)
class ScrubResult:
    """What a scrub found. `mismatched`: people with a change that both sources missed, recorded now.

    `recent`: people with a change newer than coverage, which the next incremental read would have shown; they match. `differing`: people
    whose rows end in another stage than FUB shows, although no change was found: a row was removed or altered, or an event says otherwise.
    `stale`: a mismatch had changed before coverage, so an incremental read should have shown it. `lost_sight`: more people were absent than
    can have been deleted.
    """

    matched: int = 0
    mismatched: int = 0
    recent: int = 0
    differing: int = 0
    deleted: int = 0
    stale: bool = False
    lost_sight: bool = False


class ScrubSchedule:
    """Runs a scrub when one is due: with every steady poll, and no more often in any other mode."""

    def __init__(self, context: PollContext, *, should_continue: Callable[[], bool]) -> None:
        self._context = context
        self._should_continue = should_continue
        self._scrub = Scrub(context.state, context.metrics)
        # The same people come round again in each round.
        self._differing_log = LogOnce(_log)
        self._scrubbed_at: float | None = None

    async def run_if_due(self) -> ScrubResult:
        """Verify some people, or none when no scrub is due. Raises Unavailable, FubRefused, Malformed."""
        policy, now = self._context.policy, self._context.clock.monotonic()
        spacing_seconds = policy.pacing.poll_interval_seconds * _NEARLY
        if policy.scrub_batches < 1 or (self._scrubbed_at is not None and now - self._scrubbed_at < spacing_seconds):
            return ScrubResult()
        self._scrubbed_at = now
        watermark = (await self._context.state.coverage()).watermark
        async with self._context.open_run("scrub", watermark, should_continue=self._should_continue) as run:
            result = await self._scrub.run(run, batches=policy.scrub_batches)
        if result.stale:
            self._context.incremental.invalidate_probe()
        if result.mismatched:
            verified = result.matched + result.mismatched
            _log.info("Scrub: %d of %d people verified had a change that both sources missed", result.mismatched, verified)
        if result.differing:
            self._differing_log.warning(
                "Scrub: %s: the last row is not of the stage that Follow Up Boss shows, and the evidence allows no other row; "
                "`fubd audit` lists them, `fubd explain ID` shows why",
                format_count(result.differing, "person"),
            )
        return result


class Scrub:
    """Verifies people. It remembers the people on no list, those still to be read by id, and the number of scrubs."""

    def __init__(self, state: StateStore, metrics: Metrics) -> None:
        self._state = state
        self._metrics = metrics
        self._invisible: set[int] = set()
        self._doubtful: dict[int, None] = {}
        self._scrubs = 0

    async def run(self, run: PollRun, *, batches: int) -> ScrubResult:
        """Read up to `batches` times 100 people again, in as many calls. Raises Unavailable and FubRefused."""
        result = ScrubResult()
        # Half of the calls; of a single batch, every other scrub.
        calls = await self._confirm_doubtful(run, (batches + self._scrubs % 2) // 2, result)
        people = await self._state.oldest_verified(PAGE_SIZE * (batches - calls))
        absent: list[int] = []
        for first in range(0, len(people), PAGE_SIZE):
            absent += await self._verify_batch(run, people[first : first + PAGE_SIZE], result)
            calls += 1
        if absent:
            result.lost_sight = self._note_absent(absent, len(people))
            # A person confirmed as present or deleted below leaves the end of the queue by that.
            await self._state.requeue(absent)
        await self._confirm_doubtful(run, batches - calls, result)
        if self._scrubs % _SCRUBS_PER_NEWEST == 0:
            await self._read_newest(run)
        self._scrubs += 1
        return result

    async def _read_newest(self, run: PollRun) -> None:
        """Read the people with the highest ids, further down as long as a whole page is new to us."""
        below: int | None = None
        for _ in range(_MAX_NEWEST_PAGES):
            page = await run.page_in_any_order(PeopleQuery(limit=PAGE_SIZE, sort="-id", id_less_than=below))
            recorded = await run.record_page(page)
            if not page.ids or recorded.first_seen < len(page.ids):
                return
            below = min(page.ids)

    async def _verify_batch(self, run: PollRun, requested: list[int], result: ScrubResult) -> list[int]:
        """Read one batch; return the people who were absent or unreadable."""
        wanted, seen = set(requested), set[int]()
        async for page in read_id_batch(run, requested):
            present = [reading for reading in page.readings if reading.person_id in wanted]
            recorded = await run.record(present, page.read_at)
            verified = [reading for reading in present if reading.person_id not in recorded.refused]
            await self._count(run, verified, page.read_at, recorded.mismatched, result)
            seen.update(reading.person_id for reading in present)
        self._invisible -= seen
        return sorted(wanted - seen)

    async def _count(
        self, run: PollRun, verified: list[Reading], read_at: datetime, mismatched: frozenset[int], result: ScrubResult
    ) -> None:
        changed = [reading for reading in verified if reading.person_id in mismatched]
        missed = [reading for reading in changed if run.watermark is None or reading.updated < run.watermark]
        differing = await self._count_differing([reading for reading in verified if reading.person_id not in mismatched], read_at)
        wrong = len(missed) + differing
        right = len(verified) - wrong
        result.matched += right
        result.mismatched += len(missed)
        result.recent += len(changed) - len(missed)
        result.differing += differing
        result.stale |= bool(missed) and run.watermark is not None
        self._metrics.scrubbed_people.labels("match").inc(right)
        self._metrics.scrubbed_people.labels("mismatch").inc(wrong)
        await self._state.note_scrub(matched=right, mismatched=wrong)

    async def _count_differing(self, readings: list[Reading], read_at: datetime) -> int:
        """Return how many of these people are in another stage here, without those who moved shortly before the read."""
        current = await self._state.current_stages([reading.person_id for reading in readings])
        differing = 0
        for reading in readings:
            here = current.get(reading.person_id)
            is_other = here is not None and not here.ignored and not here.is_in(Stage(reading.stage, reading.stage_id))
            differing += here is not None and is_other and here.since < read_at - _SETTLED_AFTER
        return differing

    def _note_absent(self, absent: list[int], requested: int) -> bool:
        """Keep the absent people to be read by id, unless they are too many; return whether they are."""
        # Doubtful people come round together, at the end of the queue, and are not a new crowd.
        newly = [person_id for person_id in absent if person_id not in self._doubtful]
        is_crowd = len(newly) > _PLAUSIBLE_DELETIONS and _PLAUSIBLE_ONE_IN * len(newly) > requested
        if is_crowd and not self._invisible:
            _log.warning(
                "Scrub: Follow Up Boss did not return %d of %d people; the API key has probably lost access to them; none is deleted",
                len(newly),
                requested,
            )
        if is_crowd:
            self._mark_invisible(*newly)
        room = _MAX_REMEMBERED - len(self._doubtful)
        self._doubtful.update(dict.fromkeys([person_id for person_id in newly if person_id not in self._invisible][:room]))
        return is_crowd

    def _mark_invisible(self, *person_ids: int) -> None:
        for person_id in person_ids:
            self._doubtful.pop(person_id, None)
        if len(self._invisible) < _MAX_REMEMBERED:
            self._invisible.update(person_ids)

    async def _confirm_doubtful(self, run: PollRun, limit: int, result: ScrubResult) -> int:
        """Read up to `limit` doubtful people by id; return how many."""
        people = list(self._doubtful)[: max(0, limit)]
        for person_id in people:
            await self._confirm(run, person_id, result)
            self._doubtful.pop(person_id, None)
        return len(people)

    async def _confirm(self, run: PollRun, person_id: int, result: ScrubResult) -> None:
        """Read one person by id: verified, deleted or invisible."""
        try:
            reading, read_at = await run.person(person_id)
        except (FubRefused, Malformed):
            self._mark_invisible(person_id)
            return
        if reading is None:
            await self._state.mark_deleted(person_id, read_at)
            result.deleted += 1
            return
        recorded = await run.record([reading], read_at)
        await self._count(run, [reading], read_at, recorded.mismatched, result)
        self._mark_invisible(person_id)
