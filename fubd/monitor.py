"""What is known right now, for those who look: the health document, the status page, and the gauges that come from the database.

It looks at the database every few seconds and answers from memory between, so `/health` and `/metrics` are there while the database is not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from fubd.core.delivery_attempts import Others, Tally, attempts_within
from fubd.core.freshness import source_status
from fubd.core.vocabulary import HEALTHY, SOURCES, STALE
from fubd.errors import Unavailable
from fubd.metrics import Metrics
from fubd.ports import Clock
from fubd.server import SPANS, ApiBudget, ChangeCounts, Completeness, Health, ModeChange, Overview, SourceHealth
from fubd.store import ChangeReader, Maintenance, StatusReader
from fubd.store.status import StatusSummary

_log = logging.getLogger("fubd.monitor")

_LOOK_SECONDS = 5.0
_CHAIN_SECONDS = 60.0
# In a very large table a look at the whole chain takes its time: it is to cost the database one part in fifty at most.
_CHAIN_SHARE = 0.02
_HERE_SECONDS = 60.0
_TURNS_TO_ANSWER = 3
_EARLY_KEPT = 100_000
_PRUNE_SECONDS = 3600.0
_PRUNE_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class StaleAfter:
    """When a source is called stale, in seconds of silence."""

    webhook: float
    polling: float


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    """The door's own counts: requests answered, those by outcome, and deliveries answered 200 that were new.

    `failures`: answers by which FUB sees a delivery of its own fail; `taken`: those by which it sees one taken.
    """

    answered: int
    outcomes: int
    new: int
    failures: int
    taken: int


class Monitor:
    """Knows the state of the house; satisfies `fubd.server.StatusView`.

    `answered` gives the door's counts, `stored_unanswered` how many deliveries were stored after their sender had been refused.
    `failing`: whether nothing can be recorded now. `keep_days`: FUBD_KEEP_DELIVERIES_DAYS.
    """

    def __init__(
        self,
        changes: ChangeReader,
        status: StatusReader,
        maintenance: Maintenance,
        clock: Clock,
        metrics: Metrics,
        *,
        stale_after: StaleAfter,
        keep_days: float,
        version: str,
        api: Callable[[], ApiBudget],
        answered: Callable[[], DeliveryCounts],
        stored_unanswered: Callable[[], int],
        pending: Callable[[], int],
        failing: Callable[[], bool],
        mode: Callable[[], tuple[str, str, float | None]],
        subscriptions: Callable[[], Mapping[str, str]],
        advice: Callable[[], Mapping[str, str]],
    ) -> None:
        self._changes = changes
        self._status = status
        self._maintenance = maintenance
        self._clock = clock
        self._metrics = metrics
        self._stale_after = stale_after
        self._keep_days = keep_days
        self._version = version
        self._api = api
        self._answered = answered
        self._stored_unanswered = stored_unanswered
        self._pending = pending
        self._failing = failing
        self._mode = mode
        self._subscriptions = subscriptions
        self._advice = advice
        self._known: StatusSummary | None = None
        self._pruned = 0
        self._started_at = clock.now()
        self._not_ready: str | None = "the database has not answered yet"
        self._look_now = asyncio.Event()
        self._chain_due = self._prune_due = self._here_due = clock.monotonic()
        self._chain_said = False
        self._tally = Tally()
        self._tallied = DeliveryCounts(0, 0, 0, 0, 0)
        self._others: Others | None = None
        self._early: list[datetime] = []
        self._nobody_here_since: datetime | None = None

    # --- what the root tells ---

    def ready(self, reason: str | None) -> None:
        """Note why we cannot record yet; None once we can."""
        self._not_ready = reason

    def refresh_soon(self) -> None:
        """Look at the database soon: something changed that people wait to see."""
        self._look_now.set()

    def on_new_delivery(self, created: datetime) -> None:
        """Note that a delivery of an event of `created` (our clock) arrived for the first time."""
        if created < self._started_at and len(self._early) < _EARLY_KEPT:
            self._early.append(created)

    # --- loops ---

    async def look(self, stop: asyncio.Event) -> None:
        """Look at the database every few seconds, at the chain every minute, at what is too old every hour."""
        while True:
            self._look_now.clear()
            try:
                before = self._answered()
                self._show(await self._status.summary())
                await self._balance(before)
                await self._keep_answers()
                self._metrics.foreign_rows.inc(await self._maintenance.count_foreign_rows())
                await self._prune()
            except Unavailable:
                self._metrics.db_up.set(0)
            else:
                await self._check_chain()
            self._show_freshness()
            self._show_failures()
            await self._clock.pause(_LOOK_SECONDS, stop, self._look_now)
            if stop.is_set():
                return

    async def _prune(self) -> None:
        now = self._clock.monotonic()
        if now >= self._prune_due:
            pruned = await self._maintenance.prune(older_than_days=self._keep_days, limit=_PRUNE_BATCH)
            self._pruned += pruned.own
            self._prune_due = now + (_LOOK_SECONDS if pruned.removed == _PRUNE_BATCH else _PRUNE_SECONDS)

    async def _check_chain(self) -> None:
        """Look at the whole chain; that it takes too long for the database's limits is no outage, but it is said."""
        began = self._clock.monotonic()
        if began < self._chain_due:
            return
        try:
            self._metrics.chain_violations.set(await self._maintenance.count_chain_violations())
            self._chain_said = False
        except Unavailable as error:
            if not self._chain_said:
                _log.warning("Whether each row follows from the row before could not be checked: %s", error)
            self._chain_said = True
        took = self._clock.monotonic() - began
        self._chain_due = began + max(_CHAIN_SECONDS, took / _CHAIN_SHARE)

    async def _keep_answers(self) -> None:
        """Keep how Follow Up Boss's attempts went, whenever that changed and every minute, by which others see that we were here."""
        self._count_answers()
        now = self._clock.monotonic()
        if self._others is None or self._tally.changed() or now >= self._here_due:
            hours = self._tally.unkept(self._clock.now())
            others = await self._status.exchange_delivery_attempts(hours, self._clock.now())
            self._tally.kept(hours)
            self._here_due = now + _HERE_SECONDS
            if self._others is None:
                self._nobody_here_since = others.until
            self._others = others
        early, self._early = self._early, []
        if self._nobody_here_since is not None:
            for created in early:
                for attempt in attempts_within(created, self._nobody_here_since, self._started_at):
                    self._tally.add(attempt, failed=1)

    def _count_answers(self) -> None:
        door, before = self._answered(), self._tallied
        self._tally.add(self._clock.now(), failed=door.failures - before.failures, taken=door.taken - before.taken)
        self._tallied = door

    def _show_failures(self) -> None:
        self._count_answers()
        self._metrics.webhook_failure_ratio.set(self._tally.ratio(self._clock.now(), self._others or Others(0, 0, None)))

    def _show(self, known: StatusSummary) -> None:
        self._known = known
        metrics = self._metrics
        # A database that is full or a standby can be read, and takes nothing.
        metrics.db_up.set(0 if self._failing() else 1)
        metrics.inbox_pending.set(known.hints)
        metrics.quarantined.set(known.quarantined)
        if known.coverage is not None:
            metrics.coverage.set(known.coverage.timestamp())
        if known.completeness is not None:
            metrics.completeness_ratio.set(known.completeness)
        if known.oldest is not None:
            metrics.scrub_oldest.set(known.oldest.timestamp())
        for source, change in (("webhook", known.webhook_change), ("polling", known.polling_change)):
            if change is not None:
                metrics.source_last_change.labels(source).set(change.timestamp())
        self._show_freshness()

    async def _balance(self, before: DeliveryCounts) -> None:
        """Hold answers against outcomes and rows, at a moment when none was under way."""
        if self._known is None or self._pending() > 0:
            return
        # What was committed a moment ago is answered in the next turns of the loop.
        for _ in range(_TURNS_TO_ANSWER):
            await asyncio.sleep(0)
        door = self._answered()
        if door == before:
            kept = self._known.own_deliveries + self._pruned - self._stored_unanswered()
            self._metrics.ledger_imbalance.set((door.answered - door.outcomes) + (door.new - kept))

    def _show_freshness(self) -> None:
        for source, health in self._sources().items():
            self._metrics.source_healthy.labels(source).set(1 if health.status == HEALTHY else 0)
            if health.last_heard is not None:
                self._metrics.source_last_heard.labels(source).set(health.last_heard.timestamp())

    # --- the view ---

    def not_ready_reason(self) -> str | None:
        """Give why we cannot record yet, or do not know yet what the gauges are to show."""
        if self._not_ready is None and self._known is None:
            return "the database has not been read yet"
        return self._not_ready

    def health(self) -> Health:
        """Give the health document from memory."""
        known = self._known
        mode, reason, interval = self._mode()
        return Health(
            mode=mode,
            reason=reason,
            poll_interval_seconds=interval,
            coverage=known.coverage if known else None,
            sources=self._sources(),
            subscriptions=self._subscriptions(),
            completeness=Completeness(known.completeness, known.people, known.oldest) if known else Completeness(None, 0, None),
            subscription_advice=self._advice(),
        )

    def _sources(self) -> dict[str, SourceHealth]:
        known = self._known
        if known is None:
            return {source: SourceHealth(STALE[source], None, None, 0) for source in SOURCES}
        webhook = self._source_status("webhook", known.webhook_heard, self._stale_after.webhook)
        polling = self._source_status("polling", known.polling_heard, self._stale_after.polling)
        return {
            "webhook": SourceHealth(webhook, known.webhook_heard, known.webhook_change, known.webhook_today),
            "polling": SourceHealth(polling, known.polling_heard, known.polling_change, known.polling_today),
        }

    def _source_status(self, source: str, heard: datetime | None, stale_after_seconds: float) -> str:
        return source_status(source, heard, self._clock.now(), stale_after_seconds=stale_after_seconds)

    async def overview(self, hours: int) -> Overview:
        """Give what the status page shows of the last so many hours. Raises Unavailable."""
        bucket_seconds = SPANS[hours]
        # One more than the hours have, for the last is the one that is still under way.
        buckets = hours * 3600 // bucket_seconds + 1
        now = self._clock.now()
        edge = now.timestamp() // bucket_seconds * bucket_seconds
        start = datetime.fromtimestamp(edge - (buckets - 1) * bucket_seconds, tz=now.tzinfo)
        modes = await self._status.modes(start)
        safe_id = await self._changes.safe_id()
        known = self._known
        return Overview(
            now=now,
            started_at=self._started_at,
            version=self._version,
            change_counts=ChangeCounts(start, bucket_seconds, await self._changes.counts_by_source(start, bucket_seconds, buckets)),
            modes=[ModeChange(record.mode, record.reason, record.since) for record in modes],
            api=self._api(),
            pending=known.hints if known else 0,
            quarantined=known.quarantined if known else 0,
            safe_id=safe_id,
            recent=await self._changes.recent(20),
        )
