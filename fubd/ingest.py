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

from fubd.core.observation import Delivery, Hint, Reading, Snapshot, StageEvent
from fubd.core.reconcile import Claim, Corrected, Near, Recorded, Row, reconcile
from fubd.metrics import SOURCES, Metrics
from fubd.ports import (
    Clock,
    Facts,
    Findings,
    Journal,
    KeptDelivery,
    Malformed,
    NewClaim,
    NewHint,
    Receipt,
    Recording,
    Taken,
    Unavailable,
    Writing,
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


@dataclass(slots=True, eq=False)
class _Item:
    """One delivery or snapshot on its way into the database."""

    what: Delivery | Snapshot
    received_at: datetime
    answer: asyncio.Future[Any]
    size: int
    tried: bool = False
    again: list[asyncio.Future[Receipt]] = field(default_factory=list)


@dataclass(slots=True)
class _Gathered:
    """What a batch amounts to, before the database has seen it."""

    deliveries: list[KeptDelivery] = field(default_factory=list)
    claims: dict[tuple[object, ...], NewClaim] = field(default_factory=dict)
    facts: dict[int, Facts] = field(default_factory=dict)
    hints: dict[int, NewHint] = field(default_factory=dict)
    people: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Done:
    """What a committed batch brought."""

    taken: Taken
    recorded: list[tuple[int, Recorded]] = field(default_factory=list)
    corrected: list[tuple[int, Corrected]] = field(default_factory=list)
    joined: list[tuple[int, Row]] = field(default_factory=list)
    repeats: int = 0
    known: frozenset[int] = frozenset()


class Ingest:
    """Records deliveries and snapshots; the only part with a state that moves.

    `window`: FUBD_DEDUP_WINDOW. `skew_seconds`: our clock minus FUB's. `hinted` is set when people to be read were committed; `tell`, when
    set, is called with the rows of each committed batch, `arrived` with when the event of each new delivery was created (our clock).
    """

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        metrics: Metrics,
        *,
        window: timedelta,
        ignored_stages: Iterable[str] = (),
        lead_source_tags: Iterable[str] = (),
        skew_seconds: Callable[[], float] = lambda: 0.0,
        hinted: asyncio.Event | None = None,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._metrics = metrics
        self._window = window
        self._ignored = frozenset(ignored_stages)
        self._tags = tuple((_plain(tag), tag) for tag in lead_source_tags)
        self._skew_seconds = skew_seconds
        self._hinted = hinted or asyncio.Event()
        self.tell: Callable[[list[tuple[int, Recorded]], list[tuple[int, Corrected]]], None] | None = None
        self.arrived: Callable[[datetime], None] | None = None
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

    def submit(self, delivery: Delivery) -> asyncio.Future[Receipt]:
        """Take a delivery; the answer comes once it is committed. Unavailable at once: there was no room to keep it."""
        pending = self._by_key.get(delivery.key)
        if pending is None:
            return self._enter(delivery, len(delivery.body))
        answer: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        if pending.answer.done():
            # Its first sender was refused and this one would wait as long; it is kept already.
            answer.set_exception(Unavailable("the database is away; this delivery is kept already"))
        else:
            pending.again.append(answer)
        return answer

    async def deliver(self, delivery: Delivery) -> Receipt:
        """Record a delivery; returns once committed, however long that takes. Raises Unavailable when there is no room to keep it."""
        return await self.submit(delivery)

    async def observe(self, snapshot: Snapshot) -> Findings:
        """Record readings; returns once committed, however long that takes. Raises Unavailable when there is no room to keep them."""
        answer: asyncio.Future[Findings] = self._enter(snapshot, 1_000 * len(snapshot.readings))
        return await answer

    def _enter(self, what: Delivery | Snapshot, size: int) -> asyncio.Future[Any]:
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

    def let_go(self) -> None:
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
                batches[0:1] = self._isolated(batch, str(error))
                continue
            if self.failing:
                self.failing = False
                _log.info("recording again")
            delay = _FIRST_RETRY_SECONDS
            self._metrics.db_up.set(1)
            batches.pop(0)
        self._batch = []
        return True

    def _isolated(self, batch: list[_Item], problem: str) -> list[list[_Item]]:
        """Something in this batch can never be held: find it by halves; a single delivery is quarantined, a single snapshot is a bug."""
        if len(batch) > 1:
            return _halves(batch)
        item = batch[0]
        if isinstance(item.what, Snapshot) or item.what.told is None:
            raise RuntimeError(f"a cleaned value could not be stored: {problem}")
        told = item.what
        item.what = Delivery(told.key, told.body, None, None, None, problem)
        return [batch]

    async def _record(self, batch: list[_Item]) -> None:
        now = self._clock.now()
        gathered = self._gather(batch)
        started = self._clock.monotonic()
        async with self._journal.recording() as recording:
            done = await self._carry_out(recording, gathered, now)
        self._metrics.db_transaction_seconds.observe(self._clock.monotonic() - started)
        retried = [item for item in batch if item.tried and isinstance(item.what, Delivery)]
        if retried and any(item.what.key not in done.taken.deliveries for item in retried if isinstance(item.what, Delivery)):
            done.taken = await self._with_lost_reply(retried, done.taken)
        self._answer(batch, gathered, done)

    async def _with_lost_reply(self, retried: list[_Item], taken: Taken) -> Taken:
        """A batch tried before may have been committed though its reply was lost: what this process stored then is new, not a duplicate."""
        keys = [item.what.key for item in retried if isinstance(item.what, Delivery)]
        ours = await self._journal.ours(keys, min(item.received_at for item in retried))
        return taken._replace(deliveries=taken.deliveries | ours)

    def _gather(self, batch: list[_Item]) -> _Gathered:
        gathered = _Gathered()
        for item in batch:
            if isinstance(item.what, Delivery):
                self._gather_delivery(gathered, item.what, item.received_at)
            else:
                self._gather_snapshot(gathered, item.what, item.received_at)
        return gathered

    def _gather_delivery(self, gathered: _Gathered, delivery: Delivery, received_at: datetime) -> None:
        gathered.deliveries.append(KeptDelivery(delivery, received_at))
        told = delivery.told
        if not isinstance(told, StageEvent | Hint):
            return
        for person_id in told.person_ids:
            gathered.people.add(person_id)
            hint = NewHint(person_id, told.at, received_at, delivery.event == "peopleDeleted", delivery.event == "peopleCreated")
            known = gathered.hints.get(person_id)
            gathered.hints[person_id] = hint if known is None else _joined(known, hint)
            if isinstance(told, StageEvent):
                ignored = told.stage in self._ignored
                claim = NewClaim(
                    person_id, told.at, "entry", "webhook", told.event_id, told.stage, None, received_at, None, None, None, ignored
                )
                gathered.claims.setdefault(claim[:6], claim)

    def _gather_snapshot(self, gathered: _Gathered, snapshot: Snapshot, received_at: datetime) -> None:
        for reading in snapshot.readings:
            person_id = reading.person_id
            gathered.people.add(person_id)
            # Coverage beyond `updated` says nothing of the stage before it.
            covered = snapshot.covered if snapshot.covered is not None and snapshot.covered < reading.updated else None
            claim = NewClaim(
                person_id, reading.updated, "state", snapshot.channel.value, "", reading.stage, reading.stage_id, received_at,
                max(snapshot.read_at, reading.updated), covered, reading.created, reading.stage in self._ignored,
            )  # fmt: skip
            same = gathered.claims.get(claim[:6])
            gathered.claims[claim[:6]] = claim if same is None else _widened(same, claim)
            fact = gathered.facts.get(person_id)
            if fact is None or (fact.reading.updated, fact.read_at) <= (reading.updated, snapshot.read_at):
                gathered.facts[person_id] = Facts(reading, snapshot.read_at, self._tag_of(reading))

    def _tag_of(self, reading: Reading) -> str | None:
        borne = {_plain(tag) for tag in reading.tags}
        return next((tag for plain, tag in self._tags if plain in borne), None)

    async def _carry_out(self, recording: Recording, gathered: _Gathered, now: datetime) -> _Done:
        done = _Done(await recording.take(gathered.deliveries, gathered.claims.values(), gathered.people))
        if done.taken.touched:
            for near in await recording.load(self._since(gathered)):
                self._compare(near, gathered, done)
        if gathered.facts:
            done.known = await recording.facts(list(gathered.facts.values()))
        hints = self._hints(gathered, done.taken.deliveries)
        if done.recorded or done.corrected or done.joined or hints:
            evidence = {
                head.seq: _evidence(person_id, head, gathered.facts.get(person_id))
                for person_id, head in (
                    *((person_id, made.head) for person_id, made in done.recorded),
                    *((person_id, corrected.head) for person_id, corrected in done.corrected),
                )
                if head is not None
            }
            await recording.write(Writing(done.recorded, done.corrected, done.joined, hints, evidence, now))
        return done

    def _since(self, gathered: _Gathered) -> dict[int, datetime]:
        """From where on each person's history may change: a window before their earliest new claim."""
        earliest: dict[int, datetime] = {}
        for claim in gathered.claims.values():
            if not claim.ignored and claim.at < earliest.get(claim.person_id, _NEVER):
                earliest[claim.person_id] = claim.at
        margin = self._window + timedelta(seconds=1)
        return {person_id: max(at, _EPOCH + margin) - margin for person_id, at in earliest.items()}

    def _compare(self, near: Near, gathered: _Gathered, done: _Done) -> None:
        if done.taken.touched.isdisjoint([claim.seq for claim in near.claims]):
            return
        hint = gathered.hints.get(near.person_id)
        if hint is not None and hint.created:
            near = replace(near, announced=True)
        difference = reconcile(near, done.taken.claims, window=self._window, began=done.taken.began)
        done.recorded += [(near.person_id, made) for made in difference.recorded]
        done.corrected += [(near.person_id, corrected) for corrected in difference.corrected]
        done.joined += [(near.person_id, row) for row in difference.joined]
        done.repeats += difference.repeats

    def _hints(self, gathered: _Gathered, new: frozenset[bytes]) -> list[NewHint]:
        """A repeated delivery asks for nothing again."""
        if not gathered.hints:
            return []
        if len(new) == len(gathered.deliveries):
            return list(gathered.hints.values())
        asked = {
            person_id
            for delivery, _ in gathered.deliveries
            if delivery.key in new and isinstance(delivery.told, StageEvent | Hint)
            for person_id in delivery.told.person_ids
        }
        return [hint for person_id, hint in gathered.hints.items() if person_id in asked]

    # --- after the commit ---

    def _answer(self, batch: list[_Item], gathered: _Gathered, done: _Done) -> None:
        self._count(done)
        if gathered.hints:
            self._hinted.set()
        if self.tell is not None and (done.recorded or done.corrected):
            self.tell(done.recorded, done.corrected)
        fresh = set(done.taken.deliveries)
        moved = {person_id: made.row.stage_from is not None for person_id, made in done.recorded if not made.head.entry}
        for item in batch:
            if isinstance(item.what, Delivery):
                self._by_key.pop(item.what.key, None)
                answer: Receipt | Findings = _receipt(item.what, new=item.what.key in fresh)
                fresh.discard(item.what.key)
                if answer is not Receipt.DUPLICATE:
                    self.stored_unanswered += item.answer.done()
                    self._tell_arrival(item.what)
                for again in item.again:
                    if not again.done():
                        again.set_result(Receipt.DUPLICATE)
            else:
                answer = _findings(item.what, moved, done.known)
            if not item.answer.done():
                item.answer.set_result(answer)

    def _tell_arrival(self, delivery: Delivery) -> None:
        if self.arrived is not None and delivery.told is not None:
            # An event of the year 1 cannot be moved any earlier.
            self.arrived(max(delivery.told.at, _EPOCH) + timedelta(seconds=self._skew_seconds()))

    def _count(self, done: _Done) -> None:
        metrics, skew = self._metrics, self._skew_seconds()
        for source in SOURCES:
            rows = [made.row for _, made in done.recorded if made.row.source == source]
            delay = metrics.capture_delay_seconds.labels(source)
            for row in rows:
                delay.observe(max(0.0, (row.received_at - row.changed_at).total_seconds() - skew))
            if rows:
                metrics.stage_changes.labels(source).inc(len(rows))
        confirmed = [made.row.confirmed_by for _, made in done.recorded if made.row.confirmed_by is not None]
        confirmed += [item.now.confirmed_by for _, item in done.corrected if item.confirms and item.now.confirmed_by is not None]
        for source in confirmed:
            metrics.confirmations.labels(source).inc()
        metrics.healed.inc(sum(item.healed for _, item in done.corrected) + len(done.joined))
        metrics.hidden_steps.inc(done.repeats)


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
    return len(what.told.person_ids) if isinstance(what.told, StageEvent | Hint) else 0


def _joined(first: NewHint, again: NewHint) -> NewHint:
    """Two hints of one person in one batch, joined as the database joins them (`recording/apply_changes.sql`)."""
    return first._replace(
        since=max(first.since, again.since), deleted=first.deleted or again.deleted, created=first.created or again.created
    )


def _widened(first: NewClaim, again: NewClaim) -> NewClaim:
    """The same state read twice in one batch, joined as the database joins claims (`recording/insert_claims.sql`)."""
    read_at = max(first.read_at or _EPOCH, again.read_at or _EPOCH)
    covered = None if first.covered is None or again.covered is None else min(first.covered, again.covered)
    return first._replace(read_at=read_at, covered=covered)


def _receipt(delivery: Delivery, *, new: bool) -> Receipt:
    if not new:
        return Receipt.DUPLICATE
    if delivery.quarantine is not None:
        return Receipt.QUARANTINED
    return Receipt.ACCEPTED if isinstance(delivery.told, StageEvent | Hint) else Receipt.IGNORED


def _findings(snapshot: Snapshot, moved: dict[int, bool], known: frozenset[int]) -> Findings:
    people = {reading.person_id for reading in snapshot.readings}
    return Findings(
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
