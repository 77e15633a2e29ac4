"""What the daemon knows of itself, for the read-only routes: the health document and the overview of the status page."""

from __future__ import annotations

from datetime import datetime

from fubd import __version__
from fubd.client import FubClient
from fubd.client.rate_limit import DEFAULT_WINDOW_SECONDS
from fubd.monitor import Monitor
from fubd.poller import Poller
from fubd.ports import Clock
from fubd.server import SPANS, ApiBudget, ChangeCounts, Completeness, Health, ModeChange, Overview
from fubd.store import ChangeReader, StatusReader
from fubd.subscriptions import SubscriptionManager

_RECENT_CHANGES = 20


class DaemonStatus:
    """Implements `fubd.server.StatusView`. `api_share`: FUBD_API_SHARE."""

    def __init__(
        self,
        monitor: Monitor,
        changes: ChangeReader,
        status: StatusReader,
        clock: Clock,
        *,
        client: FubClient,
        poller: Poller,
        subscriptions: SubscriptionManager,
        api_share: float,
    ) -> None:
        self._monitor = monitor
        self._changes = changes
        self._status = status
        self._clock = clock
        self._client = client
        self._poller = poller
        self._subscriptions = subscriptions
        self._api_share = api_share
        self._started_at = clock.now()

    def not_ready_reason(self) -> str | None:
        """Return why nothing can be recorded or shown yet; None once both can."""
        return self._monitor.not_ready_reason()

    def health(self) -> Health:
        """Return the health document, from memory."""
        summary = self._monitor.summary
        mode, reason, interval = self._poller.current_mode()
        return Health(
            mode=mode,
            reason=reason,
            poll_interval_seconds=interval,
            coverage=summary.coverage if summary else None,
            sources=self._monitor.sources(),
            subscriptions=self._subscriptions.statuses(),
            completeness=Completeness(summary.completeness, summary.people, summary.oldest) if summary else Completeness(None, 0, None),
            subscription_advice=self._subscriptions.advice(),
        )

    async def overview(self, hours: int) -> Overview:
        """Return what the status page shows of the last `hours` (a key of SPANS). Raises Unavailable."""
        bucket_seconds = SPANS[hours]
        # One more bucket than the hours have: the last one is still in progress.
        buckets = hours * 3600 // bucket_seconds + 1
        now = self._clock.now()
        last_bucket = now.timestamp() // bucket_seconds * bucket_seconds
        start = datetime.fromtimestamp(last_bucket - (buckets - 1) * bucket_seconds, tz=now.tzinfo)
        modes = await self._status.modes(start)
        safe_id = await self._changes.safe_id()
        summary = self._monitor.summary
        return Overview(
            now=now,
            started_at=self._started_at,
            version=__version__,
            change_counts=ChangeCounts(start, bucket_seconds, await self._changes.counts_by_source(start, bucket_seconds, buckets)),
            modes=[ModeChange(record.mode, record.reason, record.since) for record in modes],
            api=self._api_budget(),
            pending=summary.pending_refetches if summary else 0,
            quarantined=summary.quarantined if summary else 0,
            safe_id=safe_id,
            recent=await self._changes.recent(_RECENT_CHANGES),
        )

    def _api_budget(self) -> ApiBudget:
        limit, remaining = self._client.limit_and_remaining()
        return ApiBudget(limit, remaining, DEFAULT_WINDOW_SECONDS, self._api_share, self._client.calls_made())
