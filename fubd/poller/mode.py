"""Decide the mode from the evidence of polls, webhooks and subscriptions, and record each change of it.

The decision itself is the pure function `fubd.core.pacing.pace`. This class gathers its evidence, stores its result and shows it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from fubd.core.pacing import Freshness, Mode, Pace, before_first_poll, pace, resume, with_failure
from fubd.core.stored_state import ModeRecord
from fubd.core.subscriptions import SubscriptionsReport
from fubd.errors import Unavailable
from fubd.poller.blind_time import BlindTimeCounter
from fubd.poller.context import PollContext
from fubd.ports import Lease

_log = logging.getLogger("fubd.poller")


class CurrentMode(NamedTuple):
    """The mode as shown: its name, the reason in words, and the delay until the next poll."""

    mode: str
    reason: str
    delay_seconds: float


@dataclass(slots=True)
class _Evidence:
    """What was gathered since the last decision; a decision that could not be stored leaves it for the next.

    `polled_from`: when (our clock) a complete poll began. `delay_elapsed`: that poll came after the whole delay. `found_broken`: what a
    check found wrong with the subscriptions, repaired since or not.
    """

    missed: frozenset[int] = frozenset()
    found_broken: str | None = None
    polled_from: datetime | None = None
    delay_elapsed: bool = False


class ModeController:
    """Holds the mode. `jitter` returns numbers in [0, 1); `on_mode_change` is called with each stored change and its evidence."""

    def __init__(
        self,
        context: PollContext,
        *,
        lease: Lease,
        jitter: Callable[[], float],
        on_mode_change: Callable[[ModeRecord, Mapping[str, object]], None] | None = None,
    ) -> None:
        self._context = context
        self._policy = context.policy.pacing
        self._lease = lease
        self._jitter = jitter
        self._on_mode_change = on_mode_change
        self._blind_time = BlindTimeCounter(context.metrics, self._policy)
        self._pace: Pace | None = None
        self._report = SubscriptionsReport(())
        self._polling_failed_since: datetime | None = None
        self._started = context.clock.monotonic()
        self._stored_reason = ""
        self._evidence = _Evidence()
        self.polls_in_mode = 0
        self.current = CurrentMode(Mode.STARTING.value, "nothing is known yet", 0.0)

    @property
    def is_failover(self) -> bool:
        """Whether webhooks are known to fail."""
        return self._pace is not None and self._pace.mode is Mode.FAILOVER

    @property
    def is_watch(self) -> bool:
        """Whether webhooks are silent, so that the next one ends the mode."""
        return self._pace is not None and self._pace.mode is Mode.WATCH

    async def follow(self) -> None:
        """Show the mode that the leader decided; `restore` continues from it when this instance becomes the leader."""
        self._pace = None
        with suppress(Unavailable):
            record = await self._context.state.last_mode()
            if record is not None:
                self._show(record.mode, record.reason, record.delay_seconds)

    async def restore(self) -> None:
        """Continue in the stored mode; on a fresh database decide the first. Raises Unavailable."""
        if self._pace is not None:
            return
        self._blind_time.resume(await self._context.state.last_heard())
        record = await self._context.state.last_mode()
        self.polls_in_mode = 0
        self._evidence = _Evidence()
        restored = None
        if record is not None:
            restored = resume(record.mode, record.reason, record.delay_seconds, record.since, record.hysteresis)
        if restored is None:
            await self.decide()
        else:
            self._pace, self._stored_reason = restored, restored.reason
            self._show(restored.mode.value, before_first_poll(restored.reason), restored.delay_seconds)

    def on_subscriptions_checked(self, report: SubscriptionsReport) -> None:
        """Add a report on our webhook subscriptions to the evidence."""
        self._report = report
        self._evidence.found_broken = report.was_broken or self._evidence.found_broken

    def on_poll_complete(self, began: datetime) -> None:
        """Add a complete poll that began at this instant (our clock) to the evidence."""
        self.polls_in_mode += 1
        self._evidence.polled_from = began
        self._polling_failed_since = None

    def on_poll_failed(self, began: datetime) -> None:
        """Add a poll that began at this instant (our clock) and was not complete to the evidence."""
        since = self._polling_failed_since = self._polling_failed_since or began
        # The database may be away too, so that no decision can be stored.
        self.current = self.current._replace(reason=with_failure(self.current.reason, since, self._policy.zone))

    def on_delay_elapsed(self) -> None:
        """Note that the whole delay passed before the next poll."""
        self._evidence.delay_elapsed = True

    async def decide(self) -> Pace:
        """Decide the mode from all evidence, store it and show it. Raises Unavailable."""
        if not self._lease.held:
            # Missed changes counted now would be lost to the instance that decides.
            raise Unavailable("another instance polls now")
        state, evidence = self._context.state, self._evidence
        heard, coverage = await state.last_heard(), await state.coverage()
        missed = await state.missed_changes(fub_now=self._context.api.fub_now(), missed_after_seconds=self._policy.missed_after_seconds)
        self._context.metrics.missed_by_webhook.inc(len(missed - evidence.missed))
        evidence.missed |= missed
        now = self._context.clock.now()
        before = self._pace
        freshness = Freshness(
            has_baseline=coverage.watermark is not None and before is not None,
            webhook_heard=heard.webhook_received,
            stage_webhook_heard=heard.stage_webhook_received,
            missed=len(evidence.missed),
            # Each was so old when it was counted.
            missed_before_start=self._context.clock.monotonic() - self._started <= self._policy.missed_after_seconds,
            broken=evidence.found_broken or self._report.is_broken,
            repaired=self._report.is_broken is None,
            waited_full_delay=evidence.delay_elapsed and evidence.polled_from is not None,
            polling_failed_since=self._polling_failed_since,
        )
        decided = pace(before, freshness, now, self._policy, self._jitter())
        self._blind_time.update(heard, now, pace=before, polled_from=evidence.polled_from)
        if before is None or decided.mode is not before.mode:
            await self._store_change(before, decided, freshness)
        else:
            await self._store_course(before, decided)
        self._pace = decided
        self._evidence = _Evidence()
        self._show(decided.mode.value, decided.reason, decided.delay_seconds)
        return decided

    async def _store_course(self, before: Pace, decided: Pace) -> None:
        """Store how the mode continues, where that differs. The stored reason stays why it began, with what now holds for polling."""
        reason, missed = with_failure(self._stored_reason, self._polling_failed_since, self._policy.zone), self._evidence.missed
        course = (reason, decided.delay_seconds, decided.hysteresis)
        if missed or course != (self._stored_reason, before.delay_seconds, before.hysteresis):
            await self._context.state.update_mode(*course, missed=missed)
            self._stored_reason = reason

    async def _store_change(self, before: Pace | None, decided: Pace, freshness: Freshness) -> None:
        evidence: dict[str, object] = {
            "before": None if before is None else before.mode.value,
            "missed": freshness.missed,
            "subscriptions": self._report.statuses(),
            "broken": freshness.broken,
            "webhook_heard": _isoformat(freshness.webhook_heard),
            "stage_webhook_heard": _isoformat(freshness.stage_webhook_heard),
        }
        record = ModeRecord(decided.mode.value, decided.reason, decided.delay_seconds, decided.since, decided.hysteresis)
        await self._context.state.insert_mode(record, evidence=evidence, missed=self._evidence.missed)
        self._stored_reason = record.reason
        self.polls_in_mode = 0
        self._context.metrics.mode_changes.labels(decided.mode.value).inc()
        pace = f"within {decided.delay_seconds:g} s" if decided.delay_seconds else "at once"
        _log.info("Mode %s: %s; the next poll follows %s", decided.mode.value, decided.reason, pace)
        if self._on_mode_change is not None:
            self._on_mode_change(record, evidence)

    def _show(self, mode: str, reason: str, delay_seconds: float) -> None:
        self.current = CurrentMode(mode, reason, delay_seconds)
        self._context.metrics.show_mode(mode)
        self._context.metrics.poll_interval_seconds.set(delay_seconds)


def _isoformat(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()
