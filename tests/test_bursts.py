"""Bursts: what is about very many people is recorded next to what arrives meanwhile."""

from __future__ import annotations

from fubd.core.vocabulary import DeliveryOutcome
from tests.recorder import running_recorder, webhook


async def test_a_delivery_of_many_people_delays_no_other(database: str) -> None:
    """Deliveries that arrive after it are answered while it is still being recorded, also about its own people; each entry is a row."""
    people = tuple(range(1, 6_001))
    async with running_recorder(database) as recorder:
        many = recorder.ingest.submit(webhook("many", "B", "10:00", people))
        after = webhook("after", "C", "10:01", (people[-1], 7_000))
        assert await recorder.ingest.deliver(after) is DeliveryOutcome.ACCEPTED
        assert not many.done()
        assert await many is DeliveryOutcome.ACCEPTED
        assert [row[1] for row in await recorder.rows(people[-1])] == ["B", "C"]
        async with recorder.pool.reading() as connection:
            assert await connection.fetchval("SELECT count(*) FROM public.stage_changes") == 6_002
