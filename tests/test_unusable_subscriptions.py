"""Elements of Follow Up Boss's list of webhooks that cannot be used."""

from __future__ import annotations

import logging

import pytest

from fubd.core.subscriptions import UnusableSubscription
from fubd.core.vocabulary import SUBSCRIBED_EVENTS
from fubd.errors import FubRefused, Malformed
from tests.managed_subscriptions import OTHER, OURS, STAGE, Managed, account_with, all_ours, registered_for
from tests.support.virtual_time import run_virtual


def test_an_unusable_element_of_the_list_concerns_only_the_webhook_that_it_may_be(caplog: pytest.LogCaptureFixture) -> None:
    """The others are active, one is repaired as usual, and it is said once; where it may be ours, one is created, and proves no failure."""
    api = account_with(*all_ours()[1:], ("peopleUpdated", OURS, "Disabled"))
    api.unusable_webhooks = (UnusableSubscription(None, None, "one is not an object"),)
    managed = Managed(api)
    first = SUBSCRIBED_EVENTS[0]

    async def story() -> None:
        report = await managed.manager.check()
        assert (report.was_broken, report.statuses()) == (None, dict.fromkeys(SUBSCRIBED_EVENTS, "active"))
        assert registered_for(api, first) == [(OURS, "Active")]
        await managed.manager.check()

    with caplog.at_level(logging.INFO, "fubd.subscriptions"):
        run_virtual(story())
    assert [message for message in caplog.messages if "lists" in message] == [
        "Of the webhooks that Follow Up Boss lists one is not an object; the others are kept as usual"
    ]
    assert api.writes == 1


@pytest.mark.parametrize(
    ("event", "url", "created"),
    [
        (None, None, 1),
        (STAGE, None, 1),
        (STAGE, OURS, 1),
        (None, OTHER, 1),
        ("notesCreated", None, 3),
        (STAGE, "https://crm.example.org/hook", 3),
    ],
)
def test_of_an_unusable_element_that_may_be_ours_no_second_one_follows(event: str | None, url: str | None, created: int) -> None:
    """When what was created is listed as unusable, too, no further one is made; an element that cannot be ours is none of our business."""
    api = account_with(*[hook for hook in all_ours() if hook[0] != STAGE])
    api.unusable_webhooks = (UnusableSubscription(event, url, "one has no usable id"),)
    managed = Managed(api)

    async def story() -> None:
        for _ in range(2):
            await managed.manager.check()
            api.registry = {number: hook for number, hook in api.registry.items() if hook.event != STAGE}
            await managed.clock.pause(61.0)
        report = await managed.manager.check()
        assert api.writes == created
        (stage,) = [one for one in report.events if one.event == STAGE]
        assert stage.now.value == ("unknown" if created == 1 else "active")
        assert (stage.advice is not None and "has no usable id" in stage.advice) is (created == 1)

    run_virtual(story())


def test_a_list_that_cannot_be_used_at_all_is_said_as_such() -> None:
    """Follow Up Boss did answer; no webhook is created, as those listed may be ours, and nothing is proven."""
    api = account_with()
    api.outage = Malformed("none of the webhooks can be used")
    report = run_virtual(Managed(api).manager.check())
    assert {one.advice for one in report.events} == {"none of the webhooks can be used; fubd asks again"}
    assert (api.writes, report.was_broken, report.is_broken) == (0, None, None)


def test_a_webhook_refused_next_to_an_unusable_element_is_a_problem_that_names_both() -> None:
    """Both places may be taken, perhaps by ours: only the owner can see that."""
    api = account_with()
    api.unusable_webhooks = (UnusableSubscription(None, None, "webhook 7 has no usable url"),)
    api.refusals["subscribe"] = FubRefused("Only two webhooks per event.", status=400)
    managed = Managed(api)
    report = run_virtual(managed.manager.check())
    (problem,) = managed.problems.current()
    assert "Only two webhooks per event" in problem.text
    assert "webhook 7 has no usable url" in problem.text
    assert (report.was_broken, report.is_broken) == (None, None)
