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
from fubd.client import Credentials, FubClient
from fubd.clock import SystemClock
from fubd.core.pacing import Policy
from fubd.ingest import CommitListener, Ingest
from fubd.metrics import Metrics
from fubd.ports import Clock
from fubd.settings import Settings
from fubd.store import ChangeReader, ChangeStore, Dsn, Maintenance, Pool, StateStore, StatusReader


@dataclass(frozen=True, slots=True)
class Components:
    """The parts that the daemon and the commands share. `instance` is the unique name of this process in the database."""

    settings: Settings
    clock: Clock
    metrics: Metrics
    pool: Pool
    state: StateStore
    store: ChangeStore
    changes: ChangeReader
    status: StatusReader
    maintenance: Maintenance
    client: FubClient
    refetch_requested: asyncio.Event
    instance: str


def build(settings: Settings, dsn: Dsn, *, clock: Clock | None = None, rng: random.Random | None = None) -> Components:
    """Build the parts that the daemon and the commands share; nothing runs yet."""
    clock = clock or SystemClock()
    metrics = Metrics(CollectorRegistry())
    metrics.build_info.labels(__version__, os.environ.get("RAILWAY_GIT_COMMIT_SHA", "")[:12]).set(1)
    instance = uuid.uuid4().hex
    pool = Pool(dsn)
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
    return Components(
        settings=settings,
        clock=clock,
        metrics=metrics,
        pool=pool,
        state=StateStore(pool, alerting=alerting),
        store=store,
        changes=ChangeReader(pool),
        status=StatusReader(pool, instance=instance),
        maintenance=Maintenance(pool, instance=instance),
        client=client,
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
        window=timedelta(seconds=settings.dedup_window_seconds),
        ignored_stages=settings.ignore_stages,
        lead_source_tags=settings.lead_source_tags,
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


def pacing_policy(settings: Settings) -> Policy:
    """Return the settings that pacing uses."""
    return Policy(
        poll_interval_seconds=settings.poll_interval_seconds,
        watch_interval_seconds=settings.poll_interval_watch_seconds,
        failover_interval_seconds=settings.poll_interval_failover_seconds,
        webhook_stale_after_seconds=settings.webhook_stale_after_seconds,
        poll_stale_after_seconds=settings.poll_stale_after_seconds,
        missed_after_seconds=settings.missed_after_seconds,
    )
