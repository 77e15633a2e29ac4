"""Record what both sources report: gather it into batches, store each batch in one transaction, and only then answer.

This is group commit without a timer: what arrived while the last transaction ran is the next batch, so an idle daemon answers at once and a
busy one shares its transactions. While the database is away everything waits in order in a bounded buffer. The webhook handler stops
waiting after a few seconds, but the delivery is still recorded when the database is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fubd.backoff import backoff_seconds
from fubd.core.batch import Batch
from fubd.core.observation import Delivery, RefetchEvent, Snapshot, StageEvent
from fubd.core.reconcile import NewRow, PersonHistory, Row, RowUpdate, reconcile
from fubd.core.vocabulary import SOURCES
from fubd.errors import Malformed, Unavailable
from fubd.log_once import LogOnce
from fubd.metrics import Metrics
from fubd.ports import ChangeSet, ChangeStore, Clock, Committed, DeliveryOutcome, InsertedEvidence, RecordingTransaction, SnapshotResult

_log = logging.getLogger("fubd.ingest")

_BATCH_ITEMS = 1_000
_BATCH_CLAIMS = 20_000
_BUFFER_ITEMS = 10_000
_BUFFER_BYTES = 256 * 1024 * 1024
_BYTES_PER_READING = 1_000
_FIRST_RETRY_SECONDS = 0.1
_LONGEST_RETRY_SECONDS = 5.0
# While stopping, a batch is tried again until a retry would wait longer than this.
_LONGEST_RETRY_WHILE_STOPPING_SECONDS = 1.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

CommitListener = Callable[[Committed], None]


@dataclass(slots=True, eq=False)
class _Item:
    """A delivery or snapshot on its way into the database. `result` is done once its caller was answered or stopped waiting."""

    content: Delivery | Snapshot
    received_at: datetime
    result: asyncio.Future[Any]
    size: int
    tried: bool = False
    duplicates: list[asyncio.Future[DeliveryOutcome]] = field(default_factory=list)


@dataclass(slots=True)
class _BatchResult:
    """What a committed batch brought. `known`: people who had been read before."""

    evidence: InsertedEvidence
    inserts: list[NewRow] = field(default_factory=list)
    updates: list[RowUpdate] = field(default_factory=list)
    merged: list[Row] = field(default_factory=list)
    repeats: int = 0
    known: frozenset[int] = frozenset()


class Ingest:
    """Records deliveries and snapshots.

    `window`: FUBD_DEDUP_WINDOW. `skew_seconds`: our clock minus FUB's. `refetch_requested` is set when people to be read were committed.
    `on_commit` is called after each commit that touched rows, `on_new_delivery` with the instant (our clock) at which the event of each
    new delivery was created. `failing`: the last try to record did not succeed. `stored_unanswered`: how many
    deliveries were stored after their caller had stopped waiting.
    """

    def __init__(
        self,
        store: ChangeStore,
        clock: Clock,
        metrics: Metrics,
        *,
        window: timedelta,
        ignored_stages: Iterable[str] = (),
        lead_source_tags: Iterable[str] = (),
        skew_seconds: Callable[[], float] = lambda: 0.0,
        refetch_requested: asyncio.Event | None = None,
        on_commit: CommitListener | None = None,
        on_new_delivery: Callable[[datetime], None] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._window = window
        self._ignored_stages = frozenset(ignored_stages)
        self._lead_source_tags = tuple(lead_source_tags)
        self._skew_seconds = skew_seconds
        self._refetch_requested = refetch_requested or asyncio.Event()
        self._on_commit = on_commit
        self._on_new_delivery = on_new_delivery
        self._queue: deque[_Item] = deque()
        self._queued_bytes = 0
        self._batch: list[_Item] = []
        self._by_key: dict[bytes, _Item] = {}
        self._arrived = asyncio.Event()
        self._stopping = False
        self._outage = LogOnce(_log)
        self.stored_unanswered = 0
        self.failing = False

    # --- Taking deliveries and snapshots ---

    def submit(self, delivery: Delivery) -> asyncio.Future[DeliveryOutcome]:
        """Queue a delivery; the result comes once it is committed. Unavailable at once means that there was no room to keep it."""
        pending = self._by_key.get(delivery.key)
        if pending is None:
            return self._enqueue(delivery, len(delivery.body))
        result: asyncio.Future[DeliveryOutcome] = asyncio.get_running_loop().create_future()
        if pending.result.done():
            # The first sender was refused and this one would wait as long; the delivery is queued already.
            result.set_exception(Unavailable("the database is away; this delivery is kept already"))
        else:
            pending.duplicates.append(result)
        return result

    async def deliver(self, delivery: Delivery) -> DeliveryOutcome:
        """Record a delivery; return once it is committed, however long that takes. Raises Unavailable when there is no room for it."""
        return await self.submit(delivery)

    async def observe(self, snapshot: Snapshot) -> SnapshotResult:
        """Record readings; return once they are committed, however long that takes. Raises Unavailable when there is no room for them."""
        result: asyncio.Future[SnapshotResult] = self._enqueue(snapshot, _BYTES_PER_READING * len(snapshot.readings))
        return await result

    def _enqueue(self, content: Delivery | Snapshot, size: int) -> asyncio.Future[Any]:
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._stopping and isinstance(content, Snapshot):
            result.set_exception(Unavailable("fubd is stopping"))
            return result
        if len(self._queue) >= _BUFFER_ITEMS or self._queued_bytes + size > _BUFFER_BYTES:
            result.set_exception(Unavailable("the database is away and the buffer is full", retry_after=30))
            return result
        item = _Item(content, self._clock.now(), result, size)
        self._queue.append(item)
        self._queued_bytes += size
        if isinstance(content, Delivery):
            self._by_key[content.key] = item
        self._arrived.set()
        return result

    # --- Recording ---

    async def run(self, stop: asyncio.Event) -> None:
        """Record until `stop` is set and everything that can be recorded is. Callers that still wait then get Unavailable."""
        try:
            while not (stop.is_set() and not self._queue):
                if not self._queue:
                    self._arrived.clear()
                    await self._clock.pause(3600.0, self._arrived, stop)
                    continue
                self._batch = self._next_batch()
                if not await self._record_until_done(stop):
                    return
        finally:
            for item in (*self._batch, *self._queue):
                _refuse(item)

    def reject_pending_reads(self) -> None:
        """Refuse snapshots from now on, and those that wait: the daemon is stopping, and the next poll reads the people again."""
        self._stopping = True
        for item in (*self._batch, *self._queue):
            if isinstance(item.content, Snapshot):
                _refuse(item)

    @property
    def pending(self) -> int:
        """The number of deliveries and snapshots that are not yet recorded."""
        return len(self._queue) + len(self._batch)

    def _next_batch(self) -> list[_Item]:
        batch: list[_Item] = []
        claims = 0
        while self._queue and len(batch) < _BATCH_ITEMS:
            claims += _count_claims(self._queue[0].content)
            if batch and claims > _BATCH_CLAIMS:
                break
            item = self._queue.popleft()
            self._queued_bytes -= item.size
            if item.result.done() and isinstance(item.content, Snapshot):
                # Its caller stopped waiting and will read again; a delivery is recorded even if its sender no longer waits.
                continue
            batch.append(item)
        return batch

    async def _record_until_done(self, stop: asyncio.Event) -> bool:
        """Record the batch, however long the database is away; return False when stopped before that was possible."""
        batches = [self._batch]
        failures = 0
        while batches:
            batch = batches[0]
            try:
                await self._record(batch)
            except Unavailable as error:
                failures += 1
                delay_seconds = backoff_seconds(failures, first_seconds=_FIRST_RETRY_SECONDS, longest_seconds=_LONGEST_RETRY_SECONDS)
                self._metrics.db_up.set(0)
                for item in batch:
                    item.tried = True
                self.failing = True
                self._outage.warning("Not recording, trying again: %s", error)
                if stop.is_set() and delay_seconds > _LONGEST_RETRY_WHILE_STOPPING_SECONDS:
                    return False
                await self._clock.pause(delay_seconds)
                # The batch may be too large, as when a statement took too long; it would then fail every time.
                batches[0:1] = _halves(batch)
            except Malformed as error:
                batches[0:1] = _bisect(batch, str(error))
            else:
                failures = 0
                self.failing = False
                self._outage.resolved("Recording again.")
                self._metrics.db_up.set(1)
                batches.pop(0)
        self._batch = []
        return True

    async def _record(self, items: list[_Item]) -> None:
        now = self._clock.now()
        batch = Batch(ignored_stages=self._ignored_stages, lead_source_tags=self._lead_source_tags)
        for item in items:
            if isinstance(item.content, Delivery):
                batch.add_delivery(item.content, item.received_at)
            else:
                batch.add_snapshot(item.content, item.received_at)
        started = self._clock.monotonic()
        async with self._store.recording() as recording:
            result = await self._write(recording, batch, now)
        self._metrics.db_transaction_seconds.observe(self._clock.monotonic() - started)
        result.evidence = await self._with_lost_reply(items, result.evidence)
        self._answer(items, batch, result)

    async def _with_lost_reply(self, items: list[_Item], evidence: InsertedEvidence) -> InsertedEvidence:
        """Count as new what this process stored when the reply to an earlier COMMIT of these items was lost: it is no duplicate."""
        retried = {item.content.key: item.received_at for item in items if item.tried and isinstance(item.content, Delivery)}
        if retried.keys() <= evidence.deliveries:
            return evidence
        stored = await self._store.committed_by_this_process(list(retried), min(retried.values()))
        return replace(evidence, deliveries=evidence.deliveries | stored)

    async def _write(self, recording: RecordingTransaction, batch: Batch, now: datetime) -> _BatchResult:
        result = _BatchResult(await recording.insert_claims(batch.deliveries, batch.claims.values(), batch.people))
        if result.evidence.upserted:
            for person in await recording.load_history(batch.affected_since(self._window)):
                self._reconcile(person, batch, result)
        if batch.facts:
            result.known = await recording.upsert_people(list(batch.facts.values()))
        refetches = batch.refetches_of(result.evidence.deliveries)
        if result.inserts or result.updates or result.merged or refetches:
            dating = [new.dated_by for new in result.inserts]
            dating += [update.dated_by for update in result.updates if update.dated_by is not None]
            evidence = {claim.seq: batch.evidence(claim) for claim in dating}
            await recording.apply_changes(ChangeSet(result.inserts, result.updates, result.merged, refetches, evidence, now))
        return result

    def _reconcile(self, person: PersonHistory, batch: Batch, result: _BatchResult) -> None:
        if result.evidence.upserted.isdisjoint([claim.seq for claim in person.claims]):
            return
        refetch = batch.refetches.get(person.person_id)
        if refetch is not None and refetch.created:
            person = replace(person, announced=True)
        difference = reconcile(person, result.evidence.claims, window=self._window, began=result.evidence.began)
        result.inserts += difference.inserts
        result.updates += difference.updates
        result.merged += difference.merged
        result.repeats += difference.repeats

    # --- After the commit ---

    def _answer(self, items: list[_Item], batch: Batch, result: _BatchResult) -> None:
        self._count(result)
        if batch.refetches:
            self._refetch_requested.set()
        if self._on_commit is not None and (result.inserts or result.updates):
            self._on_commit(
                Committed(
                    recorded=[new.row.id for new in result.inserts],
                    corrected=[update.now.id for update in result.updates if update.is_correction],
                    updated=[update.now.id for update in result.updates if not update.is_correction],
                )
            )
        new_keys = set(result.evidence.deliveries)
        moved = {new.row.person_id: new.row.stage_from is not None for new in result.inserts if not new.dated_by.is_entry}
        for item in items:
            if isinstance(item.content, Delivery):
                self._answer_delivery(item, item.content, is_new=item.content.key in new_keys)
                new_keys.discard(item.content.key)
            elif not item.result.done():
                item.result.set_result(_snapshot_result(item.content, moved, result.known))

    def _answer_delivery(self, item: _Item, delivery: Delivery, *, is_new: bool) -> None:
        self._by_key.pop(delivery.key, None)
        if is_new:
            self.stored_unanswered += item.result.done()
            if self._on_new_delivery is not None and delivery.content is not None:
                # An event of the year 1 cannot be moved any earlier.
                self._on_new_delivery(max(delivery.content.at, _EPOCH) + timedelta(seconds=self._skew_seconds()))
        for duplicate in item.duplicates:
            if not duplicate.done():
                duplicate.set_result(DeliveryOutcome.DUPLICATE)
        if not item.result.done():
            item.result.set_result(_outcome(delivery) if is_new else DeliveryOutcome.DUPLICATE)

    def _count(self, result: _BatchResult) -> None:
        metrics, skew = self._metrics, self._skew_seconds()
        for source in SOURCES:
            rows = [new.row for new in result.inserts if new.row.source == source]
            delay = metrics.capture_delay_seconds.labels(source)
            for row in rows:
                delay.observe(max(0.0, (row.received_at - row.changed_at).total_seconds() - skew))
            if rows:
                metrics.stage_changes.labels(source).inc(len(rows))
        confirmed = [new.row.confirmed_by for new in result.inserts]
        confirmed += [update.now.confirmed_by for update in result.updates if update.is_confirmation]
        for confirmed_by in filter(None, confirmed):
            metrics.confirmations.labels(confirmed_by).inc()
        metrics.healed.inc(sum(update.is_correction for update in result.updates) + len(result.merged))
        metrics.hidden_steps.inc(result.repeats)


def _refuse(item: _Item) -> None:
    if not item.result.done():
        item.result.set_exception(Unavailable("fubd is stopping"))


def _halves(batch: list[_Item]) -> list[list[_Item]]:
    """Split a batch in two, in its order; a single item stays as it is."""
    half = (len(batch) + 1) // 2
    return [part for part in (batch[:half], batch[half:]) if part]


def _bisect(batch: list[_Item], problem: str) -> list[list[_Item]]:
    """Split a batch that holds something that can never be stored. A single delivery is quarantined; a single snapshot is a bug of ours."""
    if len(batch) > 1:
        return _halves(batch)
    item = batch[0]
    if isinstance(item.content, Snapshot) or item.content.content is None:
        raise RuntimeError(f"a cleaned value could not be stored: {problem}")
    item.content = Delivery(item.content.key, item.content.body, None, None, None, problem)
    return [batch]


def _count_claims(content: Delivery | Snapshot) -> int:
    if isinstance(content, Snapshot):
        return len(content.readings)
    return len(content.content.person_ids) if isinstance(content.content, StageEvent | RefetchEvent) else 0


def _outcome(delivery: Delivery) -> DeliveryOutcome:
    if delivery.quarantine is not None:
        return DeliveryOutcome.QUARANTINED
    return DeliveryOutcome.ACCEPTED if isinstance(delivery.content, StageEvent | RefetchEvent) else DeliveryOutcome.IGNORED


def _snapshot_result(snapshot: Snapshot, moved: Mapping[int, bool], known: frozenset[int]) -> SnapshotResult:
    """Return what these readings brought. `moved`: people with a row made by a read, and whether their stage was known before."""
    people = {reading.person_id for reading in snapshot.readings}
    return SnapshotResult(
        changes=len(people & moved.keys()),
        mismatched=frozenset(person_id for person_id in people if moved.get(person_id)),
        first_seen=len(people - known),
    )
