"""People a webhook spoke of: gathered, read soon, and not given up lightly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from fubd.core.observation import Channel
from fubd.errors import FubRefused, Unavailable
from fubd.poller.poll_run import PollPolicy
from fubd.poller.refetch import Refetcher
from fubd.ports import PeopleQuery
from tests.poller.fakes import EPOCH, Account, AccountFeed, Known, Memory, VirtualClock, Ways, live

_POLICY = PollPolicy()


class _World:
    def __init__(self, people: int, *, is_leader: Callable[[], bool] = lambda: True) -> None:
        account = Account()
        for person_id in range(1, people + 1):
            account.add(person_id, updated=EPOCH - timedelta(days=1))
        self.api, self.memory, self.clock = AccountFeed(account), Memory(), VirtualClock()
        self.stop = asyncio.Event()
        self.due_refetches = Refetcher(
            api=self.api,
            ingestor=self.memory,
            state=self.memory,
            clock=self.clock,
            policy=_POLICY,
            is_leader=is_leader,
            refetch_requested=self.memory.refetch_requested,
        )

    def hint(self, *people: int) -> None:
        for person_id in people:
            self.memory.webhook(person_id, None)

    async def passes(self, seconds: float) -> None:
        await self.clock.pause(seconds)

    @property
    def asked(self) -> list[int]:
        """How many people each list call asked for."""
        return [len(query.ids or ()) for _, query in self.api.calls if isinstance(query, PeopleQuery)]


def _story(world: Callable[[], _World], story: Callable[[_World], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        made = world()
        loop = asyncio.create_task(made.due_refetches.run(made.stop))
        await story(made)
        made.stop.set()
        await loop

    live(run())


def test_a_hint_is_read_within_seconds() -> None:
    """After a quiet time the first hint is read as soon as it has settled, as something a webhook prompted."""

    async def story(world: _World) -> None:
        await world.passes(600)
        world.hint(7)
        await world.passes(2.5)
        assert world.memory.pending == {}
        assert [snapshot.channel for snapshot in world.memory.snapshots] == [Channel.WEBHOOK]

    _story(lambda: _World(50), story)


def test_hints_of_one_minute_go_in_one_call() -> None:
    """Thirty hints, two seconds apart, are two calls: the first at once, the others gathered for a minute."""

    async def story(world: _World) -> None:
        for person_id in range(1, 31):
            world.hint(person_id)
            await world.passes(2.1)
        await world.passes(60)
        assert len(world.asked) == 2
        assert sum(world.asked) == 30

    _story(lambda: _World(50), story)


def test_a_hundred_waiting_do_not_wait_longer() -> None:
    """A bulk edit of 450 people is read in full calls at once; the remainder follows within the minute."""

    async def story(world: _World) -> None:
        world.hint(*range(1, 451))
        await world.passes(5)
        assert world.asked == [100, 100, 100, 100]
        await world.passes(60)
        assert world.asked == [100, 100, 100, 100, 50]
        assert world.memory.pending == {}

    _story(lambda: _World(500), story)


def test_a_person_who_appears_late_is_read_within_seconds_of_appearing() -> None:
    """FUB shows a person just created only after a while: the hint is tried again within seconds, and nobody is marked gone."""

    async def story(world: _World) -> None:
        world.api.account.hidden = {51}
        world.api.account.add(51)
        world.hint(51)
        await world.passes(6)
        world.api.account.hidden = set()
        await world.passes(10)
        assert 51 in world.memory.known
        assert world.memory.pending == {}

    _story(lambda: _World(50), story)


def test_a_deleted_person_is_asked_for_by_id_and_then_gone() -> None:
    """After some attempts a 404 settles it: the person is gone, the hint with them, and few calls were spent."""

    async def story(world: _World) -> None:
        world.hint(9)
        await world.passes(10)
        world.api.account.delete(9)
        world.hint(9)
        await world.passes(1800)
        assert world.memory.known[9].gone
        assert world.memory.pending == {}
        assert world.api.calls_made() <= 9

    _story(lambda: _World(50), story)


def test_someone_never_shown_and_never_denied_is_given_up() -> None:
    """When FUB neither shows a person nor answers 404, the hint is dropped after some ten attempts, and nobody is marked."""

    async def story(world: _World) -> None:
        world.api.account.hidden = {9}
        world.memory.known.clear()
        world.api.refusals["person"] = FubRefused("You do not have access to this API endpoint", status=403)
        world.hint(9)
        await world.passes(4 * 3600)
        assert world.memory.pending == {}
        assert 9 not in world.memory.known

    _story(lambda: _World(50), story)


def test_hints_of_a_lagging_clock_do_not_spin() -> None:
    """When what was read does not answer the hint, the next call waits its turn."""

    async def story(world: _World) -> None:
        world.hint(3)
        world.memory.pending[3].since = EPOCH + timedelta(hours=1)
        await world.passes(1200)
        assert len(world.asked) <= 21

    _story(lambda: _World(50), story)


def test_an_outage_is_waited_out_with_growing_pauses() -> None:
    """While FUB is out of reach the tries grow rare, new hints do not hasten them, and afterwards all are read."""

    async def story(world: _World) -> None:
        world.api.outage = Unavailable("FUB answered 503 to every try")
        for person_id in range(1, 41):
            world.hint(person_id)
            await world.passes(30)
        assert world.api.calls_made() <= 26
        world.api.outage = None
        await world.passes(65)
        assert set(range(1, 41)) <= set(world.memory.known)

    _story(lambda: _World(50), story)


@pytest.mark.parametrize("way", ["feed", "database"])
def test_an_outage_of_either_side_loses_no_hint(way: str) -> None:
    """Whether FUB or the database fails, the hint is there afterwards and is read."""

    async def story(world: _World) -> None:
        world.hint(4)
        outage = Unavailable("out of reach", retry_after=7.0)
        world.api.outage, world.memory.outage = (outage, None) if way == "feed" else (None, outage)
        await world.passes(300)
        world.api.outage = world.memory.outage = None
        await world.passes(61)
        assert 4 in world.memory.known

    _story(lambda: _World(50), story)


def test_without_the_lease_nothing_is_read() -> None:
    """An instance that may not poll makes no call; once it may, it reads what waits."""
    free: list[bool] = []

    async def story(world: _World) -> None:
        world.hint(4)
        await world.passes(60)
        assert world.api.calls_made() == 0
        free.append(True)
        await world.passes(15)
        assert 4 in world.memory.known

    _story(lambda: _World(50, is_leader=lambda: bool(free)), story)


def test_an_unfiltered_answer_is_not_taken_for_the_people_asked() -> None:
    """When FUB ignores the ids and lists others, those are not handed in, and who was asked for is asked for again."""

    async def story(world: _World) -> None:
        world.api.ways = Ways(honours_ids=False)
        world.hint(3)
        await world.passes(5)
        assert set(world.memory.known) <= {3}

    _story(lambda: _World(150), story)


def test_people_whom_a_list_never_shows_stay_within_the_budget() -> None:
    """Half of the people out of the key's sight: at most a call a minute and one for each hundred people, beside twenty saved ones."""

    async def story(world: _World) -> None:
        world.api.account.hidden = set(range(1, 251))
        world.api.refusals["person"] = FubRefused("You do not have access to this API endpoint", status=403)
        refetch_requested = 0
        for minute in range(600):
            people = range(1, 301) if minute == 60 else [1 + (7 * minute) % 500, 1 + (11 * minute) % 500]
            world.hint(*people)
            refetch_requested += len(people)
            await world.passes(60)
        assert set(range(251, 501)) <= set(world.memory.known)
        assert len(world.api.calls) <= 600 + refetch_requested // 100 + 20

    _story(lambda: _World(500), story)


def test_a_mass_deletion_is_confirmed_within_the_budget_and_hides_nobody() -> None:
    """Of 150 deleted together some are confirmed at once, the others one a minute; who changes meanwhile is read within two."""

    async def story(world: _World) -> None:
        for person_id in range(1, 151):
            world.memory.known[person_id] = Known("Lead", EPOCH, 0)
            world.api.account.delete(person_id)
            world.memory.webhook(person_id, None, deleted=True)
        await world.passes(10)
        assert sum(known.gone for known in world.memory.known.values()) >= 10
        for person_id in range(151, 181):
            world.hint(person_id)
            await world.passes(125)
            assert person_id in world.memory.known
        await world.passes(3 * 3600)
        assert sum(known.gone for known in world.memory.known.values()) == 150
        assert world.memory.pending == {}
        assert len(world.api.calls) <= 4 * 60 + 2 + 20

    _story(lambda: _World(500), story)


def test_where_lists_hide_trash_who_is_moved_there_costs_two_calls() -> None:
    """Once that is known, who is not on the list is asked for by id at once: 30 moves to Trash, six minutes apart, are 60 calls."""

    async def story(world: _World) -> None:
        world.api.ways = Ways(lists_trash=False)
        for person_id in range(1, 31):
            world.api.account.move(person_id, "Trash")
            world.hint(person_id)
            await world.passes(360)
        assert [world.memory.known[person_id].stage for person_id in range(1, 31)] == ["Trash"] * 30
        # The first one taught it: asked for on the list five times, by id, and on the list again.
        assert len(world.api.calls) <= 7 + 29 * 2

    _story(lambda: _World(500), story)


@pytest.mark.parametrize("people", [1, 450, 1000])
def test_a_read_in_the_second_of_the_event_is_not_made_in_vain(people: int) -> None:
    """FUB dates by whole seconds, so who is read at once must be read again: a bulk edit is read a moment later, each hundred once."""

    async def story(world: _World) -> None:
        world.api.ways = Ways(latency_seconds=0.1)
        await world.passes(600.2)
        world.hint(*range(1, people + 1))
        await world.passes(70)
        assert len(world.asked) == -(-people // 100)
        assert world.memory.pending == {}

    _story(lambda: _World(1000), story)
