"""Records what both sources report: gather it into batches, store each batch in one transaction, and only then answer.

This is group commit without a timer: what arrived while the last transaction ran is the next batch, so an idle daemon answers at once and a
busy one shares its transactions. What is about many people steps aside, and so does a batch that fails. Both are recorded part by part,
next to the batches that follow: what takes long, or cannot be stored alone, holds up nothing else. While the database is away everything
waits in a bounded buffer. The webhook handler stops waiting after a few seconds, but the delivery is still recorded when the database is
back.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from fubd.backoff import backoff_seconds
from fubd.core.batch import Batch, RecordingRules
from fubd.core.observation import Delivery, Snapshot
from fubd.core.reconcile import NewRow, PersonHistory, Row, RowUpdate, reconcile
from fubd.core.vocabulary import SOURCES, DeliveryOutcome
from fubd.errors import Interrupted, Malformed, TableRefused, Unavailable
from fubd.metrics import Metrics
from fubd.pending import Item, Part, PeopleLimit, merge, outcome_of, snapshot_result, split
from fubd.ports import ChangeSet, ChangeStore, Clock, Committed, InsertedEvidence, RecordingTransaction, SnapshotResult
from fubd.problems import Problems
from fubd.recording_health import RecordingFailure, RecordingHealth

_BATCH_PARTS = 1_000
# What is about more people than this is recorded next to what arrives.
_MANY_PEOPLE = 250
# After so many people the event loop has a turn.
_PEOPLE_A_TURN = 100
_BUFFER_ITEMS = 10_000
# What changed longer ago makes no alert.
_ALERT_AGE = timedelta(hours=1)
_BUFFER_BYTES = 256 * 1024 * 1024
_FIRST_RETRY_SECONDS = 0.1
_LONGEST_RETRY_SECONDS = 5.0
# So many failures of single people in a row are taken to be a failure of the database or the table.
_FAILURES_OF_ALL = 3
# While stopping, something is tried again unless that would be later than this.
_LONGEST_RETRY_WHILE_STOPPING_SECONDS = 1.0

CommitListener = Callable[[Committed], None]


@dataclass(slots=True)
class _BatchResult:
    """What a committed batch brought."""

    evidence: InsertedEvidence
    inserts: list[NewRow] = field(default_factory=list)
    updates: list[RowUpdate] = field(default_factory=list)
    merged: list[Row] = field(default_factory=list)
    repeats: int = 0


class Ingest:
    """Records deliveries and snapshots.

    `skew_seconds`: our clock minus FUB's. `refetch_requested` is set when people to be read were committed.
    `on_commit` is called after each commit that touched rows, `on_new_delivery` with the instant (our clock) at which the event of each
    new delivery was created. `stored_unanswered`: how many deliveries were stored after their caller had stopped waiting.
    `health` also takes what other parts learn about the table.
    """

    def __init__(
        self,
        store: ChangeStore,
        clock: Clock,
        metrics: Metrics,
        problems: Problems,
        *,
        rules: RecordingRules,
        skew_seconds: Callable[[], float],
        refetch_requested: asyncio.Event | None = None,
        on_commit: CommitListener | None = None,
        on_new_delivery: Callable[[datetime], None] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._rules = rules
        self._skew_seconds = skew_seconds
        self._refetch_requested = refetch_requested or asyncio.Event()
        self._on_commit = on_commit
        self._on_new_delivery = on_new_delivery
        self.health = RecordingHealth(clock, metrics, problems)
        # Every item that is not complete; its parts that wait for the next batch, and those aside: of many people, or failed.
        self._items: set[Item] = set()
        self._items_bytes = 0
        self._by_key: dict[bytes, Item] = {}
        self._queue: deque[Part] = deque()
        self._aside: deque[Part] = deque()
        self._arrived = asyncio.Event()
        self._stepped_aside = asyncio.Event()
        self._drained = asyncio.Event()
        self._limit = PeopleLimit()
        self._outages = 0
        self._stopping = False
        self.stored_unanswered = 0

    # --- Taking deliveries and snapshots ---

    def submit(self, delivery: Delivery) -> asyncio.Future[DeliveryOutcome]:
        """Queue a delivery; the result comes once it is committed. Unavailable at once means that there was no room to keep it."""
        pending = self._by_key.get(delivery.key)
        if pending is None:
            return self._enqueue(delivery)
        result: asyncio.Future[DeliveryOutcome] = asyncio.get_running_loop().create_future()
        if pending.result.done():
            # The first sender was refused and this one would wait as long; the delivery is queued already.
            result.set_exception(Unavailable("the database is away; this delivery is kept already"))
        else:
            pending.duplicates.append(result)
        return result

    def is_partly_recorded(self, delivery: Delivery) -> bool:
        """Return whether some of the people of a delivery are committed, but not yet all."""
        return delivery.key in self._by_key and self._by_key[delivery.key].is_begun

    async def deliver(self, delivery: Delivery) -> DeliveryOutcome:
        """Record a delivery; return once it is committed, however long that takes. Raises Unavailable when there is no room for it."""
        return await self.submit(delivery)

    async def observe(self, snapshot: Snapshot) -> SnapshotResult:
        """Record readings; return once they are committed, however long that takes. Raises Unavailable when there is no room for them."""
        result: asyncio.Future[SnapshotResult] = self._enqueue(snapshot)
        return await result

    def _enqueue(self, content: Delivery | Snapshot) -> asyncio.Future[Any]:
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._stopping and isinstance(content, Snapshot):
            result.set_exception(Unavailable("fubd is stopping"))
            return result
        item = Item(content, self._clock.now(), result)
        if len(self._items) >= _BUFFER_ITEMS or self._items_bytes + item.size > _BUFFER_BYTES:
            result.set_exception(Unavailable("the database is away and the buffer is full", retry_after=30))
            return result
        self._items.add(item)
        self._items_bytes += item.size
        if isinstance(content, Delivery):
            self._by_key[content.key] = item
        part = Part(item, content)
        if len(part.people) > _MANY_PEOPLE:
            self._step_aside(part)
        else:
            self._queue.append(part)
            self._arrived.set()
        return result

    def _step_aside(self, *parts: Part) -> None:
        self._aside.extend(parts)
        self._stepped_aside.set()

    def reject_pending_reads(self) -> None:
        """Refuse snapshots from now on, and those that wait: the daemon is stopping, and the next poll reads the people again."""
        self._stopping = True
        for item in self._items:
            if isinstance(item.content, Snapshot):
                item.refuse()

    @property
    def pending(self) -> int:
        """The number of deliveries and snapshots that are not yet recorded."""
        return len(self._items)

    @property
    def failure(self) -> RecordingFailure | None:
        """Why nothing is recorded now, and since when; None while recording works."""
        return self.health.failure

    # --- What arrives, batch by batch ---

    async def run(self, stop: asyncio.Event) -> None:
        """Record until `stop` is set and everything that can be recorded is. Callers that still wait then get Unavailable."""
        self._drained.clear()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._record_aside())
                await self._record_queue(stop)
                self._drained.set()
        finally:
            for item in self._items:
                item.refuse()

    async def _record_queue(self, stop: asyncio.Event) -> None:
        while not (stop.is_set() and not self._queue):
            batch = self._take(self._queue)
            if not batch:
                self._arrived.clear()
                await self._clock.pause(3600.0, self._arrived, stop)
                continue
            error = await self._try_to_record(batch)
            if error is None:
                continue
            self._step_aside(*batch)
            if _is_outage(error):
                delay_seconds = _delay_seconds(self._outages)
                if stop.is_set() and delay_seconds > _LONGEST_RETRY_WHILE_STOPPING_SECONDS:
                    return
                await self._clock.pause(delay_seconds)

    def _take(self, waiting: deque[Part]) -> list[Part]:
        """Take the next batch, splitting off what is too much for it; drop what nobody waits for."""
        batch: list[Part] = []
        room = self._limit.people
        while waiting and room > 0 and len(batch) < _BATCH_PARTS:
            if waiting[0].item.is_unwanted:
                self._forget(waiting.popleft().item)
                continue
            part = waiting[0].take(room)
            if part is waiting[0]:
                waiting.popleft()
            room -= len(part.people)
            batch.append(part)
        return batch

    # --- What stepped aside, part by part, and what failed in ever smaller parts ---

    async def _record_aside(self) -> None:
        """Record what stepped aside, in turns; after the end of the queue, as long as the next try is near."""
        while True:
            self._stepped_aside.clear()
            now = self._clock.monotonic()
            due = deque(part for part in self._aside if part.retry_at <= now)
            if due:
                waiting = [part for part in self._aside if part.retry_at > now]
                batch = self._take(due)
                # Who comes next: in the order of arrival, but the rest of many people after all others.
                rest = [due.popleft()] if due and due[0].item is batch[-1].item else []
                self._aside = deque((*due, *waiting, *rest))
                await self._divide(batch)
                continue
            delay_seconds = min((part.retry_at - now for part in self._aside), default=3600.0)
            if self._drained.is_set() and delay_seconds > _LONGEST_RETRY_WHILE_STOPPING_SECONDS:
                return
            await self._clock.pause(delay_seconds, self._stepped_aside, *(() if self._drained.is_set() else (self._drained,)))

    async def _divide(self, batch: list[Part]) -> None:
        """Record what can be recorded of a batch, half by half where it fails. What fails alone waits longer."""
        work = [batch] if batch else []
        failures = 0
        while work:
            parts = work.pop()
            error = await self._try_to_record(parts)
            if error is None:
                failures = 0
            elif isinstance(error, Malformed) and len(parts) == 1 and isinstance(parts[0].content, Delivery):
                parts[0].on_malformed(str(error))
                work.append(parts)
            elif not _is_outage(error) and len(halves := split(parts)) > 1:
                work += reversed(halves)
            else:
                failures += 1
                self._retry_later(parts, error)
                if failures == _FAILURES_OF_ALL or _is_outage(error):
                    # The failure is not about single people: the others wait too, and are tried first the next time.
                    self._retry_later([part for batch_left in reversed(work) for part in batch_left], error, tried=False)
                    return

    def _retry_later(self, parts: Sequence[Part], error: Exception, *, tried: bool = True) -> None:
        """Let parts that failed, or that would, wait before the next try. Refused readings are dropped: their caller reads again."""
        if isinstance(error, TableRefused):
            self.health.on_refusal([key for part in parts for key in part.refusal_keys], error)
        for part in parts:
            if isinstance(part.content, Snapshot) and isinstance(error, TableRefused | Malformed):
                refused = SnapshotResult(changes=0, mismatched=frozenset(), first_seen=0, refused=frozenset(part.people))
                self._complete_snapshot_part(part.item, refused)
                continue
            part.failures += tried
            part.retry_at = self._clock.monotonic() + _delay_seconds(max(1, part.failures))
            if tried:
                self._aside.append(part)
            else:
                self._aside.appendleft(part)

    # --- One transaction ---

    async def _try_to_record(self, parts: Sequence[Part]) -> Unavailable | Malformed | None:
        """Record the parts in one transaction; return what prevented it."""
        started = self._clock.monotonic()
        try:
            await self._record(parts)
        except (Unavailable, Malformed) as error:
            for part in parts:
                part.item.tried = True
            if isinstance(error, Unavailable) and not isinstance(error, TableRefused):
                self._limit.on_failure()
                self._outages += 1
                if _is_outage(error) or self._outages > _FAILURES_OF_ALL:
                    self.health.on_outage(error)
            return error
        self._outages = 0
        self._limit.on_success(sum(len(part.people) for part in parts), self._clock.monotonic() - started)
        return None

    async def _record(self, parts: Sequence[Part]) -> None:
        now = self._clock.now()
        batch = Batch(self._rules)
        counts = Counter(part.item for part in parts)
        # An item is complete with this batch when all its open parts are in it; its last part carries the delivery itself.
        last = {part.item: part for part in parts if part.item.open_parts == counts[part.item]}
        for part in parts:
            if isinstance(part.content, Delivery):
                batch.add_delivery(part.content, part.item.received_at, is_complete=last.get(part.item) is part)
            else:
                batch.add_snapshot(part.content, part.item.received_at)
        started = self._clock.monotonic()
        async with self._store.recording() as recording:
            result = await self._write(recording, batch, now)
        self._metrics.db_transaction_seconds.observe(self._clock.monotonic() - started)
        result.evidence = await self._with_lost_reply(last, result.evidence)
        self.health.on_commit([key for part in parts for key in part.refusal_keys], wrote_rows=bool(result.inserts))
        self._answer(parts, last.keys(), batch, result)

    async def _with_lost_reply(self, items: Iterable[Item], evidence: InsertedEvidence) -> InsertedEvidence:
        """Count as new what this process stored when the reply to an earlier COMMIT of these items was lost: it is no duplicate."""
        retried = {item.content.key: item.received_at for item in items if item.tried and isinstance(item.content, Delivery)}
        if retried.keys() <= evidence.deliveries:
            return evidence
        stored = await self._store.committed_by_this_process(list(retried), min(retried.values()))
        return replace(evidence, deliveries=evidence.deliveries | stored)

    async def _write(self, recording: RecordingTransaction, batch: Batch, now: datetime) -> _BatchResult:
        since = batch.affected_since(self._rules.window)
        result = _BatchResult(await recording.insert_claims(batch.deliveries, batch.claims.values(), batch.people, since))
        for number, person in enumerate(result.evidence.histories, start=1):
            self._reconcile(person, batch, result)
            if number % _PEOPLE_A_TURN == 0:
                await asyncio.sleep(0)
        refetches = batch.refetches_of(result.evidence.deliveries)
        changes = None
        if result.inserts or result.updates or result.merged or refetches:
            dating = [new.dated_by for new in result.inserts]
            dating += [update.dated_by for update in result.updates if update.dated_by is not None]
            evidence = {claim.seq: batch.evidence(claim) for claim in dating}
            alert_since = now - timedelta(seconds=self._skew_seconds()) - _ALERT_AGE
            changes = ChangeSet(result.inserts, result.updates, result.merged, refetches, evidence, now, alert_since)
        await recording.commit(list(batch.facts.values()), changes)
        return result

    def _reconcile(self, person: PersonHistory, batch: Batch, result: _BatchResult) -> None:
        if result.evidence.upserted.isdisjoint([claim.seq for claim in person.claims]):
            return
        refetch = batch.refetches.get(person.person_id)
        if refetch is not None and refetch.created:
            person = replace(person, announced=True)
        difference = reconcile(person, result.evidence.claims, window=self._rules.window, began=result.evidence.began)
        result.inserts += difference.inserts
        result.updates += difference.updates
        result.merged += difference.merged
        result.repeats += difference.repeats

    # --- After the commit ---

    def _answer(self, parts: Sequence[Part], complete: Collection[Item], batch: Batch, result: _BatchResult) -> None:
        self._count(result)
        if batch.refetches:
            self._refetch_requested.set()
        if self._on_commit is not None and (result.inserts or result.updates or result.merged):
            self._on_commit(
                Committed(
                    recorded=[new.row.id for new in result.inserts],
                    corrected=[update.now.id for update in result.updates if update.is_correction],
                    updated=[update.now.id for update in result.updates if not update.is_correction],
                    removed=[row.id for row in result.merged],
                )
            )
        new_keys = set(result.evidence.deliveries)
        moved = {new.row.person_id: new.row.stage_from is not None for new in result.inserts if not new.dated_by.is_entry}
        for part in parts:
            if isinstance(part.content, Snapshot):
                self._complete_snapshot_part(part.item, snapshot_result(part.content, moved, result.evidence.known))
            else:
                self._complete_delivery_part(part, part.content, complete, new_keys)

    def _complete_snapshot_part(self, item: Item, result: SnapshotResult) -> None:
        item.brought = merge(item.brought, result)
        item.open_parts -= 1
        if item.open_parts == 0:
            self._forget(item)
            if not item.result.done():
                item.result.set_result(item.brought)

    def _complete_delivery_part(self, part: Part, delivery: Delivery, complete: Collection[Item], new_keys: set[bytes]) -> None:
        item = part.item
        item.is_begun = True
        item.open_parts -= 1
        if item.open_parts:
            return
        if item not in complete:
            # Its last parts were committed side by side, each without the delivery itself.
            item.open_parts = 1
            self._step_aside(part.without_people())
            return
        self._forget(item)
        self._answer_delivery(item, delivery, is_new=delivery.key in new_keys)
        new_keys.discard(delivery.key)

    def _forget(self, item: Item) -> None:
        """Free the room of an item that is complete, or that nobody waits for."""
        if item in self._items:
            self._items.remove(item)
            self._items_bytes -= item.size

    def _answer_delivery(self, item: Item, delivery: Delivery, *, is_new: bool) -> None:
        self._by_key.pop(delivery.key, None)
        if is_new:
            self.stored_unanswered += item.result.done()
            if self._on_new_delivery is not None and delivery.content is not None:
                self._on_new_delivery(delivery.content.at + timedelta(seconds=self._skew_seconds()))
        for duplicate in item.duplicates:
            if not duplicate.done():
                duplicate.set_result(DeliveryOutcome.DUPLICATE)
        if not item.result.done():
            item.result.set_result(outcome_of(delivery) if is_new else DeliveryOutcome.DUPLICATE)

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


def _is_outage(error: Exception) -> bool:
    """Return whether nothing else could have been recorded either."""
    return isinstance(error, Unavailable) and not isinstance(error, Interrupted | TableRefused)


def _delay_seconds(failures: int) -> float:
    return backoff_seconds(failures, first_seconds=_FIRST_RETRY_SECONDS, longest_seconds=_LONGEST_RETRY_SECONDS)
