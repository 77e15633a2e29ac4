"""The real ingest on a real database, and short forms of evidence, for the tests of recorded rows."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg
from prometheus_client import CollectorRegistry

from fubd.clock import SystemClock
from fubd.core.batch import RecordingRules
from fubd.core.observation import Channel, Delivery, Reading, RefetchEvent, Snapshot, StageEvent
from fubd.core.vocabulary import DeliveryOutcome
from fubd.ingest import CommitListener, Ingest
from fubd.metrics import Metrics
from fubd.ports import SnapshotResult
from fubd.problems import Problems
from fubd.store import ChangeStore, Pool, StateStore, migrate
from fubd.store.dsn import parse

Row = tuple[str | None, str, datetime, datetime | None]


def at(text: str) -> datetime:
    """Return an instant of one fixed day from `H:M` or `H:M:S`."""
    hour, minute, *second = (int(part) for part in text.split(":"))
    return datetime(2026, 1, 5, hour, minute, second[0] if second else 0, tzinfo=UTC)


def webhook(event_id: str, stage: str, when: str, people: tuple[int, ...] = (1,)) -> Delivery:
    """Return a decoded peopleStageUpdated delivery."""
    content = StageEvent(event_id, at(when), stage, people)
    return Delivery(hashlib.sha256(repr(content).encode()).digest(), b"{}", event_id, "peopleStageUpdated", content, None)


def refetch_event(event_id: str, event: str, when: str, people: tuple[int, ...] = (1,)) -> Delivery:
    """Return a decoded delivery that names no stage, so that its people are read again."""
    content = RefetchEvent(event_id, event, at(when), people)
    return Delivery(hashlib.sha256(repr(content).encode()).digest(), b"{}", event_id, event, content, None)


def read(
    stage: str,
    updated: str,
    read_at: str,
    watermark: str | None = None,
    *,
    person: int = 1,
    stage_id: int | None = None,
    created: str | None = None,
    channel: Channel = Channel.POLLING,
    first_name: str | None = "Ada",
    agent: str | None = None,
) -> Snapshot:
    """Return one person as read from the API."""
    reading = Reading(
        person,
        stage,
        stage_id,
        at(created) if created else None,
        at(updated),
        first_name,
        "Example",
        assigned_user_name=agent,
        payload={"id": person, "stage": stage},
    )
    return Snapshot((reading,), at(read_at), at(watermark) if watermark else None, channel)


@dataclass
class Recorder:
    """A running ingest, with the parts that tests read."""

    ingest: Ingest
    pool: Pool
    state: StateStore
    metrics: Metrics
    problems: Problems
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def record(self, *evidence: Delivery | Snapshot) -> list[DeliveryOutcome | SnapshotResult]:
        """Record evidence one after the other, each committed before the next. Return the outcomes."""
        return [await self._record_one(item) for item in evidence]

    async def record_concurrently(self, *evidence: Delivery | Snapshot) -> list[DeliveryOutcome | SnapshotResult]:
        """Record evidence at the same time, in this order of arrival. Return the outcomes."""
        return await asyncio.gather(*(self._record_one(item) for item in evidence))

    async def _record_one(self, item: Delivery | Snapshot) -> DeliveryOutcome | SnapshotResult:
        if isinstance(item, Delivery):
            return await self.ingest.deliver(item)
        return await self.ingest.observe(item)

    async def records(self, person: int = 1) -> list[asyncpg.Record]:
        """Return the rows of a person in order."""
        async with self.pool.reading() as connection:
            found: list[asyncpg.Record] = await connection.fetch(
                "SELECT * FROM public.stage_changes WHERE person_id = $1 ORDER BY changed_at", str(person)
            )
            return found

    async def rows(self, person: int = 1) -> list[Row]:
        """Return the columns of a person's rows that the evidence determines."""
        return [(row["stage_from"], row["stage_to"], row["changed_at"], row["changed_after"]) for row in await self.records(person)]


async def execute(database: str, statements: str) -> None:
    """Run statements as the owner of the database would."""
    connection = await asyncpg.connect(**parse(database).connect_arguments())
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


@asynccontextmanager
async def running_recorder(
    dsn: str,
    *,
    instance: str = "test",
    ignored_stages: tuple[str, ...] = (),
    columns: Mapping[str, str] | None = None,
    lead_source_tags: tuple[str, ...] = (),
    on_commit: CommitListener | None = None,
    clock_speed: float = 1.0,
) -> AsyncIterator[Recorder]:
    """Run an ingest on the database until the block ends."""
    pool = Pool(parse(dsn))
    if columns:
        async with pool.connection() as connection:
            await migrate(connection, columns=columns)
    metrics, clock = Metrics(CollectorRegistry()), SystemClock(clock_speed)
    problems = Problems(clock, metrics)
    ingest = Ingest(
        ChangeStore(pool, instance=instance, columns=columns or {}),
        clock,
        metrics,
        problems,
        rules=RecordingRules(timedelta(seconds=300), frozenset(ignored_stages), lead_source_tags),
        skew_seconds=lambda: 0.0,
        on_commit=on_commit,
    )
    recorder = Recorder(ingest, pool, StateStore(pool), metrics, problems)
    async with asyncio.TaskGroup() as group:
        group.create_task(ingest.run(recorder.stop))
        try:
            yield recorder
        finally:
            recorder.stop.set()
    await pool.close()
