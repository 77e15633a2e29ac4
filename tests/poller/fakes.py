"""A small world to poll in: virtual time, an account that changes while it is read, and a memory. Complete of its kind, and no network."""

from __future__ import annotations

import asyncio
import selectors
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

from typing_extensions import override

from fubd.core.api import PeoplePage
from fubd.core.observation import Channel, Delivery, Reading, Snapshot
from fubd.core.pacing import Hysteresis
from fubd.core.subscriptions import Subscription
from fubd.errors import FubRefused, Unavailable
from fubd.ports import Clock, Coverage, DeliveryOutcome, LastHeard, ModeRecord, PendingRefetch, PeopleQuery, SnapshotResult
from fubd.simulator.rng import Rng

EPOCH = datetime(2031, 3, 3, 9, 0, tzinfo=UTC)
_DEEPEST_OFFSET = 2000

T = TypeVar("T")


# --- Time ------------------------------------------------------------------------------------------------------------


class _Leaping(selectors.DefaultSelector):
    """Instead of waiting for time to pass, lets it have passed."""

    passed = 0.0

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("everybody waits for something that will never happen")
            self.passed += timeout
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)

    @override
    def time(self) -> float:
        return self._leaping.passed


def live(story: Coroutine[Any, Any, T]) -> T:
    """Run a story in virtual time: a day of waiting takes no longer than the work in it."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(story)


class VirtualClock:
    """Our own clock in virtual time; `wrong_by` shifts what it shows, never how it runs."""

    def __init__(self, *, wrong_by: timedelta = timedelta()) -> None:
        self._wrong_by = wrong_by

    def now(self) -> datetime:
        return true_time() + self._wrong_by

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def pause(self, seconds: float, *events: asyncio.Event) -> bool:
        if any(event.is_set() for event in events):
            return True
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(event.wait()) for event in events]
        waits = waits or [asyncio.get_running_loop().create_future()]
        try:
            done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return bool(done)
        finally:
            for wait in waits:
                wait.cancel()


def true_time() -> datetime:
    """FUB's time, which is right by definition."""
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())


# --- Follow Up Boss ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Person:
    id: int
    stage: str
    created: datetime
    updated: datetime

    def reading(self) -> Reading:
        return Reading(
            person_id=self.id,
            stage=self.stage,
            stage_id=None,
            created=self.created.replace(microsecond=0),
            updated=self.updated.replace(microsecond=0),
        )


class Account:
    """People, ordered by id; who was ever deleted; and every move as it truly happened.

    `untouched_since`: nobody but those in `upserted` changed later than this, so that who changed is found without looking at everybody.
    """

    def __init__(self) -> None:
        self.people: dict[int, Person] = {}
        self.ids: list[int] = []
        self.deleted: set[int] = set()
        self.hidden: set[int] = set()
        self.moves: list[tuple[int, str, datetime]] = []
        self.upserted: set[int] = set()
        self.untouched_since = datetime.min.replace(tzinfo=UTC)

    def add(self, person_id: int, *, stage: str = "Lead", updated: datetime | None = None) -> None:
        at = updated or true_time()
        self.untouched_since = max(self.untouched_since, at)
        self.people[person_id] = Person(person_id, stage, at, at)
        insort(self.ids, person_id)

    def create(self) -> int:
        person_id = (self.ids[-1] if self.ids else 0) + 1
        self.add(person_id)
        return person_id

    def move(self, person_id: int, stage: str) -> None:
        self.people[person_id] = replace(self.people[person_id], stage=stage, updated=true_time())
        self.upserted.add(person_id)
        self.moves.append((person_id, stage, true_time()))

    def touch(self, person_id: int) -> None:
        self.people[person_id] = replace(self.people[person_id], updated=true_time())
        self.upserted.add(person_id)

    def delete(self, person_id: int) -> None:
        del self.people[person_id]
        self.ids.remove(person_id)
        self.upserted.discard(person_id)
        self.deleted.add(person_id)

    def between(self, low: int | None, high: int | None) -> list[int]:
        first = 0 if low is None else bisect_right(self.ids, low)
        beyond = len(self.ids) if high is None else bisect_left(self.ids, high)
        found = self.ids[first:beyond]
        return [person_id for person_id in found if person_id not in self.hidden] if self.hidden else found

    def changed_after(self, after: datetime, among: list[int]) -> list[int]:
        """Give those whose `updated`, as shown in whole seconds, is later."""
        if self.untouched_since <= after and len(among) > len(self.upserted):
            among = [person_id for person_id in sorted(self.upserted) if _holds(among, person_id)]
        return [person_id for person_id in among if self.people[person_id].updated.replace(microsecond=0) > after]


def _holds(ascending: list[int], person_id: int) -> bool:
    place = bisect_left(ascending, person_id)
    return place < len(ascending) and ascending[place] == person_id


def change_something(account: Account, dice: Rng) -> None:
    """Let one thing happen to the account: someone is deleted, created, trashed, moved or edited."""
    person_id = dice.choice(account.ids)
    match dice.randrange(5):
        case 0:
            account.delete(person_id)
        case 1:
            account.create()
        case 2:
            account.move(person_id, "Trash")
        case 3:
            account.move(person_id, dice.choice(["Nurture", "Offer", "Closed"]))
        case _:
            account.touch(person_id)


@dataclass
class Ways:
    """How this Follow Up Boss behaves.

    `filter`: works, lies or ignored. `ranges`: whether id ranges are honoured. `lists_trash`: whether lists show people in Trash at all.
    """

    filter: str = "works"
    ranges: bool = True
    honours_ids: bool = True
    lists_trash: bool = True
    sorts: bool = True
    counts_filtered: bool = True
    latency_seconds: float = 0.0
    limit: int | None = None
    unordered_ties: Rng | None = None


class AccountFeed:
    """The API over the account. `meanwhile` runs before each answer; `outage` makes every call fail; `limit` calls in ten seconds."""

    def __init__(self, account: Account, ways: Ways | None = None) -> None:
        self.account = account
        self.ways = ways or Ways()
        self.meanwhile: Callable[[], None] = lambda: None
        self.outage: Exception | None = None
        self.calls: list[tuple[str, PeopleQuery | int | None]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.registry: dict[int, Subscription] = {}
        self.refusals: dict[str, FubRefused] = {}
        self.writes = 0
        self._sent: deque[float] = deque()

    def fub_now(self) -> datetime:
        return true_time()

    def skew_seconds(self) -> float:
        return 0.0

    def calls_made(self) -> int:
        return len(self.calls)

    async def people(self, query: PeopleQuery) -> PeoplePage:
        read_at = await self._answer("people", query)
        chosen = self._chosen(query)
        if not self.ways.lists_trash:
            chosen = [person_id for person_id in chosen if self.account.people[person_id].stage != "Trash"]
        total = len(chosen) if self.ways.counts_filtered else len(self.account.ids)
        token, shown = self._shown(query, chosen)
        readings = tuple(self.account.people[person_id].reading() for person_id in shown)
        return PeoplePage(readings, tuple(shown), (), total, token, read_at)

    def _chosen(self, query: PeopleQuery) -> list[int]:
        account, ways = self.account, self.ways
        if query.ids is not None and ways.honours_ids:
            return [
                person_id
                for person_id in sorted(query.ids, reverse=True)
                if person_id in account.people and person_id not in account.hidden
            ]
        chosen = account.between(query.id_greater_than, query.id_less_than) if ways.ranges else account.between(None, None)
        after = query.updated_after
        if after is not None and ways.filter == "lies":
            return []
        if after is not None and ways.filter == "works":
            return account.changed_after(after, chosen)
        return chosen

    def _shown(self, query: PeopleQuery, chosen: list[int]) -> tuple[str | None, list[int]]:
        order = query.sort if self.ways.sorts else None
        if order == "id":
            return None, chosen[: query.limit]
        if order == "-id":
            return None, chosen[::-1][: query.limit]
        if order == "-updated":
            offset = query.offset or 0
            if offset >= _DEEPEST_OFFSET:
                raise FubRefused("Deep pagination disabled, use 'nextLink' url", status=400)
            return None, sorted(chosen, key=self._recency, reverse=True)[offset : offset + query.limit]
        beyond = len(chosen) if query.next is None else bisect_left(chosen, int(query.next))
        page = chosen[max(0, beyond - query.limit) : beyond][::-1]
        return (str(page[-1]) if beyond > query.limit else None), page

    def _recency(self, person_id: int) -> tuple[datetime, float]:
        ties = self.ways.unordered_ties
        return self.account.people[person_id].updated.replace(microsecond=0), ties.random() if ties else -person_id

    async def person(self, person_id: int) -> tuple[Reading | None, datetime]:
        read_at = await self._answer("person", person_id)
        person = self.account.people.get(person_id)
        return (None if person is None or person_id in self.account.hidden else person.reading()), read_at

    async def stages(self) -> dict[str, int]:
        await self._answer("stages", None)
        return {}

    async def subscriptions(self) -> list[Subscription]:
        await self._answer("webhooks", None)
        return list(self.registry.values())

    async def subscribe(self, event: str, url: str) -> Subscription:
        await self._answer("subscribe", None)
        made = Subscription(max(self.registry, default=0) + 1, event, url, "Active")
        if sum(one.event == event for one in self.registry.values()) >= 2:
            raise FubRefused("Too many webhooks for this event.", status=400)
        self.registry[made.id] = made
        self.writes += 1
        return made

    async def update_subscription(self, subscription_id: int, *, url: str | None = None, status: str | None = None) -> Subscription:
        await self._answer("resubscribe", None)
        old = self.registry[subscription_id]
        self.registry[old.id] = replace(old, url=url or old.url, status=status or old.status)
        self.writes += 1
        return self.registry[old.id]

    async def _answer(self, endpoint: str, asked: PeopleQuery | int | None) -> datetime:
        await self._obey_limit()
        self.calls.append((endpoint, asked))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        # As the client dates it: the whole second of the answer, less the time that the question took.
        read_at = true_time().replace(microsecond=0) - timedelta(seconds=self.ways.latency_seconds)
        try:
            self.meanwhile()
            if self.ways.latency_seconds:
                await VirtualClock().pause(self.ways.latency_seconds)
        finally:
            self.in_flight -= 1
        if self.outage is not None:
            raise self.outage
        if endpoint in self.refusals:
            raise self.refusals[endpoint]
        return read_at

    async def _obey_limit(self) -> None:
        """At most `limit` calls in any ten seconds: what the client's limiter does."""
        if self.ways.limit is None:
            return
        while True:
            now = asyncio.get_running_loop().time()
            while self._sent and self._sent[0] <= now - 10:
                self._sent.popleft()
            if len(self._sent) < self.ways.limit:
                self._sent.append(now)
                return
            await VirtualClock().pause(self._sent[0] + 10 - now)


# --- The junction and the memory ------------------------------------------------------------------------------------


@dataclass
class Run:
    kind: str
    outcome: str | None = None
    people: int = 0
    calls: int = 0
    changes: int = 0
    note: str | None = None


@dataclass
class Known:
    stage: str
    updated: datetime
    verified: int
    gone: bool = False


@dataclass
class Hinted:
    since: datetime
    not_before: float = 0.0
    attempts: int = 0
    deleted: bool = False


@dataclass
class Memory:
    """The database of the world: satisfies Book and Inbox. `outage` makes every call fail. `known` is in the order of verification."""

    clock: Clock = field(default_factory=VirtualClock)
    cover: Coverage = field(default_factory=lambda: Coverage(None, None, None, None))
    known: dict[int, Known] = field(default_factory=dict)
    pending: dict[int, Hinted] = field(default_factory=dict)
    unconfirmed: dict[int, datetime] = field(default_factory=dict)
    refetch_requested: asyncio.Event = field(default_factory=asyncio.Event)
    modes: list[ModeRecord] = field(default_factory=list)
    evidence: list[dict[str, object]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    keep_snapshots: bool = True
    scrubbed: tuple[int, int] = (0, 0)
    webhook_received: datetime | None = None
    stage_webhook_received: datetime | None = None
    polling_received: datetime | None = None
    outage: Unavailable | None = None
    commit: Callable[[], Awaitable[None]] | None = None
    observing: int = 0
    most_observing: int = 0
    kept: tuple[float, Hysteresis | None] = (0.0, None)
    verifications: int = 0

    def _reach_database(self) -> None:
        if self.outage is not None:
            raise self.outage

    # Inbox

    def submit(self, delivery: Delivery) -> asyncio.Future[DeliveryOutcome]:
        raise Unavailable(f"this world takes no raw deliveries: {delivery.event}")

    async def observe(self, snapshot: Snapshot) -> SnapshotResult:
        self._reach_database()
        self.observing += 1
        self.most_observing = max(self.most_observing, self.observing)
        try:
            if self.commit is not None:
                await self.commit()
        finally:
            self.observing -= 1
        if self.keep_snapshots:
            self.snapshots.append(snapshot)
        mismatched: set[int] = set()
        first = 0
        for reading in snapshot.readings:
            first += self._learn(reading, snapshot, mismatched)
        return SnapshotResult(changes=len(mismatched), mismatched=frozenset(mismatched), first_seen=first)

    def _learn(self, reading: Reading, snapshot: Snapshot, mismatched: set[int]) -> int:
        self.verifications += 1
        known = self.known.get(reading.person_id)
        hint = self.pending.get(reading.person_id)
        if hint is not None and snapshot.read_at >= hint.since.replace(microsecond=0):
            del self.pending[reading.person_id]
        if known is None:
            self.known[reading.person_id] = Known(reading.stage, reading.updated, self.verifications)
            return 1
        if reading.updated >= known.updated and reading.stage != known.stage:
            mismatched.add(reading.person_id)
            known.stage = reading.stage
            if snapshot.channel is Channel.POLLING:
                self.unconfirmed[reading.person_id] = reading.updated
        known.updated = max(known.updated, reading.updated)
        known.verified, known.gone = self.verifications, False
        self.known[reading.person_id] = self.known.pop(reading.person_id)
        return 0

    def webhook(self, person_id: int, stage: str | None, *, deleted: bool = False) -> None:
        """Take a delivery of FUB: a stage event, or with None a hint."""
        self.webhook_received = self.clock.now()
        if stage is None:
            self.pending[person_id] = Hinted(true_time(), deleted=deleted)
            self.refetch_requested.set()
            return
        self.stage_webhook_received = self.clock.now()
        self.unconfirmed.pop(person_id, None)
        known = self.known.get(person_id)
        if known is not None:
            known.stage = stage

    # Book

    async def coverage(self) -> Coverage:
        self._reach_database()
        return self.cover

    async def begin_sweep(self, began: datetime, *, from_id: int) -> None:
        self._reach_database()
        self.cover = replace(self.cover, began=self.cover.began or began, sweep_began=began, sweep_from_id=from_id)

    async def advance_coverage(self, watermark: datetime, *, sweep: bool) -> datetime:
        self._reach_database()
        now = watermark if self.cover.watermark is None else max(watermark, self.cover.watermark)
        self.cover = replace(self.cover, watermark=now, began=self.cover.began or watermark)
        if sweep:
            self.cover = replace(self.cover, sweep_began=None, sweep_from_id=None)
        return now

    async def start_run(self, kind: str, started_at: datetime) -> int:
        self._reach_database()
        assert started_at.tzinfo is not None
        self.runs.append(Run(kind))
        return len(self.runs) - 1

    async def finish_run(
        self, run_id: int, *, outcome: str, finished_at: datetime, people: int, calls: int, changes: int, note: str | None
    ) -> None:
        self._reach_database()
        self.runs[run_id] = Run(self.runs[run_id].kind, outcome, people, calls, changes, note)
        if outcome == "ok" and self.runs[run_id].kind != "scrub":
            self.polling_received = finished_at

    async def last_heard(self) -> LastHeard:
        self._reach_database()
        return LastHeard(self.webhook_received, self.stage_webhook_received, self.polling_received)

    async def last_mode(self) -> ModeRecord | None:
        self._reach_database()
        delay_seconds, hysteresis = self.kept
        return replace(self.modes[-1], delay_seconds=delay_seconds, hysteresis=hysteresis) if self.modes else None

    async def missed_changes(self, *, fub_now: datetime, missed_after_seconds: float) -> frozenset[int]:
        self._reach_database()
        return frozenset(who for who, at in self.unconfirmed.items() if (fub_now - at).total_seconds() >= missed_after_seconds)

    async def insert_mode(self, record: ModeRecord, *, evidence: dict[str, object], missed: Collection[int] = ()) -> None:
        self._reach_database()
        self.modes.append(record)
        self.evidence.append(evidence)
        self.kept = (record.delay_seconds, record.hysteresis)
        self._count(missed)

    async def update_mode(self, delay_seconds: float, hysteresis: Hysteresis, *, missed: Collection[int] = ()) -> None:
        self._reach_database()
        self.kept = (delay_seconds, hysteresis)
        self._count(missed)

    def _count(self, missed: Collection[int]) -> None:
        for who in missed:
            self.unconfirmed.pop(who, None)

    async def oldest_verified(self, limit: int) -> list[int]:
        self._reach_database()
        return list(islice((person_id for person_id, known in self.known.items() if not known.gone), limit))

    async def requeue(self, person_ids: Sequence[int]) -> None:
        self._reach_database()
        self.verifications += 1
        for person_id in person_ids:
            self.known[person_id].verified = self.verifications
            self.known[person_id] = self.known.pop(person_id)

    async def note_scrub(self, *, matched: int, mismatched: int) -> None:
        self._reach_database()
        self.scrubbed = (self.scrubbed[0] + matched, self.scrubbed[1] + mismatched)

    async def mark_deleted(self, person_id: int, at: datetime) -> None:
        self._reach_database()
        assert at.tzinfo is not None
        if person_id in self.known:
            self.known[person_id].gone = True
        self.pending.pop(person_id, None)

    async def due_refetches(self, limit: int) -> list[PendingRefetch]:
        self._reach_database()
        now = self.clock.monotonic()
        due = [PendingRefetch(who, hint.since, hint.attempts, hint.deleted) for who, hint in self.pending.items() if hint.not_before <= now]
        return sorted(due, key=lambda hint: (hint.deleted and hint.attempts > 0, hint.attempts, hint.since, hint.person_id))[:limit]

    async def postpone_refetches(self, person_ids: Sequence[int], *, delay_seconds: float) -> None:
        self._reach_database()
        for person_id in person_ids:
            hint = self.pending.get(person_id)
            if hint is not None:
                hint.attempts += 1
                hint.not_before = self.clock.monotonic() + delay_seconds

    async def drop_refetches(self, person_ids: Sequence[int]) -> None:
        self._reach_database()
        for person_id in person_ids:
            self.pending.pop(person_id, None)

    async def acquire_lease(self, holder: str, *, ttl_seconds: float) -> int | None:
        raise Unavailable(f"nobody leases in this world: {holder} for {ttl_seconds}")

    async def release_lease(self, holder: str) -> None:
        raise Unavailable(f"nobody leases in this world: {holder}")
