"""A view and an inbox that live in memory, a clock, and a server on loopback built of them."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry

from fubd.core.observation import Delivery, Snapshot
from fubd.metrics import Metrics
from fubd.ports import Findings, Receipt, Unavailable
from fubd.server import (
    ApiBudget,
    Captures,
    Completeness,
    Health,
    Limits,
    ModeChange,
    Overview,
    Server,
    SourceHealth,
)

KEY = b"invented-system-key"
NOW = datetime(2026, 3, 1, 12, 7, 30, tzinfo=UTC)
BUCKETS = 96
BUCKET_SECONDS = 900


def sign(body: bytes, key: bytes = KEY) -> str:
    """Sign as Follow Up Boss does."""
    return hmac.new(key, base64.b64encode(body), "sha256").hexdigest()


def stage_event(person_id: int = 42, stage: str = "Lead", event_id: str = "e-1") -> bytes:
    """Write the body of a stage webhook."""
    return json.dumps(
        {
            "eventId": event_id,
            "eventCreated": "2026-03-01T12:00:00+00:00",
            "event": "peopleStageUpdated",
            "resourceIds": [person_id],
            "uri": None,
            "data": {"stage": stage},
        }
    ).encode()


def row(row_id: int, **changed: object) -> dict[str, object]:
    """Make a recorded change as the view gives it."""
    changed_at = NOW - timedelta(minutes=row_id % 600)
    return {
        "id": row_id,
        "person_id": str(1000 + row_id),
        "first_name": "Ada",
        "last_name": f"Example {row_id}",
        "stage_from": "Lead",
        "stage_to": "Contacted",
        "changed_at": changed_at,
        "changed_after": None,
        "received_at": changed_at + timedelta(seconds=1),
        "source": "webhook",
        "confirmed_by": None,
        "confirmed_at": None,
        "event_id": f"e-{row_id}",
    } | changed


class MachineClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Give the wall clock."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Give seconds that only grow."""
        return time.monotonic()

    async def pause(self, seconds: float, *events: asyncio.Event) -> bool:
        """Wait for one of the events, at most so long."""
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        done, pending = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for each in pending:
            each.cancel()
        return bool(done)


class MemoryInbox:
    """Keeps deliveries in a list. While `gate` is clear they wait before it; `failure`, when set, is raised instead."""

    def __init__(self) -> None:
        self.kept: list[Delivery] = []
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    def submit(self, delivery: Delivery) -> asyncio.Future[Receipt]:
        """Take it; the answer comes when it is kept."""
        answer: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        task = asyncio.get_running_loop().create_task(self._settle(delivery, answer))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return answer

    async def _settle(self, delivery: Delivery, answer: asyncio.Future[Receipt]) -> None:
        try:
            receipt = await self.deliver(delivery)
        except (Unavailable, ArithmeticError) as error:
            if not answer.done():
                answer.set_exception(error)
        else:
            if not answer.done():
                answer.set_result(receipt)

    async def deliver(self, delivery: Delivery) -> Receipt:
        """Keep it, and tell what it was."""
        self.reached.set()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if any(each.key == delivery.key for each in self.kept):
            return Receipt.DUPLICATE
        self.kept.append(delivery)
        return Receipt.QUARANTINED if delivery.quarantine else Receipt.ACCEPTED

    async def observe(self, snapshot: Snapshot) -> Findings:
        """Take nothing: no poller is here."""
        del snapshot
        return Findings(0, frozenset(), 0)


def story() -> Overview:
    """Invent a day: webhooks die in the evening, polling takes over, and they come back in the morning."""
    webhook = [0 if 50 <= at < 66 else (at * 7 + at // 5) % 6 for at in range(BUCKETS)]
    polling = [(at * 5) % 4 + 1 if 51 <= at < 67 else int(at % 23 == 11) for at in range(BUCKETS)]
    quarter = NOW.replace(minute=0, second=0)
    start = quarter - timedelta(seconds=BUCKET_SECONDS * (BUCKETS - 1))

    def at(bucket: int) -> datetime:
        return start + timedelta(seconds=BUCKET_SECONDS * bucket)

    return Overview(
        now=NOW,
        started_at=NOW - timedelta(days=9, hours=4),
        version="0.1.0",
        captures=Captures(start, BUCKET_SECONDS, {"webhook": webhook, "polling": polling}),
        modes=[
            ModeChange("steady", "a webhook arrived 12 s ago, and the last poll found nothing missed", at(-30)),
            ModeChange("watch", "no webhook for 60 minutes, and no proof that any was missed", at(54)),
            ModeChange("failover", "a poll found 3 changes that no webhook had told", at(57)),
            ModeChange("recovering", "a stage webhook arrived again", at(66)),
            ModeChange("steady", "polls find nothing that webhooks missed", at(69)),
        ],
        api=ApiBudget(limit=250, remaining=231, window_seconds=10.0, share=0.8, calls=2718),
        pending=2,
        quarantined=1,
        recent=[],
    )


class MemoryView:
    """Shows what a test puts into it. While `database_up` is false only what needs no database; while `gate` is clear, nothing."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []
        self.database_up = True
        self.gate = asyncio.Event()
        self.gate.set()
        self.reason_unready: str | None = None
        self.shown = Health(
            mode="steady",
            reason="a webhook arrived 12 s ago, and the last poll found nothing missed",
            poll_interval_seconds=1800.0,
            coverage=NOW - timedelta(minutes=7),
            sources={
                "webhook": SourceHealth("HEALTHY", NOW - timedelta(seconds=12), NOW - timedelta(seconds=14), 31),
                "polling": SourceHealth("HEALTHY", NOW - timedelta(minutes=7), None, 2),
            },
            subscriptions={"peopleStageUpdated": "Active", "peopleCreated": "Active", "peopleDeleted": "Active"},
            completeness=Completeness(0.99987, 202_113, NOW - timedelta(hours=31)),
        )
        self.day = story()

    def unready(self) -> str | None:
        """Give why not."""
        return self.reason_unready

    def health(self) -> Health:
        """Give the document."""
        return self.shown

    async def overview(self) -> Overview:
        """Give the day, with the newest rows."""
        await self._answer()
        day = self.day
        recent = self.rows[:-51:-1]
        return Overview(day.now, day.started_at, day.version, day.captures, day.modes, day.api, day.pending, day.quarantined, recent)

    async def changes(self, after: int, limit: int) -> Sequence[Mapping[str, object]]:
        """Give rows above that id."""
        await self._answer()
        return [each for each in self.rows if int(str(each["id"])) > after][:limit]

    async def _answer(self) -> None:
        await self.gate.wait()
        if not self.database_up:
            raise Unavailable("no database here")


class House:
    """A running server with what it was built of."""

    def __init__(self, *, token: str | None = None, limits: Limits | None = None, keys: Sequence[bytes] = (KEY,)) -> None:
        self.inbox = MemoryInbox()
        self.view = MemoryView()
        self.metrics = Metrics(CollectorRegistry())
        self.server = Server(
            inbox=self.inbox,
            view=self.view,
            keys=keys,
            metrics=self.metrics,
            clock=MachineClock(),
            fub_now=lambda: NOW,
            token=token,
            limits=limits,
        )

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server.port}"

    def counted(self, outcome: str) -> float:
        """Give how many deliveries the metrics count under an outcome."""
        return self.metrics.registry.get_sample_value("fubd_webhook_deliveries_total", {"outcome": outcome}) or 0.0

    def acknowledged(self) -> float:
        """Give how many answers the histogram holds."""
        return self.metrics.registry.get_sample_value("fubd_webhook_ack_seconds_count") or 0.0


@asynccontextmanager
async def running(
    *, token: str | None = None, limits: Limits | None = None, keys: Sequence[bytes] = (KEY,), port: int = 0
) -> AsyncIterator[House]:
    """Run a server on loopback."""
    house = House(token=token, limits=limits, keys=keys)
    await house.server.start(port=port, host="127.0.0.1")
    try:
        yield house
    finally:
        await house.server.stop(within_seconds=1)
