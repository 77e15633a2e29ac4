"""What a wrong clock of ours put into quarantine is recorded once Follow Up Boss's clock is known."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

from typing_extensions import override

from fubd.clock import SystemClock
from fubd.core.webhook import decode
from fubd.early_quarantine import EarlyQuarantine
from fubd.store.quarantine import Quarantine
from tests.recorder import running_recorder

HAPPENED = datetime(2026, 1, 5, 9, tzinfo=UTC)
BEHIND = HAPPENED - timedelta(days=3)


def _body(person: int, stage: object, happened: datetime = HAPPENED) -> bytes:
    event = {"eventId": f"e-{person}", "eventCreated": happened.isoformat(), "event": "peopleStageUpdated", "resourceIds": [person]}
    return json.dumps({**event, "data": {"stage": stage}}).encode()


class _SkippingClock(SystemClock):
    """A clock whose pauses take no time."""

    @override
    async def pause(self, seconds: float, *events: asyncio.Event) -> bool:
        """Return after a turn of the event loop, or, where it would be long, when an event is set."""
        if seconds > 60.0:
            return await super().pause(seconds, *events)
        await asyncio.sleep(0)
        return any(event.is_set() for event in events)


async def test_deliveries_of_the_future_are_judged_again_once_the_clock_is_known(database: str) -> None:
    """The genuine ones are recorded and leave quarantine; what is of the future even then, and what is otherwise unusable, stays."""
    async with running_recorder(database) as recorder:
        bodies = [_body(1, "B"), _body(2, "B", HAPPENED + timedelta(days=2)), _body(3, None)]
        await recorder.record(*(decode(body, fub_now=BEHIND) for body in bodies))
        quarantine = Quarantine(recorder.pool)
        assert await quarantine.count() == 3
        clocks = iter([None, None, HAPPENED + timedelta(seconds=7)])
        stop, done = asyncio.Event(), asyncio.Event()

        def latest_now() -> datetime | None:
            now = next(clocks, None)
            if now is not None:
                done.set()
            return now

        part = EarlyQuarantine(quarantine, recorder.ingest, _SkippingClock(), latest_now=latest_now)
        running = asyncio.create_task(part.run(stop))
        await done.wait()
        stop.set()
        await running
        assert await recorder.rows(1) == [(None, "B", HAPPENED, None)]
        assert await recorder.rows(2) == []
        assert [delivery.quarantine for delivery in await quarantine.after(0, 10)] == [
            "eventCreated is more than a day ahead of FUB's clock",
            "there is no usable stage in data",
        ]
