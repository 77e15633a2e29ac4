"""The poller against the simulated account over real HTTP, through the real client."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from fubd.simulator import Behaviour, Faults, Lags, UpdatedAfter
from fubd.simulator.rng import Rng
from tests.poller.simulated import PUBLIC_URL, change_people, simulated
from tests.support.waiting import eventually

# FUB's list may show a change late; only after that is another one made.
_LIST_LAG_SECONDS = 61.0


@pytest.mark.parametrize(
    ("updated_after", "inclusive"),
    [(UpdatedAfter.WORKS, False), (UpdatedAfter.WORKS, True), (UpdatedAfter.NOTHING, False), (UpdatedAfter.IGNORED, False)],
    ids=["after", "from", "nothing", "ignored"],
)
async def test_an_account_that_changes_all_the_time_is_covered(updated_after: UpdatedAfter, *, inclusive: bool) -> None:
    """While people are created, deleted and moved, each run covers everything that changed before it, whatever FUB's filter does."""
    async with simulated(
        behaviour=Behaviour(updated_after=updated_after, updated_after_inclusive=inclusive, total_as_text=inclusive)
    ) as harness:
        assert (await harness.recover()).caught_up
        rng = Rng(17)
        changing = asyncio.create_task(change_people(harness.account, rng, times=300, every_seconds=2.0))
        while not changing.done():
            await harness.account.clock.pause(200)
            assert (await harness.recover()).caught_up
            assert harness.unrecorded() == []
        await changing
        await harness.account.clock.pause(90)
        assert (await harness.recover()).caught_up
        assert harness.unrecorded() == []
        assert not [key for key in harness.simulator.calls if key[2] >= 400]


async def test_a_baseline_includes_trash_and_unclaimed_people() -> None:
    """A baseline reads every person, those in Trash and those unclaimed included, in few calls."""
    async with simulated(people=5000) as harness:
        result = await harness.recover()
        assert set(harness.database.known) == set(harness.account.ids)
        assert result.api_calls <= 1.25 * len(harness.account) / 100 + 12


async def test_a_bulk_edit_without_the_filter_is_swept() -> None:
    """Where `updatedAfter` returns no people, 500 people moved in one second are found all the same."""
    async with simulated(people=2000, behaviour=Behaviour(updated_after=UpdatedAfter.NOTHING)) as harness:
        await harness.recover()
        harness.account.bulk_move(harness.account.ids[:500], "Trash")
        await harness.account.clock.pause(90)
        result = await harness.recover()
        assert result.caught_up
        assert harness.unrecorded() == []
        assert not [key for key in harness.simulator.calls if key[2] >= 400]


async def test_a_run_with_faults_is_complete_or_says_that_it_is_not() -> None:
    """With one request in ten failing, a run that claims to be complete has read everything."""
    async with simulated() as harness:
        await harness.recover()
        harness.simulator.faults = Faults(server_error=0.03, bad_gateway=0.02, reset=0.02, truncated=0.02, html=0.02)
        changing = asyncio.create_task(change_people(harness.account, Rng(23), times=300, every_seconds=2.0))
        while not changing.done():
            await harness.account.clock.pause(100)
            await harness.recover()
            assert harness.unrecorded() == []
        await changing


async def test_an_agents_key_marks_no_person_deleted() -> None:
    """People that the key of an agent cannot see are not marked deleted."""
    async with simulated(people=600) as harness:
        await harness.recover()
        known = set(harness.database.known)
        async with simulated(people=600, api_key="agent-api-key", speed=6000.0) as agent_harness:
            agent_harness.database.known = harness.database.known
            agent_harness.database.stored_coverage = harness.database.stored_coverage
            stop = asyncio.Event()
            polling = asyncio.create_task(agent_harness.poller.run(stop))
            await agent_harness.account.clock.pause(2 * 3600)
            stop.set()
            await polling
            assert {person_id for person_id, person in agent_harness.database.known.items() if not person.deleted} == known


async def test_a_person_readable_only_later_is_found() -> None:
    """FUB shows a new person only after an hour, and the webhook is lost: the scrub finds the person among the newest."""
    async with simulated(people=300, lags=Lags(readable=3600.0), speed=6000.0) as harness:
        await harness.recover()
        created = harness.account.create()
        await harness.account.clock.pause(60)
        # Otherwise the canary would be older than the new person, and every incremental read would begin before both.
        harness.account.edit(harness.account.ids[0], price=7)
        stop = asyncio.Event()
        polling = asyncio.create_task(harness.poller.run(stop))
        await eventually(lambda: created in harness.database.known, 60.0)
        stop.set()
        await polling


async def test_subscriptions_are_kept_in_the_simulated_registry() -> None:
    """They are created when missing, activated when disabled, added next to those of another host; taken slots are only reported."""
    async with simulated(people=10) as harness:
        registry = harness.simulator.registry

        def registered() -> set[tuple[str, str, str]]:
            return {(hook.event, hook.url, hook.status) for hook in registry.all()}

        ours = {(event, f"{PUBLIC_URL}/webhook/fub", "Active") for event in ("peopleStageUpdated", "peopleCreated", "peopleDeleted")}
        report = await harness.subscriptions.check()
        assert report.was_broken is not None
        assert report.is_broken is None
        assert registered() == ours
        assert (await harness.subscriptions.check()).was_broken is None
        for hook in registry.all():
            registry.disable(hook)
        await harness.context.clock.pause(_LIST_LAG_SECONDS)
        assert (await harness.subscriptions.check()).is_broken is None
        assert registered() == ours
        older = "https://older.example.org/webhook/fub/stage-change"
        for hook in registry.all():
            registry.update(hook, url=older)
        await harness.context.clock.pause(_LIST_LAG_SECONDS)
        assert (await harness.subscriptions.check()).is_broken is None
        assert registered() == ours | {(event, older, "Active") for event, _, _ in ours}
        for hook in registry.all():
            registry.delete(hook)
        for host in ("one", "two"):
            harness.simulator.subscribe("peopleDeleted", f"https://{host}.example.org/in")
        await harness.context.clock.pause(_LIST_LAG_SECONDS)
        report = await harness.subscriptions.check()
        assert report.statuses()["peopleDeleted"] == "slots_taken"
        assert report.statuses()["peopleStageUpdated"] == "active"
        assert len(registered()) == 4


async def test_a_wrong_local_clock_does_not_move_coverage() -> None:
    """With our clock a day wrong, coverage is still FUB's instant, minus the overlap."""
    async with simulated(people=50) as harness:
        began = harness.account.clock.now()
        harness.database.clock = harness.account.clock.skewed(86_400)
        result = await harness.recover()
        assert result.coverage is not None
        assert began - timedelta(seconds=120) <= result.coverage <= harness.account.clock.now()
