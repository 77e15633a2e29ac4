"""The incremental walk, against accounts that change while they are read."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from fubd.core.api import PeoplePage
from fubd.core.observation import Reading
from fubd.errors import Unavailable
from fubd.poller.incremental import Filter, IncrementalRead
from fubd.poller.poll_run import PollRun
from fubd.ports import PeopleQuery
from fubd.simulator.rng import Rng
from tests.poller.fakes import EPOCH, Account, AccountFeed, Memory, Ways, change_something, live, true_time

_HOUR_AGO = EPOCH - timedelta(hours=1)


def _errand(api: AccountFeed, memory: Memory) -> PollRun:
    return PollRun(api, memory, watermark=None, should_continue=lambda: True)


def _peopled(*, untouched: int, changed: int, spread_seconds: int = 1800) -> Account:
    """Make an account of people untouched for a day and of others changed within the hour, ids mixed."""
    account = Account()
    dice = Rng(changed)
    ids = dice.sample(range(1, 10 * (untouched + changed) + 10), untouched + changed)
    for person_id in ids[:untouched]:
        account.add(person_id, updated=EPOCH - timedelta(days=1, seconds=dice.randrange(86400)))
    for person_id in ids[untouched:]:
        account.add(person_id, updated=EPOCH - timedelta(seconds=dice.randrange(spread_seconds)))
    return account


@pytest.mark.parametrize(
    ("way", "shown"),
    [("works", Filter.WORKS), ("lies", Filter.UNRELIABLE), ("ignored", Filter.IGNORED)],
)
def test_the_probe_tells_what_the_filter_is_worth(way: str, shown: Filter) -> None:
    """A filter that works is used; one that answers with nobody or is ignored is not, and the changed are found all the same."""

    async def story() -> None:
        api, memory, walk = AccountFeed(_peopled(untouched=400, changed=30), Ways(filter=way)), Memory(), IncrementalRead()
        assert await walk.changed_since(_errand(api, memory), _HOUR_AGO) is not None
        assert walk.filter is shown
        changed = {person.id for person in api.account.people.values() if person.updated >= _HOUR_AGO}
        assert changed <= set(memory.known)

    live(story())


@pytest.mark.parametrize("way", ["works", "lies"])
def test_a_quiet_poll_is_one_call(way: str) -> None:
    """Once probed, a poll of an account with few changes asks for one page, whichever way it walks."""

    async def story() -> None:
        api, memory, walk = AccountFeed(_peopled(untouched=400, changed=30), Ways(filter=way)), Memory(), IncrementalRead()
        await walk.changed_since(_errand(api, memory), _HOUR_AGO)
        before = api.calls_made()
        await walk.changed_since(_errand(api, memory), _HOUR_AGO)
        assert api.calls_made() - before == 1

    live(story())


def test_an_empty_account_is_walked() -> None:
    """With nobody to prove the filter by, the walk still ends and tells when it began."""

    async def story() -> None:
        walk = IncrementalRead()
        assert await walk.changed_since(_errand(AccountFeed(Account()), Memory()), _HOUR_AGO) is not None
        assert walk.filter is Filter.UNPROVEN

    live(story())


@given(
    seed=st.integers(0, 2**32),
    way=st.sampled_from(["works", "lies", "ignored"]),
    changed=st.sampled_from([0, 5, 99, 100, 101, 250, 600]),
    spread_seconds=st.sampled_from([60, 1800, 3500]),
    liveliness=st.integers(0, 30),
    unordered=st.booleans(),
)
@settings(max_examples=80)
def test_nothing_that_changed_before_the_walk_began_is_missed(
    *, seed: int, way: str, changed: int, spread_seconds: int, liveliness: int, unordered: bool
) -> None:
    """While people change, are trashed, deleted and created between two pages, all who had changed before are handed in."""

    async def story() -> None:
        dice = Rng(seed)
        ways = Ways(filter=way, latency_seconds=0.3, unordered_ties=dice if unordered else None)
        api = AccountFeed(_peopled(untouched=300, changed=changed, spread_seconds=spread_seconds), ways)
        memory, walk = Memory(), IncrementalRead()
        history: list[tuple[datetime, dict[int, Reading]]] = []

        def meanwhile() -> None:
            history.append((true_time(), {person.id: person.reading() for person in api.account.people.values()}))
            for _ in range(dice.randrange(liveliness + 1)):
                change_something(api.account, dice)

        api.meanwhile = meanwhile
        began = await walk.changed_since(_errand(api, memory), _HOUR_AGO)
        if began is None:
            return
        as_it_began = next(people for at, people in history if at >= began)
        for person_id, then in as_it_began.items():
            if then.updated >= _HOUR_AGO and person_id not in api.account.deleted:
                assert memory.known[person_id].updated >= then.updated

    live(story())


def test_deletions_between_pages_cost_a_step_back_and_nobody() -> None:
    """When forty people are deleted ahead of the next page, the walk reads further up again and misses nobody."""

    async def story() -> None:
        api, memory, walk = AccountFeed(_peopled(untouched=300, changed=250), Ways(filter="lies")), Memory(), IncrementalRead()
        await walk.changed_since(_errand(api, memory), _HOUR_AGO)
        memory.known.clear()
        newest = sorted(api.account.people.values(), key=lambda person: person.updated, reverse=True)
        doomed = [person.id for person in newest[10:50]]
        calls = api.calls_made()

        def meanwhile() -> None:
            if api.calls_made() == calls + 2:
                for person_id in doomed:
                    api.account.delete(person_id)

        api.meanwhile = meanwhile
        assert await walk.changed_since(_errand(api, memory), _HOUR_AGO) is not None
        assert {person.id for person in newest[:250]} - set(doomed) <= set(memory.known)

    live(story())


def test_more_people_of_one_second_than_a_page_holds_ask_for_a_sweep() -> None:
    """A bulk edit leaves more people with one `updated` than fit on a page: their order proves nothing, so the walk gives up."""

    async def story() -> None:
        account = _peopled(untouched=300, changed=0)
        for person_id in account.ids[:150]:
            account.touch(person_id)
        api = AccountFeed(account, Ways(filter="lies"))
        assert await IncrementalRead().changed_since(_errand(api, Memory()), _HOUR_AGO) is None

    live(story())


def test_the_walk_gives_up_before_the_deepest_offset() -> None:
    """With more changed people than offsets reach, the walk gives up without ever asking for a refused page."""

    async def story() -> None:
        api = AccountFeed(_peopled(untouched=0, changed=3000, spread_seconds=3500), Ways(filter="lies"))
        assert await IncrementalRead().changed_since(_errand(api, Memory()), _HOUR_AGO) is None
        assert max(asked.offset or 0 for _, asked in api.calls if asked is not None and not isinstance(asked, int)) < 2000

    live(story())


def test_a_filter_that_stops_working_is_noticed_within_the_poll() -> None:
    """When the filter is ignored from one day on, the very poll that meets it walks the other way and misses nobody."""

    async def story() -> None:
        api, memory, walk = AccountFeed(_peopled(untouched=400, changed=150)), Memory(), IncrementalRead()
        await walk.changed_since(_errand(api, memory), _HOUR_AGO)
        api.ways.filter = "ignored"
        memory.known.clear()
        assert await walk.changed_since(_errand(api, memory), _HOUR_AGO) is not None
        changed = {person.id for person in api.account.people.values() if person.updated >= _HOUR_AGO}
        assert changed <= set(memory.known)

    live(story())


def test_an_aborted_walk_raises() -> None:
    """An outage in the middle is not an end: what was read stays, and the walk does not claim to be complete."""

    async def story() -> None:
        api, memory, walk = AccountFeed(_peopled(untouched=10, changed=400)), Memory(), IncrementalRead()
        await walk.changed_since(_errand(api, memory), _HOUR_AGO)
        calls = api.calls_made()

        def meanwhile() -> None:
            if api.calls_made() == calls + 3:
                api.outage = Unavailable("FUB answered 503 to every try")

        api.meanwhile = meanwhile
        with pytest.raises(Unavailable):
            await walk.changed_since(_errand(api, memory), _HOUR_AGO)

    live(story())


class _Endless(AccountFeed):
    """A Follow Up Boss whose lists by `updatedAfter` never end: after the last page they go on in one of three ways."""

    way = "never"

    @override
    async def people(self, query: PeopleQuery) -> PeoplePage:
        page = await super().people(query)
        if query.updated_after is None or self.way == "never" or page.next is not None:
            return page
        if self.way == "again":
            # The first page once more.
            return replace(page, next=str(max(self.account.ids) + 1))
        return replace(page, next=query.next or "1") if self.way == "same" else replace(page, readings=(), ids=(), next="1")


@pytest.mark.parametrize("way", ["again", "same"])
def test_pages_that_repeat_without_an_end_are_left(way: str) -> None:
    """Pages that begin anew or repeat: within few calls the walk goes the other way, and misses nobody."""

    async def story() -> None:
        api, memory, walk = _Endless(_peopled(untouched=400, changed=150)), Memory(), IncrementalRead()
        await walk.changed_since(_errand(api, memory), _HOUR_AGO)
        memory.known.clear()
        api.way = way
        calls = api.calls_made()
        assert await walk.changed_since(_errand(api, memory), _HOUR_AGO) is not None
        assert api.calls_made() - calls <= 12
        changed = {person.id for person in api.account.people.values() if person.updated >= _HOUR_AGO}
        assert changed <= set(memory.known)

    live(story())


def test_empty_pages_without_an_end_are_no_end() -> None:
    """Pages of nobody, each with a next one, end the poll within few calls, as one that is not complete."""

    async def story() -> None:
        api, memory, walk = _Endless(_peopled(untouched=400, changed=150)), Memory(), IncrementalRead()
        await walk.changed_since(_errand(api, memory), _HOUR_AGO)
        api.way = "empty"
        calls = api.calls_made()
        with pytest.raises(Unavailable, match="do not end"):
            await walk.changed_since(_errand(api, memory), _HOUR_AGO)
        assert api.calls_made() - calls <= 12

    live(story())
