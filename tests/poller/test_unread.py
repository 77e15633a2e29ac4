"""People that FUB shows without usable data: kept by id, asked for again, reported; everybody else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from typing_extensions import override

from fubd.core.problems import ProblemName
from fubd.errors import FubRefused
from fubd.metrics import Metrics
from fubd.poller import UnreadPeople
from fubd.problems import Problems
from tests.poller.fake_database import FakeDatabase
from tests.poller.harness import PollerHarness, run_scenario
from tests.support.virtual_time import VirtualClock, run_virtual, true_time


def test_an_odd_person_stops_nobody() -> None:
    """The others are recorded and coverage goes on; the odd one is counted, named, and never verified."""

    async def scenario(fub: PollerHarness) -> None:
        covered = fub.coverage
        fub.api.odd.add(7)
        fub.account.touch(7)
        moved = [fub.move("Offer", person_id=person_id) for person_id in (8, 9, 10)]
        await fub.wait(7200)
        assert fub.coverage > covered + timedelta(hours=1)
        assert all(fub.database.known[person_id].stage == "Offer" for person_id in moved)
        assert fub.database.known[7].updated < covered
        assert fub.sample("people_unreadable") == 1
        (problem,) = fub.problems.current()
        assert "1 person" in problem.text
        assert "for example 7." in problem.text

    run_scenario(scenario)


def test_an_odd_person_is_asked_for_again_and_recorded_once_usable() -> None:
    """Also when nothing else of the person changes, so that no list of changes shows them."""

    async def scenario(fub: PollerHarness) -> None:
        fub.api.odd.add(7)
        fub.account.move(7, "Offer")
        await fub.wait(7200)
        fub.api.odd.clear()
        await fub.wait(24 * 3600)
        assert fub.database.known[7].stage == "Offer"
        assert fub.problems.current() == ()
        assert fub.sample("people_unreadable") == 0

    run_scenario(scenario)


class _SlowDatabase(FakeDatabase):
    """A database where others have a turn while it drops unread people."""

    @override
    async def drop_unread(self, person_ids: Collection[int]) -> None:
        await asyncio.sleep(0)
        await super().drop_unread(person_ids)


def test_an_odd_person_who_is_recorded_twice_at_once_is_settled() -> None:
    """Two pages may show the same person, and both are recorded side by side."""

    async def scenario() -> None:
        clock, metrics = VirtualClock(), Metrics(CollectorRegistry())
        problems = Problems(clock, metrics)
        unread = UnreadPeople(_SlowDatabase(clock=clock), clock, metrics, problems)
        await unread.add([7, 8])
        await asyncio.gather(unread.settle([7]), unread.settle([7, 8]))
        assert problems.current() == ()

    run_virtual(scenario())


def test_an_odd_person_who_is_deleted_is_no_longer_asked_for() -> None:
    """FUB's 404 ends it."""

    async def scenario(fub: PollerHarness) -> None:
        fub.api.odd.add(7)
        fub.account.touch(7)
        await fub.wait(7200)
        fub.account.delete(7)
        await fub.wait(24 * 3600)
        assert fub.problems.current() == ()

    run_scenario(scenario)


def test_odd_people_cost_no_more_calls_than_others() -> None:
    """A day with one odd person costs at most a few calls more."""

    async def scenario(fub: PollerHarness) -> None:
        await fub.wait(24 * 3600)
        usual = len(fub.api.calls)
        fub.api.odd.add(7)
        fub.account.touch(7)
        await fub.wait(24 * 3600)
        assert len(fub.api.calls) - usual < usual + 30

    run_scenario(scenario)


def test_a_poll_of_which_more_than_a_tenth_is_unusable_moves_nothing() -> None:
    """What is usable is recorded, coverage stays; once the people are usable it goes on."""

    async def scenario(fub: PollerHarness) -> None:
        covered = fub.coverage
        fub.api.odd.update(range(1, 20))
        for person_id in range(1, 101):
            fub.account.move(person_id, "Offer")
        await fub.wait(7200)
        assert fub.coverage == covered
        assert fub.database.known[50].stage == "Offer"
        assert fub.database.runs[-1].note is not None
        fub.api.odd.clear()
        await fub.wait(3600)
        assert fub.coverage > covered
        assert fub.unrecorded() == []

    run_scenario(scenario)


def test_an_account_of_unusable_people_is_never_covered() -> None:
    """The sweep fails, is not repeated at every short interval, and succeeds once the people are usable."""

    async def scenario(fub: PollerHarness) -> None:
        fub.api.odd.update(range(1, 501))
        fub.start()
        await fub.wait(6 * 3600)
        assert {run.outcome for run in fub.database.runs} == {"failed"}
        assert len(fub.api.calls) < 400
        fub.api.odd.clear()
        await fub.wait(3600)
        assert fub.coverage > true_time() - timedelta(hours=1)
        assert len(fub.database.known) == 500

    run_scenario(scenario, started=False)


def test_an_element_without_an_id_holds_coverage_for_a_day() -> None:
    """It cannot be asked for again; after a day coverage goes on without it. The problem ends once the lists show none."""

    async def scenario(fub: PollerHarness) -> None:
        covered = fub.coverage
        fub.api.unidentified = 1
        for person_id in range(1, 50):
            fub.account.move(person_id, "Offer")
        await fub.wait(20 * 3600)
        assert fub.coverage == covered
        assert fub.database.known[30].stage == "Offer"
        text = fub.problems.current()[0].text
        assert "shows elements without a usable id on its lists." in text
        assert "at most a day" in text
        await fub.wait(6 * 3600)
        assert fub.coverage > true_time() - timedelta(hours=2)
        fub.api.unidentified = 0
        fub.account.move(50, "Offer")
        await fub.wait(3600)
        assert (fub.problems.current(), fub.sample("people_unreadable")) == ((), 0)

    run_scenario(scenario)


def test_an_element_without_an_id_that_was_shown_once_is_over_with_the_next_complete_poll() -> None:
    """A single odd answer is no lasting problem, and the next one holds coverage again."""

    async def scenario(fub: PollerHarness) -> None:
        fub.api.unidentified = 1
        await fub.wait(1900)
        fub.api.unidentified = 0
        assert "without a usable id" in fub.problems.current()[0].text
        await fub.wait(3600)
        assert fub.problems.current() == ()
        covered, fub.api.unidentified = fub.coverage, 1
        await fub.wait(20 * 3600)
        assert fub.coverage == covered

    run_scenario(scenario)


def test_a_poll_whose_people_the_table_refuses_does_not_blame_follow_up_boss(caplog: pytest.LogCaptureFixture) -> None:
    """It is incomplete, and its reason names the table."""

    async def scenario(fub: PollerHarness) -> None:
        fub.database.refused.update({7, 8, 9})
        for person_id in (7, 8, 9):
            fub.account.touch(person_id)
        await fub.wait(7200)

    run_scenario(scenario)
    (record,) = (record for record in caplog.records if "Polling failed" in record.message)
    assert "stage_changes refused the rows of 3 people, more than a tenth" in record.message


def test_a_person_that_the_table_refuses_counts_as_unread_until_the_cure() -> None:
    """What was read of them is not recorded, so it verifies nobody; once the table takes it, the change is there. FUB is not blamed."""

    async def scenario(fub: PollerHarness) -> None:
        fub.database.refused.add(7)
        fub.account.move(7, "Offer")
        fub.move("Offer", person_id=8)
        await fub.wait(7200)
        assert (fub.database.known[8].stage, fub.sample("people_unreadable")) == ("Offer", 1)
        assert (fub.database.known[7].stage, fub.problems.current()) == ("Lead", ())
        fub.database.refused.clear()
        await fub.wait(24 * 3600)
        assert (fub.database.known[7].stage, fub.sample("people_unreadable")) == ("Offer", 0)

    run_scenario(scenario)


@pytest.mark.parametrize(
    ("refusal", "remedy"),
    [
        (FubRefused("401", status=401), "Set FUB_API_KEY to a valid key"),
        (FubRefused("402", status=402), "that the account is active"),
        (FubRefused("403", status=403), "that the account is active"),
        (FubRefused("403", status=403, is_foreign=True), "The key may be right"),
    ],
    ids=["unknown key", "unpaid account", "expired account", "firewall"],
)
def test_the_advice_about_a_refused_key_is_that_of_its_cause(refusal: FubRefused, remedy: str) -> None:
    """A firewall's page is no reason to change the key."""

    async def scenario(fub: PollerHarness) -> None:
        fub.api.refusals["people"] = refusal
        await fub.wait(3600)
        (problem,) = fub.problems.current()
        assert remedy in problem.text

    run_scenario(scenario)


def test_a_refused_key_is_a_problem_with_fubs_words() -> None:
    """It begins with the first refused poll and ends with the next complete one; coverage stays meanwhile."""

    async def scenario(fub: PollerHarness) -> None:
        covered = fub.coverage
        fub.api.refusals["people"] = FubRefused("Follow Up Boss refused with 403: Your subscription has expired", status=403)
        await fub.wait(7200)
        (problem,) = fub.problems.current()
        assert problem.name is ProblemName.KEY_REFUSED
        assert "Your subscription has expired" in problem.text
        assert fub.coverage == covered
        fub.api.refusals.clear()
        await fub.wait(3600)
        assert fub.problems.current() == ()

    run_scenario(scenario)


def test_a_list_that_lags_hides_no_change() -> None:
    """A change that lists show two minutes late is found by the next poll, which looks back further."""

    async def scenario(fub: PollerHarness) -> None:
        fub.webhooks_arrive = False
        for _ in range(30):
            late = fub.rng.choice(fub.account.ids)
            at = true_time()
            fub.account.hidden.add(late)
            fub.account.move(late, f"Stage {at.timestamp():.0f}")
            await fub.wait(120)
            fub.account.hidden.clear()
            await fub.wait(fub.rng.uniform(0, 400))
        await fub.wait(1800)
        assert [person_id for person_id, known in fub.database.known.items() if fub.account.people[person_id].stage != known.stage] == []

    run_scenario(scenario)
