"""People that every page shows, although they were not requested."""

from __future__ import annotations

import pytest

from tests.poller.harness import PollerHarness, run_scenario
from tests.support.virtual_time import true_time


@pytest.mark.parametrize("updated_after", ["works", "hides"])
@pytest.mark.parametrize(("stranger", "is_first"), [(250, True), (250, False), (1, True), (1, False), (500, False)])
def test_one_person_on_every_page_hides_nobody(
    updated_after: str, stranger: int, *, is_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """From the first start on, and appearing later: changes are found as usual, also those of this person, without further sweeps."""

    async def scenario(harness: PollerHarness) -> None:
        harness.api.behaviour.updated_after = updated_after
        harness.api.strangers = {stranger: is_first}
        harness.webhooks_arrive = False
        harness.start()
        await harness.wait(10)
        for person_id in (7, 300, stranger):
            harness.move("Nurture", person_id=person_id)
        moved_at = true_time()
        await harness.wait(700)
        assert harness.coverage > moved_at
        assert {harness.database.known[person_id].stage for person_id in (7, 300, stranger)} == {"Nurture"}
        assert [run.kind for run in harness.database.runs].count("sweep") == 1
        harness.api.strangers = {}
        await harness.wait(2000)
        assert not harness.context.strangers.ids
        harness.api.strangers = {stranger: is_first}
        harness.move("Offer", person_id=stranger)
        harness.move("Offer", person_id=7)
        moved_at = true_time()
        await harness.wait(700)
        assert harness.coverage > moved_at
        assert {harness.database.known[person_id].stage for person_id in (7, stranger)} == {"Offer"}
        assert [run.kind for run in harness.database.runs].count("sweep") == 1

    run_scenario(scenario, started=False)
    assert any("do not belong" in message for message in caplog.messages)
    assert not any("no longer returns everyone" in message for message in caplog.messages)


def test_ranges_that_are_ignored_make_nobody_a_stranger() -> None:
    """A page of many people where nobody should be says nothing about any of them."""

    async def scenario(harness: PollerHarness) -> None:
        harness.api.behaviour.filters_id_ranges = False
        harness.api.behaviour.sorts = False
        harness.api.behaviour.updated_after = "ignored"
        harness.start()
        await harness.wait(400)
        assert not harness.context.strangers.ids
        assert len(harness.database.known) == 500

    run_scenario(scenario, started=False)
