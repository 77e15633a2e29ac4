"""The changes of mode: into failover and back, across restarts, and on instances without the lease."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fubd.core.pacing import Hysteresis, Policy
from fubd.errors import FubRefused, Unavailable
from fubd.poller import PollPolicy
from fubd.poller.mode import ModeController
from tests.poller.harness import PollerHarness, run_scenario
from tests.support.virtual_time import true_time

_HOUR = 3600.0
_DAY = 24 * _HOUR


def test_dead_webhooks_lead_to_failover_and_back_to_steady() -> None:
    """Webhooks die on a steady day: one poll finds what they missed, failover follows, and recovery doubles the delay back to steady."""

    async def scenario(harness: PollerHarness) -> None:
        await harness.move_people(2 * _HOUR, every_seconds=100)
        assert harness.modes[-1] == "steady"
        harness.webhooks_arrive = False
        died = true_time()
        await harness.move_people(0.75 * _HOUR, every_seconds=100)
        assert harness.modes[-1] == "failover"
        assert harness.database.modes[-1].since - died <= timedelta(seconds=1800 + 121)
        assert harness.sample("missed_by_webhook_total") > 0
        harness.webhooks_arrive = True
        await harness.move_people(1.5 * _HOUR, every_seconds=100)
        assert harness.modes[-3:] == ["failover", "recovering", "steady"]

    run_scenario(scenario)


def test_a_change_missed_in_watch_leads_to_failover_after_one_poll() -> None:
    """In watch, a change that no webhook reported leads to failover once it is old enough to count as missed."""

    async def scenario(harness: PollerHarness) -> None:
        harness.webhooks_arrive = False
        await harness.wait(_HOUR)
        moved_at = true_time()
        harness.move()
        await harness.wait(300 + 122)
        assert harness.modes == ["starting", "watch", "failover"]
        assert harness.database.modes[-1].since - moved_at <= timedelta(seconds=422)
        assert harness.database.evidence[-1]["missed"] == 1
        assert harness.database.modes[-1].reason == "polling found 1 change that no webhook had reported"

    run_scenario(scenario)


def test_what_was_missed_while_nothing_ran_is_said_to_be_so() -> None:
    """After a stop of an hour failover polls as after any miss, but its reason tells that webhooks may have found nobody."""

    async def scenario(harness: PollerHarness) -> None:
        await harness.move_people(_HOUR, every_seconds=100)
        await harness.end()
        harness.webhooks_arrive = False
        harness.move()
        await harness.wait(_HOUR)
        harness.build()
        harness.start()
        await harness.wait(10)
        assert harness.database.modes[-1].mode == "failover"
        assert harness.database.modes[-1].reason.startswith(
            "polling found 1 change that no webhook had reported, all from before fubd started"
        )

    run_scenario(scenario)


def test_the_first_webhook_ends_watch_without_a_poll() -> None:
    """It takes no call, and the poll that watch had planned is still made in time."""

    async def scenario(harness: PollerHarness) -> None:
        await harness.wait(10)
        calls = harness.api.calls_made()
        harness.move()
        await harness.wait(0.1)
        assert harness.modes == ["starting", "watch", "steady"]
        assert harness.database.modes[-1].reason == "webhooks arrive, and polling finds nothing that they missed"
        assert harness.api.calls_made() == calls
        await harness.wait(301)
        assert harness.api.calls_made() > calls

    run_scenario(scenario)


@pytest.mark.parametrize("is_stored", [True, False], ids=["stored", "database away"])
def test_no_reason_says_that_nothing_was_missed_while_polls_fail(*, is_stored: bool) -> None:
    """With a revoked key: neither what was decided before nor a mode that a webhook begins; the next complete poll ends it."""

    async def scenario(harness: PollerHarness) -> None:
        await harness.wait(0.5 * _HOUR)
        harness.move()
        await harness.wait(0.5)
        assert "nothing that they missed" in harness.poller.current_mode().reason
        failed = FubRefused("Follow Up Boss answered 401", status=401)
        harness.api.refusals["people"] = failed
        harness.database.outage = None if is_stored else Unavailable("the database is away")
        await harness.wait(_HOUR)
        reason = harness.poller.current_mode().reason
        assert "nothing that they missed" not in reason
        assert "polling has failed since 2031-03-03 09:3" in reason
        assert is_stored is (harness.database.modes[-1].reason == reason)
        harness.database.outage = None
        await harness.wait(_HOUR)
        harness.move()
        await harness.wait(0.5)
        assert harness.modes[-2:] == ["watch", "steady"]
        assert "webhooks arrive; polling has failed since" in harness.database.modes[-1].reason
        harness.api.refusals.clear()
        await harness.wait(301)
        assert harness.poller.current_mode().reason == "webhooks arrive, and polling finds nothing that they missed"

    run_scenario(scenario)


def test_after_a_restart_nothing_is_said_of_polling_before_the_first_poll() -> None:
    """What the process before found may be hours old, and the first read may take minutes."""

    async def scenario(harness: PollerHarness) -> None:
        harness.move()
        await harness.wait(0.5)
        assert "nothing that they missed" in harness.poller.current_mode().reason
        await harness.end()
        harness.build()
        mode = ModeController(harness.context, lease=harness.lease, jitter=harness.rng.random)
        await mode.restore()
        assert mode.current[:2] == ("steady", "webhooks arrive")
        harness.start()
        await harness.wait(1)
        assert "nothing that they missed" in harness.poller.current_mode().reason

    run_scenario(scenario)


def test_a_disabled_subscription_is_repaired_and_leads_to_failover() -> None:
    """FUB disables our webhooks: the next poll activates them and changes to failover, and a stage webhook ends it."""

    async def scenario(harness: PollerHarness) -> None:
        await harness.move_people(_HOUR, every_seconds=100)
        harness.register_webhooks("Disabled")
        await harness.move_people(1900, every_seconds=100)
        assert {hook.status for hook in harness.api.registry.values()} == {"Active"}
        assert "failover" in harness.modes
        assert "disabled" in harness.database.modes[harness.modes.index("failover")].reason
        await harness.move_people(1.5 * _HOUR, every_seconds=100)
        assert harness.modes[-2:] == ["recovering", "steady"]

    run_scenario(scenario)


@pytest.mark.parametrize("mode", ["failover", "recovering"])
def test_a_restart_continues_in_the_stored_mode(mode: str) -> None:
    """Mode, delay and hysteresis are restored: a restart announces nothing by itself and polls at once."""

    async def scenario(harness: PollerHarness) -> None:
        await harness.move_people(_HOUR, every_seconds=100)
        harness.webhooks_arrive = False
        await harness.move_people(0.75 * _HOUR, every_seconds=100)
        harness.webhooks_arrive = mode == "recovering"
        await harness.move_people(900, every_seconds=100)
        assert harness.modes[-1] == mode
        before, stored = len(harness.modes), harness.database.stored_pace
        await harness.end()
        polled = harness.database.polling_received
        harness.build()
        harness.start()
        await harness.wait(1)
        assert harness.database.polling_received != polled
        assert len(harness.modes) == before
        assert harness.database.stored_pace == stored
        assert harness.sample("mode", mode=mode) == 1

    run_scenario(scenario)


def test_restarts_do_not_reset_the_hysteresis() -> None:
    """Webhooks fail every other quarter of an hour for six hours: relapses are counted across restarts as without them."""

    def flapping(*, restarts: bool) -> tuple[list[str], Hysteresis | None]:
        results: list[tuple[list[str], Hysteresis | None]] = []

        async def scenario(harness: PollerHarness) -> None:
            await harness.move_people(_HOUR, every_seconds=100)
            for quarter in range(24):
                harness.webhooks_arrive = quarter % 2 == 1
                await harness.move_people(900, every_seconds=100)
                if restarts and harness.modes[-1] in ("failover", "recovering"):
                    await harness.restart()
            results.append((harness.modes, harness.database.stored_pace[1]))

        run_scenario(scenario)
        return results[0]

    modes, hysteresis = flapping(restarts=False)
    modes_with_restarts, hysteresis_with_restarts = flapping(restarts=True)
    assert modes_with_restarts == modes
    assert hysteresis is not None
    assert hysteresis_with_restarts is not None
    assert hysteresis_with_restarts.relapses == hysteresis.relapses >= 2


def test_flapping_webhooks_cause_few_mode_changes_and_lose_nothing() -> None:
    """Five minutes on, five off, a move every 97 s, a restart every two hours: at most 9 changes of mode a day, and everything is read."""

    async def scenario(harness: PollerHarness) -> None:
        await harness.move_people(_HOUR, every_seconds=97)
        before, counted = len(harness.modes), 0.0
        for turn in range(288):
            harness.webhooks_arrive = turn % 2 == 1
            await harness.move_people(291, every_seconds=97)
            if turn % 24 == 5:
                counted += harness.mode_changes_counted()
                await harness.restart()
        assert 1 <= len(harness.modes) - before <= 9
        assert counted + harness.mode_changes_counted() == len(harness.modes)

    run_scenario(scenario)


def test_an_instance_without_the_lease_follows_the_leader() -> None:
    """It makes no call, shows the mode of the leader, and polls as soon as it gains the lease."""

    async def scenario(harness: PollerHarness) -> None:
        await harness.move_people(_HOUR, every_seconds=100)
        assert harness.modes[-1] == "steady"
        harness.lease.held = False
        await harness.restart()
        calls = harness.api.calls_made()
        await harness.wait(_HOUR)
        assert harness.api.calls_made() == calls
        assert harness.sample("mode", mode="steady") == 1
        harness.lease.held = True
        harness.lease.gained.set()
        await harness.wait(1)
        assert true_time() - harness.coverage <= timedelta(seconds=62)

    run_scenario(scenario)


def test_each_mode_change_is_announced_with_its_evidence() -> None:
    """Each stored change of mode is also given to the callback, and counted."""

    async def scenario(harness: PollerHarness) -> None:
        harness.webhooks_arrive = False
        harness.start()
        await harness.move_people(900, every_seconds=100)
        assert [mode for mode, _ in harness.announced] == harness.modes == ["starting", "watch", "failover"]
        assert harness.sample("mode_changes_total", to="failover") == 1

    run_scenario(scenario, started=False)


def test_intervals_may_be_fractions_of_a_second() -> None:
    """With intervals of half a second failover and recovery take seconds, and no loop spins."""
    pacing = Policy(0.5, 0.5, 0.5, 2.0, 2.0, 0.5)

    async def scenario(harness: PollerHarness) -> None:
        harness.webhooks_arrive = False
        await harness.move_people(5, every_seconds=0.5)
        assert harness.modes[-1] == "failover"
        harness.webhooks_arrive = True
        await harness.move_people(6, every_seconds=0.5)
        assert harness.modes[-1] == "steady"
        assert harness.api.calls_made() <= 12 * 2 * 8

    run_scenario(scenario, policy=replace(PollPolicy(), pacing=pacing, overlap_seconds=1.0))
