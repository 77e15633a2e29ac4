"""The incremental read where the filter does not work: crowds of one second, ranges of ids, and the look back."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from fubd.core.observation import Reading
from fubd.poller.incremental import IncrementalRead
from fubd.poller.poll_run import PollRun
from fubd.simulator.rng import Rng
from tests.poller.fake_database import FakeDatabase
from tests.poller.fake_fub import FakeAccount, FakeFubApi, FubBehaviour, change_something
from tests.support.virtual_time import EPOCH, VirtualClock, run_virtual, true_time

_HOUR_AGO = EPOCH - timedelta(hours=1)
_PROBE_CALLS = 4


def _run(api: FakeFubApi, database: FakeDatabase) -> PollRun:
    return PollRun(api, database, watermark=None, should_continue=lambda: True)


def _account(*, untouched: int, crowd: int, changed: int = 0, crowd_age: timedelta = timedelta(minutes=5)) -> FakeAccount:
    """Return an account of people untouched for a day, a crowd edited in one second, and people changed later; ids mixed."""
    account, rng = FakeAccount(), Rng(crowd)
    ids = rng.sample(range(1, 10 * (untouched + crowd + changed)), untouched + crowd + changed)
    for person_id in ids[:untouched]:
        account.add(person_id, updated=EPOCH - timedelta(days=1, seconds=rng.randrange(86400)))
    for person_id in ids[untouched : untouched + crowd]:
        account.add(person_id, updated=EPOCH - crowd_age)
    for person_id in ids[untouched + crowd :]:
        account.add(person_id, updated=EPOCH - timedelta(seconds=rng.randrange(int(crowd_age.total_seconds()))))
    return account


def _changed(account: FakeAccount) -> set[int]:
    return {person.id for person in account.people.values() if person.updated >= _HOUR_AGO}


@pytest.mark.parametrize(("crowd", "changed"), [(1000, 30), (1000, 0), (1900, 0), (300, 200), (101, 5), (199, 1)])
def test_a_crowd_of_one_second_is_counted(crowd: int, changed: int) -> None:
    """A bulk edit leaves more people of one second than fit on a page: they are read page by page and counted, each once."""

    async def scenario() -> None:
        api = FakeFubApi(_account(untouched=3000, crowd=crowd, changed=changed), FubBehaviour(updated_after="hides"))
        database = FakeDatabase()
        assert await IncrementalRead().changed_since(_run(api, database), _HOUR_AGO) == EPOCH
        assert _changed(api.account) <= set(database.known)
        assert api.calls_made() <= _PROBE_CALLS + (crowd + changed) / 90 + 3

    run_virtual(scenario())


def test_an_account_of_nothing_but_a_crowd_is_counted() -> None:
    """When everybody was edited in one second, the end of the account is the end of the crowd."""

    async def scenario() -> None:
        api, database = FakeFubApi(_account(untouched=0, crowd=250), FubBehaviour(updated_after="hides")), FakeDatabase()
        assert await IncrementalRead().changed_since(_run(api, database), _HOUR_AGO) == EPOCH
        assert len(database.known) == 250

    run_virtual(scenario())


def test_a_crowd_without_a_stable_order_is_read_by_ranges_of_ids() -> None:
    """When people of one second come in another order on each page, counting does not settle, and ranges of ids do."""

    async def scenario() -> None:
        account = _account(untouched=9000, crowd=1000, changed=20)
        api = FakeFubApi(account, FubBehaviour(updated_after="hides", unordered_ties=Rng(3)))
        database = FakeDatabase()
        assert await IncrementalRead().changed_since(_run(api, database), _HOUR_AGO) == EPOCH
        assert _changed(api.account) <= set(database.known)
        assert api.calls_made() <= 24

    run_virtual(scenario())


def test_more_changed_people_than_offsets_reach_are_read_by_ranges_of_ids() -> None:
    """Two bulk edits together are deeper than FUB's offsets: the rest is read by ranges, without a refused call or a sweep."""

    async def scenario() -> None:
        account = _account(untouched=20_000, crowd=1300)
        for person_id in account.ids[:1200]:
            account.touch(person_id)
        api, database = FakeFubApi(account, FubBehaviour(updated_after="hides")), FakeDatabase()
        assert await IncrementalRead().changed_since(_run(api, database), _HOUR_AGO) == EPOCH
        assert _changed(account) <= set(database.known)
        assert api.calls_made() <= 100

    run_virtual(scenario())


@pytest.mark.parametrize("broken", ["ranges ignored", "order ignored"])
def test_ranges_that_prove_nothing_are_given_up(broken: str) -> None:
    """When FUB ignores ranges of ids or the order by time, the read says so after few calls, and the account is swept."""

    async def scenario() -> None:
        behaviour = FubBehaviour(updated_after="hides", unordered_ties=Rng(3), filters_id_ranges=broken != "ranges ignored")
        api = FakeFubApi(_account(untouched=3000, crowd=1000), behaviour)
        read = IncrementalRead()
        if broken == "order ignored":
            await read.changed_since(_run(api, FakeDatabase()), EPOCH)
            behaviour.sorts = False
        calls = api.calls_made()
        assert await read.changed_since(_run(api, FakeDatabase()), _HOUR_AGO) is None
        assert api.calls_made() - calls <= 8

    run_virtual(scenario())


@pytest.mark.parametrize("updated_after", ["works", "hides"])
def test_a_crowd_is_read_once(updated_after: str) -> None:
    """A later walk that comes across a crowd again only counts it; when people were added late, it reads them all."""

    async def scenario() -> None:
        account = _account(untouched=3000, crowd=1000, changed=10)
        late = [person.id for person in account.people.values() if person.updated == EPOCH - timedelta(minutes=5)][::9]
        account.hidden.update(late)
        api, read = FakeFubApi(account, FubBehaviour(updated_after=updated_after)), IncrementalRead()
        await read.changed_since(_run(api, FakeDatabase()), _HOUR_AGO)
        calls = api.calls_made()
        await read.changed_since(_run(api, FakeDatabase()), EPOCH - timedelta(minutes=1))
        assert api.calls_made() - calls == 2
        account.hidden.clear()
        database = FakeDatabase()
        await read.changed_since(_run(api, database), EPOCH - timedelta(minutes=1))
        assert set(late) <= set(database.known)

    run_virtual(scenario())


@pytest.mark.parametrize("updated_after", ["works", "hides"])
def test_the_read_looks_back_a_quarter_of_an_hour(updated_after: str) -> None:
    """A person that the lists show 14 minutes late, when coverage has passed them, is found, with and without the filter."""

    async def scenario() -> None:
        account = _account(untouched=300, crowd=0, changed=0)
        api, read, database = FakeFubApi(account, FubBehaviour(updated_after=updated_after)), IncrementalRead(), FakeDatabase()
        late = account.ids[7]
        account.move(late, "Nurture")
        account.hidden.add(late)
        for person_id in account.ids[20:270]:
            await VirtualClock().pause(3)
            account.touch(person_id)
        covered = await read.changed_since(_run(api, database), EPOCH)
        assert covered is not None
        account.hidden.clear()
        await VirtualClock().pause(60)
        await read.changed_since(_run(api, database), covered)
        assert database.known[late].stage == "Nurture"

    run_virtual(scenario())


def test_a_look_back_without_proof_ends_at_coverage() -> None:
    """Beyond coverage nothing needs to be proven: a crowd there that cannot be counted costs no ranges and no sweep."""

    async def scenario() -> None:
        behaviour = FubBehaviour(updated_after="hides", unordered_ties=Rng(3))
        api, read = FakeFubApi(_account(untouched=3000, crowd=1000, changed=10), behaviour), IncrementalRead()
        await read.changed_since(_run(api, FakeDatabase()), EPOCH)
        calls = api.calls_made()
        assert await read.changed_since(_run(api, FakeDatabase()), EPOCH - timedelta(minutes=1)) is not None
        assert api.calls_made() - calls <= 3

    run_virtual(scenario())


@given(
    seed=st.integers(0, 2**32),
    crowd=st.sampled_from([60, 99, 100, 101, 180, 350, 700]),
    changed=st.sampled_from([0, 3, 40, 130]),
    age_seconds=st.sampled_from([1, 2, 300]),
    max_changes=st.integers(0, 6),
    in_crowd=st.booleans(),
    unordered=st.booleans(),
)
@settings(max_examples=40)
def test_a_crowd_that_changes_while_it_is_counted_loses_no_one(
    *, seed: int, crowd: int, changed: int, age_seconds: int, max_changes: int, in_crowd: bool, unordered: bool
) -> None:
    """While people of a crowd are edited, deleted and created between two pages, everyone who had changed before is recorded."""

    async def scenario() -> None:
        rng = Rng(seed)
        behaviour = FubBehaviour(updated_after="hides", latency_seconds=0.3, unordered_ties=rng if unordered else None)
        account = _account(untouched=200, crowd=crowd, changed=changed, crowd_age=timedelta(seconds=age_seconds))
        api, database = FakeFubApi(account, behaviour), FakeDatabase()
        people = [person.id for person in account.people.values() if person.updated == EPOCH - timedelta(seconds=age_seconds)]
        history: list[tuple[datetime, dict[int, Reading]]] = []

        def before_response() -> None:
            history.append((true_time(), {person.id: person.reading for person in account.people.values()}))
            for _ in range(rng.randrange(max_changes + 1)):
                person_id = rng.choice(people)
                if not in_crowd or person_id not in account.people:
                    change_something(account, rng)
                elif rng.random() < 0.6:
                    account.delete(person_id)
                else:
                    account.touch(person_id)

        api.before_response = before_response
        began = await IncrementalRead().changed_since(_run(api, database), _HOUR_AGO)
        if began is None:
            # An incomplete read promises nothing. Were most of them that, hypothesis would fail.
            reject()
        as_it_began = next(people for at, people in history if at >= began)
        for person_id, then in as_it_began.items():
            if then.updated >= _HOUR_AGO and person_id not in account.deleted:
                assert database.known[person_id].updated >= then.updated

    run_virtual(scenario())
