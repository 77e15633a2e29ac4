"""What every kind of reading shares: asking for a page, handing it to the junction, counting, and stopping when told to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from fubd.core.api import PeoplePage
from fubd.core.observation import Channel, Reading, Snapshot
from fubd.core.pacing import Policy
from fubd.errors import Unavailable
from fubd.poller.trash_visibility import TrashVisibility
from fubd.ports import FubApi, PeopleQuery, SnapshotResult, SnapshotSink

PAGE_SIZE = 100
_GATHER_SHARE = 1 / 30
NOTHING = SnapshotResult(changes=0, mismatched=frozenset(), first_seen=0)


@dataclass(frozen=True, slots=True)
class PollPolicy:
    """How the poller goes about it. `pacing` and `scrub_batches` (of 100 people, re-verified with a poll) are the owner's settings.

    `overlap_seconds`: by how much coverage stays behind the instant a poll began (at most 120). `refetch_gather_seconds`: how long hints
    are gathered for one call, and never longer than a thirtieth of the poll interval; `refetch_settle_seconds`: how long the first of them
    waits for others; `refetch_retry_seconds`: the first wait for a person who cannot be read yet, doubling. `idle_seconds`: how often an
    instance that may not poll looks at what the other decided. `sweep_workers`: pages in flight at once. `progress_seconds`: from one
    line in the log to the next.
    """

    pacing: Policy = field(default_factory=Policy)
    scrub_batches: int = 4
    overlap_seconds: float = 60.0
    refetch_gather_seconds: float = 60.0
    refetch_settle_seconds: float = 2.0
    refetch_retry_seconds: float = 2.0
    idle_seconds: float = 5.0
    sweep_workers: int = 16
    progress_seconds: float = 10.0

    @property
    def gather_seconds(self) -> float:
        """How long hints are gathered: a minute by default, less where everything else goes faster too."""
        return min(self.refetch_gather_seconds, self.pacing.poll_interval_seconds * _GATHER_SHARE)

    @property
    def settle_seconds(self) -> float:
        """How long the first hint waits for others."""
        return min(self.refetch_settle_seconds, self.gather_seconds)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a reading has come. `total` and `seconds_left` are None while they cannot be told."""

    kind: str
    people: int
    total: int | None
    changes: int
    calls: int
    seconds_left: float | None


@dataclass(slots=True)
class RunStats:
    """What was read and found so far. `unreadable`: people on a page of whom nothing usable could be made."""

    people: int = 0
    calls: int = 0
    changes: int = 0
    unreadable: int = 0


class PollRun:
    """One reading of people. Pages are handed in before the next are asked for, so that memory does not grow with the account.

    `watermark`: what was covered before it (FUB's clock). `should_continue` is asked before each call; `on_page` is told after each page.
    `incomplete_reason`: why an errand that had no trouble still counts for nothing. `trash`: what this process learnt of Trash on lists.
    """

    def __init__(
        self,
        api: FubApi,
        ingestor: SnapshotSink,
        *,
        watermark: datetime | None,
        should_continue: Callable[[], bool],
        on_page: Callable[[RunStats], None] | None = None,
        trash: TrashVisibility | None = None,
    ) -> None:
        self._api = api
        self._ingestor = ingestor
        self._should_continue = should_continue
        self._on_page = on_page
        self._trash = trash or TrashVisibility()
        self.watermark = watermark
        self.tally = RunStats()
        self.incomplete_reason: str | None = None

    async def page(self, query: PeopleQuery) -> PeoplePage:
        """Read a page. Raises Unavailable and Refused as the feed does, and Unavailable when told to stop."""
        self._count_call()
        page = await self._api.people(query)
        self._trash.observe_page(page)
        return page

    async def person(self, person_id: int) -> tuple[Reading | None, datetime]:
        """Read one person by id; None for a 404. Raises as `page` does.

        The first who is in Trash is asked for on a list too, once: that tells whether lists show Trash.
        """
        self._count_call()
        reading, read_at = await self._api.person(person_id)
        if reading is not None and self._trash.is_worth_asking(reading):
            self._trash.observe_absence(person_id, await self.page(PeopleQuery(limit=1, ids=(person_id,))))
        return reading, read_at

    async def record(self, readings: Sequence[Reading], read_at: datetime, channel: Channel = Channel.POLLING) -> SnapshotResult:
        """Record what was read; returns once it is committed. Raises Unavailable."""
        if not readings:
            return NOTHING
        found = await self._ingestor.observe(Snapshot(tuple(readings), read_at, self.watermark, channel))
        self.tally.people += len(readings)
        self.tally.changes += found.changes
        return found

    async def record_page(self, page: PeoplePage) -> SnapshotResult:
        """Record everybody on the page. Raises Unavailable."""
        self.tally.unreadable += len(page.unreadable)
        found = await self.record(page.readings, page.read_at)
        if self._on_page is not None:
            self._on_page(self.tally)
        return found

    def _count_call(self) -> None:
        if not self._should_continue():
            raise Unavailable("stopped before the end")
        self.tally.calls += 1


class MonotonicIds:
    """Checks that ids only fall, or only rise, from page to page: else the cursor is not keyed by id and may skip."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._rising: bool | None = None

    def goes_on(self, ids: Sequence[int]) -> bool:
        """Take the ids of the next page; tell whether they go on in the same direction, none twice."""
        for person_id in ids:
            if self._last is not None:
                rising = person_id > self._last
                if person_id == self._last or (self._rising is not None and rising is not self._rising):
                    return False
                self._rising = rising
            self._last = person_id
        return True
