"""What the daemon knows of itself, for the read-only routes: the health document and the overview of the status page."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta

from fubd import __version__
from fubd.account import AccountGuard
from fubd.client import FubClient
from fubd.client.rate_limit import DEFAULT_WINDOW_SECONDS
from fubd.core.links import people_url
from fubd.core.pacing import while_not_recording
from fubd.core.problems import ProblemName
from fubd.errors import Unavailable
from fubd.monitor import Monitor
from fubd.poller import Poller
from fubd.ports import BlindSpan, Clock
from fubd.problems import Problems
from fubd.server import (
    SPANS,
    AccountName,
    ApiBudget,
    ChangeCounts,
    Completeness,
    Day,
    EventStream,
    Health,
    ModeChange,
    Overview,
    ShownProblem,
)
from fubd.settings import Settings
from fubd.store import OverviewReader, OverviewSpan, StoredOverview
from fubd.subscriptions import SubscriptionManager

_RECENT_CHANGES = 20
# A page asks every 30 s, and at once when the stream brings something.
_SHARED_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class _Shared:
    """A read that pages share. `span`: as it was asked for; `version`: what was recorded, and the mode, when it began."""

    span: OverviewSpan
    version: Hashable
    reading: asyncio.Task[StoredOverview]


class SharedOverview:
    """Reads the overview once for all pages that ask within a few seconds, unless something was recorded or the mode changed since."""

    def __init__(self, reader: OverviewReader, stream: EventStream) -> None:
        self._reader = reader
        self._stream = stream
        self._shared: dict[int, _Shared] = {}

    async def read(self, span: OverviewSpan, *, mode: str) -> StoredOverview:
        """Return the overview of a span. Raises Unavailable."""
        version = (self._stream.version, mode)
        shared = self._shared.get(span.buckets)
        if shared is None or shared.version != version or not _is_recent(shared, span):
            reading = asyncio.create_task(self._reader.read(span, recent=_RECENT_CHANGES))
            shared = self._shared[span.buckets] = _Shared(span, version, reading)
        try:
            return await asyncio.shield(shared.reading)
        except Unavailable:
            self._shared.pop(span.buckets, None)
            raise


def _is_recent(shared: _Shared, span: OverviewSpan) -> bool:
    """Return whether the read is of the same buckets and days, and a few seconds old at most."""
    age = (span.now - shared.span.now).total_seconds()
    return 0 <= age < _SHARED_SECONDS and replace(span, now=shared.span.now) == shared.span


class DaemonStatus:
    """Implements `fubd.server.StatusView`."""

    def __init__(
        self,
        monitor: Monitor,
        overview: SharedOverview,
        clock: Clock,
        *,
        client: FubClient,
        account: AccountGuard,
        poller: Poller,
        subscriptions: SubscriptionManager,
        problems: Problems,
        settings: Settings,
    ) -> None:
        self._monitor = monitor
        self._overview = overview
        self._clock = clock
        self._client = client
        self._account = account
        self._poller = poller
        self._subscriptions = subscriptions
        self._problems = problems
        self._settings = settings
        self._started_at = clock.now()

    def not_ready_reason(self) -> str | None:
        """Return why nothing can be recorded or shown yet; None once both can."""
        return self._monitor.not_ready_reason()

    def health(self) -> Health:
        """Return the health document, from memory."""
        summary = self._monitor.summary
        mode, reason, interval = self._poller.current_mode()
        account, problems = self._account.known, self._problems.current()
        outage = next((problem for problem in problems if problem.name is ProblemName.NOT_RECORDING), None)
        return Health(
            mode=mode,
            reason=reason if outage is None else while_not_recording(reason, outage.since, self._settings.zone()),
            poll_interval_seconds=interval,
            coverage=summary.coverage if summary else None,
            sources=self._monitor.sources(),
            subscriptions=self._subscriptions.statuses(),
            completeness=Completeness(summary.completeness, summary.people, summary.oldest) if summary else Completeness(None, 0, None),
            subscription_advice=self._subscriptions.advice(),
            database=self._monitor.database_health(),
            account=AccountName(account.id, account.name) if account else AccountName(None, None),
            problems=[ShownProblem(problem.name, problem.since, problem.text) for problem in problems],
            as_of=self._monitor.as_of,
        )

    async def overview(self, hours: int) -> Overview:
        """Return what the status page shows of the last `hours` (a key of SPANS). Raises Unavailable."""
        bucket_seconds = SPANS[hours]
        # One more bucket than the hours have: the last one is still in progress.
        buckets = hours * 3600 // bucket_seconds + 1
        now = self._clock.now()
        last_bucket = now.timestamp() // bucket_seconds * bucket_seconds
        start = datetime.fromtimestamp(last_bucket - (buckets - 1) * bucket_seconds, tz=now.tzinfo)
        today, yesterday, week = self._days(now)
        found = await self._overview.read(
            OverviewSpan(start, bucket_seconds, buckets, now, today, yesterday, week, self._started_at), mode=self._poller.current_mode()[0]
        )
        summary = self._monitor.summary
        return Overview(
            now=now,
            started_at=self._started_at,
            version=__version__,
            change_counts=ChangeCounts(start, bucket_seconds, found.counts),
            modes=[ModeChange(record.mode, record.reason, record.since) for record in found.modes],
            api=self._api_budget(),
            pending=summary.pending_refetches if summary else 0,
            quarantined=summary.quarantined if summary else 0,
            safe_id=found.safe_id,
            recent=found.recent,
            people_url=people_url(self._account.known.domain if self._account.known else None),
            day=self._day(today, start, found),
        )

    def _days(self, now: datetime) -> tuple[datetime, datetime, datetime]:
        """Return when the present day of the office, the day before it and the last seven days began."""
        zone = self._settings.zone()
        local = now.astimezone(zone)
        # Arithmetic on local dates, not on instants: a day may have 23 or 25 hours.
        today, yesterday, week = (datetime.combine(local.date() - timedelta(days=days), time(), zone) for days in (0, 1, 6))
        return today, yesterday, week

    def _day(self, today: datetime, since: datetime, found: StoredOverview) -> Day:
        """Return what the page says of the present day, and the blind times since `since`."""
        # An absence that lasts is known to this process only.
        lasting = self._monitor.current_gap()
        return Day(
            zone=self._settings.timezone,
            started=today,
            stages=found.stages,
            watched=self._settings.alert_stages,
            agents=found.agents,
            blind=[span for span in found.blind or () if span.until > since],
            blind_seconds=None if found.blind is None else _seconds_since(today, found.blind),
            absences=found.absences if lasting is None else [*found.absences, lasting],
        )

    def _api_budget(self) -> ApiBudget:
        limit, remaining = self._client.limit_and_remaining()
        return ApiBudget(limit, remaining, DEFAULT_WINDOW_SECONDS, self._settings.api_share, self._client.calls_made())


def _seconds_since(start: datetime, spans: Sequence[BlindSpan]) -> float:
    """Return how long the spans last, as far as they lie after `start`."""
    return sum(max(0.0, (span.until - max(span.since, start)).total_seconds()) for span in spans)
