"""Reads the database's summary every few seconds, sets the gauges that come from it, and checks the invariants.

The last summary stays in memory, so `/health` and `/metrics` answer while the database does not.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime

from fubd.chain_check import ChainCheck
from fubd.core.freshness import is_fresh, source_status
from fubd.core.pacing import Policy
from fubd.core.problems import ProblemName
from fubd.core.text import format_count, format_duration
from fubd.core.vocabulary import HEALTHY, SOURCES, STALE
from fubd.errors import TableRefused, Unavailable
from fubd.failure_ratio import FailureRatio
from fubd.ingest import Ingest
from fubd.metrics import Metrics
from fubd.poller import CoveredInstant
from fubd.ports import Absence, Clock
from fubd.problems import Problems
from fubd.recording_health import not_recording_text
from fubd.retention import Retention
from fubd.server import DatabaseHealth, DeliveryCounts, SourceHealth, WebhookHandler
from fubd.store import Maintenance, StatusReader
from fubd.store.status import StatusSummary

_REFRESH_SECONDS = 6.0
# While the database cannot be used.
_RETRY_SECONDS = 2.0
_LOOP_TURNS_UNTIL_ANSWERED = 3
# So many of the latest deliveries may be counted again at each look.
_RECOUNTED_DELIVERIES = 200


class Monitor:
    """Refreshes gauges and invariants. `policy` says after how many seconds of silence a source is stale."""

    def __init__(
        self,
        status: StatusReader,
        maintenance: Maintenance,
        clock: Clock,
        metrics: Metrics,
        *,
        policy: Policy,
        ingest: Ingest,
        webhook_handler: WebhookHandler,
        failure_ratio: FailureRatio,
        retention: Retention,
        problems: Problems,
    ) -> None:
        self._status = status
        self._maintenance = maintenance
        self._clock = clock
        self._metrics = metrics
        self._policy = policy
        self._ingest = ingest
        self._webhook_handler = webhook_handler
        self._failure_ratio = failure_ratio
        self._retention = retention
        self._problems = problems
        self._started_at = clock.now()
        self._refresh_requested = asyncio.Event()
        # This process's deliveries that were counted once and for all.
        self._settled_deliveries = 0
        self._chain_check = ChainCheck(maintenance, clock, metrics)
        self._database_error: str | None = "the database has not answered yet"
        self._database = DatabaseHealth(recording=False, since=clock.now())
        # Where the stored coverage is ahead of Follow Up Boss's clock, the poller tells here what is covered.
        self.covered = CoveredInstant()
        self.summary: StatusSummary | None = None
        # When the summary was read.
        self.as_of: datetime | None = None

    def set_database_error(self, error: Exception | None) -> None:
        """Note why the database cannot be used now; None when it can."""
        self._database_error = None if error is None else str(error)
        if error is not None and not isinstance(error, TableRefused):
            self._metrics.db_up.set(0)
            self._problems.begin(ProblemName.NOT_RECORDING, not_recording_text(str(error)))
            return
        if self._problems.undecided(ProblemName.EMBEDDED_DATABASE_DOWN) is not None:
            self._problems.end(ProblemName.EMBEDDED_DATABASE_DOWN)
        if self._ingest.failure is None or self._ingest.failure.by_table:
            self._problems.end(ProblemName.NOT_RECORDING)

    def database_health(self) -> DatabaseHealth:
        """Return whether evidence can be recorded, and since when that is so."""
        recording = self.not_ready_reason() is None
        if recording != self._database.recording:
            self._database = DatabaseHealth(recording, self._clock.now())
        return self._database

    def current_gap(self) -> Absence | None:
        """Return the time up to now in which nothing can be recorded; None while recording works."""
        health = self.database_health()
        return None if health.recording or health.since is None else Absence("not_recording", health.since, self._clock.now())

    def not_ready_reason(self) -> str | None:
        """Return why nothing can be recorded or shown now; None while both can."""
        if self._database_error is None and self._ingest.failure is not None:
            return self._ingest.failure.reason
        if self._database_error is None and self.summary is None:
            return "the database has not been read yet"
        return self._database_error

    def refresh_soon(self) -> None:
        """Read the database soon: something changed that readers wait for."""
        self._refresh_requested.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Refresh every few seconds, and check the chain step by step, until `stop`."""
        while not stop.is_set():
            self._refresh_requested.clear()
            try:
                await self._refresh()
            except Unavailable as error:
                self.set_database_error(error)
            else:
                self.set_database_error(None)
                await self._chain_check.run_step()
            self._set_source_gauges()
            self._check_polling()
            self.database_health()
            self._failure_ratio.update(self._webhook_handler.counts())
            delay_seconds = _REFRESH_SECONDS if self._database_error is None else _RETRY_SECONDS
            await self._clock.pause(delay_seconds, stop, self._refresh_requested)

    async def _refresh(self) -> None:
        before = self._ledger()
        summary = await self._status.summary()
        self.summary = replace(summary, coverage=self.covered.limit(summary.coverage))
        self.as_of = self._clock.now()
        self._ingest.health.on_table_checked(self.summary.table_refusal)
        self._set_gauges(self.summary)
        self._check_quarantine(self.summary)
        await self._check_ledger(self.summary, before)
        self._failure_ratio.update(self._webhook_handler.counts())
        self._status.require_writable(self.summary)
        await self._failure_ratio.exchange()
        if self.summary.has_unseen_rows:
            self._metrics.foreign_rows.inc(await self._maintenance.count_foreign_rows())

    def _set_gauges(self, summary: StatusSummary) -> None:
        metrics = self._metrics
        failure = self._ingest.failure
        # A database that is full, or a standby, can be read but not written.
        metrics.db_up.set(1 if failure is None or failure.by_table else 0)
        metrics.inbox_pending.set(summary.pending_refetches)
        metrics.quarantined.set(summary.quarantined)
        if summary.completeness is not None:
            metrics.completeness_ratio.set(summary.completeness)
        for gauge, instant in ((metrics.coverage, summary.coverage), (metrics.scrub_oldest, summary.oldest)):
            if instant is not None:
                gauge.set(instant.timestamp())
        self._set_source_gauges()

    def _set_source_gauges(self) -> None:
        if self.summary is None:
            return
        for source, health in self.sources().items():
            self._metrics.source_healthy.labels(source).set(1 if health.status == HEALTHY else 0)
            self._metrics.source_last_heard.labels(source).set(_timestamp(health.last_heard))
            self._metrics.source_last_change.labels(source).set(_timestamp(health.last_change))

    def sources(self) -> dict[str, SourceHealth]:
        """Return the health of both sources as of the last look; as of now once looks fail, as nothing shows that they are heard."""
        summary = self.summary
        if summary is None:
            return {source: SourceHealth(STALE[source], None, None, 0) for source in SOURCES}
        policy = self._policy
        at = self.as_of if self.as_of is not None and self._database_error is None else self._clock.now()
        webhook = source_status(
            "webhook", summary.webhook_heard, at, stale_after_seconds=policy.webhook_stale_after_seconds, fails=summary.webhooks_fail
        )
        polling = source_status("polling", summary.polling_heard, at, stale_after_seconds=policy.poll_stale_after_seconds, fails=False)
        return {
            "webhook": SourceHealth(webhook, summary.webhook_heard, summary.webhook_change, summary.webhook_today),
            "polling": SourceHealth(polling, summary.polling_heard, summary.polling_change, summary.polling_today),
        }

    # --- problems ---

    def _check_quarantine(self, summary: StatusSummary) -> None:
        if summary.quarantined:
            kept = format_count(summary.quarantined, "delivery")
            self._problems.begin(
                ProblemName.QUARANTINE,
                f"In quarantine, unreadable as a whole or in part: {kept}. Run `python -m fubd replay` after an upgrade.",
            )
        else:
            self._problems.end(ProblemName.QUARANTINE)

    def _check_polling(self) -> None:
        """Begin `polling_stale` when no poll was complete for too long, also since the start, and end it with the next one."""
        heard = self.summary.polling_heard if self.summary else None
        since, limit = max(self._started_at, heard or self._started_at), self._policy.poll_stale_after_seconds
        if is_fresh(heard, self._clock.now(), within_seconds=limit):
            self._problems.end(ProblemName.POLLING_STALE)
        elif not is_fresh(since, self._clock.now(), within_seconds=limit):
            self._problems.begin(
                ProblemName.POLLING_STALE,
                f"No poll was complete for more than {format_duration(limit)}: what webhooks miss is not found. "
                "`python -m fubd check` says whether Follow Up Boss and the database can be reached.",
            )

    # --- invariants ---

    def _ledger(self) -> tuple[DeliveryCounts, int]:
        return self._webhook_handler.counts(), self._retention.own_removed

    async def _check_ledger(self, summary: StatusSummary, before: tuple[DeliveryCounts, int]) -> None:
        """Compare answers with outcomes and stored deliveries, if nothing was in progress since `before`."""
        if self._ingest.pending > 0 or self._retention.is_pruning:
            return
        # What was committed a moment ago is answered within the next turns of the loop.
        for _ in range(_LOOP_TURNS_UNTIL_ANSWERED):
            await asyncio.sleep(0)
        if self._ledger() == before:
            counts, removed = before
            stored = self._settled_deliveries + summary.own_deliveries + removed - self._ingest.stored_unanswered
            self._metrics.ledger_imbalance.set((counts.answered - counts.outcomes) + (counts.new - stored))
            if summary.own_deliveries > _RECOUNTED_DELIVERIES:
                self._settled_deliveries += summary.own_deliveries + removed
                self._status.count_deliveries_after(summary.last_delivery)
                self._retention.count_deliveries_after(summary.last_delivery)


def _timestamp(instant: datetime | None) -> float:
    """Return an instant as a gauge shows it: 0 stands for never."""
    return 0.0 if instant is None else instant.timestamp()
