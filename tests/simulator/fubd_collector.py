"""fubd itself as a collector: its real recording on a real Postgres, its real webhook decoding, its real poller."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from fubd.components import Components, build, build_ingest, pacing_policy
from fubd.core.observation import Delivery
from fubd.core.webhook import decode, verify
from fubd.ingest import Ingest
from fubd.poller import PollContext, PollPolicy, UnreadPeople, recover
from fubd.settings import load
from fubd.simulator import SimClock
from fubd.store.dsn import parse
from tests.simulator.receiver import ReceivedWebhook

_ROWS_A_PAGE = 1_000
_KEY = "test-system-key"
_INSTANTS = ("changed_at", "changed_after", "received_at")


class FubdCollector:
    """Receives the same bytes as the other collectors, and polls when they do."""

    def __init__(self, components: Components, ingest: Ingest) -> None:
        self._parts = components
        self._ingest = ingest
        self._context = PollContext(
            api=components.client,
            ingestor=ingest,
            state=components.state,
            clock=components.clock,
            metrics=components.metrics,
            unread=UnreadPeople(components.state, components.clock, components.metrics, components.problems),
            policy=PollPolicy(pacing=pacing_policy(components.settings)),
        )

    async def take(self, got: Sequence[ReceivedWebhook]) -> None:
        """Receive webhooks in their order of arrival; returns once they are committed."""
        await asyncio.gather(*(self._ingest.deliver(self._read(one)) for one in got))

    def _read(self, got: ReceivedWebhook) -> Delivery:
        verify(got.body, got.headers.get("FUB-Signature"), [_KEY.encode()])
        return decode(got.body, fub_now=self._parts.client.fub_now())

    async def poll(self) -> None:
        """Read the people changed since the last poll; the first time, everyone."""
        caught = await recover(self._context)
        assert caught.caught_up, caught.reason

    async def rows(self) -> list[dict[str, Any]]:
        """Return the table."""
        found: list[dict[str, Any]] = []
        after = 0
        while page := await self._parts.changes.page(after, _ROWS_A_PAGE):
            found += [{**row, **{name: _instant(row[name]) for name in _INSTANTS}} for row in (shown.to_dict() for shown in page)]
            after = page[-1].id
        return found


@asynccontextmanager
async def fubd_collector(database_url: str, api_url: str, clock: SimClock) -> AsyncIterator[FubdCollector]:
    """Run fubd's parts on a migrated database, against a simulator and on its clock, after a first complete poll."""
    given = {"DATABASE_URL": database_url, "FUB_API_URL": api_url, "FUB_API_KEY": "test-api-key", "FUB_SYSTEM_KEY": _KEY}
    components = build(load(given, env_file=None), parse(database_url), clock=clock, rng=random.Random(1))
    ingest = build_ingest(components)
    stop = asyncio.Event()
    try:
        async with components.client, asyncio.TaskGroup() as group:
            group.create_task(ingest.run(stop))
            try:
                made = FubdCollector(components, ingest)
                await made.poll()
                yield made
            finally:
                stop.set()
    finally:
        await components.pool.close()


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
