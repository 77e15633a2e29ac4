"""The promised number of API calls, by the same measurement that prints the table."""

from __future__ import annotations

import pytest

from tests.poller.economy import PEOPLE, measure, measure_bulk_edits, table

pytestmark = pytest.mark.slow


def test_a_day_costs_what_was_promised() -> None:
    """With 202,000 people a steady day takes at most 300 calls, a day of failover at 30 s at most 4,000, a quiet day at most 800."""
    steady, quiet, failover = measure(people=PEOPLE)
    assert [day.mode for day in (steady, quiet, failover)] == ["steady", "watch", "failover"]
    assert steady.running <= 300
    assert failover.running <= 4000
    assert steady.running < quiet.running <= 800
    assert steady.changes >= 350
    assert steady.changed <= steady.changes
    assert failover.changes >= 350
    assert failover.changed == quiet.changed == quiet.changes == 0
    assert "97,000" in table([steady, quiet, failover])


def test_a_day_of_bulk_edits_costs_what_was_promised() -> None:
    """With ten bulk edits of 1,000 people in one second each, a steady day takes at most 500 calls, however FUB treats the filter."""
    for day in measure_bulk_edits(people=3_000, filters=("works", "refused")):
        assert day.running <= 500
        assert day.changes >= 10_000
