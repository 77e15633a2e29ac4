"""The scrub: everybody is verified in turn, and nobody is gone by absence alone."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry

from fubd.errors import FubRefused
from fubd.metrics import Metrics
from fubd.poller.poll_run import PollRun
from fubd.poller.scrub import Scrub, Scrubbed
from fubd.poller.trash_visibility import TrashVisibility
from tests.poller.fakes import EPOCH, Account, AccountFeed, Known, Memory, live

_YESTERDAY = EPOCH - timedelta(days=1)


def _world(people: int) -> tuple[AccountFeed, Memory, Metrics]:
    """Make an account whose people are all known as they are."""
    account, memory = Account(), Memory()
    for person_id in range(1, people + 1):
        account.add(person_id, updated=_YESTERDAY)
        memory.known[person_id] = Known("Lead", _YESTERDAY, 0)
    return AccountFeed(account), memory, Metrics(CollectorRegistry())


async def _scrub(api: AccountFeed, memory: Memory, metrics: Metrics, *, batches: int = 4, rounds: int = 1) -> Scrubbed:
    scrub, last, trash = Scrub(memory, metrics), Scrubbed(), TrashVisibility()
    for _ in range(rounds):
        run = PollRun(api, memory, watermark=EPOCH, should_continue=lambda: True, trash=trash)
        last = await scrub.run(run, batches=batches)
    return last


def test_everybody_is_verified_in_turn() -> None:
    """Three scrubs of 400 verify 1,200 people once each, in twelve calls and one look at the newest."""

    async def story() -> None:
        api, memory, metrics = _world(1200)
        await _scrub(api, memory, metrics, rounds=3)
        assert api.calls_made() == 12 + 1
        assert all(known.verified > 0 for known in memory.known.values())
        assert memory.scrubbed == (1200, 0)
        assert metrics.registry.get_sample_value("fubd_scrubbed_people_total", {"outcome": "match"}) == 1200

    live(story())


def test_a_change_both_sources_missed_is_found() -> None:
    """Someone moved without `updated` being seen is a mismatch, counted, and reason to doubt the walk."""

    async def story() -> None:
        api, memory, metrics = _world(300)
        api.account.add(301, stage="Offer", updated=_YESTERDAY)
        memory.known[301] = Known("Lead", _YESTERDAY, 0)
        scrubbed = await _scrub(api, memory, metrics)
        assert (scrubbed.matched, scrubbed.mismatched, scrubbed.stale) == (300, 1, True)
        assert memory.known[301].stage == "Offer"
        assert memory.scrubbed == (300, 1)

    live(story())


def test_the_deleted_are_asked_for_one_by_one_and_then_gone() -> None:
    """Three who do not come back are asked for by id; only a 404 marks them, and someone merely hidden from the list is verified."""

    async def story() -> None:
        api, memory, metrics = _world(200)
        for person_id in (5, 6):
            api.account.delete(person_id)
        scrubbed = await _scrub(api, memory, metrics)
        assert scrubbed.gone == 2
        assert [person_id for person_id, known in memory.known.items() if known.gone] == [5, 6]
        assert [asked for endpoint, asked in api.calls if endpoint == "person"] == [5, 6]

    live(story())


def test_nobody_is_gone_when_fub_refuses_to_tell() -> None:
    """A person who is absent and for whom FUB answers 403 stays known and goes to the back of the queue."""

    async def story() -> None:
        api, memory, metrics = _world(50)
        api.account.delete(9)
        api.refusals["person"] = FubRefused("You do not have access to this API endpoint", status=403)
        scrubbed = await _scrub(api, memory, metrics)
        assert scrubbed.gone == 0
        assert not memory.known[9].gone
        assert memory.known[9].verified > 0

    live(story())


def test_a_key_that_lost_sight_of_hundreds_marks_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """When most of those asked for are absent, none is asked for singly, none is marked, it is said once, and the scrub goes on."""
    caplog.set_level(logging.INFO, "fubd.poller")

    async def story() -> None:
        api, memory, metrics = _world(2000)
        api.account.hidden = set(range(1, 1001))
        await _scrub(api, memory, metrics, rounds=12)
        assert not any(known.gone for known in memory.known.values())
        assert all(endpoint == "people" for endpoint, _ in api.calls)
        assert all(memory.known[person_id].verified > 0 for person_id in range(1, 2001))
        assert len(caplog.records) == 1

    live(story())


def test_a_mass_deletion_among_the_present_is_confirmed_a_few_at_a_time() -> None:
    """Of 35 deleted among 400, two are confirmed with each scrub, within its four calls; the others wait at the end of the queue."""

    async def story() -> None:
        api, memory, metrics = _world(400)
        for person_id in range(1, 36):
            api.account.delete(person_id)
        await _scrub(api, memory, metrics, rounds=19)
        assert sum(known.gone for known in memory.known.values()) == 35
        assert api.calls_made() <= 4 * 19 + 3

    live(story())


@pytest.mark.parametrize("batches", [1, 2, 4])
@pytest.mark.parametrize("hidden", ["trash", "refused", "denied", "crowd"])
def test_whatever_fub_hides_the_scrub_keeps_its_budget(batches: int, hidden: str) -> None:
    """With one in twelve on no list, 48 scrubs are 48 times the batches, four looks and a call to learn of Trash; the rest is verified."""

    async def story() -> None:
        api, memory, metrics = _world(1200)
        unseen = set(range(12, 1201, 5 if hidden == "crowd" else 12))
        if hidden == "trash":
            api.ways.lists_trash = False
            for person_id in unseen:
                api.account.move(person_id, "Trash")
        else:
            api.account.hidden = unseen
        if hidden == "refused":
            api.refusals["person"] = FubRefused("You do not have access to this API endpoint", status=403)
        await _scrub(api, memory, metrics, batches=batches, rounds=48)
        assert api.calls_made() <= 48 * batches + 4 + 1
        verified = {person_id for person_id, known in memory.known.items() if known.verified}
        assert len(verified - unseen) >= min(1200 - len(unseen), 48 * batches * 40)

    live(story())


def test_someone_shown_long_after_they_were_created_is_found() -> None:
    """People whom FUB showed only after coverage had passed them are met by the look at the newest, however many they are."""

    async def story() -> None:
        api, memory, metrics = _world(500)
        for person_id in range(501, 751):
            api.account.add(person_id, updated=_YESTERDAY)
        await _scrub(api, memory, metrics)
        assert set(range(501, 751)) <= set(memory.known)
        assert memory.scrubbed == (400, 0)

    live(story())
