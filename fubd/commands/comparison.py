"""Compares the account with the database, person by person: whoever seems to differ is looked at again before that is said.

People move while we read, and what they did may still be on its way here. So a difference counts only when a second look shows it and FUB
dates the person's last change before the comparison began; who changed meanwhile is looked at a few times more, and then left out.
Nobody is gone because a list does not show them: they are asked for one by one, a bounded number, and only a 404 counts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from typing_extensions import override

from fubd.core.observation import Channel, Reading, Snapshot
from fubd.core.timeline import Stage
from fubd.errors import FubRefused, Malformed
from fubd.poller import Progress
from fubd.poller.poll_run import NOTHING, PAGE_SIZE, PollRun, RunStats
from fubd.poller.sweep import Sweep
from fubd.ports import Clock, FubApi, PeopleQuery, SnapshotResult, SnapshotSink
from fubd.store import Pool, StateStore
from fubd.store.people import CurrentStage, PeopleReader

_WORKERS = 16
_LOOKS = 3
_BETWEEN_LOOKS_SECONDS = 2.0
_CONFIRMED_MOST = 200
_LISTED_MOST = 1_000
_KNOWN_AT_ONCE = 5_000
# Older tables cut the names of stages, none below this.
_SHORTEST_CUT = 100


class Kind(StrEnum):
    """How a person differs, in words."""

    STAGE = "stands elsewhere"
    UNKNOWN = "unknown here"
    RETURNED = "marked gone here, but there"
    GONE = "deleted there, not marked here"


@dataclass(frozen=True, slots=True)
class Difference:
    """One person who differs: where they stand `here` and `there`, None where they do not; `updated` is FUB's."""

    person_id: int
    kind: Kind
    here: str | None
    there: str | None
    updated: datetime | None


@dataclass(slots=True)
class Result:
    """What a comparison came to. `listed` holds the first of the differences, `counts` counts them all.

    `moving`: people who changed while it ran, not judged. `unconfirmed`: known people whom FUB did not show and who were not asked for one
    by one, or could not be. `unreadable`: people of whom FUB told nothing usable.
    """

    matched: int = 0
    counts: Counter[Kind] = field(default_factory=Counter)
    listed: list[Difference] = field(default_factory=list)
    moving: int = 0
    unconfirmed: int = 0
    unreadable: int = 0

    @property
    def different(self) -> int:
        """How many people differ."""
        return self.counts.total()

    @property
    def judged(self) -> int:
        """How many people were judged: the denominator of the ratio."""
        return self.matched + self.different

    @property
    def ratio(self) -> float:
        """The share of people who stand here as in FUB; 1 when there was nobody."""
        return self.matched / self.judged if self.judged else 1.0


class Comparison:
    """One comparison. `ignored_stages`: moves into these are not recorded, so standing there is no difference.

    `fix`: where people who differ are recorded, None to record nothing. `covered`: FUB's instant of coverage, for what is recorded so.
    """

    def __init__(
        self,
        api: FubApi,
        pool: Pool,
        clock: Clock,
        *,
        ignored_stages: Iterable[str],
        covered: datetime | None,
        fix: SnapshotSink | None,
        progress: Callable[[Progress], None],
        stop: asyncio.Event,
    ) -> None:
        self._clock = clock
        self._people = PeopleReader(pool)
        self._book = _Untouched(pool)
        self._ignored = frozenset(ignored_stages)
        self._covered = covered
        self._fix = fix
        self._progress = progress
        self._stop = stop
        self._began: datetime | None = None
        self._seen: set[int] = set()
        self._doubted: set[int] = set()
        self._confirmed = 0
        self._total: Callable[[], int | None] = lambda: None
        self._errand = PollRun(api, _FirstLook(self), covered=covered, should_continue=lambda: not stop.is_set(), on_page=self._tell)
        self.result = Result()

    async def everybody(self) -> Result:
        """Compare the whole account. Raises Unavailable and Refused, also when told to stop."""
        sweep = Sweep(self._errand, self._book, workers=_WORKERS)
        self._total = lambda: sweep.total
        await sweep.run(None, None)
        after, known = 0, await self._people.list_ids(0, _KNOWN_AT_ONCE)
        while known:
            self._doubted.update(person_id for person_id in known if person_id not in self._seen)
            after = known[-1]
            known = await self._people.list_ids(after, _KNOWN_AT_ONCE)
        return await self._settle()

    async def sample(self, number: int) -> Result:
        """Compare so many known people, chosen at random. Raises as `everybody` does."""
        people = await self._people.sample_ids(number)
        self._total = lambda: len(people)
        for first in range(0, len(people), PAGE_SIZE):
            asked = people[first : first + PAGE_SIZE]
            await self._errand.record_page(await self._errand.page(PeopleQuery(limit=PAGE_SIZE, ids=tuple(asked))))
            self._doubted.update(person_id for person_id in asked if person_id not in self._seen)
        return await self._settle()

    # --- the first look ---

    async def first_look(self, snapshot: Snapshot) -> None:
        """Compare the people of one page; doubt those who differ."""
        self._begin(snapshot.read_at)
        fresh = {reading.person_id: reading for reading in snapshot.readings if reading.person_id not in self._seen}
        self._seen |= fresh.keys()
        standing = await self._people.current_stages(fresh.keys())
        for person_id, reading in fresh.items():
            if self._difference(reading, standing.get(person_id)) is None:
                self.result.matched += 1
            else:
                self._doubted.add(person_id)

    def _begin(self, read_at: datetime) -> None:
        self._began = read_at if self._began is None else min(self._began, read_at)

    def _difference(self, reading: Reading, standing: CurrentStage | None) -> Difference | None:
        there = Stage(reading.stage, reading.stage_id)
        if standing is None:
            kind = Kind.UNKNOWN
        elif standing.gone:
            kind = Kind.RETURNED
        elif reading.stage in self._ignored or _same(standing.stage, there):
            return None
        else:
            kind = Kind.STAGE
        return Difference(reading.person_id, kind, standing.stage.name if standing else None, reading.stage, reading.updated)

    def _tell(self, tally: RunStats) -> None:
        self._progress(Progress("audit", tally.people, self._total(), len(self._doubted), tally.calls, None))

    # --- looking again ---

    async def _settle(self) -> Result:
        """Look again at who is doubted, until each is settled or has changed meanwhile."""
        self.result.unreadable = self._errand.tally.unreadable
        doubted = sorted(self._doubted)
        for look in range(_LOOKS):
            if look and doubted:
                await self._clock.pause(_BETWEEN_LOOKS_SECONDS, self._stop)
            moving: list[int] = []
            for first in range(0, len(doubted), PAGE_SIZE):
                moving += await self._look_again(doubted[first : first + PAGE_SIZE])
            doubted = moving
        self.result.moving = len(doubted)
        self.result.listed.sort(key=lambda one: one.person_id)
        return self.result

    async def _look_again(self, asked: Sequence[int]) -> list[int]:
        """Judge these people; give those who changed since the comparison began."""
        page = await self._errand.page(PeopleQuery(limit=PAGE_SIZE, ids=tuple(asked)))
        self._begin(page.read_at)
        present = [reading for reading in page.readings if reading.person_id in asked]
        moving = await self._judge(present, page.read_at)
        for person_id in sorted(set(asked) - {reading.person_id for reading in present} - set(page.unreadable)):
            moving += await self._confirm(person_id)
        return moving

    async def _judge(self, readings: Sequence[Reading], read_at: datetime) -> list[int]:
        standing = await self._people.current_stages([reading.person_id for reading in readings])
        moving: list[int] = []
        wrong: list[Reading] = []
        for reading in readings:
            difference = self._difference(reading, standing.get(reading.person_id))
            if difference is None:
                self.result.matched += 1
            elif self._began is not None and reading.updated >= self._began - timedelta(seconds=1):
                moving.append(reading.person_id)
            else:
                self._differs(difference)
                wrong.append(reading)
        if wrong and self._fix is not None:
            await self._fix.observe(Snapshot(tuple(wrong), read_at, self._covered, Channel.POLLING))
        return moving

    async def _confirm(self, person_id: int) -> list[int]:
        """Ask for somebody by id whom a list did not show."""
        self._confirmed += 1
        if self._confirmed > _CONFIRMED_MOST:
            self.result.unconfirmed += 1
            return []
        try:
            reading, read_at = await self._errand.person(person_id)
        except (FubRefused, Malformed):
            self.result.unconfirmed += 1
            return []
        if reading is not None:
            return await self._judge([reading], read_at)
        standing = (await self._people.current_stages([person_id])).get(person_id)
        if standing is None or standing.gone:
            # Created and deleted, or deleted and marked so, while we looked.
            return []
        self._differs(Difference(person_id, Kind.GONE, standing.stage.name, None, None))
        if self._fix is not None:
            await self._book.mark_deleted(person_id, read_at)
        return []

    def _differs(self, difference: Difference) -> None:
        self.result.counts[difference.kind] += 1
        if len(self.result.listed) < _LISTED_MOST:
            self.result.listed.append(difference)


class _FirstLook:
    """Stands where the junction stands for a poll, and compares instead of recording."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison

    async def observe(self, snapshot: Snapshot) -> SnapshotResult:
        await self._comparison.first_look(snapshot)
        return NOTHING


class _Untouched(StateStore):
    """The book, but no note of a sweep: this one is not for coverage."""

    @override
    async def begin_sweep(self, began: datetime, *, from_id: int) -> None:
        return


def _same(here: Stage, there: Stage) -> bool:
    return here.same(there) or (len(here.name) >= _SHORTEST_CUT and there.name.startswith(here.name))
