"""Compares the account with the database, person by person; people who seem to differ are read again first.

People change while they are read, and their webhooks may still be on the way. So a mismatch counts only when a second read shows it and
Follow Up Boss dates the person's last change before the comparison began; people who changed since are read a few times more, and then left
out; a fix records them as they were last read. Absence from a list does not mean deleted: such people are read by id, up to a limit, and
only a 404 counts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from fubd.core.history import Stage
from fubd.core.observation import Channel, Reading, Snapshot, normalize_stage_name
from fubd.core.stored_state import CurrentStage
from fubd.errors import FubRefused, Malformed, UserError
from fubd.poller import Progress
from fubd.poller.id_batch import read_id_batch
from fubd.poller.poll_run import NOTHING, PAGE_SIZE, PollRun, RunStats
from fubd.poller.sweep import Sweep
from fubd.ports import Clock, FubApi, PeopleQuery, SnapshotResult, SnapshotSink
from fubd.store import Pool, StateStore
from fubd.store.people import PeopleReader

_WORKERS = 16
_READS = 3
_BETWEEN_READS_SECONDS = 2.0
# One call for each sampled person would take minutes; so few neighbours leave the sample a random one.
_SAMPLED_TOGETHER = 10
_MAX_CONFIRMED = 200
_MAX_LISTED = 1_000
_IDS_PER_QUERY = 5_000


class MismatchKind(StrEnum):
    """How a person differs, in words."""

    STAGE = "in another stage"
    UNKNOWN = "unknown here"
    RETURNED = "marked as deleted here, but there"
    DELETED = "deleted there, not marked here"


@dataclass(frozen=True, slots=True)
class StageMismatch:
    """One person who differs: the stage `here` and `there`, None where there is none; `updated` is FUB's."""

    person_id: int
    kind: MismatchKind
    here: str | None
    there: str | None
    updated: datetime | None


@dataclass(slots=True)
class ComparisonResult:
    """The result so far. `counts` counts all mismatches, `listed` holds the first of them.

    `recorded`: mismatches that recording removed. `changing`: people who changed during the comparison, not compared, though recorded by a
    fix. `unconfirmed`: known people on no list who were not read by id, or could not be. `hidden`: known people not found by a key that is
    not the owner's. `unreadable`: people without usable data from FUB.
    """

    matched: int = 0
    recorded: int = 0
    counts: Counter[MismatchKind] = field(default_factory=Counter)
    listed: list[StageMismatch] = field(default_factory=list)
    changing: int = 0
    unconfirmed: int = 0
    hidden: int = 0
    unreadable: int = 0

    @property
    def mismatched(self) -> int:
        """The number of people who differ."""
        return self.counts.total()

    @property
    def compared(self) -> int:
        """The number of people compared: the denominator of the ratio."""
        return self.matched + self.mismatched

    @property
    def ratio(self) -> float | None:
        """The share of people whose stage matches; None when none was compared."""
        return self.matched / self.compared if self.compared else None


class Comparison:
    """One comparison. Moves into `ignored_stages` are not recorded, so being there is no mismatch.

    `fix`: records the people who differ, None to record nothing. `watermark`: FUB's instant of coverage, used when recording.
    """

    def __init__(
        self,
        api: FubApi,
        pool: Pool,
        clock: Clock,
        *,
        ignored_stages: Iterable[str],
        watermark: datetime | None,
        fix: SnapshotSink | None,
        on_progress: Callable[[Progress], None],
        stop: asyncio.Event,
    ) -> None:
        self._api = api
        self._clock = clock
        self._people = PeopleReader(pool)
        self._state = StateStore(pool)
        self._ignored = {normalize_stage_name(stage).casefold() for stage in ignored_stages}
        self._watermark = watermark
        self._fix = fix
        self._on_progress = on_progress
        self._stop = stop
        self._began: datetime | None = None
        self._seen: set[int] = set()
        self._suspects: set[int] = set()
        self._changing: dict[int, tuple[Reading, datetime]] = {}
        self._confirmed = 0
        self._sees_everybody: bool | None = None
        self._total: Callable[[], int | None] = lambda: None
        self._run = PollRun(
            api, _FirstReadSink(self), watermark=watermark, should_continue=lambda: not stop.is_set(), on_page=self._on_page
        )
        self.result = ComparisonResult()

    async def compare_all(self) -> ComparisonResult:
        """Compare the whole account. Raises Unavailable, also when stopped, and FubRefused."""
        sweep = Sweep(self._run, None, workers=_WORKERS)
        self._total = lambda: sweep.total
        await sweep.run(None, None)
        known = await self._people.list_ids(0, _IDS_PER_QUERY)
        while known:
            self._suspects.update(person_id for person_id in known if person_id not in self._seen)
            known = await self._people.list_ids(known[-1], _IDS_PER_QUERY)
        return await self._settle()

    async def compare_sample(self, number: int, randint: Callable[[int, int], int]) -> ComparisonResult:
        """Compare `number` people of the account, from places chosen by `randint`. Raises as `compare_all` does, and UserError."""
        newest = await self._run.page(PeopleQuery(limit=1, sort="-id"))
        oldest = await self._run.page(PeopleQuery(limit=1, sort="id"))
        if not newest.ids or not oldest.ids:
            return await self._settle()
        if newest.total is not None and number >= newest.total:
            return await self.compare_all()
        self._total = lambda: number
        for _ in range(number):
            if len(self._seen) >= number:
                break
            await self._compare_from(randint(oldest.ids[0], newest.ids[0]), min(_SAMPLED_TOGETHER, number - len(self._seen)))
        return await self._settle()

    async def _compare_from(self, first: int, limit: int) -> None:
        """Compare the people that follow an id; known people among them that the list does not show become suspects."""
        page = await self._run.page(PeopleQuery(limit=limit, sort="id", id_greater_than=first - 1))
        if page.ids and page.ids[0] < first:
            raise UserError("Follow Up Boss ignores ranges of ids, so that no sample can be drawn: run the audit without --sample")
        await self._run.record_page(page)
        known = await self._people.list_ids(first - 1, limit)
        self._suspects.update(one for one in known if page.ids and one <= page.ids[-1] and one not in self._seen | {*page.unreadable})

    # --- The first read ---

    async def compare_page(self, snapshot: Snapshot) -> None:
        """Compare the people of one page; those who differ become suspects."""
        self._note_begin(snapshot.read_at)
        new = {reading.person_id: reading for reading in snapshot.readings if reading.person_id not in self._seen}
        self._seen |= new.keys()
        current = await self._state.current_stages(new.keys())
        for person_id, reading in new.items():
            if self._find_mismatch(reading, current.get(person_id)) is None:
                self.result.matched += 1
            else:
                self._suspects.add(person_id)

    def _note_begin(self, read_at: datetime) -> None:
        self._began = read_at if self._began is None else min(self._began, read_at)

    def _find_mismatch(self, reading: Reading, current: CurrentStage | None) -> StageMismatch | None:
        there = Stage(reading.stage, reading.stage_id)
        if current is None:
            kind = MismatchKind.UNKNOWN
        elif current.gone:
            kind = MismatchKind.RETURNED
        elif reading.stage.casefold() in self._ignored or current.is_in(there):
            return None
        else:
            kind = MismatchKind.STAGE
        return StageMismatch(reading.person_id, kind, current.stage.name if current else None, reading.stage, reading.updated)

    def _on_page(self, stats: RunStats) -> None:
        self._on_progress(Progress("audit", stats.people, self._total(), len(self._suspects), stats.calls, None))

    # --- The reads after it ---

    async def _settle(self) -> ComparisonResult:
        """Read the suspects again, until each is judged or is known to have changed since the comparison began."""
        self.result.unreadable = self._run.stats.unreadable
        suspects = sorted(self._suspects)
        for number in range(_READS):
            if number and suspects:
                await self._clock.pause(_BETWEEN_READS_SECONDS, self._stop)
            changing: list[int] = []
            for first in range(0, len(suspects), PAGE_SIZE):
                changing += await self._read_again(suspects[first : first + PAGE_SIZE])
            suspects = changing
        self.result.changing = len(suspects)
        for reading, read_at in [self._changing[person_id] for person_id in suspects]:
            await self._record([reading], read_at)
        self.result.listed.sort(key=lambda one: one.person_id)
        return self.result

    async def _read_again(self, ids: Sequence[int]) -> list[int]:
        """Judge these people; return those who changed since the comparison began."""
        changing: list[int] = []
        absent = set(ids)
        async for page in read_id_batch(self._run, ids):
            self._note_begin(page.read_at)
            present = [reading for reading in page.readings if reading.person_id in ids]
            changing += await self._judge(present, page.read_at)
            absent -= {reading.person_id for reading in present} | set(page.unreadable)
        for person_id in sorted(absent):
            changing += await self._confirm(person_id)
        return changing

    async def _judge(self, readings: Sequence[Reading], read_at: datetime) -> list[int]:
        current = await self._state.current_stages([reading.person_id for reading in readings])
        changing: list[int] = []
        wrong: list[Reading] = []
        for reading in readings:
            mismatch = self._find_mismatch(reading, current.get(reading.person_id))
            if mismatch is None:
                self.result.matched += 1
            elif self._began is not None and reading.updated >= self._began - timedelta(seconds=1):
                changing.append(reading.person_id)
                self._changing[reading.person_id] = reading, read_at
            else:
                self._add(mismatch)
                wrong.append(reading)
        self.result.recorded += await self._record(wrong, read_at)
        return changing

    async def _record(self, readings: Sequence[Reading], read_at: datetime) -> int:
        """Record them where that is wanted; return how many stand as read: where the evidence says otherwise, a read changes no row."""
        if not readings or self._fix is None:
            return 0
        await self._fix.observe(Snapshot(tuple(readings), read_at, self._watermark, Channel.POLLING))
        recorded = await self._state.current_stages([reading.person_id for reading in readings])
        return sum(self._find_mismatch(reading, recorded.get(reading.person_id)) is None for reading in readings)

    async def _confirm(self, person_id: int) -> list[int]:
        """Read a person by id who is missing from a list."""
        self._confirmed += 1
        if self._confirmed > _MAX_CONFIRMED:
            self.result.unconfirmed += 1
            return []
        try:
            reading, read_at = await self._run.person(person_id)
        except (FubRefused, Malformed):
            self.result.unconfirmed += 1
            return []
        if reading is not None:
            return await self._judge([reading], read_at)
        current = (await self._state.current_stages([person_id])).get(person_id)
        if current is None or current.gone:
            # Created and deleted, or deleted and marked so, during the comparison.
            return []
        if not await self._key_sees_everybody():
            self.result.hidden += 1
            return []
        self._add(StageMismatch(person_id, MismatchKind.DELETED, current.stage.name, None, None))
        if self._fix is not None:
            await self._state.mark_deleted(person_id, read_at)
            self.result.recorded += 1
        return []

    async def _key_sees_everybody(self) -> bool:
        """Return whether a person who is not found is deleted. Another key than the owner's sees only some of the people."""
        if self._sees_everybody is None:
            try:
                await self._api.subscriptions()
            except FubRefused as error:
                self._sees_everybody = not error.owner_only
            except Malformed:
                # It was allowed to ask.
                self._sees_everybody = True
            else:
                self._sees_everybody = True
        return self._sees_everybody

    def _add(self, mismatch: StageMismatch) -> None:
        self.result.counts[mismatch.kind] += 1
        if len(self.result.listed) < _MAX_LISTED:
            self.result.listed.append(mismatch)


class _FirstReadSink:
    """Takes the place of the ingest in a sweep, and compares instead of recording."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison

    async def observe(self, snapshot: Snapshot) -> SnapshotResult:
        await self._comparison.compare_page(snapshot)
        return NOTHING
