"""An event about many people is recorded in parts: it is answered after its last part, stored once, and survives an end in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry

from fubd.clock import SystemClock
from fubd.core.batch import PersonFacts, ReceivedDelivery, RecordingRules
from fubd.core.reconcile import Claim, PersonHistory
from fubd.core.vocabulary import DeliveryOutcome
from fubd.errors import TableRefused
from fubd.ingest import Ingest
from fubd.metrics import Metrics
from fubd.ports import ChangeSet, InsertedEvidence
from fubd.problems import Problems
from tests.recorder import Recorder, execute, running_recorder, webhook
from tests.support.waiting import eventually

# More than one transaction takes, in deliveries each of which is small enough for the queue.
_PEOPLE = 11 * 240
_REFUSE_7 = (
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN IF NEW.person_id = '7' THEN RAISE 'never'; END IF; RETURN NEW; END $$;"
    " CREATE TRIGGER refuse BEFORE INSERT ON public.stage_changes FOR EACH ROW EXECUTE FUNCTION refuse()"
)


class GatedStore:
    """Refuses the first transaction and commits no later one before `gate` is set. Keeps the people and the keys of what it took."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun: list[frozenset[int]] = []
        self.people: list[int] = []
        self.keys: list[bytes] = []

    @asynccontextmanager
    async def recording(self) -> AsyncIterator[GatedStore]:
        """Give itself as the transaction."""
        yield self

    async def insert_claims(
        self, deliveries: Sequence[ReceivedDelivery], claims: Collection[Claim], people: Collection[int], since: Mapping[int, datetime]
    ) -> InsertedEvidence:
        """Wait for the gate, then take everything."""
        assert {claim.person_id for claim in claims} <= set(people)
        self.begun.append(frozenset(people))
        if len(self.begun) == 1:
            raise TableRefused("the first one is refused")
        await self.gate.wait()
        self.people += people
        keys = [received.delivery.key for received in deliveries]
        self.keys += keys
        histories = [PersonHistory(person_id, None, (), ()) for person_id in since]
        return InsertedEvidence(frozenset(keys), frozenset(), frozenset(), frozenset(people), None, histories)

    async def commit(self, facts: Sequence[PersonFacts], changes: ChangeSet | None) -> None:
        """Take it."""

    async def committed_by_this_process(self, keys: Sequence[bytes], received_at: datetime) -> frozenset[bytes]:
        """Return what it took, as after a lost reply."""
        return frozenset(keys).intersection(self.keys) if received_at <= datetime.now(UTC) else frozenset()


async def test_last_parts_committed_side_by_side_still_store_the_delivery() -> None:
    """Neither knew that it would be the last; the delivery itself follows, once, and only then comes the answer."""
    store, clock, metrics = GatedStore(), SystemClock(), Metrics(CollectorRegistry())
    rules = RecordingRules(timedelta(seconds=300))
    ingest = Ingest(store, clock, metrics, Problems(clock, metrics), rules=rules, skew_seconds=lambda: 0.0)
    stop = asyncio.Event()
    running = asyncio.ensure_future(ingest.run(stop))
    # The last of these is divided between the first transaction, which is refused, and the second one.
    answers = [ingest.submit(webhook(f"e{first}", "B", "10:00", tuple(range(first, first + 240)))) for first in range(0, _PEOPLE, 240)]
    await eventually(lambda: len(store.begun) == 3)
    store.gate.set()
    assert set(await asyncio.gather(*answers)) == {DeliveryOutcome.ACCEPTED}
    assert sorted(store.people) == list(range(_PEOPLE))
    assert len(store.keys) == len(answers)
    assert ingest.pending == 0
    stop.set()
    await running


async def test_a_delivery_whose_process_ended_between_its_parts_is_new_when_it_comes_again(database: str) -> None:
    """It was not answered, so Follow Up Boss sends it again: each person gets one row, and the delivery counts as new."""
    event = webhook("e", "B", "10:00", tuple(range(1, 21)))
    await execute(database, _REFUSE_7)
    async with running_recorder(database) as first:
        waiting = asyncio.ensure_future(first.record(event))
        await eventually(lambda: _counts(first, 19))
        waiting.cancel()
    await execute(database, "DROP TRIGGER refuse ON public.stage_changes")
    async with running_recorder(database) as second:
        assert await second.record(event, event) == [DeliveryOutcome.ACCEPTED, DeliveryOutcome.DUPLICATE]
        assert await _counts(second, 20)


async def _counts(recorder: Recorder, rows: int) -> bool:
    async with recorder.pool.reading() as connection:
        return bool(await connection.fetchval("SELECT count(*) = $1 FROM public.stage_changes", rows))
