"""Whether lists show people in Trash: learnt from what is read anyway, or by one call in the life of a process."""

from __future__ import annotations

import logging

import pytest

from fubd.ports import PeopleQuery
from tests.poller.fakes import live
from tests.poller.harness import House

_HOUR = 3600.0
_HIDDEN = "Lists leave out people in Trash"


def _told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.message.startswith("Lists ")]


def _asked_alone(house: House) -> int:
    """Count the list calls that asked for one person only."""
    return sum(isinstance(query, PeopleQuery) and query.ids is not None and len(query.ids) == 1 for _, query in house.api.calls)


def test_somebody_in_trash_on_a_list_is_proof_without_a_call(caplog: pytest.LogCaptureFixture) -> None:
    """Where lists show Trash this is said once, and nobody is asked for it."""

    async def story() -> None:
        house = House(people=300)
        for who in (3, 4, 5):
            house.account.move(who, "Trash")
        house.run()
        await house.passes(6 * _HOUR)
        assert len(_told(caplog)) == 1
        assert "show people in Trash" in _told(caplog)[0]
        assert _asked_alone(house) == 0
        await house.end()

    caplog.set_level(logging.INFO, logger="fubd.poller")
    live(story())


def test_nothing_is_asked_while_nobody_in_trash_is_known(caplog: pytest.LogCaptureFixture) -> None:
    """Without anybody in Trash nothing is asked and nothing said, though lists would leave them out."""

    async def story() -> None:
        house = House(people=300)
        house.api.ways.lists_trash = False
        house.run()
        await house.passes(6 * _HOUR)
        assert _told(caplog) == []
        assert _asked_alone(house) == 0
        await house.end()

    caplog.set_level(logging.INFO, logger="fubd.poller")
    live(story())


@pytest.mark.parametrize("trashed", [3, 60], ids=["a few", "a crowd"])
def test_lists_that_leave_trash_out_are_found_out_by_one_call(caplog: pytest.LogCaptureFixture, trashed: int) -> None:
    """People vanish from lists into Trash: one call proves it, one line says what it means, and none of them is gone, however many."""

    async def story() -> None:
        house = House(people=300)
        house.api.ways.lists_trash = False
        house.run()
        await house.passes(60)
        house.delivering = False
        for who in range(1, trashed + 1):
            house.move("Trash", who=who)
        for who in (1, 2):
            house.memory.webhook(who, None)
        await house.passes(24 * _HOUR)
        assert len([line for line in _told(caplog) if line.startswith(_HIDDEN)]) == len(_told(caplog)) == 1
        assert "only webhooks tell" in _told(caplog)[0]
        assert _asked_alone(house) == 1
        assert not any(known.gone for known in house.memory.known.values())
        assert house.memory.known[1].stage == "Trash"
        await house.end()

    caplog.set_level(logging.INFO, logger="fubd.poller")
    live(story())


def test_what_was_taken_for_hidden_is_put_right_when_trash_is_seen(caplog: pytest.LogCaptureFixture) -> None:
    """Should a list show somebody in Trash later, that is believed and said."""

    async def story() -> None:
        house = House(people=300)
        house.api.ways.lists_trash = False
        house.run()
        await house.passes(60)
        house.move("Trash", who=7)
        await house.passes(3 * _HOUR)
        house.api.ways.lists_trash = True
        await house.passes(3 * _HOUR)
        assert [line.startswith(_HIDDEN) for line in _told(caplog)] == [True, False]
        await house.end()

    caplog.set_level(logging.INFO, logger="fubd.poller")
    live(story())
