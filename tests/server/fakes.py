"""An ingestor and a view that live in memory, and a server on loopback built of them."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hmac
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry

from fubd.clock import SystemClock
from fubd.core.explanation import KnownPerson, PersonEvidence
from fubd.core.observation import Delivery, Snapshot
from fubd.core.vocabulary import DeliveryOutcome
from fubd.errors import Malformed, TableRefused, Unavailable
from fubd.metrics import Metrics
from fubd.ports import ChangeFilter, Committed, ShownRow, SnapshotResult, StageCounts
from fubd.problems import Problems
from fubd.server import (
    AccessControl,
    ApiBudget,
    ChangeCounts,
    Completeness,
    Day,
    EventStream,
    Health,
    HttpServer,
    ModeChange,
    Overview,
    ReadRoutes,
    ReadThrottle,
    ServerLimits,
    SourceHealth,
    WebhookHandler,
)

KEY = b"invented-system-key"
NOW = datetime(2026, 3, 1, 12, 7, 30, tzinfo=UTC)
BUCKETS = 96
BUCKET_SECONDS = 900


def sign(body: bytes, key: bytes = KEY) -> str:
    """Sign a body as Follow Up Boss does."""
    return hmac.new(key, base64.b64encode(body), "sha256").hexdigest()


def stage_event(person_id: int = 42, stage: str = "Lead", event_id: str = "e-1") -> bytes:
    """Return the body of a peopleStageUpdated webhook."""
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
    """Return a recorded change, as the table has it."""
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
        "assigned_user_name": "Alex Agent",
    } | changed


class FakeIngestor:
    """Keeps deliveries in a list. While `gate` is clear they wait, as partly recorded if `has_begun`; `failure` is raised instead."""

    def __init__(self) -> None:
        self.kept: list[Delivery] = []
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.has_begun = False
        self.asked = asyncio.Event()
        self.answers: list[asyncio.Future[DeliveryOutcome]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, delivery: Delivery) -> asyncio.Future[DeliveryOutcome]:
        """Take a delivery; the future is done once it is kept."""
        answer: asyncio.Future[DeliveryOutcome] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        task = asyncio.get_running_loop().create_task(self._keep(delivery, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return answer

    async def _keep(self, delivery: Delivery, answer: asyncio.Future[DeliveryOutcome]) -> None:
        try:
            outcome = await self.deliver(delivery)
        except (Unavailable, ArithmeticError) as error:
            if not answer.done():
                answer.set_exception(error)
        else:
            if not answer.done():
                answer.set_result(outcome)

    def is_partly_recorded(self, delivery: Delivery) -> bool:
        """Return whether every delivery that waits is partly recorded; `asked` is set."""
        del delivery
        self.asked.set()
        return self.has_begun

    async def deliver(self, delivery: Delivery) -> DeliveryOutcome:
        """Keep a delivery and return its outcome."""
        self.reached.set()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if any(each.key == delivery.key for each in self.kept):
            return DeliveryOutcome.DUPLICATE
        self.kept.append(delivery)
        return DeliveryOutcome.QUARANTINED if delivery.quarantine else DeliveryOutcome.ACCEPTED

    async def observe(self, snapshot: Snapshot) -> SnapshotResult:
        """Ignore the snapshot: there is no poller."""
        del snapshot
        return SnapshotResult(0, frozenset(), 0)


def example_day() -> Overview:
    """Return a day on which webhooks fail in the evening, polling takes over, and webhooks return in the morning."""
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
            ModeChange("failover", "a poll found 3 changes without a webhook", at(57)),
            ModeChange("recovering", "a stage webhook arrived again", at(66)),
            ModeChange("steady", "polls find nothing that webhooks missed", at(69)),
        ],
        api=ApiBudget(limit=250, remaining=231, window_seconds=10.0, share=0.8, calls=2718),
        pending=2,
        quarantined=1,
        safe_id=0,
        recent=[],
        people_url="https://acme.followupboss.com/2/people/view/",
        day=Day(
            zone="Europe/Berlin",
            started=NOW.replace(hour=0, minute=0, second=0) - timedelta(hours=1),
            stages=[StageCounts("ACQ - Offers Made", 31, 24, 140, 2), StageCounts("Lead", 12, 15, 90, 0)],
            watched=["ACQ - Offers Made"],
            agents=["Alex Agent"],
            blind=[],
            blind_seconds=0.0,
        ),
    )


class FakeView:
    """The status and the table of a daemon, as a test sets them.

    While `database_up` is false, every read fails; while `gate` is clear, reads wait; while `unreadable`, the table has a value that cannot
    be shown. `refusal`: what is wrong with the table. `reads` counts the reads.
    """

    def __init__(self) -> None:
        self.table: list[dict[str, object]] = []
        self.corrected: list[tuple[int, int]] = []
        self.people: dict[int, PersonEvidence] = {}
        self.reads = 0
        self.database_up = True
        self.refusal: str | None = None
        self.unreadable = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.not_ready: str | None = None
        self.document = Health(
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
        self.day = example_day()
        self.hour = ChangeCounts(NOW.replace(second=0) - timedelta(hours=1), 60, {"webhook": [0] * 60 + [3], "polling": [1] + [0] * 60})

    def not_ready_reason(self) -> str | None:
        """Return `not_ready`."""
        return self.not_ready

    def health(self) -> Health:
        """Return the document."""
        return self.document

    async def overview(self, hours: int) -> Overview:
        """Return the day or its last hour, with the newest rows."""
        await self._read()
        shown = self.day if hours == 24 else dataclasses.replace(self.day, change_counts=self.hour)
        return dataclasses.replace(shown, safe_id=self._last_id(), recent=[_shown(each) for each in self.table[:-51:-1]])

    async def safe_id(self) -> int:
        """Return the last id: there are no transactions here."""
        await self._read()
        return self._last_id()

    async def page(self, after: int, limit: int, *, up_to: int | None = None) -> Sequence[ShownRow]:
        """Return rows above an id."""
        await self._read()
        return [_shown(each) for each in self.table if _id(each) > after and (up_to is None or _id(each) <= up_to)][:limit]

    async def by_ids(self, ids: Sequence[int]) -> Sequence[ShownRow]:
        """Return these rows."""
        await self._read()
        return [_shown(each) for each in self.table if _id(each) in ids]

    async def filtered(self, chosen: ChangeFilter, *, before: int | None, limit: int) -> Sequence[ShownRow]:
        """Return the newest of the chosen rows before a row."""
        await self._read()
        wanted = {"stage_to": chosen.stage, "assigned_user_name": chosen.agent, "source": chosen.source}
        rows = [each for each in self.table if all(value is None or each.get(name) == value for name, value in wanted.items())]
        return [_shown(each) for each in reversed(rows) if before is None or _id(each) < before][:limit]

    async def find_by_name(self, text: str, limit: int) -> list[KnownPerson]:
        """Return the people of the evidence whose first name contains the text."""
        await self._read()
        return [each.person for each in self.people.values() if text.lower() in (each.person.first_name or "").lower()][:limit]

    async def evidence(self, person_id: int) -> PersonEvidence | None:
        """Return a person's evidence."""
        await self._read()
        return self.people.get(person_id)

    async def last_correction_id(self) -> int:
        """Return the id of the last correction."""
        await self._read()
        return max((correction_id for correction_id, _ in self.corrected), default=0)

    async def corrections(self, after: int, limit: int) -> Sequence[tuple[int, int]]:
        """Return corrections above an id."""
        await self._read()
        return sorted(each for each in self.corrected if each[0] > after)[:limit]

    async def news(self, after_correction: int, limit: int) -> tuple[int, Sequence[tuple[int, int]]]:
        """Return the last id and the corrections above an id."""
        return await self.safe_id(), await self.corrections(after_correction, limit)

    def _last_id(self) -> int:
        return max((_id(each) for each in self.table), default=0)

    async def _read(self) -> None:
        self.reads += 1
        await self.gate.wait()
        if self.unreadable:
            raise Malformed("the database cannot hold this: DatetimeFieldOverflowError")
        if not self.database_up:
            raise Unavailable("no database here")
        if self.refusal is not None:
            raise TableRefused(self.refusal)


def _id(row: Mapping[str, object]) -> int:
    return int(str(row["id"]))


def _shown(row: Mapping[str, object]) -> ShownRow:
    return ShownRow(_id(row), json.dumps(row, default=str))


class ServerUnderTest:
    """A server with the fakes it was built of."""

    def __init__(self, *, token: str | None = None, limits: ServerLimits | None = None, keys: Sequence[bytes] = (KEY,)) -> None:
        self.ingestor = FakeIngestor()
        self.view = FakeView()
        self.metrics = Metrics(CollectorRegistry())
        limits = limits or ServerLimits()
        clock, throttle = SystemClock(), ReadThrottle(limits)
        self.problems = Problems(clock, self.metrics)
        self.webhook_handler = WebhookHandler(
            ingestor=self.ingestor, keys=keys, metrics=self.metrics, problems=self.problems, clock=clock, fub_now=lambda: NOW, limits=limits
        )
        self.stream = EventStream(self.view, throttle, clock, limits)
        routes = ReadRoutes(
            view=self.view,
            changes=self.view,
            people=self.view,
            dedup_window=timedelta(minutes=5),
            throttle=throttle,
            stream=self.stream,
            registry=self.metrics.registry,
            access=AccessControl(token=token, metrics=self.metrics, clock=clock, limits=limits),
            limits=limits,
        )
        self.http = HttpServer(
            webhook_handler=self.webhook_handler, read_routes=routes, stream=self.stream, metrics=self.metrics, limits=limits
        )

    @property
    def url(self) -> str:
        """Return the base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """Return the port it listens on."""
        return self.http.port

    def record(self, row: dict[str, object]) -> None:
        """Commit a row, as this process does."""
        self.view.table.append(row)
        self.stream.on_commit(Committed())

    def correct(self, row: dict[str, object], *, noted: bool = True) -> None:
        """Commit a new version of a row, with or without a correction in the database."""
        index = next(index for index, each in enumerate(self.view.table) if each["id"] == row["id"])
        self.view.table[index] = row
        if noted:
            self.view.corrected.append((len(self.view.corrected) + 1, _id(row)))
        self.stream.on_commit(Committed(updated=[] if noted else [_id(row)]))

    def counted(self, outcome: str) -> float:
        """Return how many deliveries the metrics count under an outcome."""
        return self.metrics.registry.get_sample_value("fubd_webhook_deliveries_total", {"outcome": outcome}) or 0.0

    def acknowledged(self) -> float:
        """Return how many answers the histogram has."""
        return self.metrics.registry.get_sample_value("fubd_webhook_ack_seconds_count") or 0.0

    def is_balanced(self) -> bool:
        """Return whether every answer has exactly one outcome, in the plain counts and in the metrics."""
        handler = self.webhook_handler
        outcomes = sum(handler.outcomes.values())
        counted = sum(self.counted(outcome) for outcome in handler.outcomes)
        return handler.answered == outcomes == counted == self.acknowledged()


@asynccontextmanager
async def running_server(
    *, token: str | None = None, limits: ServerLimits | None = None, keys: Sequence[bytes] = (KEY,), port: int = 0
) -> AsyncIterator[ServerUnderTest]:
    """Run a server on loopback."""
    server = ServerUnderTest(token=token, limits=limits, keys=keys)
    await server.http.start(port=port, host="127.0.0.1")
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(server.stream.run(stop))
        try:
            yield server
        finally:
            stop.set()
            await server.http.stop(within_seconds=1)
