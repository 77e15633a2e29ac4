"""Recovery runs: what they read, how they are interrupted and resumed, and what they report."""

from __future__ import annotations

import asyncio

from fubd.errors import Unavailable
from fubd.poller import Progress, recover
from tests.poller.harness import PollerHarness, run_scenario

_HOUR = 3600.0
_DAY = 24 * _HOUR


def test_a_recovery_run_records_what_a_dead_daemon_missed() -> None:
    """After hours without a daemon, one run records the changes and counts them, without a lease and without a mode."""

    async def scenario(harness: PollerHarness) -> None:
        await harness.end()
        harness.lease.held = False
        harness.webhooks_arrive = False
        modes = len(harness.modes)
        for person_id in range(1, 214):
            await harness.wait(100)
            harness.move(person_id=person_id)
        result = await recover(harness.context)
        assert (result.caught_up, result.recovered, result.reason) == (True, 213, None)
        assert result.people_read == 213
        assert result.api_calls <= 6
        assert result.coverage == harness.coverage
        assert len(harness.modes) == modes
        again = await recover(harness.context)
        assert (again.caught_up, again.recovered) == (True, 0)

    run_scenario(scenario)


def test_a_first_recovery_run_reads_everyone_with_progress() -> None:
    """On an empty database it makes the baseline, reports progress by page, and ends caught up."""

    async def scenario(harness: PollerHarness) -> None:
        seen: list[Progress] = []
        harness.api.behaviour.latency_seconds = 0.25
        result = await recover(harness.context, on_progress=seen.append)
        assert (result.caught_up, result.recovered) == (True, 0)
        assert result.people_read >= 5000
        assert [progress.people for progress in seen if progress.kind == "sweep"] == sorted({p.people for p in seen if p.kind == "sweep"})
        assert {progress.total for progress in seen if progress.kind == "sweep"} == {5000}
        assert all(progress.seconds_left is not None and progress.seconds_left < 60 for progress in seen if progress.kind == "sweep")

    run_scenario(scenario, people=5000, started=False)


def test_an_interrupted_full_run_resumes_the_next_time() -> None:
    """A full run stopped in the middle reports that and the coverage; the second run reads only the rest."""

    async def scenario(harness: PollerHarness) -> None:
        await harness.end()
        watermark = harness.coverage
        harness.api.behaviour.latency_seconds = 0.25
        stop = asyncio.Event()

        def stop_in_the_middle(progress: Progress) -> None:
            if progress.people >= 15_000:
                stop.set()

        first = await recover(harness.context, full=True, on_progress=stop_in_the_middle, stop=stop)
        assert (first.caught_up, first.coverage, first.reason) == (False, watermark, "stopped before the end")
        second = await recover(harness.context, full=True)
        assert second.caught_up
        assert second.people_read < 18_000

    run_scenario(scenario, people=30_000)


def test_a_recovery_run_without_fub_reports_the_reason() -> None:
    """With FUB unreachable the run is not caught up, and gives the reason in words."""

    async def scenario(harness: PollerHarness) -> None:
        await harness.end()
        harness.api.outage = Unavailable("FUB answered 503 to every attempt")
        result = await recover(harness.context)
        assert (result.caught_up, result.reason) == (False, "FUB answered 503 to every attempt")

    run_scenario(scenario)
