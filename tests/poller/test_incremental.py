"""The incremental read, against accounts that change while they are read."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from typing_extensions import override

from fubd.core.api import PeoplePage
from fubd.core.observation import Reading
from fubd.errors import Unavailable
from fubd.poller.incremental import IncrementalRead, UpdatedAfterSupport
from fubd.poller.poll_run import PollRun
from fubd.ports import PeopleQuery
from fubd.simulator.rng import Rng
from tests.poller.fake_database import FakeDatabase
from tests.poller.fake_fub import FakeAccount, FakeFubApi, FubBehaviour, change_something
from tests.support.virtual_time import EPOCH, run_virtual, true_time

_HOUR_AGO = EPOCH - timedelta(hours=1)


def _run(api: FakeFubApi, database: FakeDatabase) -> PollRun:
    return PollRun(api, database, watermark=None, should_continue=lambda: True)


def _account(*, untouched: int, changed: int, spread_seconds: int = 1800) -> FakeAccount:
    """Return an account of people untouched for a day and of others changed within the hour, ids mixed."""
    account = FakeAccount()
    rng = Rng(changed)
    ids = rng.sample(range(1, 10 * (untouched + changed) + 10), untouched + changed)
    for person_id in ids[:untouched]:
        account.add(person_id, updated=EPOCH - timedelta(days=1, seconds=rng.randrange(86400)))
    for person_id in ids[untouched:]:
        account.add(person_id, updated=EPOCH - timedelta(seconds=rng.randrange(spread_seconds)))
    return account


@pytest.mark.parametrize(
    ("behaviour", "shown"),
    [
        ("works", UpdatedAfterSupport.WORKS),
        ("hides", UpdatedAfterSupport.UNRELIABLE),
        ("ignored", UpdatedAfterSupport.IGNORED),
        ("refused", UpdatedAfterSupport.REFUSED),
    ],
)
def test_the_probe_shows_whether_the_filter_works(behaviour: str, shown: UpdatedAfterSupport) -> None:
    """A working filter is used; one that returns no people, is ignored or refused is not, and the changed people are found all the same."""

    async def scenario() -> None:
        api, database, read = (
            FakeFubApi(_account(untouched=400, changed=30), FubBehaviour(updated_after=behaviour)),
            FakeDatabase(),
            IncrementalRead(),
        )
        assert await read.changed_since(_run(api, database), _HOUR_AGO) is not None
        assert read.updated_after is shown
        changed = {person.id for person in api.account.people.values() if person.updated >= _HOUR_AGO}
        assert changed <= set(database.known)

    run_virtual(scenario())


@pytest.mark.parametrize("behaviour", ["works", "hides"])
def test_a_quiet_poll_is_one_call(behaviour: str) -> None:
    """After the probe, a poll of an account with few changes requests one page, with and without the filter."""

    async def scenario() -> None:
        api, database, read = (
            FakeFubApi(_account(untouched=400, changed=30), FubBehaviour(updated_after=behaviour)),
            FakeDatabase(),
            IncrementalRead(),
        )
        await read.changed_since(_run(api, database), _HOUR_AGO)
        before = api.calls_made()
        await read.changed_since(_run(api, database), _HOUR_AGO)
        assert api.calls_made() - before == 1

    run_virtual(scenario())


@pytest.mark.parametrize("refuses_sort", [True, False], ids=["refused", "ignored"])
def test_the_filter_is_proven_without_an_order_by_time(*, refuses_sort: bool) -> None:
    """Where FUB refuses or ignores `sort`, any page of people shows that the filter works, and later polls are one call."""

    async def scenario() -> None:
        behaviour = FubBehaviour(sorts=False, refuses_sort=refuses_sort)
        api, database, read = FakeFubApi(_account(untouched=400, changed=130), behaviour), FakeDatabase(), IncrementalRead()
        assert await read.changed_since(_run(api, database), _HOUR_AGO) is not None
        assert read.updated_after is UpdatedAfterSupport.WORKS
        assert {person.id for person in api.account.people.values() if person.updated >= _HOUR_AGO} <= set(database.known)
        before = api.calls_made()
        assert await read.changed_since(_run(api, database), EPOCH) is not None
        assert api.calls_made() - before <= 2

    run_virtual(scenario())


@pytest.mark.parametrize("metadata", ["missing", "unusable"])
@pytest.mark.parametrize("behaviour", ["works", "hides"])
def test_a_read_is_proven_complete_without_metadata(behaviour: str, metadata: str) -> None:
    """A row known to be the last shows the end of a list that says nothing of it, in a few calls; pages that are small hide nobody."""

    async def scenario() -> None:
        fub = FubBehaviour(updated_after=behaviour, metadata=metadata, people_per_page=40)
        api, database, read = FakeFubApi(_account(untouched=400, changed=90, spread_seconds=3000), fub), FakeDatabase(), IncrementalRead()
        assert await read.changed_since(_run(api, database), _HOUR_AGO) is not None
        before = api.calls_made()
        assert await read.changed_since(_run(api, database), _HOUR_AGO) is not None
        assert {person.id for person in api.account.people.values() if person.updated >= _HOUR_AGO} <= set(database.known)
        assert api.calls_made() - before <= 8

    run_virtual(scenario())


@pytest.mark.parametrize("metadata", ["usable", "missing", "unusable"])
@pytest.mark.parametrize("number", [1, 40, 41, 100])
def test_a_whole_account_that_changed_is_read_without_metadata(number: int, metadata: str) -> None:
    """Where everybody changed no page shows somebody older: the end of the list itself has to be shown."""

    async def scenario() -> None:
        fub = FubBehaviour(updated_after="hides", metadata=metadata, people_per_page=40)
        api, database, read = FakeFubApi(_account(untouched=0, changed=number, spread_seconds=3000), fub), FakeDatabase(), IncrementalRead()
        assert await read.changed_since(_run(api, database), _HOUR_AGO) is not None
        assert len(database.known) == number

    run_virtual(scenario())


def test_an_empty_account_is_read() -> None:
    """With no people to prove the filter by, the read still ends and returns when it began."""

    async def scenario() -> None:
        read = IncrementalRead()
        assert await read.changed_since(_run(FakeFubApi(FakeAccount()), FakeDatabase()), _HOUR_AGO) is not None
        assert read.updated_after is UpdatedAfterSupport.UNPROVEN

    run_virtual(scenario())


@given(
    seed=st.integers(0, 2**32),
    behaviour=st.sampled_from(["works", "hides", "ignored"]),
    changed=st.sampled_from([0, 5, 99, 100, 101, 250, 600]),
    spread_seconds=st.sampled_from([1, 60, 1800, 3500]),
    max_changes=st.integers(0, 30),
    unordered=st.booleans(),
    metadata=st.sampled_from(["usable", "missing", "unusable"]),
    people_per_page=st.sampled_from([100, 40]),
)
@settings(max_examples=80)
def test_nothing_that_changed_before_the_read_began_is_missed(
    *,
    seed: int,
    behaviour: str,
    changed: int,
    spread_seconds: int,
    max_changes: int,
    unordered: bool,
    metadata: str,
    people_per_page: int,
) -> None:
    """While people are changed, trashed, deleted and created between two pages, everyone who had changed before is recorded."""

    async def scenario() -> None:
        rng = Rng(seed)
        api_behaviour = FubBehaviour(
            updated_after=behaviour,
            latency_seconds=0.3,
            unordered_ties=rng if unordered else None,
            metadata=metadata,
            people_per_page=people_per_page,
        )
        api = FakeFubApi(_account(untouched=300, changed=changed, spread_seconds=spread_seconds), api_behaviour)
        database, read = FakeDatabase(), IncrementalRead()
        history: list[tuple[datetime, dict[int, Reading]]] = []

        def before_response() -> None:
            history.append((true_time(), {person.id: person.reading for person in api.account.people.values()}))
            for _ in range(rng.randrange(max_changes + 1)):
                change_something(api.account, rng)

        api.before_response = before_response
        began = await read.changed_since(_run(api, database), _HOUR_AGO)
        if began is None:
            # An incomplete read promises nothing. Were most of them that, hypothesis would fail.
            reject()
        as_it_began = next(people for at, people in history if at >= began)
        for person_id, then in as_it_began.items():
            if then.updated >= _HOUR_AGO and person_id not in api.account.deleted:
                assert database.known[person_id].updated >= then.updated

    run_virtual(scenario())


class _WitnessedApi(FakeFubApi):
    """An API that remembers every state of a person that any of its pages showed."""

    def __init__(self, account: FakeAccount, behaviour: FubBehaviour) -> None:
        super().__init__(account, behaviour)
        self.shown: set[tuple[int, datetime, str]] = set()

    @override
    async def people(self, query: PeopleQuery) -> PeoplePage:
        page = await super().people(query)
        self.shown.update((reading.person_id, reading.updated, reading.stage) for reading in page.readings)
        return page


@given(
    seed=st.integers(0, 2**32),
    behaviour=st.sampled_from(["works", "hides", "ignored", "refused"]),
    changed=st.sampled_from([0, 5, 101, 250]),
    sorts=st.booleans(),
    fails_at=st.sampled_from([None, 1, 3, 4]),
)
@settings(max_examples=60)
def test_whatever_a_page_showed_is_recorded(*, seed: int, behaviour: str, changed: int, sorts: bool, fails_at: int | None) -> None:
    """People change between two calls, and a read may fail: each state that a page showed is recorded, also where it was only to prove."""

    async def scenario() -> None:
        rng = Rng(seed)
        behaves = FubBehaviour(updated_after=behaviour, sorts=sorts, latency_seconds=0.3)
        api = _WitnessedApi(_account(untouched=150, changed=changed), behaves)
        database, read = FakeDatabase(), IncrementalRead()

        def before_response() -> None:
            if fails_at is not None and api.calls_made() > fails_at:
                api.outage = Unavailable("FUB answered 503 to every attempt")
            for _ in range(rng.randrange(20)):
                change_something(api.account, rng)

        api.before_response = before_response
        with suppress(Unavailable):
            await read.changed_since(_run(api, database), _HOUR_AGO)
        recorded = {(reading.person_id, reading.updated, reading.stage) for snapshot in database.snapshots for reading in snapshot.readings}
        assert api.shown <= recorded

    run_virtual(scenario())


def test_deletions_between_pages_cost_a_step_back_and_lose_no_one() -> None:
    """When forty people are deleted ahead of the next page, the read steps back up and misses no one."""

    async def scenario() -> None:
        api, database, read = (
            FakeFubApi(_account(untouched=300, changed=250), FubBehaviour(updated_after="hides")),
            FakeDatabase(),
            IncrementalRead(),
        )
        await read.changed_since(_run(api, database), _HOUR_AGO)
        database.known.clear()
        newest = sorted(api.account.people.values(), key=lambda person: person.updated, reverse=True)
        to_delete = [person.id for person in newest[10:50]]
        calls = api.calls_made()

        def before_response() -> None:
            if api.calls_made() == calls + 2:
                for person_id in to_delete:
                    api.account.delete(person_id)

        api.before_response = before_response
        assert await read.changed_since(_run(api, database), _HOUR_AGO) is not None
        assert {person.id for person in newest[:250]} - set(to_delete) <= set(database.known)

    run_virtual(scenario())


def test_the_read_gives_up_before_the_maximum_offset() -> None:
    """With more changed people than offsets reach, the read gives up without requesting a page that FUB refuses."""

    async def scenario() -> None:
        api = FakeFubApi(_account(untouched=0, changed=3000, spread_seconds=3500), FubBehaviour(updated_after="hides"))
        assert await IncrementalRead().changed_since(_run(api, FakeDatabase()), _HOUR_AGO) is None
        assert max(query.offset or 0 for _, query in api.calls if isinstance(query, PeopleQuery)) < 2000

    run_virtual(scenario())


def test_a_filter_that_stops_working_is_noticed_within_the_poll() -> None:
    """When FUB begins to ignore the filter, the first poll that meets it reads by sort=-updated and misses no one."""

    async def scenario() -> None:
        api, database, read = FakeFubApi(_account(untouched=400, changed=150)), FakeDatabase(), IncrementalRead()
        await read.changed_since(_run(api, database), _HOUR_AGO)
        api.behaviour.updated_after = "ignored"
        database.known.clear()
        assert await read.changed_since(_run(api, database), _HOUR_AGO) is not None
        changed = {person.id for person in api.account.people.values() if person.updated >= _HOUR_AGO}
        assert changed <= set(database.known)

    run_virtual(scenario())


def test_an_interrupted_read_raises() -> None:
    """An outage in the middle is not the end: the read does not claim to be complete."""

    async def scenario() -> None:
        api, database, read = FakeFubApi(_account(untouched=10, changed=400)), FakeDatabase(), IncrementalRead()
        await read.changed_since(_run(api, database), _HOUR_AGO)
        calls = api.calls_made()

        def before_response() -> None:
            if api.calls_made() == calls + 3:
                api.outage = Unavailable("FUB answered 503 to every attempt")

        api.before_response = before_response
        with pytest.raises(Unavailable):
            await read.changed_since(_run(api, database), _HOUR_AGO)

    run_virtual(scenario())


class _EndlessApi(FakeFubApi):
    """An API whose lists by `updatedAfter` never end: after the last page they continue in one of three ways."""

    after_last = "nothing"

    @override
    async def people(self, query: PeopleQuery) -> PeoplePage:
        page = await super().people(query)
        if query.updated_after is None or self.after_last == "nothing" or page.next is not None:
            return page
        if self.after_last == "first page":
            return replace(page, next=str(max(self.account.ids) + 1))
        return replace(page, next=query.next or "1") if self.after_last == "same page" else replace(page, readings=(), ids=(), next="1")


@pytest.mark.parametrize("after_last", ["first page", "same page"])
def test_pages_that_repeat_without_end_are_abandoned(after_last: str) -> None:
    """When pages start over or repeat, the read changes to sort=-updated within few calls and misses no one."""

    async def scenario() -> None:
        api, database, read = _EndlessApi(_account(untouched=400, changed=150)), FakeDatabase(), IncrementalRead()
        await read.changed_since(_run(api, database), _HOUR_AGO)
        database.known.clear()
        api.after_last = after_last
        calls = api.calls_made()
        assert await read.changed_since(_run(api, database), _HOUR_AGO) is not None
        assert api.calls_made() - calls <= 12
        changed = {person.id for person in api.account.people.values() if person.updated >= _HOUR_AGO}
        assert changed <= set(database.known)

    run_virtual(scenario())


def test_endless_empty_pages_fail_the_poll() -> None:
    """Empty pages, each with a next one, end the poll as incomplete within few calls."""

    async def scenario() -> None:
        api, database, read = _EndlessApi(_account(untouched=400, changed=150)), FakeDatabase(), IncrementalRead()
        await read.changed_since(_run(api, database), _HOUR_AGO)
        api.after_last = "empty pages"
        calls = api.calls_made()
        with pytest.raises(Unavailable, match="do not end"):
            await read.changed_since(_run(api, database), _HOUR_AGO)
        assert api.calls_made() - calls <= 12

    run_virtual(scenario())
