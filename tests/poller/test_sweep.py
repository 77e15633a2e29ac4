"""The sweep: complete, fast, proven and resumable."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from fubd.errors import Unavailable
from fubd.poller.poll_run import PollRun
from fubd.poller.sweep import Sweep
from fubd.ports import PeopleQuery
from fubd.simulator.rng import Rng
from tests.poller.fake_database import FakeDatabase
from tests.poller.fake_fub import FakeAccount, FakeFubApi, FubBehaviour, change_something
from tests.support.virtual_time import EPOCH, run_virtual, true_time

_YESTERDAY = EPOCH - timedelta(days=1)


def _account(ids: range | list[int]) -> FakeAccount:
    account = FakeAccount()
    for person_id in ids:
        account.add(person_id, updated=_YESTERDAY)
    return account


async def _sweep(api: FakeFubApi, database: FakeDatabase) -> PollRun:
    """Sweep from the stored frontier, and advance coverage as the catch-up does."""
    run = PollRun(api, database, watermark=None, should_continue=lambda: True)
    coverage = await database.coverage()
    began = await Sweep(run, database, workers=16).run(coverage.sweep_began, coverage.sweep_from_id)
    await database.advance_coverage(began, sweep=True)
    return run


@pytest.mark.parametrize(
    "ids",
    [range(0), range(7, 8), range(1, 101), range(1, 102), range(5_000_000, 5_003_333), [1, 2, 3, 900_000_000], range(3, 60_000, 17)],
    ids=["none", "one", "a page", "a page and one", "high ids", "a gap", "sparse"],
)
@pytest.mark.parametrize(
    "behaviour",
    [
        FubBehaviour(),
        FubBehaviour(filters_id_ranges=False),
        FubBehaviour(sorts=False),
        FubBehaviour(filters_id_ranges=False, sorts=False),
        FubBehaviour(metadata="missing", people_per_page=50),
        FubBehaviour(metadata="unusable"),
    ],
    ids=["by ranges", "ranges ignored", "order ignored", "both ignored", "no metadata", "unusable metadata"],
)
def test_everyone_is_read(ids: range | list[int], *, behaviour: FubBehaviour) -> None:
    """Whatever the ids, and whether FUB honours or ignores id ranges and order, each person is read and the frontier is cleared."""

    async def scenario() -> None:
        database = FakeDatabase()
        await _sweep(FakeFubApi(_account(ids), behaviour), database)
        assert set(database.known) == set(ids)
        assert database.stored_coverage.sweep_began is None
        assert database.stored_coverage.began == database.stored_coverage.watermark == EPOCH

    run_virtual(scenario())


@pytest.mark.parametrize("total", [1_000_000, 10**12])
def test_a_count_of_more_people_than_ids_costs_no_calls(total: int) -> None:
    """It is no count of the account: ranges follow from the ids, and the account is read to its end."""

    async def scenario() -> None:
        api, database = FakeFubApi(_account(range(1000, 1900, 3)), FubBehaviour(false_total=total)), FakeDatabase()
        await _sweep(api, database)
        assert len(database.known) == 300
        assert api.calls_made() <= 20

    run_virtual(scenario())


def test_a_sweep_of_202000_people_is_as_fast_as_the_rate_limit_allows() -> None:
    """At 200 calls in 10 s (0.8 of 250) and 250 ms a call, it takes at most 1.15 times the minimum of that limit."""

    async def scenario() -> None:
        api = FakeFubApi(_account(range(1, 404_001, 2)), FubBehaviour(limit=200, latency_seconds=0.25))
        database = FakeDatabase(keep_snapshots=False)
        await _sweep(api, database)
        minimum_seconds = (202_000 / 100 / 200 - 1) * 10
        assert (true_time() - EPOCH).total_seconds() <= 1.15 * minimum_seconds
        assert api.calls_made() <= 1.08 * 2020
        assert api.max_in_flight <= 16
        assert database.max_observing <= 16
        assert len(database.known) == 202_000

    run_virtual(scenario())


def test_people_in_a_narrow_range_of_ids_are_shared_among_the_workers() -> None:
    """With 30,000 of 30,001 people in a thousandth of the ids, the workers split that range, and few calls are wasted."""

    async def scenario() -> None:
        api = FakeFubApi(_account([1, *range(90_000_000, 90_030_000)]), FubBehaviour(latency_seconds=0.25))
        await _sweep(api, FakeDatabase(keep_snapshots=False))
        assert api.calls_made() <= 1.35 * 300
        assert (true_time() - EPOCH).total_seconds() <= 0.25 * 300 / 16 * 2.5

    run_virtual(scenario())


def test_an_interrupted_sweep_resumes_and_keeps_its_beginning() -> None:
    """After an outage in the middle, the second part repeats little, and coverage is the beginning of the first part."""

    async def scenario() -> None:
        api, database = FakeFubApi(_account(range(1, 40_001)), FubBehaviour(latency_seconds=0.25)), FakeDatabase(keep_snapshots=False)

        def before_response() -> None:
            api.outage = Unavailable("FUB answered 503 to every attempt") if api.calls_made() == 250 else api.outage

        api.before_response = before_response
        with pytest.raises(Unavailable, match="503"):
            await _sweep(api, database)
        began = EPOCH - timedelta(seconds=0.25)
        assert database.stored_coverage.sweep_began == began
        assert database.stored_coverage.watermark is None
        api.outage = None
        second = await _sweep(api, database)
        assert len(database.known) == 40_000
        assert second.stats.people <= 20_000
        assert database.stored_coverage.watermark == began

    run_virtual(scenario())


def test_a_sweep_asked_to_stop_makes_no_further_call() -> None:
    """No call is made once it should not continue, and the frontier is stored."""

    async def scenario() -> None:
        api, database = FakeFubApi(_account(range(1, 20_001)), FubBehaviour(latency_seconds=0.25)), FakeDatabase(keep_snapshots=False)
        run = PollRun(api, database, watermark=None, should_continue=lambda: api.calls_made() < 150)
        with pytest.raises(Unavailable):
            await Sweep(run, database, workers=16).run(None, None)
        assert api.calls_made() == 150
        assert database.stored_coverage.sweep_from_id is not None
        assert database.stored_coverage.sweep_from_id > 5_000
        assert set(range(1, database.stored_coverage.sweep_from_id)) <= set(database.known)

    run_virtual(scenario())


class _HidingApi(FakeFubApi):
    """Counts everyone, and hides some people from its pages."""

    @override
    def _page_of(self, query: PeopleQuery, chosen: list[int]) -> tuple[str | None, list[int]]:
        token, shown = super()._page_of(query, chosen)
        return token, [person_id for person_id in shown if person_id % 50 != 7]


def test_a_sweep_that_read_fewer_people_than_counted_fails() -> None:
    """When pages leave out people that FUB counts, the sweep fails with both numbers, and the next starts over."""

    async def scenario() -> None:
        database = FakeDatabase()
        with pytest.raises(Unavailable, match=r"read 4900 people of the 5000 .* counts"):
            await _sweep(_HidingApi(_account(range(1, 5001))), database)
        assert database.stored_coverage.watermark is None
        assert database.stored_coverage.sweep_from_id == 0

    run_virtual(scenario())


@given(seed=st.integers(0, 2**32), max_changes=st.integers(0, 20), ranges=st.booleans(), counts_filtered=st.booleans())
@settings(max_examples=40)
def test_everyone_who_stays_is_read_while_others_come_and_go(*, seed: int, max_changes: int, ranges: bool, counts_filtered: bool) -> None:
    """While people are created, deleted and moved between pages, everyone who existed before and stays is read."""

    async def scenario() -> None:
        rng = Rng(seed)
        account = _account(sorted(rng.sample(range(1, 30_000), 4_000)))
        api = FakeFubApi(account, FubBehaviour(filters_id_ranges=ranges, counts_filtered=counts_filtered, latency_seconds=0.2))
        before = set(account.ids)

        def before_response() -> None:
            for _ in range(rng.randrange(max_changes + 1)):
                change_something(account, rng)

        api.before_response = before_response
        database = FakeDatabase()
        try:
            await _sweep(api, database)
        except Unavailable:
            # Deletions may make the proof fail where FUB gives no count of a part; never in the usual case.
            assert not counts_filtered or not ranges
        else:
            assert before - account.deleted <= set(database.known)

    run_virtual(scenario())
