"""Observes the daemon several times a second as an operator would: tables, metrics and mode."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fubd.core.freshness import source_status
from fubd.core.stored_state import ModeRecord
from fubd.demo.environment import DemoEnvironment, instant
from fubd.demo.plan import DemoPlan
from fubd.demo.view import DemoView, ModeView, Narrator, ShownChange, SourceView
from fubd.errors import Unavailable

if TYPE_CHECKING:
    from fubd.store.status import StatusSummary

_REFRESH_SECONDS = 0.2
_RECENT = 40
_PULSE_SECONDS = 240


class DaemonObserver:
    """The last known state of the daemon. `draw` is called with each new view in a thread, since a terminal may block."""

    def __init__(self, environment: DemoEnvironment, plan: DemoPlan, narrator: Narrator, draw: Callable[[DemoView], None]) -> None:
        self._environment = environment
        self._plan = plan
        self._narrator = narrator
        self._draw = draw
        self._began = datetime.now(UTC) - timedelta(seconds=narrator.seconds)
        self._last_id = 0
        self._captured: Counter[str] = Counter()
        self._pulse: dict[str, Counter[int]] = {"webhook": Counter(), "polling": Counter()}
        self._recent: list[dict[str, Any]] = []
        self._modes: list[ModeRecord] = []
        self.known: StatusSummary | None = None

    @property
    def mode(self) -> str:
        """The current mode; empty before the first."""
        return self._modes[-1].mode if self._modes else ""

    @property
    def recorded(self) -> int:
        """The number of changes in the table."""
        return self._captured.total()

    @property
    def happened(self) -> int:
        """The number of changes that happened in the account."""
        return len(self._environment.simulator.truth.changes)

    def counter(self, metric: str, **labels: str) -> int:
        """Return the value of one of the daemon's counters."""
        return int(self._environment.components.metrics.registry.get_sample_value(f"fubd_{metric}", labels) or 0)

    async def run(self) -> None:
        """Refresh and draw until cancelled."""
        while True:
            await self.refresh()
            await asyncio.to_thread(self._draw, self.view())
            await asyncio.sleep(_REFRESH_SECONDS)

    async def refresh(self) -> None:
        """Read the state once; while the database is unavailable, the last state stays."""
        components = self._environment.components
        with suppress(Unavailable):
            self.known = await components.status.summary()
            for row in await self._environment.rows(self._last_id):
                self._captured[row["source"]] += 1
                self._pulse[row["source"]][int((row["received_at"] - self._began).total_seconds())] += 1
                self._last_id = row["id"]
            self._recent = [row.to_dict() for row in await components.changes.recent(_RECENT)]
            for record in (await components.status.mode_changes_since(self._began))[len(self._modes) :]:
                self._modes.append(record)
                self._narrator.add_mode(record.mode, record.reason, record.delay_seconds)

    def view(self) -> DemoView:
        """Return the current view."""
        poll_every = self._environment.poller.current_mode().delay_seconds
        return DemoView(
            seconds=self._narrator.seconds,
            story_seconds=self._plan.story_seconds,
            url=self._environment.url,
            sources=self._sources(),
            modes=[ModeView((one.since - self._began).total_seconds(), one.mode, one.reason) for one in self._modes],
            poll_every_seconds=poll_every,
            happened=self.happened,
            recorded=self.recorded,
            confirmed=sum(self.counter("confirmations_total", source=source) for source in self._pulse),
            redelivered=self.counter("webhook_deliveries_total", outcome="duplicate"),
            missed=self.counter("missed_by_webhook_total"),
            api_calls=self._environment.components.client.calls_made(),
            recent=[_change(row) for row in self._recent],
        )

    def _sources(self) -> tuple[SourceView, SourceView]:
        settings, now = self._environment.settings, datetime.now(UTC)
        webhook = self.known.webhook_heard if self.known else None
        polling = self.known.polling_heard if self.known else None
        return (
            self._source(
                "webhook", webhook, now, settings.webhook_stale_after_seconds, fails=self.known is not None and self.known.webhooks_fail
            ),
            self._source("polling", polling, now, settings.poll_stale_after_seconds, fails=False),
        )

    def _source(self, name: str, heard: datetime | None, now: datetime, stale_after_seconds: float, *, fails: bool) -> SourceView:
        status = source_status(name, heard, now, stale_after_seconds=stale_after_seconds, fails=fails)
        ago = None if heard is None else max(0.0, (now - heard).total_seconds())
        second = int((now - self._began).total_seconds())
        pulse = [self._pulse[name][one] for one in range(max(0, second - _PULSE_SECONDS), second + 1)]
        return SourceView(name, status, ago, self._captured[name], pulse)


def _change(row: Mapping[str, Any]) -> ShownChange:
    names = (row["first_name"], row["last_name"])
    at = instant(row["changed_at"])
    return ShownChange(
        at=at or datetime.now(UTC),
        exact=row["changed_after"] is None,
        name=" ".join(name for name in names if name) or f"person {row['person_id']}",
        stage_from=row["stage_from"],
        stage_to=row["stage_to"],
        source=row["source"],
        confirmed_by=row["confirmed_by"],
    )
