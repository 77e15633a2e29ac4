"""The scrub: everyone is verified in turn, and absence alone marks no person deleted."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry

from fubd.errors import FubRefused, Unavailable
from fubd.metrics import Metrics
from fubd.poller.poll_run import PollRun
from fubd.poller.scrub import Scrub, ScrubResult
from fubd.poller.trash_visibility import TrashVisibility
from tests.poller.fake_database import FakeDatabase, KnownPerson
from tests.poller.fake_fub import FakeAccount, FakeFubApi
from tests.support.virtual_time import EPOCH, run_virtual

_YESTERDAY = EPOCH - timedelta(days=1)


def _setup(people: int) -> tuple[FakeFubApi, FakeDatabase, Metrics]:
    """Return an account whose people are all recorded as they are."""
    account, database = FakeAccount(), FakeDatabase()
    for person_id in range(1, people + 1):
        account.add(person_id, updated=_YESTERDAY)
        database.known[person_id] = KnownPerson("Lead", _YESTERDAY, 0)
    return FakeFubApi(account), database, Metrics(CollectorRegistry())


async def _scrub(api: FakeFubApi, database: FakeDatabase, metrics: Metrics, *, batches: int = 4, rounds: int = 1) -> ScrubResult:
    scrub, last, trash = Scrub(database, metrics), ScrubResult(), TrashVisibility()
    for _ in range(rounds):
        run = PollRun(api, database, watermark=EPOCH, should_continue=lambda: True, trash=trash)
        last = await scrub.run(run, batches=batches)
    return last


def test_everyone_is_verified_in_turn() -> None:
    """Three scrubs of 400 verify 1,200 people once each, in twelve calls, plus one for the newest people."""

    async def scenario() -> None:
        api, database, metrics = _setup(1200)
        await _scrub(api, database, metrics, rounds=3)
        assert api.calls_made() == 12 + 1
        assert all(known.verified > 0 for known in database.known.values())
        assert database.scrubbed == (1200, 0)
        assert metrics.registry.get_sample_value("fubd_scrubbed_people_total", {"outcome": "match"}) == 1200

    run_virtual(scenario())


def test_a_change_both_sources_missed_is_found() -> None:
    """A person moved without a newer `updated` is a mismatch; it is counted and marks the incremental read as doubtful."""

    async def scenario() -> None:
        api, database, metrics = _setup(300)
        api.account.add(301, stage="Offer", updated=_YESTERDAY)
        database.known[301] = KnownPerson("Lead", _YESTERDAY, 0)
        result = await _scrub(api, database, metrics)
        assert (result.matched, result.mismatched, result.stale) == (300, 1, True)
        assert database.known[301].stage == "Offer"
        assert database.scrubbed == (300, 1)

    run_virtual(scenario())


def test_smaller_pages_than_requested_hide_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The rest of a batch is requested until it is shown; who is deleted is absent all the same."""

    async def scenario() -> None:
        api, database, metrics = _setup(300)
        api.behaviour.people_per_page = 30
        api.account.delete(7)
        result = await _scrub(api, database, metrics)
        assert (result.matched, result.deleted, result.lost_sight) == (299, 1, False)
        assert api.calls_made() <= 3 * 4 + 2

    run_virtual(scenario())
    assert caplog.text == ""


def test_a_change_newer_than_coverage_is_not_missed() -> None:
    """Somebody moved between the incremental read and the scrub: the next read would have shown it."""

    async def scenario() -> None:
        api, database, metrics = _setup(300)
        api.account.add(7, stage="Offer", updated=EPOCH)
        result = await _scrub(api, database, metrics)
        assert (result.matched, result.mismatched, result.recent, result.stale) == (300, 0, 1, False)
        assert database.known[7].stage == "Offer"
        assert database.scrubbed == (300, 0)

    run_virtual(scenario())


def test_a_person_whose_rows_end_in_another_stage_is_no_match() -> None:
    """Somebody removed a row, or an event contradicts what FUB shows: nothing was missed, and yet the rows are not complete."""

    async def scenario() -> None:
        api, database, metrics = _setup(300)
        database.known[7].last_row = "Offer"
        # Moved so short a time ago that the list may trail behind.
        database.known[8] = KnownPerson("Lead", EPOCH, 0, last_row="Offer")
        api.account.add(8, updated=EPOCH)
        result = await _scrub(api, database, metrics)
        assert (result.matched, result.mismatched, result.differing, result.stale) == (299, 0, 1, False)
        assert database.scrubbed == (299, 1)

    run_virtual(scenario())


def test_absent_people_are_read_by_id_and_marked_deleted_on_a_404() -> None:
    """Two people who are absent from the list are read by id, and the 404 marks them deleted."""

    async def scenario() -> None:
        api, database, metrics = _setup(200)
        for person_id in (5, 6):
            api.account.delete(person_id)
        result = await _scrub(api, database, metrics)
        assert result.deleted == 2
        assert [person_id for person_id, known in database.known.items() if known.deleted] == [5, 6]
        assert [person_id for endpoint, person_id in api.calls if endpoint == "person"] == [5, 6]

    run_virtual(scenario())


def test_a_refusal_marks_no_person_deleted() -> None:
    """An absent person that FUB refuses with 403 stays known and goes to the end of the queue."""

    async def scenario() -> None:
        api, database, metrics = _setup(50)
        api.account.delete(9)
        api.refusals["person"] = FubRefused("You do not have access to this API endpoint", status=403)
        result = await _scrub(api, database, metrics)
        assert result.deleted == 0
        assert not database.known[9].deleted
        assert database.known[9].verified > 0

    run_virtual(scenario())


def test_an_id_because_of_which_a_batch_is_refused_stops_nobody() -> None:
    """When FUB refuses a batch because of two of its ids, the 98 others are verified, at the cost of a few calls."""

    async def scenario() -> None:
        api, database, metrics = _setup(100)
        api.refused_ids = {7, 8}
        await _scrub(api, database, metrics, batches=1)
        assert {person_id for person_id, known in database.known.items() if known.verified} >= set(range(1, 101)) - {7, 8}
        assert not any(known.deleted for known in database.known.values())
        assert api.calls_made() <= 30

    run_virtual(scenario())


def test_half_a_batch_that_was_read_is_recorded_although_the_other_half_fails() -> None:
    """An odd id halves a batch, and Follow Up Boss goes away before the second half: the first half is verified."""

    async def scenario() -> None:
        api, database, metrics = _setup(100)
        api.refused_ids = {7, 8}

        def before_response() -> None:
            if api.calls_made() > 3:
                api.outage = Unavailable("Follow Up Boss answered 503 to every attempt")

        api.before_response = before_response
        with pytest.raises(Unavailable):
            await _scrub(api, database, metrics, batches=1)
        assert sum(known.verified > 0 for known in database.known.values()) == 50

    run_virtual(scenario())


def test_a_refusal_of_every_batch_is_raised() -> None:
    """When FUB refuses every batch, the ids are not the reason: the scrub fails after few calls."""

    async def scenario() -> None:
        api, database, metrics = _setup(100)
        api.refused_ids = set(range(1, 101))
        with pytest.raises(FubRefused):
            await _scrub(api, database, metrics, batches=1)
        assert api.calls_made() <= 7

    run_virtual(scenario())


def test_a_key_that_lost_access_to_hundreds_marks_no_person_deleted(caplog: pytest.LogCaptureFixture) -> None:
    """When many people are absent, none is read by id or marked, one line is logged, and the scrub continues."""
    caplog.set_level(logging.INFO, "fubd.poller")

    async def scenario() -> None:
        api, database, metrics = _setup(2000)
        api.account.hidden = set(range(1, 1001))
        await _scrub(api, database, metrics, rounds=12)
        assert not any(known.deleted for known in database.known.values())
        assert all(endpoint == "people" for endpoint, _ in api.calls)
        assert all(database.known[person_id].verified > 0 for person_id in range(1, 2001))
        assert len(caplog.records) == 1

    run_virtual(scenario())


def test_more_absent_people_than_can_be_deleted_are_a_sign_of_lost_sight() -> None:
    """The key may be of another account by now; a few absent people are no such sign."""

    async def scenario() -> None:
        api, database, metrics = _setup(400)
        api.account.hidden = {1, 2, 3}
        assert not (await _scrub(api, database, metrics)).lost_sight
        api.account.hidden = set(range(1, 200))
        assert (await _scrub(api, database, metrics)).lost_sight

    run_virtual(scenario())


def test_a_mass_deletion_is_confirmed_a_few_at_a_time() -> None:
    """Of 35 deleted among 400, each scrub confirms two within its four calls; the others wait at the end of the queue."""

    async def scenario() -> None:
        api, database, metrics = _setup(400)
        for person_id in range(1, 36):
            api.account.delete(person_id)
        await _scrub(api, database, metrics, rounds=19)
        assert sum(known.deleted for known in database.known.values()) == 35
        assert api.calls_made() <= 4 * 19 + 3

    run_virtual(scenario())


@pytest.mark.parametrize("batches", [1, 2, 4])
@pytest.mark.parametrize("hidden", ["trash", "refused", "absent", "many"])
def test_the_scrub_keeps_its_call_budget_whatever_fub_hides(batches: int, hidden: str) -> None:
    """With one in twelve on no list, 48 scrubs make 48 times the batches, plus four calls for the newest people and one for Trash."""

    async def scenario() -> None:
        api, database, metrics = _setup(1200)
        invisible = set(range(12, 1201, 5 if hidden == "many" else 12))
        if hidden == "trash":
            api.behaviour.lists_trash = False
            for person_id in invisible:
                api.account.move(person_id, "Trash")
        else:
            api.account.hidden = invisible
        if hidden == "refused":
            api.refusals["person"] = FubRefused("You do not have access to this API endpoint", status=403)
        await _scrub(api, database, metrics, batches=batches, rounds=48)
        assert api.calls_made() <= 48 * batches + 4 + 1
        verified = {person_id for person_id, known in database.known.items() if known.verified}
        assert len(verified - invisible) >= min(1200 - len(invisible), 48 * batches * 40)

    run_virtual(scenario())


def test_people_shown_long_after_their_creation_are_found() -> None:
    """People that FUB shows only after coverage passed them are found among the newest, however many they are."""

    async def scenario() -> None:
        api, database, metrics = _setup(500)
        for person_id in range(501, 751):
            api.account.add(person_id, updated=_YESTERDAY)
        await _scrub(api, database, metrics)
        assert set(range(501, 751)) <= set(database.known)
        assert database.scrubbed == (400, 0)

    run_virtual(scenario())
