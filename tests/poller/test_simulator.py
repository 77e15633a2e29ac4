"""The poller against the simulated account over real HTTP, through the real client."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from fubd.simulator import Behaviour, Faults, Lags, UpdatedAfter
from fubd.simulator.rng import Rng
from tests.poller.simulated import PUBLIC, simulated, stir
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    ("way", "inclusive"),
    [(UpdatedAfter.WORKS, False), (UpdatedAfter.WORKS, True), (UpdatedAfter.NOTHING, False), (UpdatedAfter.IGNORED, False)],
    ids=["after", "from", "nothing", "ignored"],
)
async def test_a_lively_account_is_covered(way: UpdatedAfter, *, inclusive: bool) -> None:
    """While people come, go and move, each run covers all that changed before it, whatever FUB makes of its own filter."""
    async with simulated(behaviour=Behaviour(updated_after=way, updated_after_inclusive=inclusive, total_as_text=inclusive)) as world:
        assert (await world.poller.catch_up()).caught_up
        dice = Rng(17)
        stirring = asyncio.create_task(stir(world.account, dice, times=300, every_seconds=2.0))
        while not stirring.done():
            await world.account.clock.pause(200)
            assert (await world.poller.catch_up()).caught_up
            assert world.unrecorded() == []
        await stirring
        await world.account.clock.pause(90)
        assert (await world.poller.catch_up()).caught_up
        assert world.unrecorded() == []
        assert not [key for key in world.simulator.calls if key[2] >= 400]


async def test_everybody_is_read_with_trash_and_unclaimed() -> None:
    """A baseline reads each person who is there, those in Trash and those unclaimed included, in few calls."""
    async with simulated(people=5000) as world:
        caught = await world.poller.catch_up()
        assert set(world.memory.known) == set(world.account.ids)
        assert caught.api_calls <= 1.25 * len(world.account) / 100 + 12


async def test_a_bulk_edit_without_the_filter_is_swept() -> None:
    """Where `updatedAfter` shows nobody, 500 people moved in one second are found all the same, and coverage goes on."""
    async with simulated(people=2000, behaviour=Behaviour(updated_after=UpdatedAfter.NOTHING)) as world:
        await world.poller.catch_up()
        world.account.bulk_move(world.account.ids[:500], "Trash")
        await world.account.clock.pause(90)
        caught = await world.poller.catch_up()
        assert caught.caught_up
        assert world.unrecorded() == []
        assert not [key for key in world.simulator.calls if key[2] >= 400]


async def test_faults_on_the_way_cost_time_and_nothing_else() -> None:
    """With one request in ten torn, cut, throttled or answered by a proxy, a run is complete or says that it is not."""
    async with simulated() as world:
        await world.poller.catch_up()
        world.simulator.faults = Faults(server_error=0.03, bad_gateway=0.02, reset=0.02, truncated=0.02, html=0.02)
        stirring = asyncio.create_task(stir(world.account, Rng(23), times=300, every_seconds=2.0))
        while not stirring.done():
            await world.account.clock.pause(100)
            await world.poller.catch_up()
            assert world.unrecorded() == []
        await stirring


async def test_an_agents_key_marks_nobody_gone() -> None:
    """A key that sees a part of the people only: those it does not see are not taken for deleted."""
    async with simulated(people=600) as world:
        await world.poller.catch_up()
        known = set(world.memory.known)
        async with simulated(people=600, api_key="agent-api-key", speed=6000.0) as blinkered:
            blinkered.memory.known = world.memory.known
            blinkered.memory.cover = world.memory.cover
            stop = asyncio.Event()
            polling = asyncio.create_task(blinkered.poller.run(stop))
            await blinkered.account.clock.pause(2 * 3600)
            stop.set()
            await polling
            assert {person_id for person_id, person in blinkered.memory.known.items() if not person.gone} == known


async def test_someone_readable_only_later_is_found() -> None:
    """FUB shows a new person only after an hour, and the webhook is lost: the scrub's look at the newest, four a day, finds them."""
    async with simulated(people=300, lags=Lags(readable=3600.0), speed=6000.0) as world:
        await world.poller.catch_up()
        created = world.account.create()
        await world.account.clock.pause(60)
        # Or the newest person known would still be older than the one created, and every walk would begin before both.
        world.account.edit(world.account.ids[0], price=7)
        stop = asyncio.Event()
        polling = asyncio.create_task(world.poller.run(stop))
        await eventually(lambda: created in world.memory.known, 60.0)
        stop.set()
        await polling


async def test_the_keeper_keeps_the_real_registry() -> None:
    """Created when missing, activated when disabled, corrected when elsewhere; with both places taken by others it only tells."""
    async with simulated(people=10) as world:
        registry = world.simulator.registry

        def registered() -> set[tuple[str, str, str]]:
            return {(hook.event, hook.url, hook.status) for hook in registry.all()}

        ours = {(event, f"{PUBLIC}/webhook/fub", "Active") for event in ("peopleStageUpdated", "peopleCreated", "peopleDeleted")}
        report = await world.subscriptions.check()
        assert report.was_broken is not None
        assert report.is_broken is None
        assert registered() == ours
        assert (await world.subscriptions.check()).was_broken is None
        for hook in registry.all():
            registry.disable(hook)
        assert (await world.subscriptions.check()).is_broken is None
        assert registered() == ours
        for hook in registry.all():
            registry.update(hook, url="https://legacy_tables.example.org/webhook/fub/stage-change")
        assert (await world.subscriptions.check()).is_broken is None
        assert registered() == ours
        for hook in registry.all():
            registry.delete(hook)
        for place in ("one", "two"):
            world.simulator.subscribe("peopleDeleted", f"https://{place}.example.org/in")
        report = await world.subscriptions.check()
        assert report.statuses()["peopleDeleted"] == "slots_taken"
        assert report.statuses()["peopleStageUpdated"] == "active"
        assert len(registered()) == 4


async def test_wrong_local_clocks_move_no_coverage() -> None:
    """With our clock a day wrong, coverage is still FUB's instant, less the overlap."""
    async with simulated(people=50) as world:
        began = world.account.clock.now()
        world.memory.clock = world.account.clock.skewed(86_400)
        caught = await world.poller.catch_up()
        assert caught.coverage is not None
        assert began - timedelta(seconds=120) <= caught.coverage <= world.account.clock.now()
