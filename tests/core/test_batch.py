"""What a batch makes of deliveries and snapshots."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations

import pytest

from fubd.core.batch import Batch, RecordingRules
from tests.recorder import at, read, refetch_event


@pytest.mark.parametrize(("watermarks", "expected"), [(("09:00", "08:30"), "08:30"), (("09:00", None), None), ((None, None), None)])
def test_a_state_read_twice_is_one_claim_that_says_no_more_than_both(
    watermarks: tuple[str | None, str | None], expected: str | None
) -> None:
    """It lasts from the first read to the last; the stage before is known to have held only until where both reads say so."""
    reads = [read("A", "10:00", read_at, watermark) for read_at, watermark in zip(("10:10", "10:40"), watermarks, strict=True)]
    for order in permutations(reads):
        batch = Batch(RecordingRules(timedelta(minutes=5)))
        for snapshot in order:
            batch.add_snapshot(snapshot, at("11:00"))
        (claim,) = batch.claims.values()
        assert (claim.first_read_at, claim.read_at) == (at("10:10"), at("10:40"))
        assert claim.watermark == (at(expected) if expected else None)


def test_requests_of_one_person_in_a_batch_are_one_that_asks_for_all_of_them() -> None:
    """It is for the later event, of somebody created and deleted."""
    for order in permutations([refetch_event("e1", "peopleCreated", "10:00"), refetch_event("e2", "peopleDeleted", "10:01")]):
        batch = Batch(RecordingRules(timedelta(minutes=5)))
        for delivery in order:
            batch.add_delivery(delivery, at("11:00"))
        (refetch,) = batch.refetches.values()
        assert (refetch.since, refetch.created, refetch.deleted) == (at("10:01"), True, True)
