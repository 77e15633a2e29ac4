"""While the database is away, deliveries are kept in order and within a limit, and stored when it is back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from fubd.errors import Unavailable
from tests.recorder import running_recorder, webhook
from tests.stack import event, running_stack, sign
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow


async def test_refused_deliveries_are_stored_in_order_and_their_retries_are_duplicates(database: str, tmp_path: Path) -> None:
    """Two hundred deliveries about two people are answered 503 with Retry-After: every change becomes a row, and retries add nothing."""
    async with Proxy(database) as proxy, running_stack(database, tmp_path, daemon_dsn=proxy.dsn) as stack, stack.ready_daemon():
        await proxy.refuse()
        await proxy.cut()
        at = datetime.now(UTC) - timedelta(hours=1)
        bodies = [
            event(f"o-{each:03}", "Nurture" if each // 2 % 2 else "Offer", at + timedelta(seconds=each // 20), [900_001 + each % 2])
            for each in range(200)
        ]
        answers = await asyncio.gather(*(stack.post(body) for body in bodies))
        assert {(status, headers["Retry-After"]) for status, headers in answers} == {(503, "30")}
        await proxy.accept()

        async def stored() -> bool:
            (row,) = await stack.fetch("SELECT count(*) AS kept FROM fubd.delivery WHERE event_id LIKE 'o-%'")
            return bool(row["kept"] == 200)

        await eventually(stored, 30.0)
        arrived = await stack.fetch("SELECT event_id FROM fubd.delivery WHERE event_id LIKE 'o-%' ORDER BY received_at, id")
        for person in range(2):
            # Ten events per person and second: they are in the order of their arrival.
            rows = await stack.fetch(
                "SELECT event_id FROM public.stage_changes WHERE person_id = $1 ORDER BY changed_at", str(900_001 + person)
            )
            stages: list[str] = []
            expected = []
            ordered = sorted((int(row["event_id"][2:]) // 20, position, row["event_id"]) for position, row in enumerate(arrived))
            for _, _, event_id in ordered:
                number = int(event_id[2:])
                stage = "Nurture" if number // 2 % 2 else "Offer"
                if number % 2 == person and (not stages or stages[-1] != stage):
                    stages.append(stage)
                    expected.append(event_id)
            assert [row["event_id"] for row in rows] == expected
        async with aiohttp.ClientSession() as session:
            outcomes = []
            for body in bodies:
                async with session.post(f"{stack.url}/webhook/fub", data=body, headers={"FUB-Signature": sign(body)}) as answer:
                    outcomes.append((answer.status, await answer.text()))
        assert set(outcomes) == {(200, "duplicate")}

        async def balanced() -> bool:
            metrics = await stack.metrics()
            return metrics["fubd_ledger_imbalance"] == 0 == metrics["fubd_chain_violations"]

        await eventually(balanced, 45.0)


async def test_the_buffer_is_limited(database: str) -> None:
    """Ten thousand deliveries are kept and stored later; any further one is refused at once with a retry delay."""
    async with Proxy(database) as proxy, running_recorder(proxy.dsn) as recording:
        await recording.record(webhook("first", "Lead", "9:00", people=(1,)))
        await proxy.refuse()
        await proxy.cut()
        answers = [recording.ingest.submit(webhook(f"e-{each}", "Lead", "10:00", people=(each + 1,))) for each in range(11_000)]
        refused = [answer for answer in answers if answer.done()]
        assert len(answers) - len(refused) == 10_000
        for answer in refused:
            error = answer.exception()
            assert isinstance(error, Unavailable)
            assert error.retry_after
        await proxy.accept()
        await asyncio.gather(*(answer for answer in answers if answer not in refused))
        async with recording.pool.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM fubd.delivery") == 10_001
