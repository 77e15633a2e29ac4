"""Reading ahead: pages are recorded while the next are read, in their order, and nothing counts before it is recorded."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fubd.errors import Unavailable
from fubd.poller import recover
from fubd.poller.incremental import IncrementalRead
from fubd.poller.poll_run import PollRun
from fubd.poller.sweep import Sweep
from tests.poller.fake_database import FakeDatabase
from tests.poller.fake_fub import FakeAccount, FakeFubApi, FubBehaviour
from tests.poller.harness import PollerHarness, run_scenario
from tests.support.virtual_time import EPOCH, VirtualClock, run_virtual, true_time

_LATENCY_SECONDS = 0.25
_PEOPLE = 2000


def _account() -> FakeAccount:
    account = FakeAccount()
    for person_id in range(1, _PEOPLE + 1):
        account.add(person_id, updated=EPOCH - timedelta(seconds=person_id % 1000))
    return account


def _run(api: FakeFubApi, database: FakeDatabase) -> PollRun:
    return PollRun(api, database, watermark=None, should_continue=lambda: True)


async def _commit_slowly() -> None:
    await VirtualClock().pause(0.4)


def test_a_slow_database_does_not_slow_the_reading() -> None:
    """With a database slower than FUB, 2,000 changed people take as long as their pages, and are recorded in order."""

    async def scenario() -> None:
        api, database = FakeFubApi(_account(), FubBehaviour(latency_seconds=_LATENCY_SECONDS)), FakeDatabase(commit=_commit_slowly)
        assert await IncrementalRead().changed_since(_run(api, database), EPOCH - timedelta(hours=1)) is not None
        floor_seconds = api.calls_made() * _LATENCY_SECONDS
        assert (true_time() - EPOCH).total_seconds() <= floor_seconds + 0.5
        assert len(database.known) == _PEOPLE
        assert [snapshot.read_at for snapshot in database.snapshots] == sorted(snapshot.read_at for snapshot in database.snapshots)
        assert 1 < database.max_observing <= 16

    run_virtual(scenario())


def test_the_pages_that_wait_to_be_recorded_are_bounded() -> None:
    """However slow the database is, no more than sixteen pages wait for it."""

    async def scenario() -> None:
        api, database = FakeFubApi(_account()), FakeDatabase(commit=_commit_slowly)
        await IncrementalRead().changed_since(_run(api, database), EPOCH - timedelta(hours=1))
        await Sweep(_run(api, database), database, workers=16).run(None, None)
        assert database.max_observing == 16

    run_virtual(scenario())


@pytest.mark.parametrize("kind", ["incremental", "sweep"])
def test_a_page_that_cannot_be_recorded_fails_the_read(kind: str) -> None:
    """An error of a recording in the background is the read's error, and nothing is recorded any more after it was raised."""

    async def scenario() -> None:
        api, database = FakeFubApi(_account(), FubBehaviour(latency_seconds=_LATENCY_SECONDS)), FakeDatabase()

        async def fail_in_the_middle() -> None:
            await _commit_slowly()
            if len(database.snapshots) >= 10:
                raise Unavailable("the database is away")

        database.commit = fail_in_the_middle
        run = _run(api, database)
        incremental, sweep = IncrementalRead(), Sweep(run, database, workers=2)
        read = incremental.changed_since(run, EPOCH - timedelta(hours=1)) if kind == "incremental" else sweep.run(None, None)
        with pytest.raises(Unavailable, match="the database is away"):
            await read
        assert database.observing == 0
        from_id = database.stored_coverage.sweep_from_id or 1
        assert set(range(1, from_id)) <= set(database.known)

    run_virtual(scenario())


def test_coverage_waits_for_the_last_page() -> None:
    """When the last page cannot be recorded, coverage stays where it was and the run is not caught up."""

    async def scenario(harness: PollerHarness) -> None:
        await harness.end()
        covered = harness.coverage
        await harness.wait(600)
        harness.move()

        async def fail() -> None:
            raise Unavailable("the database is away")

        harness.database.commit = fail
        result = await recover(harness.context)
        assert (result.caught_up, result.reason) == (False, "the database is away")
        assert harness.coverage == covered

    run_scenario(scenario)
