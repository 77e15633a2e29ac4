"""The composition root: builds each part from the settings and hands it the parts that it uses."""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from prometheus_client import CollectorRegistry

from fubd import __version__
from fubd.account import AccountGuard
from fubd.client import Credentials, FubClient
from fubd.clock import SystemClock
from fubd.core.alerts import Alert, alert_document
from fubd.core.batch import RecordingRules
from fubd.core.observation import normalize_stage_name
from fubd.core.pacing import Policy
from fubd.daemon_status import DaemonStatus, SharedOverview
from fubd.daily_summary import DailySummary
from fubd.early_quarantine import EarlyQuarantine
from fubd.failure_ratio import FailureRatio
from fubd.heartbeat import Heartbeat
from fubd.ingest import CommitListener, Ingest
from fubd.lease import Lease
from fubd.metrics import Metrics
from fubd.monitor import Monitor
from fubd.notifier import Notifier
from fubd.poller import PollContext, Poller, PollPolicy, Refetcher, UnreadPeople
from fubd.ports import Clock
from fubd.problem_reports import ProblemReports
from fubd.problems import Problems
from fubd.retention import Retention, RetentionPolicy
from fubd.running_time import RunningTime
from fubd.server import AccessControl, EventStream, HttpServer, ReadRoutes, ReadThrottle, ServerLimits, WebhookHandler
from fubd.settings import Settings
from fubd.stage_list import StageList
from fubd.store import ChangeReader, ChangeStore, Dsn, Maintenance, OverviewReader, PeopleReader, Pool, StateStore, StatusReader
from fubd.store.outbox import Outbox
from fubd.store.problems import ProblemStore
from fubd.store.quarantine import Quarantine
from fubd.subscriptions import SubscriptionManager
from fubd.watchdog import Watchdog


@dataclass(frozen=True, slots=True)
class Components:
    """The parts that the daemon and the commands share. `instance` is the unique name of this process in the database."""

    settings: Settings
    clock: Clock
    metrics: Metrics
    problems: Problems
    pool: Pool
    state: StateStore
    store: ChangeStore
    changes: ChangeReader
    status: StatusReader
    maintenance: Maintenance
    client: FubClient
    account: AccountGuard
    refetch_requested: asyncio.Event
    instance: str


def build(settings: Settings, dsn: Dsn, *, clock: Clock | None = None, rng: random.Random | None = None) -> Components:
    """Build the parts that the daemon and the commands share; nothing runs yet."""
    clock = clock or SystemClock()
    metrics = Metrics(CollectorRegistry())
    metrics.build_info.labels(__version__, os.environ.get("RAILWAY_GIT_COMMIT_SHA", "")[:12]).set(1)
    instance = uuid.uuid4().hex
    pool = Pool(dsn, zone=settings.zone())
    alerting = settings.alert_url is not None
    store = ChangeStore(pool, instance=instance, columns=settings.columns, alert_stages=settings.alert_stages if alerting else ())
    client = FubClient(
        base_url=settings.fub_api_url,
        credentials=fub_credentials(settings),
        custom_fields=tuple(sorted(set(settings.columns.values()))),
        share=settings.api_share,
        clock=clock,
        metrics=metrics,
        rng=rng or random.SystemRandom(),
    )
    problems, state = Problems(clock, metrics, zone=settings.zone()), StateStore(pool, alerting=alerting)
    return Components(
        settings=settings,
        clock=clock,
        metrics=metrics,
        problems=problems,
        pool=pool,
        state=state,
        store=store,
        changes=ChangeReader(pool),
        status=StatusReader(pool, instance=instance, columns=settings.columns),
        maintenance=Maintenance(pool, instance=instance),
        client=client,
        account=AccountGuard(client, state, problems, clock),
        refetch_requested=asyncio.Event(),
        instance=instance,
    )


def build_ingest(
    components: Components, *, on_commit: CommitListener | None = None, on_new_delivery: Callable[[datetime], None] | None = None
) -> Ingest:
    """Build the part that records deliveries and snapshots."""
    settings = components.settings
    return Ingest(
        components.store,
        components.clock,
        components.metrics,
        components.problems,
        rules=RecordingRules(
            window=timedelta(seconds=settings.dedup_window_seconds),
            ignored_stages=frozenset(settings.ignore_stages),
            lead_source_tags=tuple(settings.lead_source_tags),
        ),
        skew_seconds=components.client.skew_seconds,
        refetch_requested=components.refetch_requested,
        on_commit=on_commit,
        on_new_delivery=on_new_delivery,
    )


def fub_credentials(settings: Settings) -> Credentials:
    """Return what identifies us to Follow Up Boss."""
    return Credentials(
        api_key=settings.fub_api_key.get_secret_value() if settings.fub_api_key else "",
        system=settings.fub_system,
        system_key=settings.fub_system_key.get_secret_value() if settings.fub_system_key else None,
    )


@dataclass(frozen=True, slots=True)
class DaemonComponents:
    """Every part of the daemon. `notifier` and `daily_summary` are None without FUBD_ALERT_URL, `heartbeat` without FUBD_HEARTBEAT_URL."""

    shared: Components
    ingest: Ingest
    lease: Lease
    poller: Poller
    refetcher: Refetcher
    notifier: Notifier | None
    daily_summary: DailySummary | None
    problem_reports: ProblemReports
    heartbeat: Heartbeat | None
    retention: Retention
    stage_list: StageList
    early_quarantine: EarlyQuarantine
    monitor: Monitor
    running_time: RunningTime
    stream: EventStream
    server: HttpServer
    watchdog: Watchdog


def build_daemon(shared: Components, *, poll_policy: PollPolicy | None = None) -> DaemonComponents:
    """Build the daemon on the shared parts; nothing runs yet."""
    settings, clock, metrics = shared.settings, shared.clock, shared.metrics
    pacing, limits = pacing_policy(settings), ServerLimits()
    throttle = ReadThrottle(limits)
    stream = EventStream(shared.changes, throttle, clock, limits)
    failure_ratio = FailureRatio(shared.status, clock, metrics)
    webhook_recorded = asyncio.Event()

    def on_new_delivery(created: datetime) -> None:
        failure_ratio.on_new_delivery(created)
        webhook_recorded.set()

    ingest = build_ingest(shared, on_commit=stream.on_commit, on_new_delivery=on_new_delivery)
    webhook_handler = WebhookHandler(
        ingestor=ingest,
        keys=_signing_keys(settings),
        metrics=metrics,
        problems=shared.problems,
        clock=clock,
        fub_now=shared.client.fub_now,
        limits=limits,
    )
    retention = Retention(shared.maintenance, clock, _retention_policy(settings))
    monitor = Monitor(
        shared.status,
        shared.maintenance,
        clock,
        metrics,
        policy=pacing,
        ingest=ingest,
        webhook_handler=webhook_handler,
        failure_ratio=failure_ratio,
        retention=retention,
        problems=shared.problems,
    )
    lease = Lease(shared.state, clock, metrics, holder=shared.instance)
    subscriptions = SubscriptionManager(
        shared.client,
        metrics,
        shared.problems,
        shared.state,
        clock,
        public_url=settings.public_url,
        manage=settings.manage_webhooks,
        lease=lease,
        account=shared.account,
    )
    poll_context = PollContext(
        api=shared.client,
        ingestor=ingest,
        state=shared.state,
        clock=clock,
        metrics=metrics,
        unread=UnreadPeople(shared.state, clock, metrics, shared.problems),
        policy=poll_policy or polling_policy(settings),
        covered=monitor.covered,
    )
    poller = Poller(
        poll_context,
        lease=lease,
        subscriptions=subscriptions,
        problems=shared.problems,
        webhook_recorded=webhook_recorded,
        jitter=random.SystemRandom().random,
        on_mode_change=lambda _record, _evidence: monitor.refresh_soon(),
        account=shared.account,
    )
    view = DaemonStatus(
        monitor,
        SharedOverview(OverviewReader(shared.changes), stream),
        clock,
        client=shared.client,
        account=shared.account,
        poller=poller,
        subscriptions=subscriptions,
        settings=settings,
        problems=shared.problems,
    )
    read_routes = _build_read_routes(shared, view, throttle=throttle, stream=stream, limits=limits)
    return DaemonComponents(
        shared=shared,
        ingest=ingest,
        lease=lease,
        poller=poller,
        refetcher=Refetcher(poll_context, lease=lease, refetch_requested=shared.refetch_requested),
        notifier=build_notifier(shared),
        daily_summary=_build_daily_summary(shared, lease),
        problem_reports=_build_problem_reports(shared, lease),
        heartbeat=_build_heartbeat(shared, monitor),
        retention=retention,
        stage_list=StageList(shared.client, shared.state, clock),
        early_quarantine=EarlyQuarantine(Quarantine(shared.pool), ingest, clock, latest_now=shared.client.latest_fub_now),
        monitor=monitor,
        running_time=RunningTime(monitor, shared.maintenance, clock),
        stream=stream,
        server=HttpServer(webhook_handler=webhook_handler, read_routes=read_routes, stream=stream, metrics=metrics, limits=limits),
        watchdog=Watchdog(),
    )


def _build_read_routes(
    shared: Components, view: DaemonStatus, *, throttle: ReadThrottle, stream: EventStream, limits: ServerLimits
) -> ReadRoutes:
    settings = shared.settings
    return ReadRoutes(
        view=view,
        changes=shared.changes,
        people=PeopleReader(shared.pool),
        dedup_window=timedelta(seconds=settings.dedup_window_seconds),
        throttle=throttle,
        stream=stream,
        registry=shared.metrics.registry,
        access=AccessControl(
            token=settings.metrics_token.get_secret_value() if settings.metrics_token else None,
            metrics=shared.metrics,
            clock=shared.clock,
            limits=limits,
        ),
        limits=limits,
    )


def build_notifier(shared: Components) -> Notifier | None:
    """Build the part that sends alerts; None without FUBD_ALERT_URL."""
    url, zone, account = shared.settings.alert_url, shared.settings.zone(), shared.account

    def write(alert: Alert) -> dict[str, object]:
        return alert_document(alert, zone=zone, domain=account.known.domain if account.known else None, now=shared.clock.now())

    return None if url is None else Notifier(Outbox(shared.pool), shared.clock, shared.metrics, url=url.get_secret_value(), write=write)


def _build_daily_summary(shared: Components, lease: Lease) -> DailySummary | None:
    settings = shared.settings
    if settings.alert_url is None or settings.daily_summary is None:
        return None
    return DailySummary(
        shared.status,
        Outbox(shared.pool),
        shared.problems,
        shared.clock,
        lease=lease,
        at=settings.daily_summary,
        zone=settings.zone(),
        stages=[normalize_stage_name(stage) for stage in settings.alert_stages],
        policy=pacing_policy(settings),
        skew_seconds=shared.client.skew_seconds,
    )


def _build_problem_reports(shared: Components, lease: Lease) -> ProblemReports:
    url = shared.settings.alert_url
    return ProblemReports(
        shared.problems,
        ProblemStore(shared.pool, instance=shared.instance),
        lease,
        shared.clock,
        shared.metrics,
        url=None if url is None else url.get_secret_value(),
        zone=shared.settings.zone(),
    )


def _build_heartbeat(shared: Components, monitor: Monitor) -> Heartbeat | None:
    url = shared.settings.heartbeat_url
    return None if url is None else Heartbeat(monitor, shared.clock, url=url.get_secret_value())


def _signing_keys(settings: Settings) -> list[bytes]:
    return [key.get_secret_value().encode() for key in (settings.fub_system_key, settings.fub_system_key_previous) if key]


def pacing_policy(settings: Settings) -> Policy:
    """Return the settings that pacing uses."""
    return Policy(
        poll_interval_seconds=settings.poll_interval_seconds,
        watch_interval_seconds=settings.poll_interval_watch_seconds,
        failover_interval_seconds=settings.poll_interval_failover_seconds,
        webhook_stale_after_seconds=settings.webhook_stale_after_seconds,
        poll_stale_after_seconds=settings.poll_stale_after_seconds,
        missed_after_seconds=settings.missed_after_seconds,
        zone=settings.zone(),
    )


def polling_policy(settings: Settings) -> PollPolicy:
    """Return the settings that polling uses, by the daemon or by a recovery run."""
    return PollPolicy(pacing=pacing_policy(settings), scrub_batches=settings.scrub_batches)


def _retention_policy(settings: Settings) -> RetentionPolicy:
    return RetentionPolicy(
        keep_deliveries_days=settings.keep_deliveries_days,
        keep_adoption_copy_days=settings.keep_adoption_copy_days,
        forget_deleted_days=settings.forget_deleted_days,
        columns=settings.columns,
        dedup_window=timedelta(seconds=settings.dedup_window_seconds),
    )
