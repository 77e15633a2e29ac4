"""Days of polling: what it finds, what it costs, and how it goes from mode to mode."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from fubd.core.pacing import Hysteresis, Policy
from fubd.errors import Unavailable
from fubd.lease import LocalLease
from fubd.poller import Poller, PollPolicy, Progress, RecoveryResult
from fubd.subscriptions import SubscriptionManager
from tests.poller.fakes import EPOCH, live, true_time
from tests.poller.harness import PUBLIC, House

_HOUR = 3600.0
_DAY = 24 * _HOUR


def _story(story: Callable[[House], Awaitable[None]], *, people: int = 500, policy: PollPolicy | None = None, started: bool = True) -> None:
    async def run() -> None:
        house = House(people=people, policy=policy or PollPolicy())
        if started:
            house.run()
            await house.passes(1)
        await story(house)
        await house.end()
        if house.memory.cover.watermark is not None:
            assert house.uncovered() == []

    live(run())


# --- Beginning ------------------------------------------------------------------------------------------------------


def test_the_first_start_reads_everybody_and_then_watches() -> None:
    """On a fresh database: starting, a baseline, an incremental poll at once, watch; with the first webhook steady."""

    async def story(house: House) -> None:
        assert house.modes == ["starting", "watch"]
        assert len(house.memory.known) == 500
        assert [run.kind for run in house.memory.runs] == ["sweep", "incremental", "scrub"]
        assert house.coverage == EPOCH - timedelta(seconds=60)
        house.move()
        await house.passes(301)
        assert house.modes == ["starting", "watch", "steady"]
        assert house.sample("mode", mode="steady") == 1
        assert house.poller.shown()[0] == "steady"

    _story(story)


def test_webhooks_set_up_at_the_first_start_are_no_failure() -> None:
    """The subscriptions creates what is missing on a fresh system, and the mode after the baseline is watch."""

    async def story(house: House) -> None:
        house.api.registry.clear()
        house.run()
        await house.passes(1)
        assert house.modes == ["starting", "watch"]
        assert len(house.api.registry) == 3

    _story(story, started=False)


def test_a_baseline_that_fails_is_tried_again() -> None:
    """While FUB is out of reach at the first start the mode is starting; afterwards all is as if nothing had been."""

    async def story(house: House) -> None:
        house.api.outage = Unavailable("FUB answered 503 to every try")
        house.run()
        await house.passes(_HOUR)
        assert house.modes == ["starting"]
        assert house.api.calls_made() <= 45
        house.api.outage = None
        await house.passes(301)
        assert house.modes == ["starting", "watch"]

    _story(story, started=False)


# --- Cost -----------------------------------------------------------------------------------------------------------


def test_a_steady_day_costs_three_hundred_calls_at_most() -> None:
    """With webhooks in order a day of polls, scrubs and looks at the subscriptions stays within 300 calls."""

    async def story(house: House) -> None:
        house.move()
        await house.passes(301)
        before = len(house.api.calls)
        await house.lives(_DAY, every=240)
        calls = house.api.calls[before:]
        assert house.modes == ["starting", "watch", "steady"]
        assert len(calls) <= 300
        assert sum(kind == "webhooks" for kind, _ in calls) in (48, 49)

    _story(story, people=20_000)


def test_a_failover_day_costs_four_thousand_calls_at_most() -> None:
    """With webhooks dead for a day, polling each 30 s stays within 4,000 calls, and each change is recorded within 31 s."""

    async def story(house: House) -> None:
        house.delivering = False
        house.move()
        await house.passes(700)
        assert house.modes[-1] == "failover"
        before = len(house.api.calls)
        slowest = 0.0
        for _ in range(96):
            await house.passes(_DAY / 96 - 31)
            moved = house.move()
            at = true_time()
            await house.passes(31)
            assert house.memory.known[moved].stage == house.account.people[moved].stage
            slowest = max(slowest, (true_time() - at).total_seconds())
        calls = len(house.api.calls) - before
        assert house.modes[-1] == "failover"
        assert calls <= 4000

    _story(story, people=1000)


def test_a_quiet_weekend_wakes_nobody() -> None:
    """Three days without a single change: watch, no failover, no alert, and some hundred calls more a day than steady."""

    async def story(house: House) -> None:
        house.move()
        await house.passes(301)
        before = len(house.api.calls)
        await house.passes(3 * _DAY)
        assert house.modes == ["starting", "watch", "steady", "watch"]
        assert (len(house.api.calls) - before) / 3 <= 2 * 288 + 200
        house.move()
        await house.passes(301)
        assert house.modes[-1] == "steady"

    _story(story)


# --- Failing and recovering ------------------------------------------------------------------------------------------


def test_dead_webhooks_are_proven_and_failed_over_and_recovered_from() -> None:
    """Webhooks die in a steady day: one poll finds what they missed, failover follows, and when they return it doubles back to steady."""

    async def story(house: House) -> None:
        await house.lives(2 * _HOUR, every=100)
        assert house.modes[-1] == "steady"
        house.delivering = False
        died = true_time()
        await house.lives(0.75 * _HOUR, every=100)
        assert house.modes[-1] == "failover"
        assert house.memory.modes[-1].since - died <= timedelta(seconds=1800 + 121)
        assert house.sample("missed_by_webhook_total") > 0
        house.delivering = True
        await house.lives(1.5 * _HOUR, every=100)
        assert house.modes[-3:] == ["failover", "recovering", "steady"]

    _story(story)


def test_a_change_missed_in_a_quiet_night_is_failover_after_one_watch_poll() -> None:
    """In watch, a change that no webhook told leads to failover as soon as it is old enough to count after the poll that found it."""

    async def story(house: House) -> None:
        house.delivering = False
        await house.passes(_HOUR)
        moved_at = true_time()
        house.move()
        await house.passes(300 + 122)
        assert house.modes == ["starting", "watch", "failover"]
        assert house.memory.modes[-1].since - moved_at <= timedelta(seconds=422)
        assert house.memory.evidence[-1]["missed"] == 1
        assert "polling found 1 change" in house.memory.modes[-1].reason

    _story(story)


def test_a_disabled_subscription_is_repaired_by_the_next_poll_and_is_proof() -> None:
    """FUB disables our webhooks: the next poll activates them, goes over to failover, and a stage webhook leads out of it."""

    async def story(house: House) -> None:
        await house.lives(_HOUR, every=100)
        house.subscribe("Disabled")
        await house.lives(1900, every=100)
        assert {hook.status for hook in house.api.registry.values()} == {"Active"}
        assert "failover" in house.modes
        assert "disabled" in house.memory.modes[house.modes.index("failover")].reason
        await house.lives(1.5 * _HOUR, every=100)
        assert house.modes[-2:] == ["recovering", "steady"]

    _story(story)


def test_fub_out_of_reach_moves_no_coverage_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """While polls fail coverage stays, the tries stay rare, one line says why, and the first success covers all that changed meanwhile."""
    caplog.set_level(logging.INFO, "fubd.poller")

    async def story(house: House) -> None:
        await house.lives(_HOUR, every=100)
        reached, calls = house.coverage, house.api.calls_made()
        house.api.outage = Unavailable("FUB answered 503 to every try")
        house.delivering = False
        caplog.clear()
        await house.lives(3 * _HOUR, every=100)
        assert house.coverage <= reached + timedelta(seconds=1800)
        assert house.api.calls_made() - calls <= 3 * (_HOUR / 300) * 2 + 30
        assert sum("failed" in record.message for record in caplog.records) == 1
        house.api.outage = None
        await house.lives(400, every=100)
        assert true_time() - house.coverage <= timedelta(seconds=400)
        assert house.uncovered() == []

    _story(story)


def test_a_database_out_of_reach_is_waited_out() -> None:
    """Two hours without the database end no loop, and afterwards polling goes on in the mode it was in."""

    async def story(house: House) -> None:
        await house.lives(_HOUR, every=100)
        house.memory.outage = Unavailable("the database is out of reach")
        await house.passes(2 * _HOUR)
        assert not any(task.done() for task in house.tasks)
        house.memory.outage = None
        await house.lives(400, every=100)
        assert true_time() - house.coverage <= timedelta(seconds=500)

    _story(story)


@pytest.mark.parametrize("mode", ["failover", "recovering"])
def test_a_restart_goes_on_in_the_mode_it_was_in(mode: str) -> None:
    """Mode, delay and doubling are found again: a restart announces nothing by itself and polls at once."""

    async def story(house: House) -> None:
        await house.lives(_HOUR, every=100)
        house.delivering = False
        await house.lives(0.75 * _HOUR, every=100)
        house.delivering = mode == "recovering"
        await house.lives(900, every=100)
        assert house.modes[-1] == mode
        before, kept = len(house.modes), house.memory.kept
        await house.end()
        polled = house.memory.polling_received
        house.start()
        house.run()
        await house.passes(1)
        assert house.memory.polling_received != polled
        assert len(house.modes) == before
        assert house.memory.kept == kept
        assert house.sample("mode", mode=mode) == 1

    _story(story)


def test_restarts_amid_flapping_change_nothing() -> None:
    """Webhooks fail every other quarter of an hour for six hours: with a restart each 20 minutes the relapses are counted on as without."""

    def flapping(*, restarts: bool) -> tuple[list[str], Hysteresis | None]:
        told: list[tuple[list[str], Hysteresis | None]] = []

        async def story(house: House) -> None:
            await house.lives(_HOUR, every=100)
            for quarter in range(24):
                house.delivering = quarter % 2 == 1
                await house.lives(900, every=100)
                if restarts and house.modes[-1] in ("failover", "recovering"):
                    await house.end()
                    house.start()
                    house.run()
            told.append((house.modes, house.memory.kept[1]))

        _story(story)
        return told[0]

    through, kept = flapping(restarts=False)
    again, kept_again = flapping(restarts=True)
    assert again == through
    assert kept is not None
    assert kept_again is not None
    assert kept_again.relapses == kept.relapses >= 2


def test_webhooks_that_flap_for_a_day_cause_few_switches_and_lose_nothing() -> None:
    """Five minutes on and five off, somebody moving every 97 s, a restart two-hourly: at most 9 switches in a day; all is read."""

    async def story(house: House) -> None:
        await house.lives(_HOUR, every=97)
        switches, counted = len(house.modes), 0.0
        for turn in range(288):
            house.delivering = turn % 2 == 1
            await house.lives(291, every=97)
            if turn % 24 == 5:
                await house.end()
                counted += house.switches_counted()
                house.start()
                house.run()
        assert 1 <= len(house.modes) - switches <= 9
        assert counted + house.switches_counted() == len(house.modes)

    _story(story)


def test_an_instance_without_the_lease_follows() -> None:
    """It makes no call and writes nothing, shows the mode of the one that polls, and polls as soon as it may."""

    async def story(house: House) -> None:
        await house.lives(_HOUR, every=100)
        assert house.modes[-1] == "steady"
        await house.end()
        house.is_leader = False
        house.start()
        house.run()
        calls = house.api.calls_made()
        await house.passes(_HOUR)
        assert house.api.calls_made() == calls
        assert house.sample("mode", mode="steady") == 1
        house.is_leader = True
        house.poll_now.set()
        await house.passes(1)
        assert true_time() - house.coverage <= timedelta(seconds=62)

    _story(story)


def test_being_woken_polls_at_once() -> None:
    """Whoever sets the event need not wait half an hour."""

    async def story(house: House) -> None:
        await house.lives(_HOUR, every=100)
        house.delivering = False
        moved = house.move()
        house.poll_now.set()
        await house.passes(1)
        assert house.memory.known[moved].stage == house.account.people[moved].stage

    _story(story)


def test_each_switch_is_handed_on_with_its_evidence() -> None:
    """Every row of the book is also told to whoever wants to raise an alarm, and counted."""
    told: list[tuple[str, object]] = []

    async def story(house: House) -> None:
        house.poller = Poller(
            api=house.api,
            ingestor=house.memory,
            state=house.memory,
            clock=house.clock,
            metrics=house.metrics,
            policy=house.policy,
            subscriptions=SubscriptionManager(house.api, house.metrics, public_url=PUBLIC, manage=True, lease=LocalLease()),
            jitter=house.dice.random,
            is_leader=lambda: True,
            refetch_requested=house.memory.refetch_requested,
            poll_now=house.poll_now,
            on_mode_change=lambda record, evidence: told.append((record.mode, evidence["missed"])),
        )
        house.delivering = False
        house.run()
        await house.lives(900, every=100)
        assert [mode for mode, _ in told] == house.modes == ["starting", "watch", "failover"]
        assert house.sample("mode_changes_total", to="failover") == 1

    _story(story, started=False)


# --- What is covered ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["works", "lies", "ignored"])
def test_nothing_before_coverage_is_ever_unrecorded(way: str) -> None:
    """What changed before coverage is always recorded: through outages, edits, deletions, and a filter that fails once it was proven."""

    async def story(house: House) -> None:
        house.api.ways.filter = way
        house.api.ways.latency_seconds = 0.25
        for _ in range(32):
            house.delivering = house.dice.chance(0.7)
            house.api.outage = Unavailable("out of reach") if house.dice.chance(0.2) else None
            for _ in range(house.dice.choice([0, 1, 5, 150])):
                await house.passes(house.dice.uniform(0.0, 8.0))
                house.move()
                house.account.touch(house.dice.choice(house.account.ids))
                if house.dice.chance(0.1):
                    house.account.delete(house.dice.choice(house.account.ids))
                    house.account.create()
            await house.passes(900)
            assert house.uncovered() == []

    _story(story, people=1500)


def test_a_bulk_edit_the_walk_cannot_show_is_swept() -> None:
    """Where the filter does not work, 400 people edited in one second are read by a sweep, coverage moves, and the next poll walks."""

    async def story(house: House) -> None:
        house.api.ways.filter = "lies"
        house.run()
        await house.passes(1)
        for person_id in range(1, 401):
            house.account.move(person_id, "Nurture")
        edited_at = true_time()
        await house.passes(600)
        assert [run.kind for run in house.memory.runs if run.outcome == "ok"].count("sweep") == 2
        assert house.coverage > edited_at
        assert all(house.memory.known[person_id].stage == "Nurture" for person_id in range(1, 401))

    _story(story, people=3000, started=False)


def test_time_in_which_nobody_watched_is_counted() -> None:
    """With webhooks proven dead and FUB out of reach for two hours, those two hours are blind, less one late poll; before that none."""

    async def story(house: House) -> None:
        await house.lives(_HOUR, every=100)
        house.delivering = False
        await house.lives(_HOUR, every=100)
        assert house.modes[-1] == "failover"
        assert house.sample("blind_seconds_total") == 0
        house.api.outage = Unavailable("out of reach")
        await house.passes(2 * _HOUR)
        house.api.outage = None
        await house.passes(400)
        assert house.sample("blind_seconds_total") == pytest.approx(2 * _HOUR, abs=400)

    _story(story)


# --- Recovery runs --------------------------------------------------------------------------------------------------


def test_a_recovery_run_brings_what_a_dead_daemon_missed() -> None:
    """After a day without a daemon, one run records the changes, says how many, and needs no lease and no mode."""

    async def story(house: House) -> None:
        await house.end()
        house.is_leader = False
        house.delivering = False
        modes = len(house.modes)
        for person_id in range(1, 214):
            await house.passes(100)
            house.move(who=person_id)
        caught: RecoveryResult = await house.poller.catch_up()
        assert (caught.caught_up, caught.recovered, caught.why) == (True, 213, None)
        assert caught.people_read == 213
        assert caught.api_calls <= 6
        assert caught.coverage == house.coverage
        assert len(house.modes) == modes
        again = await house.poller.catch_up()
        assert (again.caught_up, again.recovered) == (True, 0)

    _story(story)


def test_a_first_recovery_run_reads_everybody_with_progress() -> None:
    """On an empty database it is the baseline: progress tells people, total and calls, and it ends caught up."""

    async def story(house: House) -> None:
        seen: list[Progress] = []
        house.api.ways.latency_seconds = 0.25
        caught = await house.poller.catch_up(progress=seen.append)
        assert (caught.caught_up, caught.recovered) == (True, 0)
        assert caught.people_read >= 5000
        assert [progress.people for progress in seen if progress.kind == "sweep"] == sorted({p.people for p in seen if p.kind == "sweep"})
        assert {progress.total for progress in seen if progress.kind == "sweep"} == {5000}
        assert all(progress.seconds_left is not None and progress.seconds_left < 60 for progress in seen if progress.kind == "sweep")

    _story(story, people=5000, started=False)


def test_an_interrupted_full_run_goes_on_the_next_time() -> None:
    """Told to stop in the middle of a full run it says so and where coverage stands; the second run reads the rest only."""

    async def story(house: House) -> None:
        await house.end()
        reached = house.coverage
        house.api.ways.latency_seconds = 0.25
        stop = asyncio.Event()

        def watch(progress: Progress) -> None:
            if progress.people >= 15_000:
                stop.set()

        first = await house.poller.catch_up(full=True, progress=watch, stop=stop)
        assert (first.caught_up, first.coverage, first.why) == (False, reached, "stopped before the end")
        second = await house.poller.catch_up(full=True)
        assert second.caught_up
        assert second.people_read < 18_000

    _story(story, people=30_000)


def test_a_recovery_run_that_cannot_reach_fub_says_why() -> None:
    """FUB out of reach is no crash: not caught up, and the reason in words."""

    async def story(house: House) -> None:
        await house.end()
        house.api.outage = Unavailable("FUB answered 503 to every try")
        caught = await house.poller.catch_up()
        assert (caught.caught_up, caught.why) == (False, "FUB answered 503 to every try")

    _story(story)


def test_intervals_may_be_fractions_of_a_second() -> None:
    """With half a second for everything the same story is told in seconds, and no loop spins."""
    pacing = Policy(0.5, 0.5, 0.5, 2.0, 2.0, 0.5)

    async def story(house: House) -> None:
        house.delivering = False
        await house.lives(5, every=0.5)
        assert house.modes[-1] == "failover"
        house.delivering = True
        await house.lives(6, every=0.5)
        assert house.modes[-1] == "steady"
        assert house.api.calls_made() <= 12 * 2 * 8

    _story(story, policy=replace(PollPolicy(), pacing=pacing, overlap_seconds=1.0))
