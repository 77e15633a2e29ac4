"""What the daemon knows of itself, for the read-only routes: the health document and the overview of the status page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, time, timedelta

from fubd import __version__
from fubd.account import AccountGuard
from fubd.client import FubClient
from fubd.client.rate_limit import DEFAULT_WINDOW_SECONDS
from fubd.core.links import people_url
from fubd.core.pacing import while_not_recording
from fubd.core.problems import ProblemName
from fubd.monitor import Monitor
from fubd.poller import Poller
from fubd.ports import Absence, BlindSpan, Clock
from fubd.problems import Problems
from fubd.server import SPANS, AccountName, ApiBudget, ChangeCounts, Completeness, Day, Health, ModeChange, Overview, ShownProblem
from fubd.settings import Settings
from fubd.store import ChangeReader, StatusReader
from fubd.subscriptions import SubscriptionManager

_RECENT_CHANGES = 20


class DaemonStatus:
    """Implements `fubd.server.StatusView`."""

    def __init__(
        self,
        monitor: Monitor,
        changes: ChangeReader,
        status: StatusReader,
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
        self._changes = changes
        self._status = status
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
        modes = await self._status.mode_changes_since(start)
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
            people_url=people_url(self._account.known.domain if self._account.known else None),
            day=await self._day(now, start),
        )

    async def _day(self, now: datetime, since: datetime) -> Day:
        """Return what the page says of the present day, and the blind times since `since`."""
        zone = self._settings.zone()
        local = now.astimezone(zone)
        # Arithmetic on local dates, not on instants: a day may have 23 or 25 hours.
        today, yesterday, week = (datetime.combine(local.date() - timedelta(days=days), time(), zone) for days in (0, 1, 6))
        blind = await self._status.blind_spans(min(since, today), now)
        return Day(
            zone=self._settings.timezone,
            started=today,
            stages=await self._changes.stage_counts(today=today, yesterday=yesterday, week=week),
            watched=self._settings.alert_stages,
            agents=await self._changes.agents(week),
            blind=[span for span in blind or () if span.until > since],
            blind_seconds=None if blind is None else _seconds_since(today, blind),
            absences=await self._absences(since, now),
        )

    async def _absences(self, since: datetime, now: datetime) -> list[Absence]:
        """Return when fubd did not run or could not record since then; one that lasts is known to this process only."""
        noted = await self._status.absences(since, now, started_at=self._started_at)
        lasting = self._monitor.current_gap()
        return noted if lasting is None else [*noted, lasting]

    def _api_budget(self) -> ApiBudget:
        limit, remaining = self._client.limit_and_remaining()
        return ApiBudget(limit, remaining, DEFAULT_WINDOW_SECONDS, self._settings.api_share, self._client.calls_made())


def _seconds_since(start: datetime, spans: Sequence[BlindSpan]) -> float:
    """Return how long the spans last, as far as they lie after `start`."""
    return sum(max(0.0, (span.until - max(span.since, start)).total_seconds()) for span in spans)
