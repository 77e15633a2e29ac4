"""A recording transaction takes three round trips, so that a database far away delays an answer three times only."""

from __future__ import annotations

import pytest

from fubd.core.observation import Delivery, Snapshot
from tests.recorder import Recorder, at, read, refetch_event, running_recorder, webhook
from tests.support.pooler import pooled
from tests.support.proxy import Proxy

_EVIDENCE: tuple[Delivery | Snapshot, ...] = (
    webhook("new", "B", "11:00"),
    webhook("new", "B", "11:00"),
    refetch_event("asks", "peopleUpdated", "11:01"),
    read("B", "11:00", "11:02"),
    read("C", "11:10", "11:20", person=2),
    webhook("later", "D", "11:30", (1, 2, 3)),
)


async def _round_trips(proxy: Proxy, recorder: Recorder) -> list[int]:
    """Return how many each piece of evidence took, when the connection has prepared its statements."""
    await recorder.record(webhook("e0", "A", "09:00"), read("A", "09:00", "10:00"))
    counts = []
    for evidence in _EVIDENCE:
        before = proxy.round_trips
        await recorder.record(evidence)
        counts.append(proxy.round_trips - before)
    return counts


async def test_a_recording_transaction_takes_three_round_trips(database: str) -> None:
    """Begin; add claims and load the history; write and commit: for deliveries, repeated ones, refetch requests and people as read."""
    async with Proxy(database) as proxy, running_recorder(proxy.dsn) as recorder:
        assert await _round_trips(proxy, recorder) == [3] * len(_EVIDENCE)
        assert [(row[1], row[2]) for row in await recorder.rows(2)] == [("D", at("11:30"))]


@pytest.mark.slow
async def test_through_a_pooler_it_takes_four(database: str) -> None:
    """In transaction mode nothing stays prepared: the statement that adds claims is prepared each time."""
    async with pooled(database) as pooler, Proxy(pooler.url) as proxy, running_recorder(proxy.dsn) as recorder:
        assert await _round_trips(proxy, recorder) == [4] * len(_EVIDENCE)
