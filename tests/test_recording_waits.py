"""What waits to be recorded: through an outage, at a stop, and when there are too many, on virtual time with the database in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry

from fubd.core.batch import RecordingRules
from fubd.core.vocabulary import DeliveryOutcome
from fubd.errors import Unavailable
from fubd.ingest import Ingest
from fubd.metrics import Metrics
from fubd.pending import PeopleLimit
from fubd.problems import Problems
from tests.proofs.memory_store import MemoryStore
from tests.recorder import read, webhook
from tests.support.virtual_time import VirtualClock, run_virtual

_AWAY = Unavailable("the database is away")


def _play(
    scenario: Callable[[Ingest, MemoryStore, VirtualClock, asyncio.Event], Awaitable[None]], *, metrics: Metrics | None = None
) -> None:
    """Play a scenario with a running ingest, which ends within ten minutes of the stop."""
    metrics = metrics or Metrics(CollectorRegistry())

    async def main() -> None:
        clock, stop = VirtualClock(), asyncio.Event()
        store = MemoryStore(clock)
        ingest = Ingest(
            store, clock, metrics, Problems(clock, metrics), rules=RecordingRules(timedelta(minutes=5)), skew_seconds=lambda: 0.0
        )
        running = asyncio.create_task(ingest.run(stop))
        await scenario(ingest, store, clock, stop)
        stop.set()
        async with asyncio.timeout(600.0):
            await running

    run_virtual(main())


def test_an_outage_is_waited_out_and_ends_within_seconds() -> None:
    """However long it was, what waits is tried every five seconds; what comes meanwhile is recorded with it, and said to be new."""

    async def scenario(ingest: Ingest, store: MemoryStore, clock: VirtualClock, _stop: asyncio.Event) -> None:
        store.outage = _AWAY
        first = ingest.submit(webhook("e1", "B", "10:00"))
        await clock.pause(3_600.0)
        second = ingest.submit(webhook("e2", "C", "10:01"))
        assert (first.done(), ingest.pending, ingest.failure is None) == (False, 2, False)
        store.outage = None
        await clock.pause(6.0)
        assert (first.result(), second.result()) == (DeliveryOutcome.ACCEPTED, DeliveryOutcome.ACCEPTED)
        assert (ingest.pending, ingest.failure) == (0, None)
        assert {row.stage.name: row.stage_from for row in store.rows()} == {"B": None, "C": "B"}

    _play(scenario)


@pytest.mark.parametrize(("outage_seconds", "is_recorded"), [(0.3, True), (300.0, False)])
def test_a_stop_in_an_outage_waits_only_while_the_next_try_is_near(outage_seconds: float, is_recorded: bool) -> None:
    """What was not recorded is refused, and its sender sends it again."""

    async def scenario(ingest: Ingest, store: MemoryStore, clock: VirtualClock, stop: asyncio.Event) -> None:
        await clock.pause(1.0)
        store.outage = _AWAY
        answer = ingest.submit(webhook("e1", "B", "10:00"))
        stop.set()
        await clock.pause(outage_seconds)
        assert answer.done() is not is_recorded
        store.outage = None
        await clock.pause(2.0)
        assert (answer.exception() is None) == is_recorded == bool(list(store.rows()))

    _play(scenario)


def test_readings_are_refused_before_a_stop_and_deliveries_are_not() -> None:
    """Those that wait and those that come: the next poll reads the people again."""

    async def scenario(ingest: Ingest, store: MemoryStore, clock: VirtualClock, _stop: asyncio.Event) -> None:
        store.outage = _AWAY
        waiting = asyncio.create_task(ingest.observe(read("B", "10:00", "10:30")))
        await clock.pause(1.0)
        ingest.reject_pending_reads()
        for observed in (waiting, ingest.observe(read("B", "10:00", "10:30"))):
            with pytest.raises(Unavailable, match="stopping"):
                await observed
        answer = ingest.submit(webhook("e1", "B", "10:00"))
        store.outage = None
        assert await answer is DeliveryOutcome.ACCEPTED

    _play(scenario)


def test_what_is_stored_after_its_sender_gave_up_is_counted() -> None:
    """So that the ledger of deliveries is balanced; a sender who comes again learns that it is kept."""

    async def scenario(ingest: Ingest, store: MemoryStore, clock: VirtualClock, _stop: asyncio.Event) -> None:
        store.outage = _AWAY
        delivery = webhook("e1", "B", "10:00")
        ingest.submit(delivery).cancel()
        with pytest.raises(Unavailable, match="kept already"):
            await ingest.submit(delivery)
        assert ingest.stored_unanswered == 0
        store.outage = None
        await clock.pause(6.0)
        assert (ingest.stored_unanswered, len(list(store.rows()))) == (1, 1)

    _play(scenario)


def test_the_sender_of_one_too_many_has_to_wait() -> None:
    """Ten thousand wait; the next is refused at once."""

    async def scenario(ingest: Ingest, store: MemoryStore, _clock: VirtualClock, _stop: asyncio.Event) -> None:
        store.outage = _AWAY
        for number in range(10_000):
            ingest.submit(webhook(f"e{number}", "B", "10:00", (number + 1,)))
        refused = ingest.submit(webhook("one", "B", "10:00")).exception()
        assert isinstance(refused, Unavailable)
        assert (refused.retry_after, ingest.pending) == (30, 10_000)

    _play(scenario)


def test_each_row_counts_once_for_its_source_and_once_for_its_confirmation() -> None:
    """A correction that confirms nothing is counted as one."""
    metrics = Metrics(CollectorRegistry())

    def counts() -> list[float | None]:
        names = [(name, source) for name in ("stage_changes_total", "confirmations_total") for source in ("webhook", "polling")]
        values = [metrics.registry.get_sample_value(f"fubd_{name}", {"source": source}) for name, source in names]
        return [*values, metrics.registry.get_sample_value("fubd_healed_total")]

    async def scenario(ingest: Ingest, _store: MemoryStore, _clock: VirtualClock, _stop: asyncio.Event) -> None:
        await ingest.observe(read("A", "08:00", "09:00"))
        await ingest.deliver(webhook("e1", "B", "10:00"))
        assert counts() == [1, 0, 0, 0, 0]
        await ingest.observe(read("B", "10:00", "10:30", "10:00"))
        assert counts() == [1, 0, 0, 1, 0]
        await ingest.observe(read("C", "11:00", "11:30", "10:30"))
        assert counts() == [1, 1, 0, 1, 0]
        await ingest.deliver(webhook("e2", "C", "10:59"))
        assert counts() == [1, 1, 1, 1, 1]
        await ingest.deliver(webhook("e3", "D", "10:40"))
        assert counts() == [2, 1, 1, 1, 2]

    _play(scenario, metrics=metrics)


def test_a_transaction_is_about_fewer_people_after_a_slow_one_and_about_more_after_a_full_quick_one() -> None:
    """Half as many, at least a hundred; twice as many, at most 2,500."""
    limit = PeopleLimit()
    seen = [limit.people]
    for people, seconds in ((2_500, 2.5), (1_250, 2.5), (10, 0.1), (625, 2.0), (1_250, 0.1), (2_500, 0.1)):
        limit.on_success(people, seconds)
        seen.append(limit.people)
    assert seen == [2_500, 1_250, 625, 625, 1_250, 2_500, 2_500]
    for _ in range(10):
        limit.on_failure()
    assert limit.people == 100
