"""Whether lists show people in Trash: learned from pages that are read anyway, or by one call in the life of a process."""

from __future__ import annotations

import logging

import pytest

from fubd.ports import PeopleQuery
from tests.poller.harness import PollerHarness
from tests.support.virtual_time import run_virtual

_HOUR = 3600.0
_HIDDEN = "Follow Up Boss lists leave out people in Trash"


def _logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.message.startswith("Follow Up Boss lists ")]


def _single_person_lists(harness: PollerHarness) -> int:
    """Count the list calls that requested one person only."""
    return sum(isinstance(query, PeopleQuery) and query.ids is not None and len(query.ids) == 1 for _, query in harness.api.calls)


def test_a_person_in_trash_on_a_list_is_proof_without_a_call(caplog: pytest.LogCaptureFixture) -> None:
    """Where lists show Trash, one line says so, and no call is made for it."""

    async def scenario() -> None:
        harness = PollerHarness(people=300)
        for person_id in (3, 4, 5):
            harness.account.move(person_id, "Trash")
        harness.start()
        await harness.wait(6 * _HOUR)
        assert len(_logged(caplog)) == 1
        assert "show people in Trash" in _logged(caplog)[0]
        assert _single_person_lists(harness) == 0
        await harness.end()

    caplog.set_level(logging.INFO, logger="fubd.poller")
    run_virtual(scenario())


def test_no_call_is_made_while_no_person_in_trash_is_known(caplog: pytest.LogCaptureFixture) -> None:
    """Without people in Trash no call is made and nothing is logged, although lists would leave them out."""

    async def scenario() -> None:
        harness = PollerHarness(people=300)
        harness.api.behaviour.lists_trash = False
        harness.start()
        await harness.wait(6 * _HOUR)
        assert _logged(caplog) == []
        assert _single_person_lists(harness) == 0
        await harness.end()

    caplog.set_level(logging.INFO, logger="fubd.poller")
    run_virtual(scenario())


@pytest.mark.parametrize("trashed", [3, 60], ids=["a few", "many"])
def test_lists_that_leave_out_trash_are_detected_by_one_call(caplog: pytest.LogCaptureFixture, trashed: int) -> None:
    """People disappear from lists into Trash: one call proves it, one line explains it, and none is marked deleted, however many."""

    async def scenario() -> None:
        harness = PollerHarness(people=300)
        harness.api.behaviour.lists_trash = False
        harness.start()
        await harness.wait(60)
        harness.webhooks_arrive = False
        for person_id in range(1, trashed + 1):
            harness.move("Trash", person_id=person_id)
        for person_id in (1, 2):
            harness.database.webhook(person_id, None)
        await harness.wait(24 * _HOUR)
        assert len([line for line in _logged(caplog) if line.startswith(_HIDDEN)]) == len(_logged(caplog)) == 1
        assert "only webhooks report" in _logged(caplog)[0]
        assert _single_person_lists(harness) == 1
        assert not any(known.deleted for known in harness.database.known.values())
        assert harness.database.known[1].stage == "Trash"
        await harness.end()

    caplog.set_level(logging.INFO, logger="fubd.poller")
    run_virtual(scenario())


def test_trash_on_a_list_later_corrects_the_conclusion(caplog: pytest.LogCaptureFixture) -> None:
    """When a list shows a person in Trash later, that is believed and logged."""

    async def scenario() -> None:
        harness = PollerHarness(people=300)
        harness.api.behaviour.lists_trash = False
        harness.start()
        await harness.wait(60)
        harness.move("Trash", person_id=7)
        await harness.wait(3 * _HOUR)
        harness.api.behaviour.lists_trash = True
        await harness.wait(3 * _HOUR)
        assert [line.startswith(_HIDDEN) for line in _logged(caplog)] == [True, False]
        await harness.end()

    caplog.set_level(logging.INFO, logger="fubd.poller")
    run_virtual(scenario())
