"""While the database is away: what is refused is kept, in order and within bounds, and stored when it is back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp

from fubd.errors import Unavailable
from tests.recorder import recorder, webhook
from tests.stack import event, house, sign
from tests.support.proxy import Proxy
from tests.support.waiting import eventually


async def test_what_was_refused_is_stored_in_its_order_and_its_retry_is_a_duplicate(database: str, tmp_path: Path) -> None:
    """Two hundred deliveries of two people, all answered 503 with Retry-After: every move is a row then, and FUB's retries add nothing."""
    async with Proxy(database) as proxy, house(database, tmp_path, through=proxy.dsn) as built, built.ready():
        await proxy.refuse()
        await proxy.cut()
        at = datetime.now(UTC) - timedelta(hours=1)
        bodies = [
            event(f"o-{each:03}", "Nurture" if each // 2 % 2 else "Offer", at + timedelta(seconds=each // 20), [900_001 + each % 2])
            for each in range(200)
        ]
        answers = await asyncio.gather(*(built.post(body) for body in bodies))
        assert {(status, headers["Retry-After"]) for status, headers in answers} == {(503, "30")}
        await proxy.accept()

        async def stored() -> bool:
            (row,) = await built.fetch("SELECT count(*) AS kept FROM fubd.delivery WHERE event_id LIKE 'o-%'")
            return bool(row["kept"] == 200)

        await eventually(stored, 30.0)
        arrived = await built.fetch("SELECT event_id FROM fubd.delivery WHERE event_id LIKE 'o-%' ORDER BY received_at, id")
        for person in range(2):
            # Ten of one second each: they stand in the order of their arrival.
            rows = await built.fetch(
                "SELECT event_id FROM public.stage_changes WHERE person_id = $1 ORDER BY changed_at", str(900_001 + person)
            )
            stages: list[str] = []
            expected = []
            told = sorted((int(row["event_id"][2:]) // 20, place, row["event_id"]) for place, row in enumerate(arrived))
            for _, _, event_id in told:
                number = int(event_id[2:])
                stage = "Nurture" if number // 2 % 2 else "Offer"
                if number % 2 == person and (not stages or stages[-1] != stage):
                    stages.append(stage)
                    expected.append(event_id)
            assert [row["event_id"] for row in rows] == expected
        async with aiohttp.ClientSession() as session:
            outcomes = []
            for body in bodies:
                async with session.post(f"{built.url}/webhook/fub", data=body, headers={"FUB-Signature": sign(body)}) as answer:
                    outcomes.append((answer.status, await answer.text()))
        assert set(outcomes) == {(200, "duplicate")}

        async def balanced() -> bool:
            metrics = await built.metrics()
            return metrics["fubd_ledger_imbalance"] == 0 == metrics["fubd_chain_violations"]

        await eventually(balanced, 20.0)


async def test_the_buffer_has_an_end(database: str) -> None:
    """Ten thousand are kept; who comes when they are is told at once to come again; all that were kept are stored."""
    async with Proxy(database) as proxy, recorder(proxy.dsn) as made:
        await made.record(webhook("first", "Lead", "9:00", people=(1,)))
        await proxy.refuse()
        await proxy.cut()
        answers = [made.ingest.submit(webhook(f"e-{each}", "Lead", "10:00", people=(each + 1,))) for each in range(11_000)]
        refused = [answer for answer in answers if answer.done()]
        assert len(answers) - len(refused) == 10_000
        for answer in refused:
            error = answer.exception()
            assert isinstance(error, Unavailable)
            assert error.retry_after
        await proxy.accept()
        await asyncio.gather(*(answer for answer in answers if answer not in refused))
        async with made.pool.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM fubd.delivery") == 10_001
