"""A fake of the database in virtual time: what ingest and the state store do for the poller."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice

from fubd.core.history import Stage
from fubd.core.observation import Channel, Delivery, Reading, Snapshot
from fubd.core.pacing import Hysteresis
from fubd.core.stored_state import Coverage, CurrentStage, LastHeard, ModeRecord, PendingRefetch, UnreadPerson
from fubd.core.vocabulary import DeliveryOutcome
from fubd.errors import Unavailable
from fubd.ports import Clock, SnapshotResult
from tests.support.virtual_time import VirtualClock, true_time


@dataclass
class RecordedRun:
    kind: str
    outcome: str | None = None
    people: int = 0
    calls: int = 0
    changes: int = 0
    note: str | None = None


@dataclass
class KnownPerson:
    stage: str
    updated: datetime
    verified: int
    deleted: bool = False
    last_row: str | None = None


@dataclass
class PendingPerson:
    since: datetime
    not_before: float = 0.0
    attempts: int = 0
    deleted: bool = False


@dataclass
class FakeDatabase:
    """Satisfies StateStore and Ingestor. `outage` makes every call fail. `known` is in the order of verification."""

    clock: Clock = field(default_factory=VirtualClock)
    stored_coverage: Coverage = field(default_factory=lambda: Coverage(None, None, None, None))
    known: dict[int, KnownPerson] = field(default_factory=dict)
    pending: dict[int, PendingPerson] = field(default_factory=dict)
    unconfirmed: dict[int, datetime] = field(default_factory=dict)
    refetch_requested: asyncio.Event = field(default_factory=asyncio.Event)
    webhook_recorded: asyncio.Event = field(default_factory=asyncio.Event)
    modes: list[ModeRecord] = field(default_factory=list)
    evidence: list[dict[str, object]] = field(default_factory=list)
    runs: list[RecordedRun] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    keep_snapshots: bool = True
    scrubbed: tuple[int, int] = (0, 0)
    webhook_received: datetime | None = None
    stage_webhook_received: datetime | None = None
    polling_received: datetime | None = None
    outage: Unavailable | None = None
    commit: Callable[[], Awaitable[None]] | None = None
    observing: int = 0
    max_observing: int = 0
    stored_pace: tuple[float, Hysteresis | None] = (0.0, None)
    verifications: int = 0
    asked_for_due: int = 0
    unread: dict[int, UnreadPerson] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)

    def _check_outage(self) -> None:
        if self.outage is not None:
            raise self.outage

    # Ingestor

    def submit(self, delivery: Delivery) -> asyncio.Future[DeliveryOutcome]:
        raise Unavailable(f"the fake database takes no deliveries: {delivery.event}")

    def is_partly_recorded(self, delivery: Delivery) -> bool:
        raise AssertionError(f"the fake database takes no deliveries: {delivery.event}")

    async def observe(self, snapshot: Snapshot) -> SnapshotResult:
        self._check_outage()
        self.observing += 1
        self.max_observing = max(self.max_observing, self.observing)
        try:
            if self.commit is not None:
                await self.commit()
        finally:
            self.observing -= 1
        if self.keep_snapshots:
            self.snapshots.append(snapshot)
        mismatched: set[int] = set()
        first = 0
        refused = self.refused.intersection(reading.person_id for reading in snapshot.readings)
        for reading in snapshot.readings:
            if reading.person_id not in refused:
                first += self._record(reading, snapshot, mismatched)
        return SnapshotResult(changes=len(mismatched), mismatched=frozenset(mismatched), first_seen=first, refused=frozenset(refused))

    def _record(self, reading: Reading, snapshot: Snapshot, mismatched: set[int]) -> int:
        self.verifications += 1
        known = self.known.get(reading.person_id)
        request = self.pending.get(reading.person_id)
        if request is not None and snapshot.read_at >= request.since.replace(microsecond=0):
            del self.pending[reading.person_id]
        if known is None:
            self.known[reading.person_id] = KnownPerson(reading.stage, reading.updated, self.verifications)
            return 1
        if reading.updated >= known.updated and reading.stage != known.stage:
            mismatched.add(reading.person_id)
            known.stage = reading.stage
            if snapshot.channel is Channel.POLLING:
                self.unconfirmed[reading.person_id] = reading.updated
        known.updated = max(known.updated, reading.updated)
        known.verified, known.deleted = self.verifications, False
        self.known[reading.person_id] = self.known.pop(reading.person_id)
        return 0

    def webhook(self, person_id: int, stage: str | None, *, deleted: bool = False) -> None:
        """Record a delivery of FUB: a stage event, or with None an event without a stage, which becomes a refetch request."""
        self.webhook_received = self.clock.now()
        self.webhook_recorded.set()
        if stage is None:
            self.pending[person_id] = PendingPerson(true_time(), deleted=deleted)
            self.refetch_requested.set()
            return
        self.stage_webhook_received = self.clock.now()
        self.unconfirmed.pop(person_id, None)
        known = self.known.get(person_id)
        if known is not None:
            known.stage = stage

    # StateStore

    async def coverage(self) -> Coverage:
        self._check_outage()
        return self.stored_coverage

    async def begin_sweep(self, began: datetime, *, from_id: int) -> None:
        self._check_outage()
        self.stored_coverage = replace(
            self.stored_coverage, began=self.stored_coverage.began or began, sweep_began=began, sweep_from_id=from_id
        )

    async def advance_coverage(self, watermark: datetime, *, sweep: bool) -> datetime:
        self._check_outage()
        now = watermark if self.stored_coverage.watermark is None else max(watermark, self.stored_coverage.watermark)
        self.stored_coverage = replace(self.stored_coverage, watermark=now, began=self.stored_coverage.began or watermark)
        if sweep:
            self.stored_coverage = replace(self.stored_coverage, sweep_began=None, sweep_from_id=None)
        return now

    async def start_run(self, kind: str, started_at: datetime, *, next_within_seconds: float | None = None) -> int:
        self._check_outage()
        assert started_at.tzinfo is not None
        assert next_within_seconds is None
        self.runs.append(RecordedRun(kind))
        return len(self.runs) - 1

    async def finish_run(
        self, run_id: int, *, outcome: str, finished_at: datetime, people: int, calls: int, changes: int, note: str | None
    ) -> None:
        self._check_outage()
        self.runs[run_id] = RecordedRun(self.runs[run_id].kind, outcome, people, calls, changes, note)
        if outcome == "ok" and self.runs[run_id].kind != "scrub":
            self.polling_received = finished_at

    async def last_heard(self) -> LastHeard:
        self._check_outage()
        return LastHeard(self.webhook_received, self.stage_webhook_received, self.polling_received)

    async def last_mode(self) -> ModeRecord | None:
        self._check_outage()
        delay_seconds, hysteresis = self.stored_pace
        return replace(self.modes[-1], delay_seconds=delay_seconds, hysteresis=hysteresis) if self.modes else None

    async def missed_changes(self, *, fub_now: datetime, missed_after_seconds: float) -> frozenset[int]:
        self._check_outage()
        return frozenset(person_id for person_id, at in self.unconfirmed.items() if (fub_now - at).total_seconds() >= missed_after_seconds)

    async def insert_mode(self, record: ModeRecord, *, evidence: dict[str, object], missed: Collection[int] = ()) -> None:
        self._check_outage()
        self.modes.append(record)
        self.evidence.append(evidence)
        self.stored_pace = (record.delay_seconds, record.hysteresis)
        self._count(missed)

    async def update_mode(self, reason: str, delay_seconds: float, hysteresis: Hysteresis, *, missed: Collection[int] = ()) -> None:
        self._check_outage()
        self.modes[-1] = replace(self.modes[-1], reason=reason)
        self.stored_pace = (delay_seconds, hysteresis)
        self._count(missed)

    def _count(self, missed: Collection[int]) -> None:
        for person_id in missed:
            self.unconfirmed.pop(person_id, None)

    async def oldest_verified(self, limit: int) -> list[int]:
        self._check_outage()
        return list(islice((person_id for person_id, known in self.known.items() if not known.deleted), limit))

    async def current_stages(self, person_ids: Collection[int]) -> dict[int, CurrentStage]:
        self._check_outage()
        known = {person_id: self.known[person_id] for person_id in person_ids if person_id in self.known}
        return {
            person_id: CurrentStage(Stage(person.last_row or person.stage), person.updated, gone=person.deleted, ignored=False)
            for person_id, person in known.items()
        }

    async def requeue(self, person_ids: Sequence[int]) -> None:
        self._check_outage()
        self.verifications += 1
        for person_id in person_ids:
            self.known[person_id].verified = self.verifications
            self.known[person_id] = self.known.pop(person_id)

    async def note_scrub(self, *, matched: int, mismatched: int) -> None:
        self._check_outage()
        self.scrubbed = (self.scrubbed[0] + matched, self.scrubbed[1] + mismatched)

    async def mark_deleted(self, person_id: int, at: datetime) -> None:
        self._check_outage()
        assert at.tzinfo is not None
        if person_id in self.known:
            self.known[person_id].deleted = True
        self.pending.pop(person_id, None)

    async def due_refetches(self, limit: int) -> list[PendingRefetch]:
        self.asked_for_due += 1
        self._check_outage()
        now = self.clock.monotonic()
        due = [
            PendingRefetch(person_id, request.since, request.attempts, request.deleted)
            for person_id, request in self.pending.items()
            if request.not_before <= now
        ]
        return sorted(due, key=_refetch_order)[:limit]

    async def postpone_refetches(self, person_ids: Sequence[int], *, delay_seconds: float) -> None:
        self._check_outage()
        for person_id in person_ids:
            request = self.pending.get(person_id)
            if request is not None:
                request.attempts += 1
                request.not_before = self.clock.monotonic() + delay_seconds

    async def drop_refetches(self, person_ids: Sequence[int]) -> None:
        self._check_outage()
        for person_id in person_ids:
            self.pending.pop(person_id, None)

    async def unread_people(self) -> list[UnreadPerson]:
        self._check_outage()
        return sorted(self.unread.values(), key=lambda person: person.not_before)

    async def add_unread(self, person_ids: Collection[int], now: datetime) -> None:
        self._check_outage()
        for person_id in person_ids:
            since = self.unread[person_id].since if person_id in self.unread else now
            self.unread[person_id] = UnreadPerson(person_id, since, now + timedelta(minutes=1) + (now - since))

    async def drop_unread(self, person_ids: Collection[int]) -> None:
        self._check_outage()
        for person_id in person_ids:
            self.unread.pop(person_id, None)

    async def acquire_lease(self, holder: str, *, ttl_seconds: float) -> int | None:
        raise Unavailable(f"the fake database has no lease: {holder} for {ttl_seconds}")

    async def release_lease(self, holder: str) -> None:
        raise Unavailable(f"the fake database has no lease: {holder}")


def _refetch_order(request: PendingRefetch) -> tuple[bool, int, datetime, int]:
    return request.deleted and request.attempts > 0, request.attempts, request.since, request.person_id
