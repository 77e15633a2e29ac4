"""Measures the share of Follow Up Boss's webhook attempts that failed, over the window after which it disables a webhook.

The attempts that this process answers are counted here; those of other processes come from the database. `core.delivery_attempts` explains
what can be known of attempts that no process answered.
"""

from __future__ import annotations

from datetime import datetime

from fubd.core.delivery_attempts import AttemptCounts, OtherProcesses, attempt_times
from fubd.metrics import Metrics
from fubd.ports import Clock
from fubd.server import DeliveryCounts
from fubd.store import StatusReader

# Other processes take this one for absent when it saved nothing for longer.
_SAVE_SECONDS = 60.0
_MAX_EARLY_DELIVERIES = 100_000


class FailureRatio:
    """Keeps this process's attempts and exports `fubd_webhook_failure_ratio`."""

    def __init__(self, status: StatusReader, clock: Clock, metrics: Metrics) -> None:
        self._status = status
        self._clock = clock
        self._metrics = metrics
        self._attempts = AttemptCounts()
        self._counted = DeliveryCounts()
        self._others: OtherProcesses | None = None
        self._save_due = clock.monotonic()
        self._started_at = clock.now()
        # Until this instant another process answered attempts; None when none ever did.
        self._answered_until: datetime | None = None
        self._early_deliveries: list[datetime] = []

    def on_new_delivery(self, created: datetime) -> None:
        """Note that a delivery arrived for the first time whose event was created at `created` (our clock)."""
        if created < self._started_at and len(self._early_deliveries) < _MAX_EARLY_DELIVERIES:
            self._early_deliveries.append(created)

    def update(self, counts: DeliveryCounts) -> None:
        """Count the attempts answered since the last update, and export the ratio."""
        now, before = self._clock.now(), self._counted
        self._attempts.add(now, failed=counts.failures - before.failures, accepted=counts.accepted - before.accepted)
        self._counted = counts
        if self._others is None and counts == DeliveryCounts():
            # Nothing is known yet: neither ours nor those of the processes before.
            return
        self._metrics.webhook_failure_ratio.set(self._attempts.failure_ratio(now, self._others or OtherProcesses(0, 0, None)))

    async def exchange(self) -> None:
        """Save this process's attempts when they changed, and every minute; read those of other processes. Raises Unavailable."""
        now = self._clock.monotonic()
        if self._others is None or self._attempts.has_unsaved() or now >= self._save_due:
            hours = self._attempts.unsaved(self._clock.now())
            others = await self._status.exchange_delivery_attempts(hours, self._clock.now())
            self._attempts.mark_saved(hours)
            self._save_due = now + _SAVE_SECONDS
            if self._others is None:
                self._answered_until = others.until
            self._others = others
        self._count_unanswered()

    def _count_unanswered(self) -> None:
        """Count the attempts that fell into the time between the last process and this one: they failed."""
        early, self._early_deliveries = self._early_deliveries, []
        if self._answered_until is not None:
            for created in early:
                for attempt in attempt_times(created, self._answered_until, self._started_at):
                    self._attempts.add(attempt, failed=1)
