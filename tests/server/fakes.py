"""A view and an inbox that live in memory, a clock, and a server on loopback built of them."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry

from fubd.core.observation import Delivery, Snapshot
from fubd.errors import Malformed, Unavailable
from fubd.metrics import Metrics
from fubd.ports import DeliveryOutcome, ShownRow, SnapshotResult
from fubd.server import (
    ApiBudget,
    ChangeCounts,
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

    def submit(self, delivery: Delivery) -> asyncio.Future[DeliveryOutcome]:
        """Take it; the answer comes when it is kept."""
        answer: asyncio.Future[DeliveryOutcome] = asyncio.get_running_loop().create_future()
        task = asyncio.get_running_loop().create_task(self._settle(delivery, answer))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return answer

    async def _settle(self, delivery: Delivery, answer: asyncio.Future[DeliveryOutcome]) -> None:
        try:
            receipt = await self.deliver(delivery)
        except (Unavailable, ArithmeticError) as error:
            if not answer.done():
                answer.set_exception(error)
        else:
            if not answer.done():
                answer.set_result(receipt)

    async def deliver(self, delivery: Delivery) -> DeliveryOutcome:
        """Keep it, and tell what it was."""
        self.reached.set()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if any(each.key == delivery.key for each in self.kept):
            return DeliveryOutcome.DUPLICATE
        self.kept.append(delivery)
        return DeliveryOutcome.QUARANTINED if delivery.quarantine else DeliveryOutcome.ACCEPTED

    async def observe(self, snapshot: Snapshot) -> SnapshotResult:
        """Take nothing: no poller is here."""
        del snapshot
        return SnapshotResult(0, frozenset(), 0)


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
        change_counts=ChangeCounts(start, BUCKET_SECONDS, {"webhook": webhook, "polling": polling}),
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
        settled=0,
        recent=[],
    )


class MemoryView:
    """Shows what a test puts into it. While `database_up` is false only what needs no database; while `gate` is clear, nothing.

    `untold`: a value in the table cannot be shown.
    """

    def __init__(self) -> None:
        self.table: list[dict[str, object]] = []
        self.noted: list[tuple[int, int]] = []
        self.asked = 0
        self.database_up = True
        self.untold = False
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
            subscriptions={"peopleStageUpdated": "active", "peopleCreated": "active", "peopleDeleted": "active"},
            completeness=Completeness(0.99987, 202_113, NOW - timedelta(hours=31)),
        )
        self.day = story()
        self.hour = ChangeCounts(NOW.replace(second=0) - timedelta(hours=1), 60, {"webhook": [0] * 60 + [3], "polling": [1] + [0] * 60})

    def unready(self) -> str | None:
        """Give why not."""
        return self.reason_unready

    def health(self) -> Health:
        """Give the document."""
        return self.shown

    async def overview(self, hours: int) -> Overview:
        """Give the day or its last hour, with the newest rows."""
        await self._answer()
        shown = self.day if hours == 24 else dataclasses.replace(self.day, change_counts=self.hour)
        return dataclasses.replace(shown, settled=self._last(), recent=[_shown(each) for each in self.table[:-51:-1]])

    async def settled(self) -> int:
        """Give the last id: here nobody is ever at work."""
        await self._answer()
        return self._last()

    async def changes(self, after: int, limit: int) -> Sequence[ShownRow]:
        """Give rows above that id."""
        await self._answer()
        return [_shown(each) for each in self.table if _id(each) > after][:limit]

    async def rows(self, ids: Sequence[int]) -> Sequence[ShownRow]:
        """Give these rows."""
        await self._answer()
        return [_shown(each) for each in self.table if _id(each) in ids]

    async def last_correction(self) -> int:
        """Give the number of the last."""
        await self._answer()
        return max((number for number, _ in self.noted), default=0)

    async def corrections(self, after: int, limit: int) -> Sequence[tuple[int, int]]:
        """Give corrections above that number."""
        await self._answer()
        return sorted(noted for noted in self.noted if noted[0] > after)[:limit]

    def _last(self) -> int:
        return max((_id(each) for each in self.table), default=0)

    async def _answer(self) -> None:
        self.asked += 1
        await self.gate.wait()
        if self.untold:
            raise Malformed("the database cannot hold this: DatetimeFieldOverflowError")
        if not self.database_up:
            raise Unavailable("no database here")


def _id(row: Mapping[str, object]) -> int:
    return int(str(row["id"]))


def _shown(row: Mapping[str, object]) -> ShownRow:
    return ShownRow(_id(row), json.dumps(row, default=str))


class House:
    """A running server with what it was built of."""

    def __init__(self, *, token: str | None = None, limits: Limits | None = None, keys: Sequence[bytes] = (KEY,)) -> None:
        self.ingestor = MemoryInbox()
        self.view = MemoryView()
        self.metrics = Metrics(CollectorRegistry())
        self.server = Server(
            ingestor=self.ingestor,
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

    @property
    def port(self) -> int:
        """Its port."""
        return self.server.port

    def record(self, row: dict[str, object]) -> None:
        """Commit a row, as this process does."""
        self.view.table.append(row)
        self.server.changed()

    def correct(self, row: dict[str, object], *, noted: bool = True) -> None:
        """Commit another form of a row that stands."""
        at = next(at for at, each in enumerate(self.view.table) if each["id"] == row["id"])
        self.view.table[at] = row
        if noted:
            self.view.noted.append((len(self.view.noted) + 1, _id(row)))
        self.server.changed([] if noted else [_id(row)])

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
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(house.server.follow(over))
        try:
            yield house
        finally:
            over.set()
            await house.server.stop(within_seconds=1)
