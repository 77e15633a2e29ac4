"""People named by webhooks: batched, read soon, and given up only after many attempts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fubd.core.observation import Channel
from fubd.errors import FubRefused, Unavailable
from fubd.lease import LocalLease
from fubd.metrics import Metrics
from fubd.poller import PollContext, Refetcher, UnreadPeople
from fubd.ports import PeopleQuery
from fubd.problems import Problems
from tests.poller.fake_database import FakeDatabase, KnownPerson
from tests.poller.fake_fub import FakeAccount, FakeFubApi, FubBehaviour
from tests.support.virtual_time import EPOCH, VirtualClock, run_virtual


class RefetchHarness:
    """A refetcher over an account of so many people."""

    def __init__(self, people: int) -> None:
        account = FakeAccount()
        for person_id in range(1, people + 1):
            account.add(person_id, updated=EPOCH - timedelta(days=1))
        self.api, self.database, self.clock = FakeFubApi(account), FakeDatabase(), VirtualClock()
        self.stop = asyncio.Event()
        self.lease = LocalLease()
        metrics = Metrics(CollectorRegistry())
        unread = UnreadPeople(self.database, self.clock, metrics, Problems(self.clock, metrics))
        context = PollContext(self.api, self.database, self.database, self.clock, metrics, unread)
        self.refetcher = Refetcher(context, lease=self.lease, refetch_requested=self.database.refetch_requested)

    def request(self, *people: int) -> None:
        """Request a refetch of these people."""
        for person_id in people:
            self.database.webhook(person_id, None)

    async def wait(self, seconds: float) -> None:
        """Let time pass."""
        await self.clock.pause(seconds)

    @property
    def list_sizes(self) -> list[int]:
        """How many people each list call requested."""
        return [len(query.ids or ()) for _, query in self.api.calls if isinstance(query, PeopleQuery)]


def _run(scenario: Callable[[RefetchHarness], Coroutine[Any, Any, None]], *, people: int = 50) -> None:
    async def run() -> None:
        harness = RefetchHarness(people)
        loop = asyncio.create_task(harness.refetcher.run(harness.stop))
        await scenario(harness)
        harness.stop.set()
        await loop

    run_virtual(run())


def test_a_request_is_answered_within_seconds() -> None:
    """After a quiet time the first person is read as soon as the request has settled, on the webhook's account."""

    async def scenario(harness: RefetchHarness) -> None:
        await harness.wait(600)
        harness.request(7)
        await harness.wait(2.5)
        assert harness.database.pending == {}
        assert [snapshot.channel for snapshot in harness.database.snapshots] == [Channel.WEBHOOK]

    _run(scenario)


def test_requests_of_one_minute_go_in_one_call() -> None:
    """Thirty requests, two seconds apart, are two calls: the first at once, the others batched for a minute."""

    async def scenario(harness: RefetchHarness) -> None:
        for person_id in range(1, 31):
            harness.request(person_id)
            await harness.wait(2.1)
        await harness.wait(60)
        assert len(harness.list_sizes) == 2
        assert sum(harness.list_sizes) == 30

    _run(scenario)


def test_a_hundred_pending_people_are_read_at_once() -> None:
    """A bulk edit of 450 people is read in full pages at once; the remainder follows within the minute."""

    async def scenario(harness: RefetchHarness) -> None:
        harness.request(*range(1, 451))
        await harness.wait(5)
        assert harness.list_sizes == [100, 100, 100, 100]
        await harness.wait(60)
        assert harness.list_sizes == [100, 100, 100, 100, 50]
        assert harness.database.pending == {}

    _run(scenario, people=500)


def test_reads_wait_for_the_end_of_a_burst() -> None:
    """While deliveries keep coming only the first call is made, and the database is rarely asked; full pages are read afterwards."""

    async def scenario(harness: RefetchHarness) -> None:
        await harness.wait(600)
        asked = harness.database.asked_for_due
        for person_id in range(1, 401):
            harness.request(person_id)
            await harness.wait(0.05)
        first = harness.list_sizes
        assert len(first) == 1
        assert harness.database.asked_for_due - asked <= 15
        await harness.wait(5)
        assert harness.list_sizes == [*first, 100, 100, 100]

    _run(scenario, people=500)


def test_a_burst_without_an_end_delays_names_by_a_minute() -> None:
    """After that they are read although deliveries keep coming, faster than these name people."""

    async def scenario(harness: RefetchHarness) -> None:
        await harness.wait(600)
        for person_id in range(1, 2_001):
            harness.request(person_id)
            await harness.wait(0.05)
        assert sum(harness.list_sizes) >= 1_700

    _run(scenario, people=2_000)


def test_a_person_who_appears_late_is_read_within_seconds_of_appearing() -> None:
    """FUB shows a new person only after a while: the request is retried within seconds."""

    async def scenario(harness: RefetchHarness) -> None:
        harness.api.account.hidden = {51}
        harness.api.account.add(51)
        harness.request(51)
        await harness.wait(6)
        harness.api.account.hidden = set()
        await harness.wait(10)
        assert 51 in harness.database.known
        assert harness.database.pending == {}

    _run(scenario)


def test_an_absent_person_is_read_by_id_and_marked_deleted() -> None:
    """After some attempts a 404 marks the person deleted and removes the request, with few calls."""

    async def scenario(harness: RefetchHarness) -> None:
        harness.request(9)
        await harness.wait(10)
        harness.api.account.delete(9)
        harness.request(9)
        await harness.wait(1800)
        assert harness.database.known[9].deleted
        assert harness.database.pending == {}
        assert harness.api.calls_made() <= 9

    _run(scenario)


def test_a_person_neither_returned_nor_deleted_is_given_up() -> None:
    """When FUB neither returns a person nor answers 404, the request is dropped after some ten attempts, and no person is marked."""

    async def scenario(harness: RefetchHarness) -> None:
        harness.api.account.hidden = {9}
        harness.database.known.clear()
        harness.api.refusals["person"] = FubRefused("You do not have access to this API endpoint", status=403)
        harness.request(9)
        await harness.wait(4 * 3600)
        assert harness.database.pending == {}
        assert 9 not in harness.database.known

    _run(scenario)


def test_requests_in_the_future_do_not_spin() -> None:
    """When a reading does not answer the request, the next call waits its turn."""

    async def scenario(harness: RefetchHarness) -> None:
        harness.request(3)
        harness.database.pending[3].since = EPOCH + timedelta(hours=1)
        await harness.wait(1200)
        assert len(harness.list_sizes) <= 21

    _run(scenario)


def test_an_outage_is_waited_out_with_backoff() -> None:
    """While FUB is unreachable the retries become rare, new requests do not hasten them, and afterwards everyone is read."""

    async def scenario(harness: RefetchHarness) -> None:
        harness.api.outage = Unavailable("FUB answered 503 to every attempt")
        for person_id in range(1, 41):
            harness.request(person_id)
            await harness.wait(30)
        assert harness.api.calls_made() <= 26
        harness.api.outage = None
        await harness.wait(65)
        assert set(range(1, 41)) <= set(harness.database.known)

    _run(scenario)


def test_an_outage_and_its_end_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Between the attempts there are steps that ask nothing: they are no sign that reading works again."""
    caplog.set_level(logging.INFO, "fubd.poller")

    async def scenario(harness: RefetchHarness) -> None:
        harness.api.outage = FubRefused("Follow Up Boss refused the key: 401", status=401)
        for person_id in range(1, 41):
            harness.request(person_id)
            await harness.wait(30)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        harness.api.outage = None
        await harness.wait(125)
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]

    _run(scenario)


@pytest.mark.parametrize("side", ["api", "database"])
def test_an_outage_of_either_side_loses_no_request(side: str) -> None:
    """Whether FUB or the database fails, the request is still there afterwards and is answered."""

    async def scenario(harness: RefetchHarness) -> None:
        harness.request(4)
        outage = Unavailable("unreachable", retry_after=7.0)
        harness.api.outage, harness.database.outage = (outage, None) if side == "api" else (None, outage)
        await harness.wait(300)
        harness.api.outage = harness.database.outage = None
        await harness.wait(61)
        assert 4 in harness.database.known

    _run(scenario)


def test_without_the_lease_nothing_is_read() -> None:
    """An instance without the lease makes no call; once it holds the lease it reads the pending people."""

    async def scenario(harness: RefetchHarness) -> None:
        harness.lease.held = False
        harness.request(4)
        await harness.wait(60)
        assert harness.api.calls_made() == 0
        harness.lease.held = True
        await harness.wait(15)
        assert 4 in harness.database.known

    _run(scenario)


def test_people_who_were_not_requested_are_not_recorded() -> None:
    """When FUB ignores the ids and lists others, those are not recorded, and the person is requested again."""

    async def scenario(harness: RefetchHarness) -> None:
        harness.api.behaviour = FubBehaviour(filters_ids=False)
        harness.request(3)
        await harness.wait(5)
        assert set(harness.database.known) <= {3}

    _run(scenario, people=150)


def test_people_on_no_list_stay_within_the_call_budget() -> None:
    """With half of the people invisible: at most one call a minute and one per hundred people, plus twenty saved calls."""

    async def scenario(harness: RefetchHarness) -> None:
        harness.api.account.hidden = set(range(1, 251))
        harness.api.refusals["person"] = FubRefused("You do not have access to this API endpoint", status=403)
        requested = 0
        for minute in range(600):
            people = range(1, 301) if minute == 60 else [1 + (7 * minute) % 500, 1 + (11 * minute) % 500]
            harness.request(*people)
            requested += len(people)
            await harness.wait(60)
        assert set(range(251, 501)) <= set(harness.database.known)
        assert len(harness.api.calls) <= 600 + requested // 100 + 20

    _run(scenario, people=500)


def test_a_mass_deletion_is_confirmed_within_the_budget_and_delays_no_one() -> None:
    """Of 150 people deleted together some are confirmed at once, the others one a minute; other changes are read within two minutes."""

    async def scenario(harness: RefetchHarness) -> None:
        for person_id in range(1, 151):
            harness.database.known[person_id] = KnownPerson("Lead", EPOCH, 0)
            harness.api.account.delete(person_id)
            harness.database.webhook(person_id, None, deleted=True)
        await harness.wait(10)
        assert sum(known.deleted for known in harness.database.known.values()) >= 10
        for person_id in range(151, 181):
            harness.request(person_id)
            await harness.wait(125)
            assert person_id in harness.database.known
        await harness.wait(3 * 3600)
        assert sum(known.deleted for known in harness.database.known.values()) == 150
        assert harness.database.pending == {}
        assert len(harness.api.calls) <= 4 * 60 + 2 + 20

    _run(scenario, people=500)


def test_where_lists_hide_trash_a_move_to_trash_costs_two_calls() -> None:
    """Once that is known, an absent person is read by id at once: 30 moves to Trash, six minutes apart, are 60 calls."""

    async def scenario(harness: RefetchHarness) -> None:
        harness.api.behaviour = FubBehaviour(lists_trash=False)
        for person_id in range(1, 31):
            harness.api.account.move(person_id, "Trash")
            harness.request(person_id)
            await harness.wait(360)
        assert [harness.database.known[person_id].stage for person_id in range(1, 31)] == ["Trash"] * 30
        # The first one shows it: requested on the list five times, by id, and on the list again.
        assert len(harness.api.calls) <= 7 + 29 * 2

    _run(scenario, people=500)


@pytest.mark.parametrize("people", [1, 450, 1000])
def test_a_read_is_not_made_in_the_second_of_the_event(people: int) -> None:
    """FUB dates by whole seconds, so a person read at once must be read again: a bulk edit is read a moment later, each hundred once."""

    async def scenario(harness: RefetchHarness) -> None:
        harness.api.behaviour = FubBehaviour(latency_seconds=0.1)
        await harness.wait(600.2)
        harness.request(*range(1, people + 1))
        await harness.wait(70)
        assert len(harness.list_sizes) == -(-people // 100)
        assert harness.database.pending == {}

    _run(scenario, people=1000)
