"""Count blind time: the time in which neither source was alive, so that a change could come and go unseen."""

from __future__ import annotations

from datetime import datetime

from fubd.core.freshness import blind_seconds, watched_until
from fubd.core.pacing import Mode, Pace, Policy
from fubd.core.stored_state import LastHeard
from fubd.metrics import Metrics


class BlindTimeCounter:
    """Adds blind time to the metric. It starts from what was heard before this process, so the time while no process ran counts."""

    def __init__(self, metrics: Metrics, policy: Policy) -> None:
        self._metrics = metrics
        self._policy = policy
        self._heard = LastHeard(None, None, None)
        self._counted_until: datetime | None = None

    def resume(self, heard: LastHeard) -> None:
        """Start where a source was last heard, by the database. When nothing was ever heard, start with the first poll."""
        self._heard = heard
        self._counted_until = max((at for at in (heard.webhook_received, heard.polling_received) if at is not None), default=None)

    def update(self, heard: LastHeard, now: datetime, *, pace: Pace | None, polled_from: datetime | None) -> None:
        """Add the blind time up to the first sign of life since the last update: a delivery, or the beginning of a complete poll."""
        if self._counted_until is not None:
            webhook = heard.webhook_received
            signs = [polled_from, webhook if webhook is not None and webhook > self._counted_until else None]
            until = min((sign for sign in signs if sign is not None), default=now)
            self._metrics.blind_seconds.inc(blind_seconds(self._counted_until, min(until, now), self._watched_until(pace)))
        if heard.polling_received is not None:
            self._counted_until = now
        self._heard = heard

    def _watched_until(self, pace: Pace | None) -> datetime | None:
        return watched_until(
            self._heard.webhook_received,
            self._heard.polling_received,
            webhooks_fail=pace is not None and pace.mode is Mode.FAILOVER,
            poll_delay_seconds=self._policy.poll_interval_seconds if pace is None else pace.delay_seconds,
            webhook_stale_after_seconds=self._policy.webhook_stale_after_seconds,
            poll_stale_after_seconds=self._policy.poll_stale_after_seconds,
        )
