"""The polling loop: the first start, the cost of a day, outages and coverage."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

import pytest

from fubd.errors import Unavailable
from tests.poller.harness import PollerHarness, run_scenario
from tests.support.virtual_time import EPOCH, true_time

_HOUR = 3600.0
_DAY = 24 * _HOUR


def test_the_first_start_reads_everyone_and_then_watches() -> None:
    """On a fresh database: starting, a baseline, an incremental read at once, then watch; with the first webhook steady."""

    async def scenario(harness: PollerHarness) -> None:
        assert harness.modes == ["starting", "watch"]
        assert len(harness.database.known) == 500
        assert [run.kind for run in harness.database.runs] == ["sweep", "incremental", "scrub"]
        assert harness.coverage == EPOCH - timedelta(seconds=60)
        harness.move()
        await harness.wait(301)
        assert harness.modes == ["starting", "watch", "steady"]
        assert harness.sample("mode", mode="steady") == 1
        assert harness.poller.current_mode().mode == "steady"

    run_scenario(scenario)


def test_creating_webhooks_at_the_first_start_is_no_failure() -> None:
    """Missing subscriptions are created on a fresh system, and the mode after the baseline is watch."""

    async def scenario(harness: PollerHarness) -> None:
        harness.api.registry.clear()
        harness.start()
        await harness.wait(1)
        assert harness.modes == ["starting", "watch"]
        assert len(harness.api.registry) == 3

    run_scenario(scenario, started=False)


def test_a_failed_baseline_is_retried() -> None:
    """While FUB is unreachable at the first start the mode stays starting; afterwards the baseline is made."""

    async def scenario(harness: PollerHarness) -> None:
        harness.api.outage = Unavailable("FUB answered 503 to every attempt")
        harness.start()
        await harness.wait(_HOUR)
        assert harness.modes == ["starting"]
        assert harness.api.calls_made() <= 45
        harness.api.outage = None
        await harness.wait(301)
        assert harness.modes == ["starting", "watch"]

    run_scenario(scenario, started=False)


def test_a_steady_day_costs_at_most_300_calls() -> None:
    """With working webhooks, a day of polls, scrubs and subscription checks stays within 300 calls."""

    async def scenario(harness: PollerHarness) -> None:
        harness.move()
        await harness.wait(301)
        before = len(harness.api.calls)
        await harness.move_people(_DAY, every_seconds=240)
        calls = harness.api.calls[before:]
        assert harness.modes == ["starting", "watch", "steady"]
        assert len(calls) <= 300
        assert sum(kind == "webhooks" for kind, _ in calls) in (48, 49)

    run_scenario(scenario, people=20_000)


def test_a_failover_day_costs_at_most_4000_calls() -> None:
    """With webhooks dead for a day, polling every 30 s stays within 4,000 calls, and each change is recorded within 31 s."""

    async def scenario(harness: PollerHarness) -> None:
        harness.webhooks_arrive = False
        harness.move()
        await harness.wait(700)
        assert harness.modes[-1] == "failover"
        before = len(harness.api.calls)
        slowest = 0.0
        for _ in range(96):
            await harness.wait(_DAY / 96 - 31)
            moved = harness.move()
            at = true_time()
            await harness.wait(31)
            assert harness.database.known[moved].stage == harness.account.people[moved].stage
            slowest = max(slowest, (true_time() - at).total_seconds())
        calls = len(harness.api.calls) - before
        assert harness.modes[-1] == "failover"
        assert calls <= 4000

    run_scenario(scenario, people=1000)


def test_a_quiet_weekend_is_no_failover() -> None:
    """Three days without a single change: watch, no failover, and a few hundred calls a day more than steady."""

    async def scenario(harness: PollerHarness) -> None:
        harness.move()
        await harness.wait(301)
        before = len(harness.api.calls)
        await harness.wait(3 * _DAY)
        assert harness.modes == ["starting", "watch", "steady", "watch"]
        assert (len(harness.api.calls) - before) / 3 <= 2 * 288 + 200
        harness.move()
        await harness.wait(301)
        assert harness.modes[-1] == "steady"

    run_scenario(scenario)


@pytest.mark.parametrize("updated_after", ["works", "hides", "ignored"])
def test_everything_before_coverage_is_recorded(updated_after: str) -> None:
    """Through outages, edits and deletions, whatever the filter does, everything that changed before coverage is recorded."""

    async def scenario(harness: PollerHarness) -> None:
        harness.api.behaviour.updated_after = updated_after
        harness.api.behaviour.latency_seconds = 0.25
        for _ in range(32):
            harness.webhooks_arrive = harness.rng.chance(0.7)
            harness.api.outage = Unavailable("unreachable") if harness.rng.chance(0.2) else None
            for _ in range(harness.rng.choice([0, 1, 5, 150])):
                await harness.wait(harness.rng.uniform(0.0, 8.0))
                harness.move()
                harness.account.touch(harness.rng.choice(harness.account.ids))
                if harness.rng.chance(0.1):
                    harness.account.delete(harness.rng.choice(harness.account.ids))
                    harness.account.create()
            await harness.wait(900)
            assert harness.unrecorded() == []

    run_scenario(scenario, people=1500)


def test_a_bulk_edit_is_read_without_a_sweep() -> None:
    """Where the filter does not work, 400 people edited in one second are counted, and no later poll reads them again."""

    async def scenario(harness: PollerHarness) -> None:
        harness.api.behaviour.updated_after = "hides"
        harness.start()
        await harness.wait(1)
        for person_id in range(1, 401):
            harness.account.move(person_id, "Nurture")
        edited_at = true_time()
        await harness.wait(600)
        assert [run.kind for run in harness.database.runs].count("sweep") == 1
        assert harness.coverage > edited_at
        assert all(harness.database.known[person_id].stage == "Nurture" for person_id in range(1, 401))
        assert sum(run.calls for run in harness.database.runs if run.kind == "incremental") <= 3 + 7 + 40

    run_scenario(scenario, people=3000, started=False)


def test_an_account_without_order_and_filter_is_swept_within_a_budget(caplog: pytest.LogCaptureFixture) -> None:
    """Where lists are neither ordered nor filtered by time, changes are found by sweeps: some a day, and polls say why they wait."""

    async def scenario(harness: PollerHarness) -> None:
        harness.api.behaviour.refuses_sort = True
        harness.api.behaviour.updated_after = "refused"
        harness.context.incremental.invalidate_probe()
        harness.move()
        before, covered = harness.api.calls_made(), harness.coverage
        await harness.wait(3 * _HOUR)
        sweeps = [run for run in harness.database.runs[1:] if run.kind == "sweep"]
        assert len(sweeps) > 2
        assert {run.outcome for run in sweeps} == {"ok"}
        assert harness.api.calls_made() - before < 2_500
        assert harness.coverage > covered + timedelta(hours=2)
        assert any("neither filters nor orders" in record.message for record in caplog.records)

    run_scenario(scenario, people=20_000)


def test_blind_time_is_counted() -> None:
    """With webhooks proven dead and FUB unreachable for two hours, those two hours count, minus one late poll; before that none."""

    async def scenario(harness: PollerHarness) -> None:
        await harness.move_people(_HOUR, every_seconds=100)
        harness.webhooks_arrive = False
        await harness.move_people(_HOUR, every_seconds=100)
        assert harness.modes[-1] == "failover"
        assert harness.sample("blind_seconds_total") == 0
        harness.api.outage = Unavailable("unreachable")
        await harness.wait(2 * _HOUR)
        harness.api.outage = None
        await harness.wait(400)
        assert harness.sample("blind_seconds_total") == pytest.approx(2 * _HOUR, abs=400)

    run_scenario(scenario)


def test_while_fub_is_unreachable_coverage_stays_and_one_line_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """While polls fail, coverage stays, retries stay rare and one line says why; the first success covers everything since."""
    caplog.set_level(logging.INFO, "fubd.poller")

    async def scenario(harness: PollerHarness) -> None:
        await harness.move_people(_HOUR, every_seconds=100)
        watermark, calls = harness.coverage, harness.api.calls_made()
        harness.api.outage = Unavailable("FUB answered 503 to every attempt")
        harness.webhooks_arrive = False
        caplog.clear()
        await harness.move_people(3 * _HOUR, every_seconds=100)
        assert harness.coverage <= watermark + timedelta(seconds=1800)
        assert harness.api.calls_made() - calls <= 3 * (_HOUR / 300) * 2 + 30
        assert sum("Polling failed" in record.message for record in caplog.records) == 1
        harness.api.outage = None
        await harness.move_people(400, every_seconds=100)
        assert true_time() - harness.coverage <= timedelta(seconds=400)
        assert harness.unrecorded() == []

    run_scenario(scenario)


@pytest.mark.parametrize("updated_after", ["works", "refused"])
def test_an_account_that_shows_nobody_covers_nothing(updated_after: str, caplog: pytest.LogCaptureFixture) -> None:
    """People are recorded, so an empty list without an error proves nothing, and polls say so; also when coverage is lost meanwhile."""

    async def scenario(fub: PollerHarness) -> None:
        fub.api.behaviour.updated_after = updated_after
        await fub.wait(3600)
        covered = fub.coverage
        fub.account.hidden = set(fub.account.ids)
        await fub.wait(4 * 3600)
        assert fub.coverage <= covered + timedelta(minutes=30)
        assert caplog.text.count("Follow Up Boss lists nobody, although people are recorded") == 1
        fub.webhooks_arrive = False
        fub.move("Offer", person_id=7)
        fub.account.hidden = set()
        await fub.wait(3600)
        assert fub.database.known[7].stage == "Offer"
        assert fub.coverage > covered + timedelta(hours=4)

    with caplog.at_level(logging.WARNING):
        run_scenario(scenario)


def test_an_empty_account_is_covered() -> None:
    """Nobody is known, so nobody is missing."""

    async def scenario(fub: PollerHarness) -> None:
        await fub.wait(7200)
        assert fub.coverage > EPOCH

    run_scenario(scenario, people=0)


def test_a_database_outage_is_waited_out() -> None:
    """Two hours without the database end no loop, and afterwards polling goes on in the mode it was in."""

    async def scenario(harness: PollerHarness) -> None:
        await harness.move_people(_HOUR, every_seconds=100)
        harness.database.outage = Unavailable("the database is unreachable")
        await harness.wait(2 * _HOUR)
        assert not any(task.done() for task in harness.tasks)
        harness.database.outage = None
        await harness.move_people(400, every_seconds=100)
        assert true_time() - harness.coverage <= timedelta(seconds=500)

    run_scenario(scenario)


def test_gaining_the_lease_polls_at_once() -> None:
    """The event ends a wait of half an hour."""

    async def scenario(harness: PollerHarness) -> None:
        await harness.move_people(_HOUR, every_seconds=100)
        harness.webhooks_arrive = False
        moved = harness.move()
        harness.lease.gained.set()
        await harness.wait(1)
        assert harness.database.known[moved].stage == harness.account.people[moved].stage

    run_scenario(scenario)


def test_a_clock_of_fub_behind_coverage_costs_one_sweep(caplog: pytest.LogCaptureFixture) -> None:
    """While coverage is ahead of FUB's clock, the account is read once; then each poll costs as usual, misses nothing and says so once."""

    async def scenario(harness: PollerHarness) -> None:
        await harness.move_people(_HOUR, every_seconds=100)
        stored = true_time() + timedelta(hours=5)
        harness.database.stored_coverage = replace(harness.database.stored_coverage, watermark=stored)
        runs = len(harness.database.runs)
        harness.webhooks_arrive = False
        for _ in range(8):
            moved = harness.move()
            await harness.wait(1900)
            assert harness.database.known[moved].stage == harness.account.people[moved].stage
        since = harness.database.runs[runs:]
        assert [run.kind for run in since].count("sweep") == 1
        assert [run.outcome for run in since].count("failed") == 1
        assert sum("clock is behind" in record.message for record in caplog.records) == 1
        assert harness.coverage == stored
        await harness.wait(5 * _HOUR)
        assert harness.coverage > stored

    run_scenario(scenario, people=3000)
