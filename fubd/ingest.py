"""The junction where both roads meet: what comes in is gathered, recorded in one transaction, and only then answered.

Group commit without a timer: whatever arrived while the last transaction ran is the next batch, so an idle daemon answers at once and a
busy one amortises. While the database is away everything stays in order in a bounded buffer; the door gives up waiting after a few
seconds, but what it handed in is still recorded when the database is back.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fubd.core.observation import Delivery, Reading, RefetchEvent, Snapshot, StageEvent
from fubd.core.reconcile import Claim, NewRow, PersonHistory, Row, RowUpdate, reconcile
from fubd.core.vocabulary import SOURCES
from fubd.errors import Malformed, Unavailable
from fubd.metrics import Metrics
from fubd.ports import (
    ChangeSet,
    ChangeStore,
    Clock,
    Committed,
    DeliveryOutcome,
    Facts,
    InsertedEvidence,
    KeptDelivery,
    NewClaim,
    NewRefetch,
    RecordingTransaction,
    SnapshotResult,
)

_log = logging.getLogger("fubd.ingest")
_quoted = json.encoder.encode_basestring_ascii

_BATCH_ITEMS = 1_000
_BATCH_CLAIMS = 20_000
_BUFFER_ITEMS = 10_000
_BUFFER_BYTES = 256 * 1024 * 1024
_FIRST_RETRY_SECONDS = 0.1
_LAST_RETRY_SECONDS = 5.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER = datetime.max.replace(tzinfo=UTC)

CommitListener = Callable[[Committed], None]


@dataclass(slots=True, eq=False)
class _Item:
    """One delivery or snapshot on its way into the database."""

    what: Delivery | Snapshot
    received_at: datetime
    answer: asyncio.Future[Any]
    size: int
    tried: bool = False
    duplicates: list[asyncio.Future[DeliveryOutcome]] = field(default_factory=list)


@dataclass(slots=True)
class _BatchContents:
    """What a batch amounts to, before the database has seen it."""

    deliveries: list[KeptDelivery] = field(default_factory=list)
    claims: dict[tuple[object, ...], NewClaim] = field(default_factory=dict)
    facts: dict[int, Facts] = field(default_factory=dict)
    refetches: dict[int, NewRefetch] = field(default_factory=dict)
    people: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _BatchResult:
    """What a committed batch brought."""

    taken: InsertedEvidence
    recorded: list[tuple[int, NewRow]] = field(default_factory=list)
    corrected: list[tuple[int, RowUpdate]] = field(default_factory=list)
    merged: list[tuple[int, Row]] = field(default_factory=list)
    repeats: int = 0
    known: frozenset[int] = frozenset()


class Ingest:
    """Records deliveries and snapshots; the only part with a state that moves.

    `window`: FUBD_DEDUP_WINDOW. `skew_seconds`: our clock minus FUB's. `refetch_requested` is set when people to be read were committed.
    `on_commit` is called after each commit that touched rows, `on_new_delivery` with the instant (our clock) at which the event of each new
    delivery was created.
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
        self._ignored = frozenset(ignored_stages)
        self._tags = tuple((_plain(tag), tag) for tag in lead_source_tags)
        self._skew_seconds = skew_seconds
        self._refetch_requested = refetch_requested or asyncio.Event()
        self._on_commit = on_commit
        self._on_new_delivery = on_new_delivery
        self._queue: deque[_Item] = deque()
        self._queued_bytes = 0
        self._batch: list[_Item] = []
        self._by_key: dict[bytes, _Item] = {}
        self._arrived = asyncio.Event()
        self._closing = False
        self.stored_unanswered = 0
        # The last try to record failed for the time being.
        self.failing = False

    # --- the doors' side ---

    def submit(self, delivery: Delivery) -> asyncio.Future[DeliveryOutcome]:
        """Take a delivery; the answer comes once it is committed. Unavailable at once: there was no room to keep it."""
        pending = self._by_key.get(delivery.key)
        if pending is None:
            return self._enqueue(delivery, len(delivery.body))
        answer: asyncio.Future[DeliveryOutcome] = asyncio.get_running_loop().create_future()
        if pending.answer.done():
            # Its first sender was refused and this one would wait as long; it is kept already.
            answer.set_exception(Unavailable("the database is away; this delivery is kept already"))
        else:
            pending.duplicates.append(answer)
        return answer

    async def deliver(self, delivery: Delivery) -> DeliveryOutcome:
        """Record a delivery; returns once committed, however long that takes. Raises Unavailable when there is no room to keep it."""
        return await self.submit(delivery)

    async def observe(self, snapshot: Snapshot) -> SnapshotResult:
        """Record readings; returns once committed, however long that takes. Raises Unavailable when there is no room to keep them."""
        answer: asyncio.Future[SnapshotResult] = self._enqueue(snapshot, 1_000 * len(snapshot.readings))
        return await answer

    def _enqueue(self, what: Delivery | Snapshot, size: int) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._closing and isinstance(what, Snapshot):
            answer.set_exception(Unavailable("fubd is stopping"))
            return answer
        if len(self._queue) >= _BUFFER_ITEMS or self._queued_bytes + size > _BUFFER_BYTES:
            answer.set_exception(Unavailable("the database is away and the buffer is full", retry_after=30))
            return answer
        item = _Item(what, self._clock.now(), answer, size)
        self._queue.append(item)
        self._queued_bytes += size
        if isinstance(what, Delivery):
            self._by_key[what.key] = item
        self._arrived.set()
        return answer

    # --- the recorder's side ---

    async def run(self, stop: asyncio.Event) -> None:
        """Record until `stop` is set and everything that can be recorded is. Those who still wait then are told that it was not."""
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
                self._refuse(item)

    def reject_pending_reads(self) -> None:
        """Tell readers not to wait any more, because the house closes; what they read is read again by the next who polls."""
        self._closing = True
        for item in (*self._batch, *self._queue):
            if isinstance(item.what, Snapshot):
                self._refuse(item)

    def _refuse(self, item: _Item) -> None:
        if not item.answer.done():
            item.answer.set_exception(Unavailable("fubd is stopping"))

    @property
    def pending(self) -> int:
        """Count what is not yet recorded."""
        return len(self._queue) + len(self._batch)

    def _next_batch(self) -> list[_Item]:
        batch: list[_Item] = []
        claims = 0
        while self._queue and len(batch) < _BATCH_ITEMS:
            claims += _claims_in(self._queue[0].what)
            if batch and claims > _BATCH_CLAIMS:
                break
            item = self._queue.popleft()
            self._queued_bytes -= item.size
            if item.answer.done() and isinstance(item.what, Snapshot):
                # Its reader has gone and will read again; a delivery is kept whoever waits for it.
                continue
            batch.append(item)
        return batch

    async def _record_until_done(self, stop: asyncio.Event) -> bool:
        """Record the batch, however long the database is away; False when told to stop before it could be."""
        batches = [self._batch]
        delay = _FIRST_RETRY_SECONDS
        while batches:
            batch = batches[0]
            try:
                await self._record(batch)
            except Unavailable as error:
                self._metrics.db_up.set(0)
                for item in batch:
                    item.tried = True
                if not self.failing:
                    self.failing = True
                    _log.warning("not recording for now: %s", error)
                if stop.is_set() and delay > 1.0:
                    return False
                await self._clock.pause(delay)
                delay = min(delay * 2, _LAST_RETRY_SECONDS)
                # Too much at once may be the cause, as for a statement that took too long, and then it would be for ever.
                batches[0:1] = _halves(batch)
                continue
            except Malformed as error:
                batches[0:1] = self._bisect(batch, str(error))
                continue
            if self.failing:
                self.failing = False
                _log.info("recording again")
            delay = _FIRST_RETRY_SECONDS
            self._metrics.db_up.set(1)
            batches.pop(0)
        self._batch = []
        return True

    def _bisect(self, batch: list[_Item], problem: str) -> list[list[_Item]]:
        """Something in this batch can never be held: find it by halves; a single delivery is quarantined, a single snapshot is a bug."""
        if len(batch) > 1:
            return _halves(batch)
        item = batch[0]
        if isinstance(item.what, Snapshot) or item.what.content is None:
            raise RuntimeError(f"a cleaned value could not be stored: {problem}")
        content = item.what
        item.what = Delivery(content.key, content.body, None, None, None, problem)
        return [batch]

    async def _record(self, batch: list[_Item]) -> None:
        now = self._clock.now()
        contents = self._build_batch(batch)
        started = self._clock.monotonic()
        async with self._store.recording() as recording:
            result = await self._carry_out(recording, contents, now)
        self._metrics.db_transaction_seconds.observe(self._clock.monotonic() - started)
        retried = [item for item in batch if item.tried and isinstance(item.what, Delivery)]
        if retried and any(item.what.key not in result.taken.deliveries for item in retried if isinstance(item.what, Delivery)):
            result.taken = await self._with_lost_reply(retried, result.taken)
        self._answer(batch, contents, result)

    async def _with_lost_reply(self, retried: list[_Item], taken: InsertedEvidence) -> InsertedEvidence:
        """A batch tried before may have been committed though its reply was lost: what this process stored then is new, not a duplicate."""
        keys = [item.what.key for item in retried if isinstance(item.what, Delivery)]
        stored = await self._store.committed_by_this_process(keys, min(item.received_at for item in retried))
        return taken._replace(deliveries=taken.deliveries | stored)

    def _build_batch(self, batch: list[_Item]) -> _BatchContents:
        contents = _BatchContents()
        for item in batch:
            if isinstance(item.what, Delivery):
                self._add_delivery(contents, item.what, item.received_at)
            else:
                self._add_snapshot(contents, item.what, item.received_at)
        return contents

    def _add_delivery(self, contents: _BatchContents, delivery: Delivery, received_at: datetime) -> None:
        contents.deliveries.append(KeptDelivery(delivery, received_at))
        content = delivery.content
        if not isinstance(content, StageEvent | RefetchEvent):
            return
        for person_id in content.person_ids:
            contents.people.add(person_id)
            hint = NewRefetch(person_id, content.at, received_at, delivery.event == "peopleDeleted", delivery.event == "peopleCreated")
            known = contents.refetches.get(person_id)
            contents.refetches[person_id] = hint if known is None else _joined(known, hint)
            if isinstance(content, StageEvent):
                ignored = content.stage in self._ignored
                claim = NewClaim(
                    person_id, content.at, "entry", "webhook", content.event_id, content.stage, None, received_at, None, None, None, ignored
                )
                contents.claims.setdefault(claim[:6], claim)

    def _add_snapshot(self, contents: _BatchContents, snapshot: Snapshot, received_at: datetime) -> None:
        for reading in snapshot.readings:
            person_id = reading.person_id
            contents.people.add(person_id)
            # Coverage beyond `updated` says nothing of the stage before it.
            covered = snapshot.covered if snapshot.covered is not None and snapshot.covered < reading.updated else None
            claim = NewClaim(
                person_id, reading.updated, "state", snapshot.channel.value, "", reading.stage, reading.stage_id, received_at,
                max(snapshot.read_at, reading.updated), covered, reading.created, reading.stage in self._ignored,
            )  # fmt: skip
            same = contents.claims.get(claim[:6])
            contents.claims[claim[:6]] = claim if same is None else _widened(same, claim)
            fact = contents.facts.get(person_id)
            if fact is None or (fact.reading.updated, fact.read_at) <= (reading.updated, snapshot.read_at):
                contents.facts[person_id] = Facts(reading, snapshot.read_at, self._tag_of(reading))

    def _tag_of(self, reading: Reading) -> str | None:
        borne = {_plain(tag) for tag in reading.tags}
        return next((tag for plain, tag in self._tags if plain in borne), None)

    async def _carry_out(self, recording: RecordingTransaction, contents: _BatchContents, now: datetime) -> _BatchResult:
        result = _BatchResult(await recording.insert_claims(contents.deliveries, contents.claims.values(), contents.people))
        if result.taken.upserted:
            for near in await recording.load_history(self._since(contents)):
                self._compare(near, contents, result)
        if contents.facts:
            result.known = await recording.upsert_people(list(contents.facts.values()))
        refetches = self._refetches(contents, result.taken.deliveries)
        if result.recorded or result.corrected or result.merged or refetches:
            evidence = {
                dated_by.seq: _evidence(person_id, dated_by, contents.facts.get(person_id))
                for person_id, dated_by in (
                    *((person_id, made.dated_by) for person_id, made in result.recorded),
                    *((person_id, corrected.dated_by) for person_id, corrected in result.corrected),
                )
                if dated_by is not None
            }
            await recording.apply_changes(ChangeSet(result.recorded, result.corrected, result.merged, refetches, evidence, now))
        return result

    def _since(self, contents: _BatchContents) -> dict[int, datetime]:
        """From where on each person's history may change: a window before their earliest new claim."""
        earliest: dict[int, datetime] = {}
        for claim in contents.claims.values():
            if not claim.ignored and claim.at < earliest.get(claim.person_id, _NEVER):
                earliest[claim.person_id] = claim.at
        margin = self._window + timedelta(seconds=1)
        return {person_id: max(at, _EPOCH + margin) - margin for person_id, at in earliest.items()}

    def _compare(self, near: PersonHistory, contents: _BatchContents, result: _BatchResult) -> None:
        if result.taken.upserted.isdisjoint([claim.seq for claim in near.claims]):
            return
        hint = contents.refetches.get(near.person_id)
        if hint is not None and hint.created:
            near = replace(near, announced=True)
        difference = reconcile(near, result.taken.claims, window=self._window, began=result.taken.began)
        result.recorded += [(near.person_id, made) for made in difference.recorded]
        result.corrected += [(near.person_id, corrected) for corrected in difference.corrected]
        result.merged += [(near.person_id, row) for row in difference.merged]
        result.repeats += difference.repeats

    def _refetches(self, contents: _BatchContents, new: frozenset[bytes]) -> list[NewRefetch]:
        """A repeated delivery asks for nothing again."""
        if not contents.refetches:
            return []
        if len(new) == len(contents.deliveries):
            return list(contents.refetches.values())
        asked = {
            person_id
            for delivery, _ in contents.deliveries
            if delivery.key in new and isinstance(delivery.content, StageEvent | RefetchEvent)
            for person_id in delivery.content.person_ids
        }
        return [hint for person_id, hint in contents.refetches.items() if person_id in asked]

    # --- after the commit ---

    def _answer(self, batch: list[_Item], contents: _BatchContents, result: _BatchResult) -> None:
        self._count(result)
        if contents.refetches:
            self._refetch_requested.set()
        if self._on_commit is not None and (result.recorded or result.corrected):
            self._on_commit(
                Committed(
                    recorded=[new.row.id for _, new in result.recorded],
                    corrected=[update.now.id for _, update in result.corrected if update.healed],
                    updated=[update.now.id for _, update in result.corrected if not update.healed],
                )
            )
        fresh = set(result.taken.deliveries)
        moved = {person_id: made.row.stage_from is not None for person_id, made in result.recorded if not made.dated_by.entry}
        for item in batch:
            if isinstance(item.what, Delivery):
                self._by_key.pop(item.what.key, None)
                answer: DeliveryOutcome | SnapshotResult = _receipt(item.what, new=item.what.key in fresh)
                fresh.discard(item.what.key)
                if answer is not DeliveryOutcome.DUPLICATE:
                    self.stored_unanswered += item.answer.done()
                    self._tell_arrival(item.what)
                for again in item.duplicates:
                    if not again.done():
                        again.set_result(DeliveryOutcome.DUPLICATE)
            else:
                answer = _findings(item.what, moved, result.known)
            if not item.answer.done():
                item.answer.set_result(answer)

    def _tell_arrival(self, delivery: Delivery) -> None:
        if self._on_new_delivery is not None and delivery.content is not None:
            # An event of the year 1 cannot be moved any earlier.
            self._on_new_delivery(max(delivery.content.at, _EPOCH) + timedelta(seconds=self._skew_seconds()))

    def _count(self, result: _BatchResult) -> None:
        metrics, skew = self._metrics, self._skew_seconds()
        for source in SOURCES:
            rows = [made.row for _, made in result.recorded if made.row.source == source]
            delay = metrics.capture_delay_seconds.labels(source)
            for row in rows:
                delay.observe(max(0.0, (row.received_at - row.changed_at).total_seconds() - skew))
            if rows:
                metrics.stage_changes.labels(source).inc(len(rows))
        confirmed = [made.row.confirmed_by for _, made in result.recorded if made.row.confirmed_by is not None]
        confirmed += [item.now.confirmed_by for _, item in result.corrected if item.confirms and item.now.confirmed_by is not None]
        for source in confirmed:
            metrics.confirmations.labels(source).inc()
        metrics.healed.inc(sum(item.healed for _, item in result.corrected) + len(result.merged))
        metrics.hidden_steps.inc(result.repeats)


def _halves(batch: list[_Item]) -> list[list[_Item]]:
    """Part a batch in two, in its order; one item stays as it is."""
    half = (len(batch) + 1) // 2
    return [part for part in (batch[:half], batch[half:]) if part]


def _plain(tag: str) -> str:
    """Case, space and hyphen do not matter in a tag's name."""
    return tag.casefold().replace(" ", "").replace("-", "")


def _claims_in(what: Delivery | Snapshot) -> int:
    if isinstance(what, Snapshot):
        return len(what.readings)
    return len(what.content.person_ids) if isinstance(what.content, StageEvent | RefetchEvent) else 0


def _joined(first: NewRefetch, again: NewRefetch) -> NewRefetch:
    """Two hints of one person in one batch, joined as the database joins them (`recording/apply_changes.sql`)."""
    return first._replace(
        since=max(first.since, again.since), deleted=first.deleted or again.deleted, created=first.created or again.created
    )


def _widened(first: NewClaim, again: NewClaim) -> NewClaim:
    """The same state read twice in one batch, joined as the database joins claims (`recording/insert_claims.sql`)."""
    read_at = max(first.read_at or _EPOCH, again.read_at or _EPOCH)
    covered = None if first.covered is None or again.covered is None else min(first.covered, again.covered)
    return first._replace(read_at=read_at, covered=covered)


def _receipt(delivery: Delivery, *, new: bool) -> DeliveryOutcome:
    if not new:
        return DeliveryOutcome.DUPLICATE
    if delivery.quarantine is not None:
        return DeliveryOutcome.QUARANTINED
    return DeliveryOutcome.ACCEPTED if isinstance(delivery.content, StageEvent | RefetchEvent) else DeliveryOutcome.IGNORED


def _findings(snapshot: Snapshot, moved: dict[int, bool], known: frozenset[int]) -> SnapshotResult:
    people = {reading.person_id for reading in snapshot.readings}
    return SnapshotResult(
        changes=len(people & moved.keys()),
        mismatched=frozenset(person_id for person_id in people if moved.get(person_id)),
        first_seen=len(people - known),
    )


def _evidence(person_id: int, claim: Claim, fact: Facts | None) -> str:
    """Give the evidence for raw_payload: the event for this person alone, or the person as read (at the top level, where reports look)."""
    if claim.entry:
        return (
            f'{{"eventId": {_quoted(claim.event_id)}, "eventCreated": "{claim.at.isoformat()}", "event": "peopleStageUpdated",'
            f' "resourceIds": [{person_id}], "data": {{"stage": {_quoted(claim.stage.name)}}}}}'
        )
    if fact is not None and (fact.reading.updated, fact.reading.stage) == (claim.at, claim.stage.name):
        return json.dumps(dict(fact.reading.payload))
    return json.dumps({"id": person_id, "stage": claim.stage.name, "stageId": claim.stage.id, "updated": claim.at.isoformat()})
